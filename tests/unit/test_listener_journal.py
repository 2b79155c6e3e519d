"""The journal: what it says is kept can be read back, whatever the disk and the other processes do."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from db.errors import DatabaseUnavailableError
from dicom_node.errors import JournalDamagedError, SpoolError, SpoolFullError
from dicom_node.listener import journal as journal_module
from dicom_node.listener.journal import (
    LARGEST_JOURNALED_BYTES,
    SEGMENT_BYTES,
    Journal,
    file_system_type,
)
from dicom_node.listener.journal_segment import JournaledFile, Record, Segment, checksum_of, files_of
from dicom_node.spool import Spool, SpooledFile, new_name

SMALL_SEGMENT = 12 * 64 * 1024
NEVER_S = 3600.0


def placed(spool: Spool, seed: int, size: int = 3000) -> JournaledFile:
    """Put a file into a spool that is not synced, as if its record were there already."""
    image = b"preface" + random.Random(seed).randbytes(size)
    name = new_name()
    spool.path_of(name).write_bytes(image)
    return JournaledFile(name, memoryview(image), size, "192.0.2.1")


def write(segment: Segment, file: JournaledFile) -> Record:
    """Append a record."""
    return segment.write(file, checksum_of(file.image))


def read(path: Path) -> list[JournaledFile | None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(files_of(descriptor))
    finally:
        os.close(descriptor)


class Rows:
    """A database that can be away."""

    def __init__(self) -> None:
        self.syncs = 0
        self.is_away = False
        self.was_asked = threading.Event()

    def sync(self) -> None:
        """Make all rows durable."""
        self.was_asked.set()
        if self.is_away:
            raise DatabaseUnavailableError("away")
        self.syncs += 1


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@contextmanager
def open_journal(
    folder: Path,
    spool: Spool,
    rows: Rows,
    *,
    segment_bytes: int = SEGMENT_BYTES,
    emptied_after_s: float = NEVER_S,
) -> Iterator[Journal]:
    journal = Journal(folder, spool, rows.sync, segment_bytes=segment_bytes, emptied_after_s=emptied_after_s)
    try:
        yield journal
    finally:
        journal.close()


def is_taken(journal: Journal, each: JournaledFile) -> bool:
    """Make a file durable, as if it had its row at once; return whether the journal has it."""
    kept = journal.append(each)
    if kept is not None:
        journal.release(kept)
    return kept is not None


def kept_in(folder: Path) -> list[str]:
    """Names of the files that the journals of a folder hold, each segment's in their order."""
    return [each.name for path in sorted(folder.glob("*.journal")) for each in read(path) if each is not None]


def test_a_segment_gives_back_what_was_written(tmp_path: Path, spool: Spool) -> None:
    segment = Segment(tmp_path / "a", SEGMENT_BYTES)
    files = [placed(spool, seed, size) for seed, size in enumerate((0, 1, 4096, 20_000, 500_000))]
    for each in files:
        write(segment, each)
    segment.sync()
    found = read(tmp_path / "a")
    assert found == files
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    segment.close(remove=True)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("place", "is_seen"),
    [
        pytest.param(0, False, id="magic"),
        pytest.param(30, False, id="name"),
        pytest.param(70, False, id="sender"),
        pytest.param(140, False, id="checksum of the header"),
        pytest.param(150, True, id="preface"),
        pytest.param(1000, True, id="content"),
        pytest.param(3_150, True, id="last byte"),
    ],
)
def test_a_record_that_is_not_whole_is_none_and_a_damaged_header_hides_what_follows(
    tmp_path: Path, spool: Spool, place: int, is_seen: bool
) -> None:
    segment = Segment(tmp_path / "a", SEGMENT_BYTES)
    files = [placed(spool, seed) for seed in range(3)]
    for each in files:
        write(segment, each)
    segment.close(remove=False)
    # Each record of 144 and 3,007 bytes fits into a page; the second one is hurt.
    flip(tmp_path / "a", 4096 + place)
    assert read(tmp_path / "a") == [files[0], *([None, files[2]] if is_seen else [])]


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


def test_a_segment_that_an_earlier_version_wrote_is_read(tmp_path: Path, spool: Spool) -> None:
    files = [placed(spool, seed) for seed in range(3)]
    use = (1).to_bytes(8, "big") + bytes(8)
    content = b""
    for ordinal, each in enumerate(files):
        header = struct.pack(
            "<8s16sL16s32sQQ",
            b"DNJRNL01",
            use,
            ordinal,
            bytes.fromhex(each.name.removesuffix(".dcm")),
            sha256(each.content).digest(),
            each.content_bytes,
            len(each.image),
        )
        checksum = struct.pack("<L", zlib.crc32(each.image[:7], zlib.crc32(header)))
        content += (header + checksum + each.image).ljust(4096, b"\0")
    (tmp_path / "a").write_bytes(content)
    # It did not hold the sender's address.
    assert read(tmp_path / "a") == [replace(each, peer_address=None) for each in files]
    for place in (30, 98, 110, 3_102):
        (tmp_path / "a").write_bytes(content)
        flip(tmp_path / "a", 4096 + place)
        assert read(tmp_path / "a") != [replace(each, peer_address=None) for each in files], place
        assert read(tmp_path / "a")[0] == replace(files[0], peer_address=None)


def test_a_segment_that_is_used_again_does_not_show_what_an_earlier_use_left(
    tmp_path: Path, spool: Spool
) -> None:
    segment = Segment(tmp_path / "a", SEGMENT_BYTES)
    for seed in range(5):
        write(segment, placed(spool, seed))
    segment.clear()
    assert segment.is_empty
    assert read(tmp_path / "a") == []
    write(segment, later := placed(spool, 9))
    assert read(tmp_path / "a") == [later]
    segment.close(remove=True)


def test_what_a_segment_forgot_stays_forgotten_without_power(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment(tmp_path / "a", SEGMENT_BYTES)
    write(segment, placed(spool, 1))
    synced: list[list[JournaledFile | None]] = []
    sync = os.fdatasync

    def noted(descriptor: int) -> None:
        synced.append(list(files_of(descriptor)))
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", noted)
    segment.clear()
    assert synced == [[]]
    segment.close(remove=True)


def test_a_file_of_random_bytes_or_none_is_an_empty_segment(tmp_path: Path) -> None:
    for content in (b"", b"DNJRNL01", random.Random(1).randbytes(50_000), bytes(50_000)):
        (tmp_path / "a").write_bytes(content)
        assert read(tmp_path / "a") == []


def test_a_file_that_was_appended_is_in_the_journal_and_gets_its_place_from_there(
    folder: Path, spool: Spool
) -> None:
    with open_journal(folder, spool, Rows()) as journal:
        files = [placed(spool, seed, size) for seed, size in enumerate((0, 4096, 20_000, 500_000))]
        for each in files:
            spool.remove(each.name)
            kept = journal.append(each)
            assert kept is not None
            assert kept_in(folder)[-1] == each.name
            assert not spool.path_of(each.name).exists()
            digest = sha256(each.content).hexdigest()
            assert journal.place(kept) == SpooledFile(each.name, digest, each.content_bytes)
            assert spool.path_of(each.name).read_bytes() == bytes(each.image)
            journal.release(kept)
    assert list(folder.iterdir()) == [], "a journal that was emptied is removed"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_many_senders_at_once_are_all_kept(folder: Path, spool: Spool) -> None:
    with open_journal(folder, spool, Rows()) as journal:
        files = [placed(spool, seed) for seed in range(200)]

        with ThreadPoolExecutor(16) as senders:
            list(senders.map(partial(is_taken, journal), files))
        assert sorted(kept_in(folder)) == sorted(each.name for each in files)


def test_a_full_segment_is_emptied_when_its_files_have_their_rows_and_not_before(
    folder: Path, spool: Spool
) -> None:
    rows = Rows()
    with open_journal(folder, spool, rows, segment_bytes=SMALL_SEGMENT) as journal:
        first = placed(spool, 0, 60_000)
        kept_first = journal.append(first)
        assert kept_first is not None
        others = [placed(spool, seed, 60_000) for seed in range(1, 15)]
        for each in others:
            assert is_taken(journal, each)
        assert first.name in kept_in(folder), "it has no row yet"
        assert rows.syncs == 0
        journal.release(kept_first)
        for each in (placed(spool, seed, 60_000) for seed in range(15, 60)):
            kept = journal.append(each)
            assert kept is not None
            assert each.name in kept_in(folder)
            journal.release(kept)
        assert rows.syncs > 0
        assert first.name not in kept_in(folder)
    assert rows.syncs > 0
    assert list(folder.iterdir()) == []


def test_a_segment_that_is_not_full_is_emptied_after_a_while(folder: Path, spool: Spool) -> None:
    rows = Rows()
    with open_journal(folder, spool, rows, emptied_after_s=0.05) as journal:
        kept = placed(spool, 1)
        assert is_taken(journal, kept)
        assert rows.was_asked.wait(30)
        later = placed(spool, 2)
        assert is_taken(journal, later)
        assert later.name in kept_in(folder)


def test_while_the_database_is_away_nothing_is_forgotten(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "ROOM_WAIT_S", 0.2)
    rows = Rows()
    rows.is_away = True
    kept: list[str] = []
    with open_journal(folder, spool, rows, segment_bytes=SMALL_SEGMENT) as journal:
        while is_taken(journal, each := placed(spool, len(kept), 60_000)):
            kept.append(each.name)
        assert len(kept) > 12, "both segments were used"
        assert sorted(kept_in(folder)) == sorted(kept)
    assert sorted(kept_in(folder)) == sorted(kept), "what cannot be emptied is left to the next start"


class SlowlyEmptied(Rows):
    """A database that is slow where the journal is emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.is_being_emptied, self.may_be_emptied = threading.Event(), threading.Event()

    def sync(self) -> None:
        """Make all rows durable."""
        if threading.current_thread().name == "listener-journal":
            self.is_being_emptied.set()
            self.may_be_emptied.wait(60)
        super().sync()


def test_without_room_files_are_left_to_the_caller_until_there_is_some(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "ROOM_WAIT_S", 0.2)
    rows = SlowlyEmptied()
    files = [placed(spool, seed, 60_000) for seed in range(60)]
    with open_journal(folder, spool, rows, segment_bytes=SMALL_SEGMENT) as journal:
        with ThreadPoolExecutor(16) as senders:
            were_taken = list(senders.map(partial(is_taken, journal), files))
        taken = [each.name for each, was_taken in zip(files, were_taken, strict=True) if was_taken]
        assert 0 < len(taken) < len(files)
        assert sorted(kept_in(folder)) == sorted(taken)
        assert not journal.takes(1), "nobody waits for room that does not come"
        rows.may_be_emptied.set()
        while not journal.takes(1):
            threading.Event().wait(0.01)
        later = placed(spool, 99)
        assert is_taken(journal, later)
        assert later.name in kept_in(folder)


def test_an_object_that_is_still_in_hand_when_the_journal_closes_is_left_to_the_caller(
    folder: Path, spool: Spool
) -> None:
    rows = Rows()
    with open_journal(folder, spool, rows) as journal:
        pass
    assert journal.append(placed(spool, 1)) is None
    assert list(folder.iterdir()) == []


def test_an_error_that_nobody_foresaw_does_not_end_the_emptying(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_NEXT_TRY_S", 0.01)

    class Odd(Rows):
        was_odd = False

        def sync(self) -> None:
            if not self.was_odd:
                self.was_odd = True
                raise ValueError("odd")
            super().sync()

    rows = Odd()
    with open_journal(folder, spool, rows, emptied_after_s=0.01) as journal:
        kept = placed(spool, 1)
        assert is_taken(journal, kept)
        assert rows.was_asked.wait(30)


def test_a_journal_for_which_there_is_no_room_leaves_nothing_behind(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def until_full(descriptor: int, zeros: bytes, begin: int) -> int:
        if len(list(folder.iterdir())) > 1:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, zeros, begin)

    monkeypatch.setattr(os, "pwrite", until_full)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(SpoolFullError):
        Journal(folder, spool, Rows().sync)
    assert list(folder.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_the_names_of_segments_are_durable(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with open_journal(folder, spool, Rows()):
        assert synced[-2:] == [folder, folder.parent]
        assert set(folder.iterdir()) <= set(synced)


def test_a_journal_whose_rows_are_owed_at_the_end_is_left_to_the_next_start(
    folder: Path, spool: Spool
) -> None:
    with open_journal(folder, spool, Rows()) as journal:
        kept = placed(spool, 1)
        journal.append(kept)
    assert kept_in(folder) == [kept.name]


def test_only_small_files_are_taken(folder: Path, spool: Spool) -> None:
    with open_journal(folder, spool, Rows()) as journal:
        assert journal.takes(LARGEST_JOURNALED_BYTES)
        assert not journal.takes(LARGEST_JOURNALED_BYTES + 1)


def test_a_sync_that_fails_ends_the_use_of_the_journal_and_forgets_nothing(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_journal(folder, spool, Rows()) as journal:
        kept, refused = placed(spool, 1), placed(spool, 2)
        assert is_taken(journal, kept)
        sync = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", failing_with(errno.EIO))
        with pytest.raises(SpoolError, match="disk refused") as raised:
            journal.append(refused)
        monkeypatch.setattr(os, "fdatasync", sync)
        assert str(spool.root) not in str(raised.value)
        assert not journal.takes(1), "every file is synced by itself from now on"
        assert kept.name in kept_in(folder)
    assert list(folder.iterdir()) == [], "the disk is well again"


def test_of_a_file_whose_record_was_written_in_part_nothing_is_promised(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(descriptor: int, parts: Sequence[bytes | memoryview], begin: int) -> int:
        whole = b"".join(parts)
        return os.pwrite(descriptor, whole[: len(whole) // 2], begin)

    with open_journal(folder, spool, Rows()) as journal:
        cut, whole = placed(spool, 1), placed(spool, 2)
        with monkeypatch.context() as disk:
            disk.setattr(os, "pwritev", write_half)
            with pytest.raises(SpoolFullError):
                journal.append(cut)
        assert is_taken(journal, whole)
        assert kept_in(folder) == [whole.name]


def test_what_the_journal_no_longer_holds_as_it_was_written_gets_no_file(folder: Path, spool: Spool) -> None:
    with open_journal(folder, spool, Rows()) as journal:
        each = placed(spool, 1)
        spool.remove(each.name)
        kept = journal.append(each)
        assert kept is not None
        (path,) = (path for path in folder.glob("*.journal") if read(path))
        flip(path, kept.record.begin + kept.record.size_bytes - 1)
        with pytest.raises(JournalDamagedError, match="sent again"):
            journal.place(kept)
        assert spool.names() == []


def test_a_file_is_hashed_while_another_is_synced(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, may_sync = os.fdatasync, threading.Event()

    def slow(descriptor: int) -> None:
        assert may_sync.wait(60)
        sync(descriptor)

    first, second = placed(spool, 1), placed(spool, 2)
    hashed = threading.Event()
    spooled = JournaledFile.spooled

    def noted(file: JournaledFile) -> SpooledFile:
        hashed.set()
        return spooled(file)

    monkeypatch.setattr(JournaledFile, "spooled", noted)
    with open_journal(folder, spool, Rows()) as journal, ThreadPoolExecutor(2) as senders:
        monkeypatch.setattr(os, "fdatasync", slow)
        appended = [senders.submit(journal.append, each) for each in (first, second)]
        assert hashed.wait(60)
        may_sync.set()
        kept = [each.result() for each in appended]
        for each in kept:
            assert each is not None
            journal.release(each)
        # Who leads has no time to hash.
        (known,) = (each.spooled for each in kept if each and each.spooled)
        assert known in [spooled(each) for each in (first, second)]


def test_an_object_in_hand_when_the_journal_is_given_up_is_left_to_the_caller(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Rows()
    with open_journal(folder, spool, rows) as journal:
        refused, late = placed(spool, 1), placed(spool, 2)
        with monkeypatch.context() as disk:
            disk.setattr(os, "fdatasync", failing_with(errno.EIO))
            with pytest.raises(SpoolError):
                journal.append(refused)
        assert journal.append(late) is None
        assert late.name not in kept_in(folder), "a lost record before it would hide it"


def failing_with(code: int) -> Callable[[int], None]:
    def fail(_descriptor: int) -> None:
        raise OSError(code, "as a disk says it")

    return fail


def test_files_whose_common_sync_fails_are_written_again_from_the_journal(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_file_system: object) -> None:
        raise OSError(errno.EIO, "of some file")

    with open_journal(folder, spool, Rows()) as journal:
        kept, removed = placed(spool, 1), placed(spool, 2)
        for each in (kept, removed):
            assert is_taken(journal, each)
        spool.remove(removed.name)
        damaged = spool.path_of(kept.name)
        damaged.write_bytes(b"")
        monkeypatch.setattr(journal_module.FileSystem, "sync", fail)
    assert damaged.read_bytes() == bytes(kept.image)
    assert not spool.path_of(removed.name).exists(), "what was removed since stays away"
    assert list(folder.iterdir()) == []


def test_there_is_no_journal_where_a_common_sync_tells_of_no_error(
    tmp_path: Path, folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = os.uname()
    for release in ("4.18.0-553.el8.x86_64", "5.7.19"):
        old = os.uname_result((names.sysname, names.nodename, release, names.version, names.machine))
        monkeypatch.setattr(os, "uname", lambda old=old: old)
        with pytest.raises(SpoolError, match=r"5\.8 or later"):
            Journal(folder, spool, Rows().sync)
    monkeypatch.undo()
    monkeypatch.setattr(journal_module, "_MOUNTS", mounts := tmp_path / "mountinfo")
    for kind in ("fuse.sshfs", "nfs4"):
        device = spool.root.stat().st_dev
        mounts.write_text(f"22 1 {os.major(device)}:{os.minor(device)} / / rw - {kind} host:/ rw\n")
        with pytest.raises(SpoolError, match=kind):
            Journal(folder, spool, Rows().sync)
    assert not folder.exists()


def test_the_type_of_a_file_system_is_that_of_its_mount() -> None:
    mounts = (
        "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        "40 22 0:36 / /srv rw,nosuid shared:7 - fuse.sshfs host:/srv rw\n"
    )
    assert file_system_type(os.makedev(254, 0), mounts) == "ext4"
    assert file_system_type(os.makedev(0, 36), mounts) == "fuse.sshfs"
    assert file_system_type(os.makedev(9, 9), mounts) == ""


def test_a_common_sync_that_failed_once_is_not_believed_again(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_NEXT_TRY_S", 0.01)
    failures = {"file system": 0, "file": 0}

    def fail_once(_file_system: object) -> None:
        failures["file system"] += 1
        if failures["file system"] == 1:
            raise OSError(errno.EIO, "of some file")

    sync = os.fsync

    def fail_in_the_middle(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if name.endswith(".dcm") and threading.current_thread().name == "listener-journal":
            failures["file"] += 1
            if failures["file"] == 3:
                raise OSError(errno.EIO, "of a file that is written again")
        sync(descriptor)

    files = [placed(spool, seed, 60_000) for seed in range(20)]
    for each in files:  # as after a crash: what the disk refused is gone
        spool.path_of(each.name).write_bytes(b"")
    rows = SlowlyEmptied()
    with open_journal(folder, spool, rows, segment_bytes=SMALL_SEGMENT) as journal:
        for each in files[:11]:
            assert is_taken(journal, each)
        monkeypatch.setattr(journal_module.FileSystem, "sync", fail_once)
        monkeypatch.setattr(os, "fsync", fail_in_the_middle)
        # Those of both segments: who knows which of them the disk told of?
        for each in files[11:]:
            if not is_taken(journal, each):
                spool.path_of(each.name).write_bytes(each.image)
        assert rows.is_being_emptied.wait(30)
        assert not journal.takes(1)
        rows.may_be_emptied.set()
    assert [spool.path_of(each.name).read_bytes() for each in files] == [bytes(each.image) for each in files]
    assert list(folder.iterdir()) == []


def test_while_a_journal_is_made_nobody_makes_or_recovers_another(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovery that comes before a new segment is locked would take it for a dead process's."""
    write = os.pwrite
    were_locked: list[bool] = []

    def noted(descriptor: int, zeros: bytes, begin: int) -> int:
        were_locked.append(is_locked(folder))
        return write(descriptor, zeros, begin)

    monkeypatch.setattr(os, "pwrite", noted)
    with open_journal(folder, spool, Rows()):
        assert were_locked
        assert all(were_locked)
        assert not is_locked(folder)


def is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_living_journal_is_locked(folder: Path, spool: Spool) -> None:
    with open_journal(folder, spool, Rows()):
        assert [is_locked(path) for path in folder.glob("*.journal")] == [True, True]
