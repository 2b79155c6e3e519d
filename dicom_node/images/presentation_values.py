"""Stored values to presentation values (P-values), as look-up tables over every possible stored value.

The grayscale transformation of PS3.3 C.11 and PS3.4 N.2: stored bits, modality LUT, values of interest,
presentation LUT. An 8- or 16-bit image has at most 65,536 different values, so the chain is computed once per
image in double precision over all of them, and applying it to the image is one look-up per pixel. Unused high
bits (old overlays, or rubbish) are masked by the table itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import ImageError
from dicom_node.header_values import MALFORMED, integer, items, numbers, text

Values = NDArray[np.float64]

P_VALUE_MAX = 65_535


@dataclass(frozen=True, slots=True)
class StoredLayout:
    """Where a stored value lies in its cell (PS3.5 8.1.1).

    Attributes
    ----------
    bits_allocated : int
        8 or 16.
    bits_stored : int
        1..bits_allocated.
    high_bit : int
        bits_stored - 1 .. bits_allocated - 1.
    is_signed : bool
        Two's complement, Pixel Representation (0028,0103) = 1.
    is_big_endian : bool
        Byte order of LUT data that came as bytes.
    """

    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_big_endian: bool = False

    def stored_values(self) -> NDArray[np.int64]:
        """The stored value of each content of a cell, ``(2**bits_allocated,)``."""
        cells = np.arange(1 << self.bits_allocated, dtype=np.int64)
        values = (cells >> (self.high_bit + 1 - self.bits_stored)) & ((1 << self.bits_stored) - 1)
        if self.is_signed:
            values -= (values >> (self.bits_stored - 1)) << self.bits_stored
        return values


@dataclass(frozen=True, slots=True)
class ValueTables:
    """Tables indexed by the content of a cell.

    Attributes
    ----------
    p_values : numpy.ndarray
        ``(2**bits_allocated,)`` uint16, 0 black to 65535 white; black where padding is.
    is_padding : numpy.ndarray or None
        ``(2**bits_allocated,)`` bool; None where the header names no padding.
    """

    p_values: NDArray[np.uint16]
    is_padding: NDArray[np.bool_] | None


def value_tables(header: Dataset, layout: StoredLayout) -> ValueTables:
    """Compute the whole chain for every possible stored value.

    Parameters
    ----------
    header : pydicom.dataset.Dataset
        A monochrome image's header.
    layout : StoredLayout
        How its pixels are stored.

    Returns
    -------
    ValueTables
        The tables.

    Raises
    ------
    ImageError
        ``UNREADABLE`` when an element of the chain is malformed.
    """
    stored = layout.stored_values()
    is_padding = _padding(header, layout, stored)
    modality = _modality_values(header, layout, stored)
    shown = _values_of_interest(header, layout, modality)
    # MONOCHROME1 requires INVERSE (PS3.3 C.8.11.3.1.2); where a device sets only one of them it means both.
    if text(header, "PhotometricInterpretation") == "MONOCHROME1" or (
        text(header, "PresentationLUTShape") == "INVERSE"
    ):
        shown = 1.0 - shown
    p_values = np.rint(np.clip(shown, 0.0, 1.0) * P_VALUE_MAX).astype(np.uint16)
    if is_padding is not None:
        p_values[is_padding] = 0
    return ValueTables(p_values, is_padding)


def _padding(header: Dataset, layout: StoredLayout, stored: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """PS3.3 C.7.5.1.1.2: a value, or a range that includes both its ends, in stored values."""
    if not numbers(header, "PixelPaddingValue"):
        return None
    one = integer(header, "PixelPaddingValue")
    other = integer(header, "PixelPaddingRangeLimit", default=one)
    low, high = sorted(_as_stored(end, layout.is_signed) for end in (one, other))
    return (stored >= low) & (stored <= high)


def _as_stored(value: int, is_signed: bool) -> int:
    # The element is US or SS by Pixel Representation; a device that wrote the other one meant the same bits.
    if is_signed and value > 0x7FFF:
        return value - 0x10000
    if not is_signed and value < 0:
        return value + 0x10000
    return value


def _modality_values(header: Dataset, layout: StoredLayout, stored: NDArray[np.int64]) -> Values:
    """C.11.1: a table where one is given, else the rescale line, else the stored values themselves."""
    tables = items(header, "ModalityLUTSequence")
    if tables:
        lut = _LookUpTable.read(tables[0], layout, reaches_below_zero=layout.is_signed)
        return lut.looked_up(stored.astype(np.float64))
    slope = next(iter(numbers(header, "RescaleSlope")), 1.0)
    intercept = next(iter(numbers(header, "RescaleIntercept")), 0.0)
    if slope == 0:
        raise ImageError("UNREADABLE", "RescaleSlope is zero")
    return np.asarray(stored * slope + intercept, np.float64)


def _values_of_interest(header: Dataset, layout: StoredLayout, modality: Values) -> Values:
    """C.11.2: the first VOI LUT, else the first window, else the full range; 0..1."""
    low, high = float(modality.min()), float(modality.max())
    tables = items(header, "VOILUTSequence")
    if tables:
        lut = _LookUpTable.read(tables[0], layout, reaches_below_zero=low < 0)
        return lut.looked_up(modality) / lut.white
    centres, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    if centres and widths:
        return _windowed(modality, centres[0], widths[0], text(header, "VOILUTFunction") or "LINEAR")
    return (modality - low) / max(high - low, np.finfo(np.float64).tiny)


def _windowed(values: Values, centre: float, width: float, function: str) -> Values:
    """C.11.2.1.2 and C.11.2.1.3; 0..1."""
    if function == "LINEAR":
        if width < 1:
            raise ImageError("UNREADABLE", "WindowWidth is below 1")
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)
    if width <= 0:
        raise ImageError("UNREADABLE", "WindowWidth is not positive")
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if function == "SIGMOID":
        # 1 / (1 + exp(-x)) without its overflow.
        return np.asarray(0.5 * (1 + np.tanh(2 * (values - centre) / width)))
    raise ImageError("UNREADABLE", "VOILUTFunction is not one of the standard")


@dataclass(frozen=True, slots=True)
class _LookUpTable:
    """A modality or VOI LUT (C.11.1.1.1): values, input of the first one, and the largest output."""

    values: Values
    first_input: int
    white: float

    @classmethod
    def read(cls, item: Dataset, layout: StoredLayout, *, reaches_below_zero: bool) -> _LookUpTable:
        descriptor = numbers(item, "LUTDescriptor")
        if len(descriptor) != 3:
            raise ImageError("UNREADABLE", "LUTDescriptor does not have three values")
        entries, first, bits = (int(value) for value in descriptor)
        entries = entries & 0xFFFF or 0x10000
        if not 1 <= bits <= 16:
            raise ImageError("UNREADABLE", "LUTDescriptor asks for impossible bits")
        values = _lut_data(item, entries, layout.is_big_endian)
        return cls(values, _as_stored(first, reaches_below_zero), float((1 << bits) - 1))

    def looked_up(self, inputs: Values) -> Values:
        """Outputs for inputs; below the first and above the last input the end values hold."""
        index = np.clip(np.rint(inputs) - self.first_input, 0, len(self.values) - 1)
        return np.asarray(self.values[index.astype(np.int64)])


def _lut_data(item: Dataset, entries: int, is_big_endian: bool) -> Values:
    """LUT Data (0028,3006): words, or 8-bit entries packed two by two."""
    try:
        data = item.get("LUTData")
        if isinstance(data, (bytes, bytearray)):
            words = np.frombuffer(data[: len(data) & ~1], ">u2" if is_big_endian else "<u2")
        else:
            words = np.asarray(data, dtype=np.int64).reshape(-1) & 0xFFFF
    except MALFORMED as error:
        raise ImageError("UNREADABLE", "LUTData is malformed") from error
    if len(words) < entries <= 2 * len(words):
        words = np.stack([words & 0xFF, words >> 8], axis=1).reshape(-1)
    if len(words) < entries:
        raise ImageError("UNREADABLE", "LUTData is shorter than its descriptor says")
    return words[:entries].astype(np.float64)
