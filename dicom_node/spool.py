"""One object to disk, durably: received instances and result objects alike.

A :class:`Spool` knows files, not DICOM. Names are of the time and at random, never of a UID or patient data.
What has a temporary name was never promised to anybody, nor was what no row names.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import math
import os
import re
import secrets
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dicom_node.errors import SpoolError, SpoolFullError
from dicom_node.spool_writer import (
    BLOCK_BYTES,
    PART_PREFIX,
    Bytes,
    SpoolWriter,
    sync_directory,
    write_durably,
    write_unsynced,
)

_SHARDS = "[0-9a-f][0-9a-f]"
_NAME = re.compile(r"[0-9a-f]{32}\.dcm")
_ASKED_EVERY_S = 0.1
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """A file of a spool.

    It is durable, its content and its directory entry are on the disk, but where its bytes were placed for
    somebody who keeps them elsewhere until then.

    Attributes
    ----------
    name : str
        Its time and random digits; unique in its spool.
    sha256 : str
        Hex digest of the content, without the preface.
    size_bytes : int
        Length of the content, without the preface.
    """

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found: how many leftovers it removed, and the whole files that nobody knows."""

    parts_removed: int
    orphans: tuple[str, ...]


class NewFile:
    """A file of a spool while it is written: discard it on any error, or when it is not wanted.

    Parameters
    ----------
    folder : str
        The folder of its shard.
    name : str
        Its name when it is whole.

    Raises
    ------
    SpoolFullError
        As :meth:`write` and :meth:`commit`, if there is no room.
    SpoolError
        As :meth:`write` and :meth:`commit`, if the disk refuses.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._name = name
        with translated_errors():
            self._writer = SpoolWriter(f"{folder}/{name}")

    def write(self, data: Bytes) -> int:
        """Append bytes; return how many there were."""
        with translated_errors():
            return self._writer.write(data)

    def mapped(self) -> memoryview:
        """What was written so far, to be read without a copy."""
        return self._writer.mapped()

    def commit(self) -> str:
        """Make the file durable: its content and its directory entry; return its name."""
        with translated_errors():
            self._writer.name()
            self._writer.sync()
        return self._name

    def move_to(self, path: str) -> None:
        """Give the file away, under another name of its file system; it is not synced."""
        with translated_errors():
            self._writer.move_to(path)

    def discard(self) -> None:
        """Remove the file; nothing is left of it."""
        self._writer.discard()


class Spool:
    """A folder of durable files under names that say nothing but the time.

    Parameters
    ----------
    root : pathlib.Path
        The spool's folder; made, with mode 0700, when absent.

    Raises
    ------
    SpoolError
        If the folder cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = str(root)
        self._free_bytes, self._asked_at = 0, -math.inf
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            root.chmod(0o700)
            # Sub-folders exist before the first file, so that a write syncs one directory only.
            for shard in range(256):
                (root / f"{shard:02x}").mkdir(mode=0o700, exist_ok=True)
            sync_directory(root)
        except OSError as error:
            raise _translated(error) from error

    def write(self, content: Bytes | Iterable[Bytes], *, preface: bytes = b"") -> SpooledFile:
        """Write one file so that it survives a crash of the process and of the machine.

        Parameters
        ----------
        content : bytes-like or iterable of bytes-like
            What the digest and the size are taken of.
        preface : bytes
            Written before the content and not counted: the Part 10 header of a received instance.
        Returns
        -------
        SpooledFile
            The durable file.

        Raises
        ------
        SpoolFullError
            If there is no room. Nothing is left behind.
        SpoolError
            If the disk refuses. Nothing is left behind.
        """
        chunks = (content,) if isinstance(content, Bytes) else content
        digest, size_bytes = hashlib.sha256(), 0
        file = self.begin()
        try:
            file.write(preface)
            for chunk in chunks:
                digest.update(chunk)
                size_bytes += file.write(chunk)
            return SpooledFile(file.commit(), digest.hexdigest(), size_bytes)
        except BaseException:
            file.discard()
            raise

    def begin(self) -> NewFile:
        """Begin a file whose bytes come one after the other.

        Raises
        ------
        SpoolError
            If the disk refuses.
        """
        name = new_name()
        return NewFile(f"{self._folder}/{name[:2]}", name)

    def place(self, name: str, image: Bytes) -> None:
        """Write a whole file without making it durable, for who keeps its bytes elsewhere.

        Parameters
        ----------
        name : str
            A new one, see :func:`new_name`.
        image : bytes-like
            All its bytes.

        Raises
        ------
        SpoolError
            If the disk refuses. Nothing is left behind.
        """
        with translated_errors():
            write_unsynced(f"{self._folder}/{name[:2]}/{name}", image)

    def write_again(self, name: str, image: Bytes) -> None:
        """Write a file of this spool again, durably, from its bytes that were kept elsewhere.

        Raises
        ------
        SpoolError
            If the disk refuses.
        """
        with translated_errors():
            write_durably(self.path_of(name), image)

    def path_of(self, name: str) -> Path:
        """The path of a file of this spool.

        Raises
        ------
        SpoolError
            If it is not a name that this spool gives.
        """
        if not _NAME.fullmatch(name):
            raise SpoolError("not a name of a spooled file; the database row is damaged")
        return self.root / name[:2] / name

    def remove(self, name: str) -> None:
        """Remove a file; removing it twice is no error.

        Raises
        ------
        SpoolError
            If the disk refuses.
        """
        try:
            self.path_of(name).unlink(missing_ok=True)
        except OSError as error:
            raise _translated(error) from error

    def keep_young(self, name: str) -> None:
        """Keep sweeps from a file whose row is late; one that is gone is no error.

        Raises
        ------
        SpoolError
            If the disk refuses.
        """
        try:
            os.utime(self.path_of(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _translated(error) from error

    def require_room(self, size_bytes: int, *, reserve_bytes: int) -> None:
        """Refuse to fill the spool's disk up to a reserve.

        The disk is asked ten times a second at most; what is wanted in between is counted here.

        Parameters
        ----------
        size_bytes : int
            What is about to be written.
        reserve_bytes : int
            What an unprivileged process shall still be able to write then.

        Raises
        ------
        SpoolFullError
            If there is less.
        """
        now = time.monotonic()
        if now - self._asked_at >= _ASKED_EVERY_S:
            with translated_errors():
                state = os.statvfs(self._folder)
            self._free_bytes, self._asked_at = state.f_bavail * state.f_frsize, now
        if self._free_bytes < reserve_bytes + size_bytes:
            raise SpoolFullError(
                "the spool's reserve is reached; free some space; sender or node tries again"
            )
        self._free_bytes -= size_bytes

    def names(self) -> list[str]:
        """The names of all whole files, in no order that means anything."""
        return [path.name for path in self.root.glob(f"{_SHARDS}/*") if _NAME.fullmatch(path.name)]

    def sweep(self, known_names: Container[str], *, grace_s: float) -> Sweep:
        """Remove what a crash left half-written, and find whole files that no row names.

        Parameters
        ----------
        known_names : container of str
            The names that the database knows.
        grace_s : float
            Files younger than this, in seconds, may be between their sync and their row: they are left alone.

        Returns
        -------
        Sweep
            Orphans are for the caller to remove. Half-written files of living processes are left.
        """
        found = list(self.sweeps(known_names, grace_s=grace_s))
        orphans = tuple(name for each in found for name in each.orphans)
        return Sweep(sum(each.parts_removed for each in found), orphans)

    def sweeps(self, known_names: Container[str], *, grace_s: float) -> Iterator[Sweep]:
        """Sweep folder by folder, as :meth:`sweep` does: there may be millions of files."""
        newest = time.time() - grace_s
        for shard in sorted(self.root.glob(_SHARDS)):
            removed, orphans = 0, []
            for path in sorted(shard.iterdir()):
                if path.name.startswith(PART_PREFIX):
                    removed += _remove_if_abandoned(path)
                elif _NAME.fullmatch(path.name) and path.name not in known_names and _is_older(path, newest):
                    orphans.append(path.name)
            yield Sweep(removed, tuple(orphans))


def new_name() -> str:
    """Return a name that follows those before it, so that the index of names grows at one place.

    ::

        2 digits     the minute, which is the folder: 256 of them, one after the other
        13 digits    the time in microseconds
        17 digits    random
    """
    now_us = time.time_ns() // 1000
    return f"{now_us // 60_000_000 % 256:02x}{now_us:013x}{secrets.randbits(68):017x}.dcm"


def content_digest(path: Path, size_bytes: int) -> str:
    """Hash the content of a stored file again, without the preface that stands before it.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    size_bytes : int
        Length of the content: the file's last bytes.

    Returns
    -------
    str
        Hex digest; that of nothing where the file is shorter.

    Raises
    ------
    OSError
        If it is gone, or the disk fails.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stored:
        start = stored.seek(0, os.SEEK_END) - size_bytes
        if start >= 0:
            stored.seek(start)
            while block := stored.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _remove_if_abandoned(part: Path) -> bool:
    try:
        descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_older(path: Path, newest: float) -> bool:
    try:
        return path.stat().st_mtime <= newest
    except FileNotFoundError:
        return False


class _TranslatedErrors:
    # Not a generator, which takes four times as long: several of these are passed for each received object.
    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise _translated(error) from error


_TRANSLATED_ERRORS = _TranslatedErrors()


def translated_errors() -> AbstractContextManager[None]:
    """Turn the disk's errors into ours, which name no path."""
    return _TRANSLATED_ERRORS


def _translated(error: OSError) -> SpoolError:
    # The text of an OSError carries a path; its number says all that an operator needs.
    code = errno.errorcode.get(error.errno or 0, "unknown")
    if error.errno in _FULL:
        return SpoolFullError(
            f"the spool's disk is full ({code}); free some space; sender or node tries again"
        )
    return SpoolError(f"the spool's disk refused ({code}); look at the data directory's disk")
