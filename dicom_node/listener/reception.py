"""One object while it comes in: gathered, hashed, written in aligned blocks; checked where it lies.

The memory is an image of the Part 10 file: the file's head is put at its beginning and the data set is
received behind it, so that nothing is copied. An object that fits into it is checked there before it touches
the disk. A longer one is written block by block, every write from a page's start, and checked in the page
cache before it is synced; memory stays two blocks, whatever the object's size: one is received and written
while the other is hashed.

::

    wire --> both blocks --> file    wire --> first block --> file    wire --> second block --> file    sync
                  |                                |                                 |
                  +--> hashed beside, by halves    +--> hashed beside                +--> hashed --> digest
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading

from dicom_node.crashpoints import crashpoint
from dicom_node.errors import SpoolError
from dicom_node.spool import NewFile, Spool, SpooledFile, new_name
from dicom_node.spool_writer import BLOCK_BYTES

MEMORY_BYTES = 2 * BLOCK_BYTES
"""Up to this length a file is in memory, whole, when its object has come in."""

# Below this, waking a thread takes longer than hashing.
_WORTH_A_THREAD_BYTES = 128 * 1024
# More at once than cores are free would only take turns with those who receive.
_FREE_CORES = threading.BoundedSemaphore(max(1, len(os.sched_getaffinity(0)) - 1))


class Reception:
    """What an association receives its objects with, one after the other: memory and its hashing.

    The thread that hashes is started for the first large piece; :func:`hashlib.sha256` leaves Python's lock
    to others meanwhile.

    Attributes
    ----------
    memory : memoryview
        Two blocks, from a page's start. Pages that are never touched take no memory.
    """

    def __init__(self) -> None:
        self.memory = memoryview(mmap.mmap(-1, MEMORY_BYTES))
        self._digest = hashlib.sha256()
        # Semaphores: one is released by the hashing thread, the other by the association's.
        self._is_hashed, self._is_given = threading.Lock(), threading.Lock()
        self._is_given.acquire()
        self._given: memoryview | None = None
        self._thread: threading.Thread | None = None

    def begin_object(self) -> None:
        """Begin a new digest."""
        self._wait()
        self._digest = hashlib.sha256()

    def hash(self, part: memoryview) -> None:
        """Hash what follows of the object, where a core is free beside what the caller does next.

        The part stays as it is until the next one is given, or the digest is asked for.
        """
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
        self._size_bytes = 0
        reception.begin_object()
        self._memory = reception.memory
        self._memory[: len(preface)] = preface
        # Of the memory: from where it is not in the file, not hashed; up to where it is filled, and to be.
        self._begin = 0
        self._hashed = self._filled = len(preface)
        self._end = BLOCK_BYTES
        self._is_long = False

    def room(self) -> memoryview:
        """Where the next bytes of the data set belong; never empty.

        A disk that fails does not stop the object: what comes is thrown away, and :meth:`data` tells.
        """
        if self._filled == self._end:
            self._make_room()
        return self._memory[self._filled : self._end]

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
    def size_bytes(self) -> int:
        """Length of the data set."""
        return self._size_bytes

    @property
    def image_bytes(self) -> int:
        """Length of the whole file: its head and the data set."""
        return self._head_bytes + self._size_bytes

    def image(self) -> memoryview:
        """The whole file of an object that is in memory and has come in."""
        assert not self._is_long  # whoever asks has looked at its length
        return self._memory[: self._filled]

    def data(self) -> memoryview:
        """The whole data set, for the checks.

        It is not kept here: what is mapped of a long object's file counts as this process's memory.

        Raises
        ------
        SpoolError
            If it could not be kept.
        """
        if not self._is_long:
            return self.image()[self._head_bytes :]
        self._hash_up_to(self._filled)
        return self._whole_file().mapped()[self._head_bytes :]

    def named(self) -> str:
        """Give an object that is in memory the name of its file, for who writes and hashes that later.

        Raises
        ------
        SpoolFullError
            If there would be no room for it.
        """
        self._spool.require_room(self.image_bytes, reserve_bytes=self._min_free_bytes)
        return new_name()

    def commit(self) -> SpooledFile:
        """Make the object's file durable.

        Raises
        ------
        SpoolError
            If the disk refuses. Nothing is left behind.
        """
        try:
            self._hash_up_to(self._filled)
            file = self._whole_file()
            crashpoint("listener.part_written")
            return SpooledFile(file.commit(), self._reception.digest(), self._size_bytes)
        except BaseException:
            self.discard()
            raise

    def move_to(self, path: str) -> None:
        """Give the object's file away as it came, without a copy where there is one; it is not synced.

        Parameters
        ----------
        path : str
            Its new name, in the spool's file system.

        Raises
        ------
        SpoolError
            If the disk refuses, or its reserve is reached. The object is discarded as any other then.
        """
        self._whole_file().move_to(path)
        self._file = None

    def discard(self) -> None:
        """Leave nothing of the object."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _make_room(self) -> None:
        if self._filled < MEMORY_BYTES and not self._is_long:
            self._end = MEMORY_BYTES
            return
        # The first time there are two blocks: one is hashed beside the write, the other beside what follows.
        self._hash_up_to(self._filled if self._is_long else BLOCK_BYTES)
        self._is_long = True
        self._write_filled()
        self._hash_up_to(self._filled)
        # From now on block by block; what lay in the next one is hashed, as something was given since.
        self._begin = self._hashed = self._filled = self._filled % MEMORY_BYTES
        self._end = self._begin + BLOCK_BYTES

    def _hash_up_to(self, end: int) -> None:
        if self._hashed < end:
            self._reception.hash(self._memory[self._hashed : end])
            self._hashed = end

    def _write_filled(self) -> None:
        part, self._begin = self._memory[self._begin : self._filled], self._filled
        if self._failure is not None or not part:
            return
        try:
            self._spool.require_room(len(part), reserve_bytes=self._min_free_bytes)
            if self._file is None:
                self._file = self._spool.begin()
            self._file.write(part)
        except SpoolError as error:
            self._failure = error
            self.discard()

    def _whole_file(self) -> NewFile:
        self._write_filled()
        if self._file is None:
            raise self._failure or SpoolError("the object was given up; its sender may try again")
        return self._file
