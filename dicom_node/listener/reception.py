"""One object while it comes in: gathered, written in aligned blocks, hashed; checked where it lies.

A block is an image of the Part 10 file's current part: the file's head is put at its beginning and the data
set is received behind it, so that nothing is copied and every write but the last is a whole block from a
page's start. An object that fits into one block is checked before it touches the disk; a longer one is
checked in the page cache, before it is synced. Memory is two blocks, whatever the object's size: one is
received and written while the other is hashed.

::

    wire --> block A --> file    wire --> block B --> file    wire --> block A --> file    sync
                |                           |                            |
                +--> hashed beside          +--> hashed beside           +--> hashed beside --> digest
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading

from dicom_node.crashpoints import crashpoint
from dicom_node.errors import SpoolError, SpoolFullError
from dicom_node.spool import NewFile, Spool, SpooledFile
from dicom_node.spool_writer import BLOCK_BYTES

# Below this, waking a thread takes longer than hashing.
_WORTH_A_THREAD_BYTES = 128 * 1024
# More at once than cores are free would only take turns with those who receive.
_FREE_CORES = threading.BoundedSemaphore(max(1, len(os.sched_getaffinity(0)) - 1))


class Reception:
    """What an association receives its objects with, one after the other: two blocks and their hashing.

    The blocks start at pages; pages that are never touched take no memory. The thread that hashes is started
    for the first large block; :func:`hashlib.sha256` leaves Python's lock to others meanwhile.
    """

    def __init__(self) -> None:
        self._blocks = tuple(memoryview(mmap.mmap(-1, BLOCK_BYTES)) for _ in range(2))
        self._current = 0
        self._digest = hashlib.sha256()
        # Semaphores: one is released by the hashing thread, the other by the association's.
        self._is_hashed, self._is_given = threading.Lock(), threading.Lock()
        self._is_given.acquire()
        self._given: memoryview | None = None
        self._thread: threading.Thread | None = None

    @property
    def block(self) -> memoryview:
        """The block that is filled now; nothing else uses it."""
        return self._blocks[self._current]

    def begin_object(self) -> None:
        """Begin a new digest."""
        self._wait()
        self._digest = hashlib.sha256()

    def hash(self, part: memoryview) -> None:
        """Hash a part of the current block; where a core is free beside what follows, in the other block."""
        self._wait()
        if len(part) < _WORTH_A_THREAD_BYTES or not _FREE_CORES.acquire(blocking=False):
            self._digest.update(part)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._hash_given, name="listener-hash", daemon=True)
            self._thread.start()
        self._is_hashed.acquire()
        self._given = part
        self._is_given.release()
        self._current = 1 - self._current

    def digest(self) -> str:
        """Return the object's SHA-256 in hexadecimal."""
        self._wait()
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._wait()
            self._given = None
            self._is_given.release()
            self._thread.join()
            self._thread = None

    def _wait(self) -> None:
        with self._is_hashed:
            """Nothing is being hashed."""

    def _hash_given(self) -> None:
        while True:
            self._is_given.acquire()
            if self._given is None:
                return
            self._digest.update(self._given)
            _FREE_CORES.release()
            self._is_hashed.release()


class IncomingObject:
    """A data set on its way from the wire to its file.

    Parameters
    ----------
    spool : Spool
        Where the file goes.
    reception : Reception
        The association's; used by one object at a time.
    preface : bytes
        The file's head, see :func:`dicom_node.listener.part10.file_preface`.
    min_free_bytes : int
        Room that stays free on the spool's disk.
    """

    def __init__(self, spool: Spool, reception: Reception, preface: bytes, min_free_bytes: int) -> None:
        self._spool = spool
        self._reception = reception
        self._head_bytes = len(preface)
        self._min_free_bytes = min_free_bytes
        self._file: NewFile | None = None
        self._failure: SpoolError | None = None
        self._image: memoryview | None = None
        self._size_bytes = 0
        reception.begin_object()
        reception.block[: len(preface)] = preface
        # Of the current block: where the data set begins in it, and up to where it is filled.
        self._begin = self._filled = len(preface)

    def room(self) -> memoryview:
        """Where the next bytes of the data set belong; never empty.

        A disk that fails does not stop the object: what comes is thrown away, and :meth:`data` tells.
        """
        if self._filled == BLOCK_BYTES:
            self._write_block()
        return self._reception.block[self._filled :]

    def took(self, size: int) -> None:
        """Note that so many bytes of :meth:`room` were filled."""
        self._filled += size
        self._size_bytes += size

    def take(self, data: memoryview) -> None:
        """Take bytes that lie elsewhere."""
        while data:
            room = self.room()
            size = min(len(room), len(data))
            room[:size] = data[:size]
            self.took(size)
            data = data[size:]

    @property
    def image_bytes(self) -> int:
        """Length of the whole file: its head and the data set."""
        return self._head_bytes + self._size_bytes

    def image(self) -> memoryview:
        """The whole file, once the object has come in.

        Raises
        ------
        SpoolError
            If it could not be kept.
        """
        if self._image is None:
            if self._file is None and self._failure is None:
                self._image = self._reception.block[: self.image_bytes]
            else:
                self._write_block()
                if self._file is None:
                    raise self._failed()
                self._image = self._file.mapped()
        return self._image

    def data(self) -> memoryview:
        """The whole data set, for the checks.

        Raises
        ------
        SpoolError
            If it could not be kept.
        """
        return self.image()[self._head_bytes :]

    def place(self) -> SpooledFile:
        """Give the object its file without making that durable; :meth:`image` holds its bytes.

        Raises
        ------
        SpoolError
            If the disk refuses. Nothing is left behind.
        """
        try:
            image = self.image()
            if self._file is not None:
                name = self._file.place()
            else:
                self._require_room(len(image))
                self._reception.hash(image[self._begin :])
                name = self._spool.place(image)
            return SpooledFile(name, self._reception.digest(), self._size_bytes)
        except BaseException:
            self.discard()
            raise

    def commit(self) -> SpooledFile:
        """Make the object's file durable.

        Raises
        ------
        SpoolError
            If the disk refuses. Nothing is left behind.
        """
        try:
            self._write_block()
            if self._file is None:
                raise self._failed()
            crashpoint("listener.part_written")
            return SpooledFile(self._file.commit(), self._reception.digest(), self._size_bytes)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave nothing of the object."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _failed(self) -> SpoolError:
        return self._failure or SpoolError("the object was given up; its sender may try again")

    def _write_block(self) -> None:
        block, begin = self._reception.block[: self._filled], self._begin
        self._begin = self._filled = 0
        if self._failure is not None or not block:
            return
        self._reception.hash(block[begin:])
        try:
            self._require_room(len(block))
            if self._file is None:
                self._file = self._spool.begin()
            self._file.write(block)
        except SpoolError as error:
            self._failure = error
            self.discard()

    def _require_room(self, size_bytes: int) -> None:
        if self._spool.free_bytes() < self._min_free_bytes + size_bytes:
            raise SpoolFullError("the spool's reserve is reached; free some space, senders will try again")
