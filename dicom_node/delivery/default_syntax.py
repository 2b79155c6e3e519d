"""A data set in Explicit VR Little Endian, rewritten in the default transfer syntax (PS3.5 10.1).

Every destination has to take Implicit VR Little Endian, and some take nothing else. Values stay as they are,
byte for byte; the heads of elements lose their value representation, and sequences and items get the lengths
that follow from that.
"""

from __future__ import annotations

import struct

from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

DEFAULT_TRANSFER_SYNTAX = "1.2.840.10008.1.2"

_EXPLICIT_HEAD = struct.Struct("<HH2sH")
_LONG_LENGTH = struct.Struct("<L")
_HEAD = struct.Struct("<HHL")
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_SHORT_VRS, _LONG_VRS = (
    frozenset(vr.encode("ascii") for vr in vrs) for vrs in (EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32)
)


def in_default_syntax(data_set: bytes) -> bytes:
    """Rewrite a data set with native pixel data, or without any.

    Parameters
    ----------
    data_set : bytes
        In Explicit VR Little Endian.

    Returns
    -------
    bytes
        In Implicit VR Little Endian; the same for the same data set.

    Raises
    ------
    ValueError
        If the data set is damaged, or holds an element of undefined length that is no sequence.
    """
    try:
        rewritten, _ = _elements(memoryview(data_set), 0, len(data_set), is_delimited=False)
    except struct.error as error:
        raise ValueError("the data set ends inside an element") from error
    return bytes(rewritten)


def _elements(data: memoryview, start: int, end: int, *, is_delimited: bool) -> tuple[bytearray, int]:
    """Rewrite elements as far as an end, or as the delimiter of their item; return where that was."""
    rewritten = bytearray()
    while start < end:
        group, number, vr, length = _EXPLICIT_HEAD.unpack_from(data, start)
        start += _EXPLICIT_HEAD.size
        if is_delimited and (group, number) == _ITEM_END:
            return rewritten, start
        if vr in _LONG_VRS:
            (length,) = _LONG_LENGTH.unpack_from(data, start)
            start += _LONG_LENGTH.size
        elif vr not in _SHORT_VRS:
            raise ValueError("an element has no value representation")
        value: memoryview | bytearray
        if vr == b"SQ":
            value, start = _items(data, start, _end(start, length, end), is_delimited=length == _UNDEFINED)
        elif length == _UNDEFINED:
            raise ValueError("an element of undefined length is no sequence")
        else:
            value = data[start : _end(start, length, end)]
            start += length
        rewritten += _HEAD.pack(group, number, len(value)) + value
    if is_delimited:
        raise ValueError("an item has no end")
    return rewritten, start


def _items(data: memoryview, start: int, end: int, *, is_delimited: bool) -> tuple[bytearray, int]:
    rewritten = bytearray()
    while start < end:
        group, number, length = _HEAD.unpack_from(data, start)
        start += _HEAD.size
        if is_delimited and (group, number) == _SEQUENCE_END:
            return rewritten, start
        if (group, number) != _ITEM:
            raise ValueError("a sequence holds something that is no item")
        content, start = _elements(data, start, _end(start, length, end), is_delimited=length == _UNDEFINED)
        rewritten += _HEAD.pack(*_ITEM, len(content)) + content
    if is_delimited:
        raise ValueError("a sequence has no end")
    return rewritten, start


def _end(start: int, length: int, end: int) -> int:
    """Where a value ends; what is of undefined length has at most what holds it."""
    if length == _UNDEFINED:
        return end
    if start + length > end:
        raise ValueError("an element is longer than what holds it")
    return start + length
