"""The spool: durable or not there, under names that say nothing."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node import spool as spool_module
from dicom_node.errors import SpoolError, SpoolFullError
from dicom_node.spool import Spool, new_name
from dicom_node.spool_writer import FileSystem

WRITE_TOO_MUCH = """
import resource, sys
from pathlib import Path
from dicom_node.errors import SpoolFullError
from dicom_node.spool import Spool
spool = Spool(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    spool.write(iter([bytes(60_000)] * 4))
except SpoolFullError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.write(b"room again")
"""


def files(root: Path) -> list[Path]:
    """Every file of a spool, half-written ones included."""
    return [path for path in root.rglob("*") if path.is_file()]


def test_a_written_file_is_whole_private_and_named_at_random(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    first, second = spool.write(b"content"), spool.write([b"con", bytearray(b"te"), memoryview(b"nt")])
    assert first.name != second.name
    assert first.sha256 == second.sha256 == hashlib.sha256(b"content").hexdigest()
    assert first.size_bytes == second.size_bytes == 7
    for written in (first, second):
        path = spool.path_of(written.name)
        assert path.read_bytes() == b"content"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(spool.names()) == sorted((first.name, second.name))


def test_a_folder_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    root.mkdir()
    root.chmod(0o755)
    Spool(root)
    assert root.stat().st_mode & 0o777 == 0o700


def test_names_come_in_the_order_of_their_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    names = [spool.write(b"content").name for _ in range(20)]
    assert names == sorted(names)
    assert len({name[-21:] for name in names}) == 20, "each has random digits of its own"


def test_a_preface_is_written_and_not_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    written = spool.write(b"data", preface=b"head")
    assert spool.path_of(written.name).read_bytes() == b"headdata"
    assert (written.sha256, written.size_bytes) == (hashlib.sha256(b"data").hexdigest(), 4)


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(100_000)
        raise ValueError

    spool = Spool(tmp_path)
    with pytest.raises(ValueError):
        spool.write(chunks())
    assert files(tmp_path) == []


def test_a_full_disk_is_told_apart_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "free some space" in done.stdout
    assert str(tmp_path) not in done.stdout
    assert [path.read_bytes() for path in files(tmp_path)] == [b"room again"]


def write_again(spool: Spool, content: bytes) -> str:
    """Write a file again as a recovery does."""
    name = new_name()
    spool.write_again(name, content)
    return name


def place(spool: Spool, content: bytes) -> str:
    """Write a file whose bytes are kept elsewhere."""
    name = new_name()
    spool.place(name, content)
    return name


WAYS = pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda spool, content: spool.write(content).name, id="durable"),
        pytest.param(place, id="placed"),
        pytest.param(write_again, id="again"),
    ],
)


@WAYS
def test_a_disk_that_takes_a_part_at_a_time_gets_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Spool, bytes], str]
) -> None:
    spool, content, whole = Spool(tmp_path), os.urandom(10_000), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:999]))
    assert spool.path_of(write(spool, content)).read_bytes() == content


@WAYS
def test_whatever_is_written_a_disk_that_becomes_full_keeps_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Spool, bytes], str]
) -> None:
    spool, whole = Spool(tmp_path), os.write
    parts = [1000, 0]

    def until_full(descriptor: int, data: memoryview) -> int:
        if not (size := parts.pop(0)):
            raise OSError(errno.ENOSPC, "full")
        return whole(descriptor, data[:size])

    monkeypatch.setattr(os, "write", until_full)
    with pytest.raises(SpoolFullError):
        write(spool, bytes(10_000))
    assert files(tmp_path) == []


def test_a_common_sync_that_fails_says_so(tmp_path: Path) -> None:
    file_system = FileSystem(tmp_path)
    file_system.sync()
    file_system.close()
    with pytest.raises(OSError, match="could not be synced"):
        file_system.sync()


def test_a_disk_that_refuses_is_a_spool_error(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    written = spool.write(b"content")
    gc.collect()  # what it closed later would be room for one file more
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor, hard))
    try:
        with pytest.raises(SpoolError, match="EMFILE"):
            spool.write(b"more")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert files(tmp_path) == [spool.path_of(written.name)]


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "a.dcm", "A" * 32 + ".dcm", "0" * 32, "0" * 32 + ".dcm\n"]
)
def test_only_names_of_the_spool_become_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpoolError):
        Spool(tmp_path).path_of(name)


def test_a_removed_file_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    kept, removed = spool.write(b"kept"), spool.write(b"removed")
    spool.remove(removed.name)
    spool.remove(removed.name)
    assert spool.names() == [kept.name]


def test_a_sweep_removes_what_a_crash_left_and_names_files_without_a_row(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    known, orphan = spool.write(b"known"), spool.write(b"orphan")
    left = spool.path_of(known.name).with_name(".part-0123")
    left.write_bytes(b"half")
    found = spool.sweep({known.name}, grace_s=-1)
    assert (found.parts_removed, found.orphans) == (1, (orphan.name,))
    assert not left.exists()
    assert sorted(spool.names()) == sorted((known.name, orphan.name))


def test_a_sweep_leaves_young_files_and_files_being_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write(b"just now")
    found = []

    def chunks() -> Iterator[bytes]:
        yield b"first half, "
        found.append(Spool(tmp_path).sweep(set(), grace_s=3600))
        yield b"second half"

    written = spool.write(chunks())
    assert found[0].parts_removed == 0
    assert found[0].orphans == ()
    assert spool.path_of(written.name).read_bytes() == b"first half, second half"


def test_a_spool_opens_again_with_its_files(tmp_path: Path) -> None:
    written = Spool(tmp_path).write(b"content")
    assert Spool(tmp_path).path_of(written.name).read_bytes() == b"content"


def test_a_disk_is_filled_up_to_the_reserve_and_no_further(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    spool = Spool(tmp_path)
    spool.require_room(1000, reserve_bytes=free // 2)
    with pytest.raises(SpoolFullError, match="reserve is reached"):
        spool.require_room(1000, reserve_bytes=2 * free)


def test_what_is_wanted_before_the_disk_is_asked_again_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "_ASKED_EVERY_S", 3600.0)
    spool = Spool(tmp_path)
    share = shutil.disk_usage(tmp_path).free // 4
    for _ in range(3):
        spool.require_room(share, reserve_bytes=0)
    with pytest.raises(SpoolFullError):
        spool.require_room(2 * share, reserve_bytes=0)
