"""How a presentation state shows its image: exactly as the image's own header says.

A presentation state replaces the image's own values of interest (PS3.4 N.2), so one that leaves them out
changes the picture behind its marks. They are taken over here: the first VOI LUT, else the first window,
which is also what the node itself computes P-values with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from dicom_node.errors import ImageError, ResultError
from dicom_node.header_values import items, numbers, text
from dicom_node.results.source import copy_element, is_filled


def add_grayscale_transform(state: Dataset, source: Dataset, reference: Dataset) -> None:
    """Give a presentation state the grayscale transformation of its image (PS3.3 C.11.1, C.11.8, C.11.6).

    Parameters
    ----------
    state : pydicom.dataset.Dataset
        A Grayscale Softcopy Presentation State.
    source : pydicom.dataset.Dataset
        Header of its image.
    reference : pydicom.dataset.Dataset
        Item that references the image, or a frame of it.

    Raises
    ------
    ResultError
        When the image's own look-up tables are malformed.
    """
    try:
        _add_modality_transform(state, source)
        _add_values_of_interest(state, source, reference)
    except ImageError as error:
        raise ResultError(f"a presentation state cannot show its image: {error}") from error
    inverse = text(source, "PhotometricInterpretation") == "MONOCHROME1" or (
        text(source, "PresentationLUTShape") == "INVERSE"
    )
    state.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"


def _add_modality_transform(state: Dataset, source: Dataset) -> None:
    if tables := items(source, "ModalityLUTSequence"):
        table = _look_up_table(tables[0], source)
        table.ModalityLUTType = str(tables[0].get("ModalityLUTType") or "US")
        state.ModalityLUTSequence = [table]
    elif is_filled(source, "RescaleSlope") and is_filled(source, "RescaleIntercept"):
        copy_element(source, state, "RescaleIntercept")
        copy_element(source, state, "RescaleSlope")
        if not copy_element(source, state, "RescaleType"):
            state.RescaleType = "US"


def _add_values_of_interest(state: Dataset, source: Dataset, reference: Dataset) -> None:
    item = Dataset()
    if tables := items(source, "VOILUTSequence"):
        item.VOILUTSequence = [_look_up_table(tables[0], source)]
    elif numbers(source, "WindowCenter") and numbers(source, "WindowWidth"):
        item.WindowCenter, item.WindowWidth = (_first(source, f"Window{of}") for of in ("Center", "Width"))
        if function := text(source, "VOILUTFunction"):
            item.VOILUTFunction = function
    else:
        return
    item.ReferencedImageSequence = [reference]
    state.SoftcopyVOILUTSequence = [item]


def _first(source: Dataset, keyword: str) -> Any:
    """Give the first value of an element, spelt as in the header."""
    value = source[keyword].value
    return value[0] if isinstance(value, MultiValue) else value


def _look_up_table(item: Dataset, source: Dataset) -> Dataset:
    """Copy a look-up table with the value representations that a file without pixels cannot tell."""
    descriptor = [int(value) & 0xFFFF for value in numbers(item, "LUTDescriptor")]
    if len(descriptor) != 3:
        raise ImageError("UNREADABLE", "LUTDescriptor does not have three values")
    signed = source.get("PixelRepresentation") == 1
    table = Dataset()
    values = [value - 0x10000 if signed and value > 0x7FFF else value for value in descriptor]
    table.add_new(Tag("LUTDescriptor"), "SS" if signed else "US", values)
    table.add_new(Tag("LUTData"), "OW", _words(item, source).astype("<u2").tobytes())
    return table


def _words(item: Dataset, source: Dataset) -> NDArray[np.uint16]:
    data = item.get("LUTData")
    if isinstance(data, bytes):
        is_little = bool(source.original_encoding[1])
        return np.frombuffer(data[: len(data) & ~1], "<u2" if is_little else ">u2")
    return np.array([int(value) & 0xFFFF for value in numbers(item, "LUTData")], np.uint16)
