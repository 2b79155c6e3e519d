"""Small objects are made durable here first: one sync of one file, for all that wait, instead of three each.

::

    record (synced, together) --> Success --> digest --> file (not synced) --> row (committed, seen by all)
        |
        +-- behind their backs: files and rows synced, many at once --> segment cleared

What a machine's crash takes of files and rows is put back from the records when the next process starts, see
:mod:`dicom_node.listener.journal_recovery`. There are two segments: one is filled while the other is emptied.
A file for which there is no room is synced by itself, as is every file once the disk has failed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog

from db.errors import DatabaseError
from dicom_node.errors import JournalDamagedError, SpoolError
from dicom_node.listener.group_commit import GroupCommit
from dicom_node.listener.journal_segment import (
    HEAD_BYTES,
    JournaledFile,
    Record,
    Segment,
    checksum_of,
)
from dicom_node.listener.reception import MEMORY_BYTES
from dicom_node.spool import Spool, SpooledFile, translated_errors
from dicom_node.spool_writer import FileSystem, sync_directory

LARGEST_JOURNALED_BYTES = MEMORY_BYTES
"""Up to this length a file is journaled.

A longer one is synced by itself: to write its bytes twice would take longer than two syncs.
"""

LARGEST_RECORD_BYTES = HEAD_BYTES + LARGEST_JOURNALED_BYTES

SUFFIX = ".journal"
SET_ASIDE_SUFFIX = ".refused"
SEGMENTS = 2
SEGMENT_BYTES = 16 << 20
EMPTIED_AFTER_S = 2.0
ROOM_WAIT_S = 2.0
"""How long files wait for room; then each is synced by itself until there is some."""

_DAMAGED = (
    "the journal does not hold what was written to it; look at this machine's memory and disk, and have the "
    "studies that came in last sent again"
)
_NEXT_TRY_S = 1.0
_FIRST_LINUX = 5, 8
_MOUNTS = Path("/proc/self/mountinfo")
_REMOTE = ("fuse", "virtiofs", "9p", "cifs", "smb3", "nfs")
_FILES_IN_SEGMENT = 12

_log = structlog.get_logger(__name__)


class Use:
    """A segment, and how many of its objects have no row yet."""

    __slots__ = ("rows_owed", "segment", "since")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.rows_owed = 0
        self.since = 0.0

    @property
    def is_begun(self) -> bool:
        """Whether it holds a file, or is about to."""
        return self.rows_owed > 0 or not self.segment.is_empty


class Kept(NamedTuple):
    """A file in the journal.

    Attributes
    ----------
    name : str
        Its name in the spool.
    use : Use
        Which segment holds it.
    record : Record
        Where in the segment.
    spooled : SpooledFile or None
        What is registered of it, where there was time to hash it while others were synced.
    """

    name: str
    use: Use
    record: Record
    spooled: SpooledFile | None = None


class Journal:
    """The journal of one listener process.

    Parameters
    ----------
    folder : pathlib.Path
        Where the journals of all processes lie; made, with mode 0700, when absent.
    spool : Spool
        Where the files lie whose records it holds.
    sync_rows : callable
        Makes all committed rows durable; see :meth:`db.session.Database.sync_commits`.
    segment_bytes : int
        Length of each of its two segments.
    emptied_after_s : float
        Seconds after which a segment is emptied though it is not full.

    Raises
    ------
    SpoolError
        If the disk refuses, or the system would not tell of files that it could not write.
    """

    def __init__(
        self,
        folder: Path,
        spool: Spool,
        sync_rows: Callable[[], None],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        emptied_after_s: float = EMPTIED_AFTER_S,
    ) -> None:
        self._spool = spool
        self._sync_rows = sync_rows
        self._emptied_after_s = emptied_after_s
        self._largest_bytes = min(LARGEST_JOURNALED_BYTES, segment_bytes // _FILES_IN_SEGMENT)
        # No more than a segment holds: none waits for the emptying of one that it helps to fill.
        self._appends = GroupCommit(self._append_together, most_together=_FILES_IN_SEGMENT)
        self._appending = threading.Lock()
        self._changed = threading.Condition()
        self._is_given_up = self._is_behind = self._is_closing = False
        # A common sync that failed tells of no file, and the next one tells nothing of it.
        self._is_each_written_again = False
        # Read, not mapped: what is mapped of a segment counts as this process's memory. From a page's start:
        # the kernel copies to other places several times slower.
        self._read = memoryview(mmap.mmap(-1, LARGEST_RECORD_BYTES))
        segments: list[Segment] = []
        with translated_errors(), ExitStack() as undo:
            # Before any file is written: the kernel tells of the errors since then.
            self._file_system = FileSystem(spool.root)
            undo.callback(self._file_system.close)
            _require_told_errors(spool.root)
            with locked(folder):
                for _ in range(SEGMENTS):
                    segments.append(Segment(folder / f"{secrets.token_hex(16)}{SUFFIX}", segment_bytes))
                    undo.callback(segments[-1].close, remove=True)
                sync_directory(folder)
                sync_directory(folder.parent)
            undo.pop_all()
        self._filling, spare = map(Use, segments)
        self._spare: Use | None = spare
        self._full: Use | None = None
        self._thread = threading.Thread(target=self._empty_for_ever, name="listener-journal", daemon=True)
        self._thread.start()

    def takes(self, image_bytes: int) -> bool:
        """Whether a file of this length is to be journaled; any other is to be synced by itself."""
        return image_bytes <= self._largest_bytes and not self._is_given_up and not self._is_behind

    def append(self, file: JournaledFile) -> Kept | None:
        """Make a file durable.

        Parameters
        ----------
        file : JournaledFile
            The file, under the name that it has in the spool, where it is not yet.

        Returns
        -------
        Kept or None
            Its record, to be released when the file has its place and its row is committed: both are as
            durable as the record then. None where there was no room, and nothing was done.

        Raises
        ------
        SpoolError
            If the disk refuses. Nothing is promised of the file then.
        """
        hashed: list[SpooledFile] = []
        kept = self._appends.submit(
            (file, checksum_of(file.image)), meanwhile=lambda: hashed.append(file.spooled())
        )
        return kept._replace(spooled=hashed[0]) if kept is not None and hashed else kept

    def place(self, kept: Kept) -> SpooledFile:
        """Write a file to its place, without making it durable there; by one thread at a time.

        Returns
        -------
        SpooledFile
            What is registered of it.

        Raises
        ------
        SpoolError
            If the disk refuses. Nothing is left behind.
        JournalDamagedError
            If the record is not what was written.
        """
        with translated_errors():
            file = kept.use.segment.read(kept.record, self._read)
        if file is None:
            raise JournalDamagedError(_DAMAGED)
        self._spool.place(file.name, file.image)
        return kept.spooled or file.spooled()

    def release(self, kept: Kept) -> None:
        """Note that a file has its place, and its row is committed."""
        self._release(kept.use)

    def _release(self, use: Use) -> None:
        with self._changed:
            use.rows_owed -= 1
            if use is self._full and use.rows_owed == 0:
                self._changed.notify_all()

    def close(self) -> None:
        """Empty the journal and remove it; what cannot be emptied is left to the next start."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        # Nobody begins to write to a segment any more; who has begun must find it there.
        with self._appending:
            for use in (self._filling, self._spare, self._full):
                if use is not None:
                    use.segment.close(remove=use.segment.is_empty)
        self._file_system.close()

    def _append_together(self, files: Sequence[tuple[JournaledFile, bytes]]) -> list[Kept | None]:
        """Write and sync records of files with their checksums; None stands for a file without room."""
        uses: list[Use] = []
        outcomes: list[Kept | None] = []
        with self._appending:
            try:
                with translated_errors():
                    for file, checksum in files:
                        use = self._use_for(len(file.image))
                        if use is None:
                            outcomes.append(None)
                            continue
                        uses.append(use)
                        outcomes.append(Kept(file.name, use, use.segment.write(file, checksum)))
                    self._sync({use.segment for use in uses})
            except BaseException:
                for use in uses:
                    self._release(use)
                raise
        return outcomes

    def _sync(self, segments: Collection[Segment]) -> None:
        try:
            for segment in segments:
                segment.sync()
        except OSError as error:
            # A sync that is tried again after an error tells nothing of what the first one lost.
            self._give_up(error)
            raise

    def _give_up(self, error: OSError) -> None:
        self._is_given_up = True
        _log.error("journal.given_up", code=error.errno, advice="every file is synced by itself now")

    def _use_for(self, image_bytes: int) -> Use | None:
        """Return the segment that a file goes to, which owes it a row from now on, or None."""
        with self._changed:
            if not self._has_room(image_bytes) and not self._is_behind:
                self._changed.wait_for(lambda: self._has_room(image_bytes) or self._is_closing, ROOM_WAIT_S)
            if self._is_closing or self._is_given_up:
                return None
            if not self._has_room(image_bytes):
                if not self._is_behind:
                    self._is_behind = True
                    _log.warning("journal.behind", advice="look at the disk's and the database's health")
                return None
            if not self._filling.segment.has_room(image_bytes):
                self._turn_over()
            use = self._filling
            if not use.is_begun:
                use.since = time.monotonic()
                self._changed.notify_all()
            use.rows_owed += 1
            return use

    def _has_room(self, image_bytes: int) -> bool:
        return self._spare is not None or self._filling.segment.has_room(image_bytes)

    def _turn_over(self) -> None:
        assert self._spare is not None  # whoever calls has waited for it
        self._full, self._filling, self._spare = self._filling, self._spare, None
        self._changed.notify_all()

    def _empty_for_ever(self) -> None:
        while (use := self._next_full()) is not None:
            while not self._is_emptied(use):
                with self._changed:
                    if self._changed.wait_for(lambda: self._is_closing, _NEXT_TRY_S):
                        return
            with self._changed:
                self._full, self._spare = None, use
                self._is_behind = False
                self._changed.notify_all()

    def _next_full(self) -> Use | None:
        """Wait for a segment that is full, or old, and whose files all have their rows; None at the end."""
        with self._changed:
            while (full := self._full) is None:
                wait_s = None
                if self._filling.is_begun:
                    wait_s = self._filling.since + self._emptied_after_s - time.monotonic()
                    if wait_s <= 0 or self._is_closing:
                        self._turn_over()
                        continue
                if self._is_closing:
                    return None
                self._changed.wait(wait_s)
            self._changed.wait_for(lambda: full.rows_owed == 0 or self._is_closing)
            return None if full.rows_owed else full

    def _is_emptied(self, use: Use) -> bool:
        try:
            with translated_errors():
                self._make_durable(use.segment)
                self._sync_rows()
                use.segment.clear()
        except (SpoolError, JournalDamagedError, DatabaseError) as error:
            _log.warning("journal.not_emptied", reason=str(error))
            return False
        except Exception:  # noqa: BLE001 - the end of this thread would be the end of the journal
            _log.exception("journal.not_emptied")
            return False
        return True

    def _make_durable(self, segment: Segment) -> None:
        if not self._is_each_written_again:
            try:
                self._file_system.sync()
            except OSError as error:
                self._is_each_written_again = True
                self._give_up(error)
        if self._is_each_written_again:
            write_again(segment.files(), self._spool)


def write_again(files: Iterable[JournaledFile | None], spool: Spool) -> None:
    """Make journaled files durable one by one, after a common sync that failed.

    Nobody says which file it was, and what memory shows of one need not be on the disk.

    Parameters
    ----------
    files : iterable of JournaledFile or None
        What the journal holds of them; None stands for one that is not whole.
    spool : Spool
        Where they lie, but for those that were removed since.

    Raises
    ------
    SpoolError
        If the disk refuses.
    JournalDamagedError
        If one is not whole.
    """
    for each in files:
        if each is None:
            raise JournalDamagedError(_DAMAGED)
        if spool.path_of(each.name).exists():
            spool.write_again(each.name, each.image)


def _require_told_errors(folder: Path) -> None:
    """Keep no journal where a common sync can leave files behind without a word."""
    release = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
    if release < _FIRST_LINUX:
        raise SpoolError("this Linux does not tell which files it could not write; 5.8 or later does")
    kind = file_system_type(folder.stat().st_dev, _MOUNTS.read_text())
    if kind.startswith(_REMOTE):
        raise SpoolError(f"a file system of type {kind} may keep no promise for many files at once")


def file_system_type(device: int, mounts: str) -> str:
    """Return the type of a file system; an empty text where the mounts do not show it.

    Parameters
    ----------
    device : int
        Its number, from :func:`os.stat`.
    mounts : str
        ``/proc/self/mountinfo``.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == number:
            return source.split()[0]
    return ""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from making or recovering journals; the folder is made when absent."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
