"""Reading single elements of headers that may be wrong.

pydicom converts an element when it is first looked at and raises whatever the conversion raises. Here a
header either answers or says which element is malformed; the element's value never reaches a message.
"""

from __future__ import annotations

import math
import struct

from pydicom.dataset import Dataset

from dicom_node.errors import ImageError

MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    EOFError,
    RecursionError,
    struct.error,
)
"""What pydicom raises when bytes are not what their value representation promises."""


def texts(header: Dataset, keyword: str) -> list[str]:
    """All values of an element as stripped upper-case text; empty where it is absent or malformed."""
    try:
        value = header.get(keyword)
        if value is None:
            return []
        several = [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else value
        return [str(each).strip().upper() for each in several]
    except MALFORMED:
        return []


def text(header: Dataset, keyword: str) -> str:
    """First value of an element as stripped upper-case text; empty where it is absent or malformed."""
    return next(iter(texts(header, keyword)), "")


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; empty where it is absent or malformed."""
    try:
        return [item for item in header.get(keyword) or () if isinstance(item, Dataset)]
    except MALFORMED:
        return []


def numbers(header: Dataset, keyword: str) -> list[float]:
    """All values of a numeric element.

    Returns
    -------
    list of float
        Empty where the element is absent or empty.

    Raises
    ------
    ImageError
        ``UNREADABLE`` when a value is no finite number.
    """
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return []
        several = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
        found = [float(each) for each in several]
    except MALFORMED as error:
        raise ImageError("UNREADABLE", f"{keyword} is malformed") from error
    if not all(math.isfinite(each) for each in found):
        raise ImageError("UNREADABLE", f"{keyword} is not finite")
    return found


def integer(header: Dataset, keyword: str, default: int | None = None) -> int:
    """First value of an integer element.

    Raises
    ------
    ImageError
        ``UNREADABLE`` when it is malformed or no integer, or absent without a default.
    """
    found = numbers(header, keyword)
    if not found:
        if default is None:
            raise ImageError("UNREADABLE", f"{keyword} is missing")
        return default
    if found[0] != int(found[0]):
        raise ImageError("UNREADABLE", f"{keyword} is not an integer")
    return int(found[0])
