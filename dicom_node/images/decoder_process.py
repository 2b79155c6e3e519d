"""The child process that decodes pixels (:mod:`dicom_node.images.decoding`), from its parent's side.

What a hostile object can make of the child is bounded here: its memory, its time, and what the parent takes
from it as an answer.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dicom_node.errors import ImageError
from dicom_node.images.decoding import MESSAGE_BYTES
from dicom_node.images.sealed_memory import is_sealed
from models.contract import RefusalCode

# The child runs isolated from environment and working directory; where this package lies is told to it.
_CHILD = (
    "import json, socket, sys\n"
    "root, descriptor, limits = sys.argv[1:]\n"
    "sys.path.append(root)\n"
    "from dicom_node.images.decoding import serve\n"
    "serve(socket.socket(fileno=int(descriptor)), **json.loads(limits))\n"
)
# Between the end of a process's channel and that of the process itself.
_DEATH_S = 5.0
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


class DecoderLostError(Exception):
    """The decoder process died, did not answer in time, or answered nonsense."""


class DecoderKilledError(DecoderLostError):
    """Somebody else killed the decoder process, as the kernel does when memory runs out."""


class DecoderProcess:
    """One child process and the socket to it.

    Parameters
    ----------
    limits : DecodeLimits
        What the process may use.
    """

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
        root = str(Path(__file__).resolve().parents[2])
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
        """Process id."""
        return self._process.pid

    @property
    def is_fresh(self) -> bool:
        """Whether it lives and has images left to serve."""
        return self._images < self._limits.images_per_process and self._process.poll() is None

    def decode(
        self, stored: BinaryIO, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
        """Send one object and wait for its pixels.

        Parameters
        ----------
        stored : BinaryIO
            A Part 10 file, open for reading.
        size : tuple of int
            Rows and columns, from the header.

        Returns
        -------
        tuple
            ``(rows, columns)`` uint16 P-values; and ``(rows, columns)`` bool, True where there is no image,
            or None where nothing is padded.

        Raises
        ------
        ImageError
            The process refuses the object.
        DecoderLostError
            Nothing can be asked of this process any more.
        OSError
            The machine fails, which says nothing about the object.
        """
        memory, answer = self._asked(stored, {})
        with memory:
            return _mapped(memory, answer, size)

    def decode_tiles(
        self, stored: BinaryIO, frames: Sequence[int], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Send one object and wait for some of its frames: ``(frames, rows, columns, 3)`` uint8 RGB.

        Parameters and errors are those of :meth:`decode`; `frames` are numbers from 0, in rising order.
        """
        memory, answer = self._asked(stored, {"frames": [int(frame) for frame in frames]})
        with memory:
            return _mapped_tiles(memory, answer, (len(frames), *size))

    def _asked(self, stored: BinaryIO, request: Mapping[str, Any]) -> tuple[BinaryIO, dict[str, Any]]:
        self._images += 1
        try:
            socket.send_fds(self._channel, [json.dumps(request).encode()], [stored.fileno()])
            packet, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1)
        except TimeoutError as error:
            raise DecoderLostError(f"decoding took longer than {self._limits.wall_s:g} s") from error
        except OSError as error:
            raise self._death() from error
        if not packet:
            raise self._death()
        answer = _parsed(packet)
        if "code" in answer:
            raise ImageError(RefusalCode(answer["code"]), str(answer["message"]))
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if len(descriptors) != 1:
            raise DecoderLostError("the decoder process answered without pixels")
        return os.fdopen(descriptors[0], "rb"), answer

    def stop(self) -> None:
        """End the process at once; it holds nothing that could be lost."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _death(self) -> DecoderLostError:
        """Say what became of the process; its end of the channel is closed already."""
        try:
            status = self._process.wait(_DEATH_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return DecoderLostError("the decoder process closed its channel")
        if status == -signal.SIGXCPU:
            return DecoderLostError(f"decoding took more than {self._limits.cpu_s} s of processor time")
        if status == -signal.SIGKILL:
            return DecoderKilledError("the decoder process was killed twice, for want of memory it seems")
        return DecoderLostError("the decoder process died")


def _parsed(packet: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(packet)
    except ValueError as error:
        raise DecoderLostError("the decoder process answered nonsense") from error
    if not isinstance(answer, dict):
        raise DecoderLostError("the decoder process answered nonsense")
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
    is_right = (answer.get("rows"), answer.get("columns")) == size
    if not is_right or not is_sealed(memory.fileno(), expected):
        raise DecoderLostError("the decoder process answered with another image")
    mapped = mmap.mmap(memory.fileno(), expected, access=mmap.ACCESS_COPY)
    pixels = np.frombuffer(mapped, np.uint16, cells).reshape(size)
    padding = np.frombuffer(mapped, np.bool_, cells, offset=2 * cells).reshape(size) if has_padding else None
    return pixels, padding


def _mapped_tiles(memory: BinaryIO, answer: dict[str, Any], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Map the answered tiles, ``(frames, rows, columns, 3)``, as :func:`_mapped` does with an image."""
    expected = shape[0] * shape[1] * shape[2] * 3
    is_right = (answer.get("frames"), answer.get("rows"), answer.get("columns")) == shape
    if not is_right or not is_sealed(memory.fileno(), expected):
        raise DecoderLostError("the decoder process answered with other tiles")
    mapped = mmap.mmap(memory.fileno(), expected, access=mmap.ACCESS_COPY)
    return np.frombuffer(mapped, np.uint8, expected).reshape(*shape, 3)
