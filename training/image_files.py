"""The pixels of labelled images: PNG, PGM, JPEG and TIFF files, and DICOM as the node reads it.

Grey values become the P-values that scoring works on (16 bits, 0 is black). Files without a header of their
own take side, view and spacing from the record.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.errors import ImageError
from dicom_node.images.reader import ImageReader
from models.contract import ImageView
from training.errors import ImageFileError
from training.records import Record

_FORMATS = ("PNG", "PPM", "JPEG", "TIFF")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_PREAMBLE = 128


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of a Part 10 file (PS3.10 7.1)."""
    with path.open("rb") as file:
        file.seek(_PREAMBLE)
        return file.read(4) == b"DICM"


def grey_values(path: Path) -> NDArray[np.uint16]:
    """Return a PNG, PGM, JPEG or TIFF file as P-values.

    8-bit values are spread over 16 bits; 16-bit values stay. Colours become their luminance.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns)`` uint16.

    Raises
    ------
    ImageFileError
        If the file is damaged, too large or of another kind.
    """
    with _opened(path) as image:
        if image.mode == "F":
            raise ImageFileError("The image has fractional values; save it with 8 or 16 bits.")
        if image.mode.startswith("I"):
            deep = np.asarray(image)
            if deep.min() < 0 or deep.max() > 65535:
                raise ImageFileError("The image has values beyond 16 bits.")
            return deep.astype(np.uint16)
        return np.asarray(image.convert("L")).astype(np.uint16) * np.uint16(257)


def colours(path: Path) -> NDArray[np.uint8]:
    """Return a colour image as ``(rows, columns, 3)`` uint8 RGB.

    Raises
    ------
    ImageFileError
        If the file is damaged, too large or of another kind.
    """
    with _opened(path) as image:
        return np.asarray(image.convert("RGB"))


def size_of(path: Path) -> tuple[int, int]:
    """Return rows and columns of a PNG, PGM, JPEG or TIFF file without decoding it.

    Raises
    ------
    ImageFileError
        If the file is damaged or of another kind.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                return image.height, image.width
    except _BOMBS as error:
        raise ImageFileError("The image claims more pixels than any film has.") from error
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise ImageFileError("The file is not a readable image.") from error


def _opened(path: Path) -> Image.Image:
    size_of(path)  # refuses what would fill the memory, before a pixel is decoded
    try:
        with path.open("rb") as file:
            image = Image.open(file, formats=_FORMATS)
            image.load()
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise ImageFileError("The image is damaged; copy it again.") from error
    return image


class PixelSource:
    """Reads the pixels of records; a context manager that owns a decoder process once a DICOM file comes."""

    def __init__(self) -> None:
        self._reader: ImageReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.__exit__(kind, error, trace)
            self._reader = None

    def view(self, record: Record) -> ImageView:
        """Return a mammogram as a reader would see it.

        Side, view and spacing are the record's where it has them, otherwise the header's.

        Raises
        ------
        ImageFileError
            If the file cannot become an image; the message says why and holds nothing of a patient.
        """
        try:
            view = self._dicom(record.path) if is_dicom(record.path) else _plain(record.path)
        except OSError as error:
            raise ImageFileError(f"The file cannot be read ({type(error).__name__}).") from error
        return replace(
            view,
            laterality=record.laterality or view.laterality,
            view=record.view or view.view,
            spacing_mm=record.spacing_mm or view.spacing_mm,
        )

    def mask(self, path: Path) -> NDArray[np.bool_]:
        """Return where a mask image is above 0, whatever its format."""
        values = self._dicom(path).pixels if is_dicom(path) else grey_values(path)
        return values > 0

    def _dicom(self, path: Path) -> ImageView:
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
            if self._reader is None:
                self._reader = ImageReader().__enter__()
            return self._reader.read(path, str(header.get("SOPInstanceUID", ""))).view
        except (ImageError, InvalidDicomError) as error:
            raise ImageFileError(f"The DICOM object cannot become an image: {error}") from error


def mask_values(path: Path) -> NDArray[np.bool_]:
    """Return where a mask image is above 0, ``(rows, columns)`` bool.

    Raises
    ------
    ImageFileError
        If the file cannot be read.
    """
    with PixelSource() as source:
        return source.mask(path)


def _plain(path: Path) -> ImageView:
    return ImageView(sop_instance_uid="", sop_class_uid="", pixels=grey_values(path))
