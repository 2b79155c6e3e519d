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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_128_digest

from dicom_node.spool import SpooledFile

_PAGE_BYTES = 4096
_ZEROS_BYTES = 1 << 20
_MAGIC = b"DNJRNL02"
# Magic, the use's number, the record's ordinal, the file's name and checksum, the sender's address, length of
# content and file.
_HEADER = struct.Struct("<8s16sL16s16s64sQQ")
_EARLIER_MAGIC = b"DNJRNL01"
# The same with the content's SHA-256, and nothing of the sender.
_EARLIER_HEADER = struct.Struct("<8s16sL16s32sQQ")
_CHECKSUM = struct.Struct("<L")
HEAD_BYTES = _HEADER.size + _CHECKSUM.size
"""What a record takes besides its file and the padding."""


@dataclass(frozen=True, slots=True)
class JournaledFile:
    """A file of the spool, and all its bytes.

    Attributes
    ----------
    name : str
        Its name in the spool.
    image : memoryview
        The whole file: preface and content.
    content_bytes : int
        Length of the content.
    peer_address : str or None
        Network address of the sender, where it is known.
    """

    name: str
    image: memoryview
    content_bytes: int
    peer_address: str | None = None

    @property
    def preface(self) -> memoryview:
        """The Part 10 header."""
        return self.image[: len(self.image) - self.content_bytes]

    @property
    def content(self) -> memoryview:
        """What stands behind the preface."""
        return self.image[len(self.image) - self.content_bytes :]

    def spooled(self) -> SpooledFile:
        """Return what is registered of the file; this hashes its content."""
        return SpooledFile(self.name, sha256(self.content).hexdigest(), self.content_bytes)


class Record(NamedTuple):
    """Where in a segment a record lies.

    Attributes
    ----------
    begin : int
        Its first byte.
    size_bytes : int
        Its length, without padding.
    """

    begin: int
    size_bytes: int


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
        return self._end + _padded(HEAD_BYTES + image_bytes) <= self._capacity_bytes

    def write(self, file: JournaledFile, checksum: bytes) -> Record:
        """Append a record, which :meth:`sync` makes durable.

        Parameters
        ----------
        file : JournaledFile
            The file.
        checksum : bytes
            Of its bytes, see :func:`checksum_of`.
        """
        header = _HEADER.pack(
            _MAGIC,
            self._use,
            self._ordinal,
            bytes.fromhex(file.name.removesuffix(".dcm")),
            checksum,
            (file.peer_address or "").encode(),
            file.content_bytes,
            len(file.image),
        )
        record = Record(self._end, HEAD_BYTES + len(file.image))
        parts = (header + _CHECKSUM.pack(zlib.crc32(header)), file.image)
        if os.pwritev(self._descriptor, parts, record.begin) != record.size_bytes:
            raise OSError(errno.ENOSPC, "the journal was written in part")
        self._end += _padded(record.size_bytes)
        self._ordinal += 1
        return record

    def read(self, record: Record, into: memoryview) -> JournaledFile | None:
        """Read a record that was written here; None where it is not what was written.

        Parameters
        ----------
        record : Record
            What :meth:`write` returned.
        into : memoryview
            Where its bytes go, long enough; what is returned lies there.
        """
        into = into[: record.size_bytes]
        if os.preadv(self._descriptor, (into,), record.begin) != record.size_bytes:
            return None
        head = _head_of(into)
        return None if head is None else head.file_in(into)

    def sync(self) -> None:
        """Make all records durable."""
        os.fdatasync(self._descriptor)

    def files(self) -> Iterator[JournaledFile | None]:
        """Read all records back, as :func:`files_of` does."""
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


def checksum_of(image: memoryview) -> bytes:
    """Return what tells a file that was written in part: 16 bytes, quick to take, no secret.

    Parameters
    ----------
    image : memoryview
        The whole file.
    """
    return xxh3_128_digest(image)


def use_of(descriptor: int) -> bytes:
    """Return the number of a segment's use; of two, the greater is the later one's."""
    head = _head_of(memoryview(os.pread(descriptor, HEAD_BYTES, 0)))
    return b"" if head is None else head.use


def is_of_known_form(descriptor: int) -> bool:
    """Whether a segment is empty or begins as this version, or the one before it, writes them."""
    magic = os.pread(descriptor, len(_MAGIC), 0)
    return not any(magic) or magic in (_MAGIC, _EARLIER_MAGIC)


def files_of(descriptor: int) -> Iterator[JournaledFile | None]:
    """Read the records of a segment, up to where no other begins.

    Parameters
    ----------
    descriptor : int
        The open segment; it may be a dead process's.

    Yields
    ------
    JournaledFile or None
        In the order in which they were written. None stands for one that is not whole: a crash leaves such a
        record at the end, and nothing was promised of it.
    """
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes == 0:
        return
    content = memoryview(mmap.mmap(descriptor, size_bytes, prot=mmap.PROT_READ))
    use: bytes | None = None
    begin = ordinal = 0
    while (head := _head_of(content[begin:])) is not None:
        use = use or head.use
        if head.use != use or head.ordinal != ordinal:
            return
        yield head.file_in(content[begin:])
        begin += _padded(head.size_bytes + head.image_bytes)
        ordinal += 1


class _Head(NamedTuple):
    """The header of a record."""

    size_bytes: int
    use: bytes
    ordinal: int
    name: str
    peer_address: str | None
    content_bytes: int
    image_bytes: int
    is_whole: Callable[[JournaledFile], bool]

    def file_in(self, record: memoryview) -> JournaledFile | None:
        """Return the file that a record holds; None where it is not whole."""
        image = record[self.size_bytes : self.size_bytes + self.image_bytes]
        file = JournaledFile(self.name, image, self.content_bytes, self.peer_address)
        return file if len(image) == self.image_bytes and self.is_whole(file) else None


def _head_of(record: memoryview) -> _Head | None:
    """Read the header that a record begins with; None where none is there."""
    magic = bytes(record[: len(_MAGIC)])
    if magic == _EARLIER_MAGIC:
        return _earlier_head_of(record)
    if magic != _MAGIC or len(record) < HEAD_BYTES:
        return None
    if zlib.crc32(record[: _HEADER.size]) != _CHECKSUM.unpack_from(record, _HEADER.size)[0]:
        return None
    _, use, ordinal, name, checksum, address, content_bytes, image_bytes = _HEADER.unpack_from(record)
    return _Head(
        size_bytes=HEAD_BYTES,
        use=use,
        ordinal=ordinal,
        name=f"{name.hex()}.dcm",
        peer_address=address.rstrip(b"\0").decode() or None,
        content_bytes=content_bytes,
        image_bytes=image_bytes,
        is_whole=lambda file: checksum_of(file.image) == checksum,
    )


def _earlier_head_of(record: memoryview) -> _Head | None:
    """Read the header of a record that was written before the node was brought up to this version."""
    size_bytes = _EARLIER_HEADER.size + _CHECKSUM.size
    if len(record) < size_bytes:
        return None
    _, use, ordinal, name, digest, content_bytes, image_bytes = _EARLIER_HEADER.unpack_from(record)
    # Its checksum is of the preface, too.
    preface_end = size_bytes + image_bytes - content_bytes
    checksum = zlib.crc32(record[size_bytes:preface_end], zlib.crc32(record[: _EARLIER_HEADER.size]))
    if content_bytes > image_bytes or checksum != _CHECKSUM.unpack_from(record, _EARLIER_HEADER.size)[0]:
        return None
    return _Head(
        size_bytes=size_bytes,
        use=use,
        ordinal=ordinal,
        name=f"{name.hex()}.dcm",
        peer_address=None,
        content_bytes=content_bytes,
        image_bytes=image_bytes,
        is_whole=lambda file: sha256(file.content).digest() == digest,
    )


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES


def _new_use() -> bytes:
    return time.time_ns().to_bytes(8, "big") + secrets.token_bytes(8)


def _write_zeros(descriptor: int, size_bytes: int, begin: int) -> None:
    if os.pwrite(descriptor, bytes(size_bytes), begin) != size_bytes:
        raise OSError(errno.ENOSPC, "the journal was written in part")
