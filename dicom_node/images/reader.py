"""A stored object becomes an image as a reader would see it on a display.

The header is read here, the pixels in a process of limited memory and time
(:mod:`dicom_node.images.decoder_process`). One process serves many images, and is replaced after a number of
them and after any failure. Whatever is wrong with an object ends in one
:class:`~dicom_node.errors.ImageError` with the code of a refusal; the next object is read as if nothing had
happened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicom_node.errors import ImageError
from dicom_node.header_values import MALFORMED, integer, numbers
from dicom_node.images.decoder_process import (
    DecodeLimits,
    DecoderKilledError,
    DecoderLostError,
    DecoderProcess,
)
from dicom_node.mammography_views import routing_facts
from models.contract import ImageTrait, ImageView, RefusalCode

TILES_AT_ONCE = 256
"""Frames in one request to the decoder process."""

_Pixels = TypeVar("_Pixels")


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
        self._decoder: DecoderProcess | None = None

    def __enter__(self) -> Self:
        with self._lock:
            self._decoder = DecoderProcess(self._limits)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._discard_decoder()

    @property
    def decoder_pid(self) -> int | None:
        """Process id of the decoder that the next image goes to; None before the first one."""
        decoder = self._decoder  # read once: who works in another thread may replace it meanwhile
        return decoder.pid if decoder else None

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

    def tiles(self, path: Path, frames: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read some frames of a stored colour object.

        Parameters
        ----------
        path : pathlib.Path
            A Part 10 file.
        frames : sequence of int
            Numbers of the frames from 0, in rising order; at most :data:`TILES_AT_ONCE`.
        size : tuple of int
            Rows and columns of a frame, from the header.

        Returns
        -------
        numpy.ndarray
            ``(frames, rows, columns, 3)`` uint8 RGB.

        Raises
        ------
        ImageError, OSError
            As for :meth:`read`.
        """
        with path.open("rb") as stored:
            return self._decoded(lambda decoder: decoder.decode_tiles(stored, frames, size))

    def _pixels(
        self, stored: BinaryIO, header: Dataset
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
        size = integer(header, "Rows", default=0), integer(header, "Columns", default=0)
        return self._decoded(lambda decoder: decoder.decode(stored, size))

    def _decoded(self, ask: Callable[[DecoderProcess], _Pixels]) -> _Pixels:
        with self._lock:
            try:
                try:
                    return ask(self._fresh_decoder())
                except DecoderKilledError:
                    # Where the machine runs out of memory the kernel kills whom it likes: that the image is
                    # to blame is known when its decoder is killed again.
                    self._discard_decoder()
                    return ask(self._fresh_decoder())
            except DecoderLostError as lost:
                self._discard_decoder()
                raise ImageError(RefusalCode.PIXEL_DATA, str(lost)) from lost

    def _fresh_decoder(self) -> DecoderProcess:
        if self._decoder is None or not self._decoder.is_fresh:
            self._discard_decoder()
            self._decoder = DecoderProcess(self._limits)
        return self._decoder

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
