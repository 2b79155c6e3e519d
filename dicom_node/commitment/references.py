"""The data sets of storage commitment as bytes: requests and reports (PS3.4 J.3.2.1 and J.3.3.1).

Implicit VR Little Endian, which every association that proposes the service offers (PS3.5 10.1). Read here
and not by data set classes: what a stranger sent is read no further than its references, with bounds on
its depth and number.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

PUSH_MODEL = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP instance."""
TRANSFER_SYNTAX = "1.2.840.10008.1.2"
REQUEST_ACTION = 1
ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event types of a report."""

MOST_REFERENCES = 10_000
LARGEST_DATA_SET_BYTES = 4 << 20

_TRANSACTION_UID = 0x00081195
_FAILED_SEQUENCE = 0x00081198
_REFERENCED_SEQUENCE = 0x00081199
_FAILURE_REASON = 0x00081197
_CLASS_UID, _INSTANCE_UID = 0x00081150, 0x00081155
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SEQUENCES = (_FAILED_SEQUENCE, _REFERENCED_SEQUENCE)
_UNDEFINED = 0xFFFFFFFF
_DEEPEST = 8
_UID = re.compile(r"(?=.{1,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*))*", re.ASCII)
_UID_PADDING = b"\0 "

Reference = tuple[str, str]
"""SOP class and SOP instance UID."""


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION = 0x0131
    RESOURCE_LIMITATION = 0x0213


class MalformedReferencesError(ValueError):
    """The bytes are no data set of storage commitment that the node reads."""


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """What was committed and what was not (Event Information).

    Attributes
    ----------
    transaction_uid : str
        The request.
    committed : tuple of (str, str)
        SOP class and instance UID.
    failed : mapping of (str, str) to int
        The same to Failure Reason.
    """

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: Mapping[Reference, int] = field(default_factory=dict)

    @property
    def event_type(self) -> int:
        """1 where everything is committed, 2 otherwise (PS3.4 J.3.3.1.1)."""
        return SOME_FAILED if self.failed else ALL_COMMITTED


def encoded_request(transaction_uid: str, objects: Sequence[Reference]) -> bytes:
    """Encode the Action Information of a request."""
    return _uid(_TRANSACTION_UID, transaction_uid) + _references(_REFERENCED_SEQUENCE, objects)


def decoded_request(encoded: bytes) -> tuple[str, tuple[Reference, ...]]:
    """Read the Action Information of a request.

    Returns
    -------
    tuple of (str, tuple)
        The transaction UID, and SOP class and instance UID of each object, each once.

    Raises
    ------
    MalformedReferencesError
        If it is damaged, names no transaction or no object, or too many.
    """
    report = decoded_report(encoded)
    if not report.committed:
        raise MalformedReferencesError("the request names no object")
    return report.transaction_uid, report.committed


def encoded_report(report: CommitmentReport) -> bytes:
    """Encode the Event Information of a report."""
    encoded = _uid(_TRANSACTION_UID, report.transaction_uid)
    if report.failed:
        encoded += _references(_FAILED_SEQUENCE, tuple(report.failed), tuple(report.failed.values()))
    if report.committed:
        encoded += _references(_REFERENCED_SEQUENCE, report.committed)
    return encoded


def decoded_report(encoded: bytes) -> CommitmentReport:
    """Read the Event Information of a report.

    What is named as failed counts as failed, even where it is named as committed, too.

    Raises
    ------
    MalformedReferencesError
        If it is damaged, names no transaction, or too many objects.
    """
    if len(encoded) > LARGEST_DATA_SET_BYTES:
        raise MalformedReferencesError("the data set is longer than the node reads")
    top, _ = _data_set(memoryview(encoded), 0, 0, is_delimited=False)
    transaction_uid = _read_uid(top.get(_TRANSACTION_UID))
    failed: dict[Reference, int] = {}
    for item in _items(top.get(_FAILED_SEQUENCE)):
        failed[_reference(item)] = _number(item.get(_FAILURE_REASON))
    named = dict.fromkeys(_reference(item) for item in _items(top.get(_REFERENCED_SEQUENCE)))
    return CommitmentReport(transaction_uid, tuple(each for each in named if each not in failed), failed)


_Item = dict[int, "memoryview | list[_Item]"]


def _data_set(data: memoryview, start: int, depth: int, *, is_delimited: bool) -> tuple[_Item, int]:
    """Read the elements of a data set until the bytes or, where it is delimited, the item end.

    Returns
    -------
    tuple of (dict, int)
        Values as bytes, sequences as items; and where it ended.
    """
    if depth > _DEEPEST:
        raise MalformedReferencesError("the data set is nested deeper than the node reads")
    found: _Item = {}
    while start < len(data):
        tag, length = _head(data, start)
        start += 8
        if is_delimited and tag == _ITEM_END:
            return found, start
        if length == _UNDEFINED:
            # In Implicit VR nothing but a sequence is of undefined length here.
            found[tag], start = _sequence(data, start, depth)
            continue
        value = _part(data, start, length)
        start += length
        found[tag] = _sequence(value, 0, depth)[0] if tag in _SEQUENCES else value
    if is_delimited:
        raise MalformedReferencesError("an item has no end")
    return found, start


def _sequence(data: memoryview, start: int, depth: int) -> tuple[list[_Item], int]:
    """Read items until the sequence ends; return them and where it ended."""
    items: list[_Item] = []
    while start < len(data):
        tag, length = _head(data, start)
        start += 8
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM or len(items) >= MOST_REFERENCES:
            raise MalformedReferencesError("the sequence is damaged, or longer than the node reads")
        if length == _UNDEFINED:
            item, start = _data_set(data, start, depth + 1, is_delimited=True)
        else:
            item, _ = _data_set(_part(data, start, length), 0, depth + 1, is_delimited=False)
            start += length
        items.append(item)
    return items, start


def _head(data: memoryview, start: int) -> tuple[int, int]:
    if start + 8 > len(data):
        raise MalformedReferencesError("the data set ends inside an element")
    group, element, length = struct.unpack_from("<HHL", data, start)
    return group << 16 | element, length


def _part(data: memoryview, start: int, length: int) -> memoryview:
    if start + length > len(data):
        raise MalformedReferencesError("the data set ends inside a value")
    return data[start : start + length]


def _items(value: memoryview | list[_Item] | None) -> list[_Item]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedReferencesError("a sequence has a value instead of items")
    return value


def _reference(item: _Item) -> Reference:
    return _read_uid(item.get(_CLASS_UID)), _read_uid(item.get(_INSTANCE_UID))


def _read_uid(value: memoryview | list[_Item] | None) -> str:
    if not isinstance(value, memoryview):
        raise MalformedReferencesError("a UID is absent")
    text = bytes(value).rstrip(_UID_PADDING).decode("latin-1")
    if not _UID.fullmatch(text):
        raise MalformedReferencesError("a UID breaks the rules of PS3.5 9.1")
    return text


def _number(value: memoryview | list[_Item] | None) -> int:
    # A reason that is absent or damaged makes the object no less failed.
    if isinstance(value, memoryview) and len(value) == 2:
        return int(struct.unpack("<H", value)[0])
    return FailureReason.PROCESSING_FAILURE


def _element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def _uid(tag: int, uid: str) -> bytes:
    encoded = uid.encode("ascii")
    return _element(tag, encoded + b"\0" * (len(encoded) % 2))


def _references(tag: int, objects: Sequence[Reference], reasons: Sequence[int] | None = None) -> bytes:
    items = b""
    for index, (sop_class_uid, sop_instance_uid) in enumerate(objects):
        item = _uid(_CLASS_UID, sop_class_uid) + _uid(_INSTANCE_UID, sop_instance_uid)
        if reasons is not None:
            item += _element(_FAILURE_REASON, struct.pack("<H", reasons[index]))
        items += _element(_ITEM, item)
    return _element(tag, items)
