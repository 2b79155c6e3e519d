"""A stored object becomes an image as a reader would see it on a display.

The header is read here, the pixels in a decoder process of limited memory and time
(:mod:`dicom_node.decoding`). One process serves many images, and is replaced after a number of them and after
any failure. Whatever is wrong with an object ends in one :class:`~dicom_node.errors.ImageError` with the code
of a refusal; the next object is read as if nothing had happened.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicom_node.decoding import MESSAGE_BYTES, SEALS
from dicom_node.errors import ImageError
from dicom_node.header_values import MALFORMED, integer, numbers
from dicom_node.mammography_views import routing_facts
from models.contract import ImageTrait, ImageView, RefusalCode

# The child runs isolated from environment and working directory; where this package lies is told to it.
_CHILD = (
    "import json, socket, sys\n"
    "root, descriptor, limits = sys.argv[1:]\n"
    "sys.path.append(root)\n"
    "from dicom_node.decoding import serve\n"
    "serve(socket.socket(fileno=int(descriptor)), **json.loads(limits))\n"
)
_CHILD_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one decoder process may use.

    Attributes
    ----------
    memory_bytes : int
        Address space of the process.
    cpu_s : int
        Processor seconds for one image.
    wall_s : float
        Seconds until an answer is due.
    max_pixels : int
        Largest Rows x Columns.
    images_per_process : int
        Images after which the process is replaced.
    """

    memory_bytes: int = 4 * 2**30
    cpu_s: int = 60
    wall_s: float = 90.0
    max_pixels: int = 100_000_000
    images_per_process: int = 200


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image and the header it came with.

    Attributes
    ----------
    header : pydicom.dataset.Dataset
        Everything before the pixel data, with file meta information; for the result builders.
    view : models.contract.ImageView
        The image for gate and network.
    """

    header: Dataset
    view: ImageView


class ImageReader:
    """Reads stored objects; a context manager that owns one decoder process.

    Calls from several threads are answered one after the other. The first process starts on entry and
    imports its libraries meanwhile.

    Parameters
    ----------
    limits : DecodeLimits
        What the decoder process may use.
    """

    def __init__(self, limits: DecodeLimits | None = None) -> None:
        self._limits = limits or DecodeLimits()
        self._lock = threading.Lock()
        self._decoder: _DecoderProcess | None = None

    def __enter__(self) -> Self:
        with self._lock:
            self._decoder = _DecoderProcess(self._limits)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._discard_decoder()

    @property
    def decoder_pid(self) -> int | None:
        """Process id of the decoder that the next image goes to; None before the first one."""
        return self._decoder.pid if self._decoder else None

    def read(self, path: Path, sop_instance_uid: str) -> SourceImage:
        """Read one stored object.

        Parameters
        ----------
        path : pathlib.Path
            A Part 10 file.
        sop_instance_uid : str
            The object that it is expected to hold.

        Returns
        -------
        SourceImage
            Header and image.

        Raises
        ------
        ImageError
            The object cannot become an image; its code is a :class:`models.contract.RefusalCode`.
        OSError
            The file is missing, or the machine fails; that says nothing about the object.
        """
        with path.open("rb") as stored:
            header = _header(stored, sop_instance_uid)
            facts = routing_facts(header)
            _refuse_several_frames(header, facts.traits)
            spacing_mm = _spacing_mm(header)
            pixels, padding = self._pixels(stored, header)
        view = ImageView(
            sop_instance_uid=sop_instance_uid,
            sop_class_uid=str(header.get("SOPClassUID", "")),
            pixels=pixels,
            padding=padding,
            laterality=facts.laterality,
            view=facts.view,
            spacing_mm=spacing_mm,
            traits=facts.traits,
        )
        return SourceImage(header, view)

    def _pixels(
        self, stored: BinaryIO, header: Dataset
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
        size = integer(header, "Rows", default=0), integer(header, "Columns", default=0)
        with self._lock:
            if self._decoder is None or not self._decoder.is_fresh:
                self._discard_decoder()
                self._decoder = _DecoderProcess(self._limits)
            try:
                return self._decoder.decode(stored, size)
            except _DecoderLostError as lost:
                self._discard_decoder()
                raise ImageError(RefusalCode.PIXEL_DATA, str(lost)) from lost

    def _discard_decoder(self) -> None:
        if self._decoder is not None:
            self._decoder.stop()
            self._decoder = None


def read_header(path: Path, sop_instance_uid: str) -> Dataset:
    """Read everything before the pixel data.

    Parameters
    ----------
    path : pathlib.Path
        A Part 10 file.
    sop_instance_uid : str
        The object that it is expected to hold.

    Returns
    -------
    pydicom.dataset.Dataset
        With file meta information.

    Raises
    ------
    ImageError
        ``UNREADABLE`` or ``TRANSFER_SYNTAX``: the file is damaged, deflated, or holds another object.
    OSError
        The file is missing or its disk fails, which says nothing about the object.
    """
    with path.open("rb") as stored:
        return _header(stored, sop_instance_uid)


class _DecoderLostError(Exception):
    """The decoder process died, did not answer in time, or answered nonsense."""


class _DecoderProcess:
    """One child process and the socket to it."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._images = 0
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(limits.wall_s)
        told = {
            "memory_bytes": limits.memory_bytes,
            "cpu_s": limits.cpu_s,
            "max_pixels": limits.max_pixels,
            "parent": os.getpid(),
        }
        root = str(Path(__file__).resolve().parent.parent)
        with theirs:
            # A session of its own: Ctrl-C at the terminal reaches the worker, which then decides.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _CHILD, root, str(theirs.fileno()), json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_CHILD_ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_fresh(self) -> bool:
        """Whether it lives and has images left to serve."""
        return self._images < self._limits.images_per_process and self._process.poll() is None

    def decode(
        self, stored: BinaryIO, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
        """Send one object and wait for its pixels; ImageError is its refusal of the object."""
        self._images += 1
        try:
            socket.send_fds(self._channel, [b"decode"], [stored.fileno()])
            packet, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1)
        except TimeoutError as error:
            raise _DecoderLostError(f"decoding took longer than {self._limits.wall_s:g} s") from error
        except OSError as error:
            raise _DecoderLostError(self._cause_of_death()) from error
        if not packet:
            raise _DecoderLostError(self._cause_of_death())
        answer = _parsed(packet)
        if "code" in answer:
            raise ImageError(RefusalCode(answer["code"]), str(answer["message"]))
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if len(descriptors) != 1:
            raise _DecoderLostError("the decoder process answered without pixels")
        with os.fdopen(descriptors[0], "rb") as memory:
            return _mapped(memory, answer, size)

    def stop(self) -> None:
        """End the process at once; it holds nothing that could be lost."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _cause_of_death(self) -> str:
        self._process.kill()
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return f"decoding took more than {self._limits.cpu_s} s of processor time"
        return "the decoder process died"


def _parsed(packet: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(packet)
    except ValueError as error:
        raise _DecoderLostError("the decoder process answered nonsense") from error
    if not isinstance(answer, dict):
        raise _DecoderLostError("the decoder process answered nonsense")
    return answer


def _mapped(
    memory: BinaryIO, answer: dict[str, Any], size: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
    """Map the answered memory without copying; the mapping lives as long as its arrays.

    A decoder that a hostile object took over may answer anything: sizes and seals are checked, so that the
    memory can neither shrink nor change beneath this process.
    """
    cells, has_padding = size[0] * size[1], bool(answer.get("padding"))
    expected = cells * (3 if has_padding else 2)
    is_sealed = fcntl.fcntl(memory, fcntl.F_GET_SEALS) == SEALS
    if (answer.get("rows"), answer.get("columns")) != size or not is_sealed:
        raise _DecoderLostError("the decoder process answered with another image")
    if os.fstat(memory.fileno()).st_size != expected:
        raise _DecoderLostError("the decoder process answered with another image")
    mapped = mmap.mmap(memory.fileno(), expected, access=mmap.ACCESS_COPY)
    pixels = np.frombuffer(mapped, np.uint16, cells).reshape(size)
    padding = np.frombuffer(mapped, np.bool_, cells, offset=2 * cells).reshape(size) if has_padding else None
    return pixels, padding


def _header(stored: BinaryIO, sop_instance_uid: str) -> Dataset:
    try:
        # Deflated data would be inflated before its size is known; the listener never accepts it.
        syntax = UID(str(read_file_meta_info(stored.name).get("TransferSyntaxUID", "")))
        if syntax == DeflatedExplicitVRLittleEndian:
            raise ImageError(RefusalCode.TRANSFER_SYNTAX, "deflated objects are not read")
        header = dcmread(stored, stop_before_pixels=True)
        found = str(header.get("SOPInstanceUID", ""))
    except OSError as error:
        # A disk's error has a number; pydicom also raises OSError for sequences that end too early.
        if error.errno is not None:
            raise
        raise ImageError(RefusalCode.UNREADABLE, "the file is not a readable DICOM object") from error
    except (InvalidDicomError, MemoryError, *MALFORMED) as error:
        raise ImageError(RefusalCode.UNREADABLE, "the file is not a readable DICOM object") from error
    if found != sop_instance_uid:
        raise ImageError(RefusalCode.UNREADABLE, "the file holds another object than was recorded")
    return header


def _refuse_several_frames(header: Dataset, traits: frozenset[ImageTrait]) -> None:
    if ImageTrait.TOMOSYNTHESIS in traits:
        raise ImageError(RefusalCode.TOMOSYNTHESIS, "the object has several frames")
    if "SharedFunctionalGroupsSequence" in header:
        # Its rescale and window live in functional groups, which no task reads yet.
        raise ImageError(RefusalCode.UNSUPPORTED_SOP_CLASS, "enhanced multi-frame objects are not read")


def _spacing_mm(header: Dataset) -> tuple[float, float] | None:
    """Row and column spacing: at the detector where it is stated, else of a digitised film or the patient."""
    for keyword in ("ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelSpacing"):
        spacing = numbers(header, keyword)
        if len(spacing) == 2 and min(spacing) > 0:
            return spacing[0], spacing[1]
    return None
