"""One file on its way into a spool: written under a temporary name, then made durable under its final one.

Its name is final before it is synced: the sync of the file then commits its directory entry along, and the
sync of the directory finds nothing left to do. A crash of the machine in between can leave a file that is not
whole under a final name; nobody was told of it, no row names it, and a later sweep removes it.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from pathlib import Path

PART_PREFIX = ".part-"
BLOCK_BYTES = 1 << 19
"""How much to write at once, and from a page's start, where there is a choice.

Other writes take up to twice as long on ext4.
"""

_WRITE_BACK_BYTES = 4 << 20
_SYNC_FILE_RANGE_WRITE = 2
_LIBRARY = ctypes.CDLL(None, use_errno=True)
_LIBRARY.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

Bytes = bytes | bytearray | memoryview


class SpoolWriter:
    """Writes one new file; nothing is promised before :meth:`sync` returned.

    Parameters
    ----------
    final : str or pathlib.Path
        The name that it gets, with its folder; there is no such file.

    Raises
    ------
    OSError
        As every method, if the disk refuses. The caller discards the file then.
    """

    def __init__(self, final: Path | str) -> None:
        # Texts: taking paths apart costs more than making the file.
        self._final = str(final)
        self._folder, _, name = self._final.rpartition("/")
        self._path = f"{self._folder}/{PART_PREFIX}{name.removesuffix('.dcm')}"
        self._descriptor = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._written = self._on_its_way = 0
        # Held until the file has its final name or its writer is dead: tells a sweep which it is.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: Bytes) -> int:
        """Append bytes; return how many there were."""
        size_bytes = _write_all(self._descriptor, data)
        self._written += size_bytes
        if self._written - self._on_its_way >= _WRITE_BACK_BYTES:
            # The disk works while the rest comes in, so that the final sync is short. An advice: the final
            # sync tells of errors.
            _LIBRARY.sync_file_range(
                self._descriptor, self._on_its_way, self._written - self._on_its_way, _SYNC_FILE_RANGE_WRITE
            )
            self._on_its_way = self._written
        return size_bytes

    def mapped(self) -> memoryview:
        """What was written so far, read from the page cache and not copied."""
        return memoryview(mmap.mmap(self._descriptor, self._written, prot=mmap.PROT_READ))

    def name(self) -> None:
        """Give the file its final name."""
        os.rename(self._path, self._final)  # noqa: PTH104 - see the constructor
        self._path = self._final

    def sync(self) -> None:
        """Make the content durable, and the name along with it."""
        os.fsync(self._descriptor)
        self.close()
        sync_directory(self._folder)

    def move_to(self, path: str) -> None:
        """Give the file another name of its file system, and let go of it; it is not synced."""
        os.rename(self._path, path)  # noqa: PTH104 - see the constructor
        self.close()

    def discard(self) -> None:
        """Remove the file, whatever became of it; doing so twice is no error."""
        self.close()
        # At once: on a full disk a leftover keeps the disk full. A name that was not synced goes too, because
        # nobody will be told of it.
        Path(self._path).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileSystem:
    """The file system that a folder lies in.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sync(self) -> None:
        """Make everything durable that was written to it.

        Raises
        ------
        OSError
            If any write failed since it was opened, or since the last call that told of one.
        """
        if _LIBRARY.syncfs(self._descriptor) != 0:
            raise OSError(ctypes.get_errno(), "the file system could not be synced")

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def write_durably(path: Path, content: Bytes) -> None:
    """Write a whole file, in the place of one of the same name where there is one.

    Raises
    ------
    OSError
        If the disk refuses. What had the name has it still, or the new file has it and may not be durable.
    """
    writer = SpoolWriter(path)
    try:
        writer.write(content)
    except BaseException:
        writer.discard()
        raise
    try:
        writer.name()
        writer.sync()
    finally:
        writer.close()


def write_unsynced(path: str, content: Bytes) -> None:
    """Write a new file under its final name at once, whose bytes are kept elsewhere until it is synced.

    Parameters
    ----------
    path : str
        Its name; there is no such file.
    content : bytes-like
        All its bytes.

    Raises
    ------
    OSError
        If the disk refuses. Nothing is left behind.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _write_all(descriptor, content)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file durable that was written before.

    Raises
    ------
    OSError
        If the disk refused any of it since somebody asked for the last time.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path | str) -> None:
    """Make a directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: Bytes) -> int:
    left = memoryview(content).cast("B")
    size_bytes = len(left)
    while left:
        left = left[os.write(descriptor, left) :]
    return size_bytes
