"""One file of the journal: whole objects, one after the other, each at a page's start.

::

    | header, file's bytes, padding | header, file's bytes, padding | ... | what an earlier use left

A segment is used again and again, so that its pages lie on the disk already and a sync writes data alone.
Each use has a number, which every record of it carries: what an earlier use left is no record. It begins with
the time, so that segments can be read in the order in which they were filled.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from dicom_node.spool import Spool, SpooledFile

_PAGE_BYTES = 4096
_ZEROS_BYTES = 1 << 20
_MAGIC = b"DNJRNL01"
# Magic, the use's number, the record's ordinal, the file's name and digest, length of content and file.
_HEADER = struct.Struct("<8s16sL16s32sQQ")
_CHECKSUM = struct.Struct("<L")
_HEAD_BYTES = _HEADER.size + _CHECKSUM.size


@dataclass(frozen=True, slots=True)
class JournaledFile:
    """A file of the spool, and all its bytes.

    Attributes
    ----------
    file : SpooledFile
        Its name, and the digest and length of its content.
    image : memoryview
        The whole file: preface and content.
    """

    file: SpooledFile
    image: memoryview


class Segment:
    """A file of records that this process writes; locked, so that no other takes it for a dead one's.

    Parameters
    ----------
    path : pathlib.Path
        Where to make it; there is no such file.
    capacity_bytes : int
        Up to where it is filled.

    Raises
    ------
    OSError
        As every method, if the disk refuses.
    """

    def __init__(self, path: Path, capacity_bytes: int) -> None:
        self._path = path
        self._capacity_bytes = capacity_bytes
        self._descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._use = _new_use()
        self._end = self._ordinal = 0
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Written, not reserved: syncs of reserved room would commit the file system's journal as well.
            for begin in range(0, capacity_bytes, _ZEROS_BYTES):
                _write_zeros(self._descriptor, min(_ZEROS_BYTES, capacity_bytes - begin), begin)
            os.fsync(self._descriptor)
        except BaseException:
            # At once: on a full disk a leftover keeps the disk full.
            self.close(remove=True)
            raise

    @property
    def is_empty(self) -> bool:
        """Whether it holds no record."""
        return self._ordinal == 0

    def has_room(self, image_bytes: int) -> bool:
        """Whether a file of this length fits."""
        return self._end + _record_bytes(image_bytes) <= self._capacity_bytes

    def write(self, kept: JournaledFile) -> int:
        """Append a record, which :meth:`sync` makes durable; return where in the segment its file begins."""
        file, image = kept.file, kept.image
        size_bytes = _record_bytes(len(image))
        header = _HEADER.pack(
            _MAGIC,
            self._use,
            self._ordinal,
            bytes.fromhex(file.name.removesuffix(".dcm")),
            bytes.fromhex(file.sha256),
            file.size_bytes,
            len(image),
        )
        # Of the content there is a digest already.
        checksum = zlib.crc32(image[: len(image) - file.size_bytes], zlib.crc32(header))
        parts = (header + _CHECKSUM.pack(checksum), image)
        if os.pwritev(self._descriptor, parts, self._end) != _HEAD_BYTES + len(image):
            raise OSError(errno.ENOSPC, "the journal was written in part")
        begin = self._end + _HEAD_BYTES
        self._end += size_bytes
        self._ordinal += 1
        return begin

    def place(self, name: str, begin: int, size_bytes: int, spool: Spool) -> None:
        """Give a file that was written here its place in the spool, not synced.

        Parameters
        ----------
        name : str
            Its name.
        begin, size_bytes : int
            Where it lies.
        spool : Spool
            Where it belongs.

        Raises
        ------
        SpoolError
            If the disk refuses. Nothing is left behind.
        """
        spool.place(name, self._descriptor, begin, size_bytes)

    def sync(self) -> None:
        """Make all records durable."""
        os.fdatasync(self._descriptor)

    def files(self) -> Iterator[JournaledFile]:
        """Read the records back."""
        return files_of(self._descriptor)

    def clear(self) -> None:
        """Forget all records, durably: a start long after must not bring back what was removed since."""
        _write_zeros(self._descriptor, _PAGE_BYTES, 0)
        os.fdatasync(self._descriptor)
        self._use = _new_use()
        self._end = self._ordinal = 0

    def close(self, *, remove: bool) -> None:
        """Let go of the file; doing so twice is no error."""
        if self._descriptor >= 0:
            if remove:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def use_of(descriptor: int) -> bytes:
    """Return the number of a segment's use; of two, the greater is the later one's."""
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if len(head) < _HEAD_BYTES:
        return b""
    magic, use, *_ = _HEADER.unpack_from(head)
    return use if magic == _MAGIC else b""


def files_of(descriptor: int) -> Iterator[JournaledFile]:
    """Read the records of a segment, up to the first that is not whole.

    Parameters
    ----------
    descriptor : int
        The open segment; it may be a dead process's.

    Yields
    ------
    JournaledFile
        In the order in which they were written.
    """
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes < _HEAD_BYTES:
        return
    content = memoryview(mmap.mmap(descriptor, size_bytes, prot=mmap.PROT_READ))
    use: bytes | None = None
    begin = ordinal = 0
    while begin + _HEAD_BYTES <= size_bytes:
        head = content[begin : begin + _HEAD_BYTES]
        magic, of_use, number, name, digest, content_bytes, image_bytes = _HEADER.unpack_from(head)
        use = use or of_use
        image = content[begin + _HEAD_BYTES : begin + _HEAD_BYTES + image_bytes]
        is_next = magic == _MAGIC and of_use == use and number == ordinal
        if not is_next or len(image) != image_bytes or content_bytes > image_bytes:
            return
        checksum = zlib.crc32(image[: image_bytes - content_bytes], zlib.crc32(head[: _HEADER.size]))
        is_whole = checksum == _CHECKSUM.unpack_from(head, _HEADER.size)[0]
        if not is_whole or sha256(image[image_bytes - content_bytes :]).digest() != digest:
            return
        yield JournaledFile(SpooledFile(f"{name.hex()}.dcm", digest.hex(), content_bytes), image)
        begin += _record_bytes(image_bytes)
        ordinal += 1


def _record_bytes(image_bytes: int) -> int:
    return -(-(_HEAD_BYTES + image_bytes) // _PAGE_BYTES) * _PAGE_BYTES


def _new_use() -> bytes:
    return time.time_ns().to_bytes(8, "big") + secrets.token_bytes(8)


def _write_zeros(descriptor: int, size_bytes: int, begin: int) -> None:
    if os.pwrite(descriptor, bytes(size_bytes), begin) != size_bytes:
        raise OSError(errno.ENOSPC, "the journal was written in part")
