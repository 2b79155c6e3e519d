"""Where the elements of a data set lie, and whether it is whole: lengths only, values are never decoded.

pydicom reads a truncated data set without complaint and follows sequences as deep as a stranger nested them.
This walk does neither: it follows every length to its end (PS3.5 section 7), within bounds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pydicom.datadict import dictionary_VR

from dicom_node.errors import UnfitObjectError
from dicom_node.listener.contexts import TransferSyntax
from dicom_node.listener.limits import ListenerLimits

PIXEL_DATA = 0x7FE00010

_ITEM = 0xFFFEE000
_ITEM_DELIMITATION = 0xFFFEE00D
_SEQUENCE_DELIMITATION = 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_TWICE = "the data set holds an element twice"
_TOO_MANY = "the data set has too many elements"
_MAX_PADDING_BYTES = 64 * 1024
# PS3.5 7.1.2: these have a 32-bit length after two reserved bytes.
_LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)

# PS3.5 table 7.1-2: a 16-bit length, and never anything inside.
_PLAIN_VRS = frozenset(
    {
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN"),
        *(b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    }
)


Element = tuple[int, int, int, bool]
"""Where one top-level element lies: the offsets of its tag, of its value and of what is behind it.

Last is whether its length is undefined, so that delimiters end it: sequences, and encapsulated pixel data.
A plain tuple, because each received object has dozens.
"""


class Walked(NamedTuple):
    """What was found in a data set, and by which of its bytes.

    Attributes
    ----------
    elements : dict of int to tuple
        The top-level elements by their tags, in the order of the data set.
    heads : list of tuple of (int, int)
        Offset and length of all bytes that were looked at, in ascending order. Another data set of the same
        length and with the same bytes there has the same elements at the same places. Empty where there are
        fragments, of which there may be any number.
    """

    elements: dict[int, Element]
    heads: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Encoding:
    is_implicit: bool
    tag: struct.Struct
    short: struct.Struct
    long: struct.Struct
    head: struct.Struct  # group, element, representation, short length


def _encoding(order: str, *, is_implicit: bool) -> _Encoding:
    return _Encoding(is_implicit, *(struct.Struct(order + form) for form in ("HH", "H", "L", "HH2sH")))


_LITTLE_IMPLICIT = _encoding("<", is_implicit=True)
_LITTLE_EXPLICIT = _encoding("<", is_implicit=False)
_BIG_EXPLICIT = _encoding(">", is_implicit=False)


def walk(data: memoryview, syntax: TransferSyntax, limits: ListenerLimits) -> Walked:
    """Find every top-level element of a data set and check that it is whole.

    Parameters
    ----------
    data : memoryview
        The data set's bytes, without preamble or file meta information.
    syntax : TransferSyntax
        How they are encoded.
    limits : ListenerLimits
        Bounds on nesting and on the number of elements.

    Returns
    -------
    Walked
        Its elements, and what they were found by.

    Raises
    ------
    UnfitObjectError
        If a length reaches beyond its enclosing item or the end, if a delimiter is missing, if there is
        something that is no element, if an element occurs twice, or if a bound is exceeded.
    """
    if syntax.is_implicit:
        encoding = _LITTLE_IMPLICIT
    else:
        encoding = _LITTLE_EXPLICIT if syntax.is_little_endian else _BIG_EXPLICIT
    return _Walk(data, limits).top_level(encoding)


class _Walk:
    def __init__(self, data: memoryview, limits: ListenerLimits) -> None:
        self.data = data
        self.limits = limits
        self.elements_left = limits.max_elements
        self.heads: list[tuple[int, int]] = []
        self.has_fragments = False

    def top_level(self, encoding: _Encoding) -> Walked:
        data, position, end = self.data, 0, len(self.data)
        found: dict[int, Element] = {}
        heads = self.heads
        # Most elements are plain, and each received object has dozens: they take the short way.
        read_head, last_head = encoding.head.unpack_from, end - encoding.head.size
        if encoding.is_implicit:
            last_head = -1
        while position < end:
            start = position
            if position <= last_head:
                group, number, vr, length = read_head(data, position)
                if vr in _PLAIN_VRS and 0x0002 < group < 0xFFFE and length <= end - position - 8:
                    tag = group << 16 | number
                    self.elements_left -= 1
                    if self.elements_left < 0:
                        raise UnfitObjectError(_TOO_MANY)
                    if tag in found:
                        raise UnfitObjectError(_TWICE)
                    position += 8 + length
                    heads.append((start, 8))
                    found[tag] = (start, start + 8, position, False)
                    continue
            if data[position] == 0 and self._is_padding(position):
                heads.append((position, end - position))
                break
            tag, vr, length, value_start = self._header(position, end, encoding)
            if tag >> 16 <= 0x0002:
                raise UnfitObjectError("command or file meta elements inside the data set")
            if tag in found:
                raise UnfitObjectError(_TWICE)
            position = self._value_end(tag, vr, length, value_start, end, encoding, depth=0)
            found[tag] = (start, value_start, position, length == _UNDEFINED)
        return Walked(found, [] if self.has_fragments else heads)

    def _is_padding(self, position: int) -> bool:
        # Some writers fill up with NUL bytes; they carry nothing, so nothing is lost or hidden by them. A
        # single one is the first half of a group number in big endian.
        rest = self.data[position:]
        return len(rest) % 2 == 0 and len(rest) <= _MAX_PADDING_BYTES and not any(rest)

    def _header(self, position: int, end: int, encoding: _Encoding) -> tuple[int, bytes, int, int]:
        if end - position < 8:
            raise UnfitObjectError("the data set ends inside an element's header")
        self._count()
        group, number = encoding.tag.unpack_from(self.data, position)
        tag = group << 16 | number
        if encoding.is_implicit or group == 0xFFFE:
            self.heads.append((position, 8))
            return tag, b"", encoding.long.unpack_from(self.data, position + 4)[0], position + 8
        vr = bytes(self.data[position + 4 : position + 6])
        if vr not in _LONG_VRS:
            if not (vr.isalpha() and vr.isupper()):
                raise UnfitObjectError("an explicit value representation is not two letters")
            self.heads.append((position, 8))
            return tag, vr, encoding.short.unpack_from(self.data, position + 6)[0], position + 8
        if end - position < 12:
            raise UnfitObjectError("the data set ends inside an element's header")
        self.heads.append((position, 12))
        return tag, vr, encoding.long.unpack_from(self.data, position + 8)[0], position + 12

    def _value_end(
        self, tag: int, vr: bytes, length: int, start: int, end: int, encoding: _Encoding, depth: int
    ) -> int:
        if tag >> 16 == 0xFFFE:
            raise UnfitObjectError("an item or delimiter stands outside a sequence")
        # PS3.5 6.2.2 note 2: a sequence whose representation was unknown on the way is implicit inside.
        inside = _LITTLE_IMPLICIT if vr == b"UN" else encoding
        if length == _UNDEFINED:
            if tag == PIXEL_DATA or vr in (b"OB", b"OW"):
                return self._fragments_end(start, end, encoding)
            return self._items_end(start, end, inside, depth + 1, is_delimited=True)
        if length > end - start:
            raise UnfitObjectError("an element is longer than what is left of the data set")
        if vr == b"SQ" or (vr in (b"", b"UN") and _is_known_sequence(tag)):
            self._items_end(start, start + length, inside, depth + 1, is_delimited=False)
        return start + length

    def _items_end(
        self, position: int, end: int, encoding: _Encoding, depth: int, *, is_delimited: bool
    ) -> int:
        if depth > self.limits.max_nesting:
            raise UnfitObjectError("sequences are nested too deeply")
        while position < end:
            tag, _, length, content = self._header(position, end, encoding)
            if tag == _SEQUENCE_DELIMITATION and is_delimited:
                return content
            if tag != _ITEM:
                raise UnfitObjectError("a sequence holds something that is no item")
            if length == _UNDEFINED:
                position = self._item_end(content, end, encoding, depth, is_delimited=True)
            elif length > end - content:
                raise UnfitObjectError("an item is longer than what is left of its sequence")
            else:
                position = self._item_end(content, content + length, encoding, depth, is_delimited=False)
        if is_delimited:
            raise UnfitObjectError("a sequence has no end")
        return position

    def _item_end(
        self, position: int, end: int, encoding: _Encoding, depth: int, *, is_delimited: bool
    ) -> int:
        while position < end:
            tag, vr, length, value_start = self._header(position, end, encoding)
            if tag == _ITEM_DELIMITATION and is_delimited:
                return value_start
            position = self._value_end(tag, vr, length, value_start, end, encoding, depth)
        if is_delimited:
            raise UnfitObjectError("an item has no end")
        return position

    def _fragments_end(self, position: int, end: int, encoding: _Encoding) -> int:
        # PS3.5 A.4. Fragments are not counted: a whole slide image has one for each of its many tiles.
        while end - position >= 8:
            group, number = encoding.tag.unpack_from(self.data, position)
            (length,) = encoding.long.unpack_from(self.data, position + 4)
            position += 8
            if group << 16 | number == _SEQUENCE_DELIMITATION:
                self.has_fragments = True
                return position
            if group << 16 | number != _ITEM or length > end - position:
                raise UnfitObjectError("encapsulated pixel data is damaged or incomplete")
            position += length
        raise UnfitObjectError("encapsulated pixel data has no end")

    def _count(self) -> None:
        self.elements_left -= 1
        if self.elements_left < 0:
            raise UnfitObjectError(_TOO_MANY)


@lru_cache(maxsize=8192)
def _is_known_sequence(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False
