"""The command sets that the listener reads and the answers that it gives, as bytes (PS3.7 6.3 and 9.3).

Implicit VR Little Endian, group 0000 alone. An answer is one PDU in one byte string.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import NamedTuple

from dicom_node.listener.wire import PDU_HEADER, PDV_HEADER

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
N_ACTION_RQ = 0x0130
P_DATA = 0x04

_IS_RESPONSE = 0x8000
_HAS_DATA_SET, _NO_DATA_SET = 0x0001, 0x0101
_LAST_COMMAND_FRAGMENT, _LAST_DATA_FRAGMENT, _DATA_FRAGMENT = 0x03, 0x02, 0x00
_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_LONGEST_COMMENT = 64  # characters of representation LO (PS3.5 6.2)
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001
_EVENT_TYPE_ID = 0x1002
_ACTION_TYPE_ID = 0x1008
# Where a request of normalised services says what it concerns (PS3.7 10.3.1 and 10.3.4).
_NORMALISED = {
    N_EVENT_REPORT_RQ: (_AFFECTED_SOP_CLASS_UID, _AFFECTED_SOP_INSTANCE_UID, _EVENT_TYPE_ID),
    N_ACTION_RQ: (_REQUESTED_SOP_CLASS_UID, _REQUESTED_SOP_INSTANCE_UID, _ACTION_TYPE_ID),
}

# PS3.5 9.1; longer than 64 characters is no UID either.
_UID_FORM = rb"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*"
_UID = re.compile(_UID_FORM)
_LONGEST_UID = 64
_ELEMENT = struct.Struct("<HHL")
_NUMBER = struct.Struct("<H")
_GROUP_LENGTH = struct.Struct("<HHLL")
# The heads of a PDU and of its only item.
_HEADS = struct.Struct(">BxLLBB")


def _head(number: int, length: int) -> bytes:
    return re.escape(_ELEMENT.pack(0, number, length))


def _any_uid(number: int) -> bytes:
    return re.escape(_ELEMENT.pack(0, number, 0)[:4]) + rb"(..)\x00\x00((%b)\x00?)" % _UID_FORM


# A C-STORE request as nearly all senders encode it (PS3.7 9.3.1.1): all that has to be there, nothing else.
_STORE_REQUEST = re.compile(
    b"".join(
        (
            *(_head(0, 4), b"...."),
            _any_uid(_AFFECTED_SOP_CLASS_UID),
            *(_head(_COMMAND_FIELD, 2), re.escape(_NUMBER.pack(C_STORE_RQ))),
            *(_head(_MESSAGE_ID, 2), b"(..)"),
            *(_head(_PRIORITY, 2), b".."),
            *(_head(_DATA_SET_TYPE, 2), b"(?!%b).." % re.escape(_NUMBER.pack(_NO_DATA_SET))),
            _any_uid(_AFFECTED_SOP_INSTANCE_UID),
        )
    ),
    re.DOTALL,
)


class MalformedCommandError(ValueError):
    """The bytes are no command set that the listener serves."""


class Request(NamedTuple):
    """A C-STORE, C-ECHO, N-ACTION or N-EVENT-REPORT request.

    Attributes
    ----------
    field : int
        Which, as Command Field (0000,0100).
    message_id : int
        To be named in the answer.
    sop_class_uid, sop_instance_uid : bytes
        As received, without their padding; the instance is empty in a C-ECHO request.
    has_data_set : bool
        Whether a data set follows.
    type_id : int
        Action Type ID or Event Type ID; 0 in other requests.
    """

    field: int
    message_id: int
    sop_class_uid: bytes
    sop_instance_uid: bytes
    has_data_set: bool
    type_id: int = 0


class ReportAnswer(NamedTuple):
    """The answer to an N-EVENT-REPORT of this node: which, and what the peer says of it."""

    message_id: int
    status: int


def decoded_command(encoded: bytes | bytearray | memoryview) -> Request | ReportAnswer:
    """Read the command set of a request, or of the answer to a report.

    Raises
    ------
    MalformedCommandError
        If it is damaged, not whole, of another kind, or if what it says of its data set is wrong for it.
    """
    plain = _STORE_REQUEST.fullmatch(encoded)
    if plain is not None:
        request = _plain_store_request(plain)
        if request is not None:
            return request
    values = _values(encoded)
    field = _number(values, _COMMAND_FIELD)
    has_data_set = _number(values, _DATA_SET_TYPE) != _NO_DATA_SET
    if field == N_EVENT_REPORT_RQ | _IS_RESPONSE and not has_data_set:
        return ReportAnswer(_number(values, _MESSAGE_ID_BEING_RESPONDED_TO), _number(values, _STATUS))
    if field in _NORMALISED:
        return _normalised_request(values, field, has_data_set=has_data_set)
    request = Request(
        field,
        _number(values, _MESSAGE_ID),
        _read_uid(values, _AFFECTED_SOP_CLASS_UID),
        _read_uid(values, _AFFECTED_SOP_INSTANCE_UID),
        has_data_set,
    )
    is_echo = field == C_ECHO_RQ and not has_data_set
    is_store = field == C_STORE_RQ and has_data_set and request.sop_instance_uid != b""
    if not request.sop_class_uid or not (is_echo or is_store):
        raise MalformedCommandError("a request that this node does not serve, or not a whole one")
    return request


def encoded_response(request: Request, status: int, context_id: int, comment: str = "") -> bytes:
    """Encode the answer to a request as one P-DATA-TF PDU.

    Parameters
    ----------
    request : Request
        What is answered.
    status : int
        Status (0000,0900).
    context_id : int
        Presentation context.
    comment : str
        Why, as Error Comment (0000,0902): ASCII, of which the first 64 characters are sent; empty for none.
    """
    sop_class, before_id, after_id = _same_in_answers(request.sop_class_uid, request.field, status)
    if comment:
        after_id += _text(_ERROR_COMMENT, comment[:_LONGEST_COMMENT])
    instance = _uid(_AFFECTED_SOP_INSTANCE_UID, request.sop_instance_uid) if request.sop_instance_uid else b""
    message_id = _NUMBER.pack(request.message_id)
    length = len(sop_class) + len(before_id) + len(message_id) + len(after_id) + len(instance)
    size = _GROUP_LENGTH.size + length
    return b"".join(
        (
            _HEADS.pack(P_DATA, size + PDV_HEADER.size, size + 2, context_id, _LAST_COMMAND_FRAGMENT),
            _GROUP_LENGTH.pack(0, 0, 4, length),
            sop_class,
            before_id,
            message_id,
            after_id,
            instance,
        )
    )


@lru_cache(maxsize=64)
def _same_in_answers(sop_class_uid: bytes, field: int, status: int) -> tuple[bytes, bytes, bytes]:
    """Encode what answers share: the SOP class, then what stands before and behind the message's ID."""
    return (
        _uid(_AFFECTED_SOP_CLASS_UID, sop_class_uid),
        _short(_COMMAND_FIELD, field | _IS_RESPONSE)
        + _ELEMENT.pack(0, _MESSAGE_ID_BEING_RESPONDED_TO, _NUMBER.size),
        _short(_DATA_SET_TYPE, _NO_DATA_SET) + _short(_STATUS, status),
    )


def encoded_report_request(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int, context_id: int
) -> bytes:
    """Encode an N-EVENT-REPORT request, which a data set follows, as one P-DATA-TF PDU."""
    command = b"".join(
        (
            _uid(_AFFECTED_SOP_CLASS_UID, sop_class_uid.encode("ascii")),
            _short(_COMMAND_FIELD, N_EVENT_REPORT_RQ),
            _short(_MESSAGE_ID, message_id),
            _short(_DATA_SET_TYPE, _HAS_DATA_SET),
            _uid(_AFFECTED_SOP_INSTANCE_UID, sop_instance_uid.encode("ascii")),
            _short(_EVENT_TYPE_ID, event_type),
        )
    )
    command = _GROUP_LENGTH.pack(0, 0, 4, len(command)) + command
    return _pdu(context_id, _LAST_COMMAND_FRAGMENT, command)


def encoded_data_set(content: bytes, context_id: int, longest_pdu_bytes: int) -> bytes:
    """Encode a data set as P-DATA-TF PDUs that a peer takes.

    Parameters
    ----------
    content : bytes
        In the context's transfer syntax.
    context_id : int
        Presentation context.
    longest_pdu_bytes : int
        The peer's maximum length (PS3.8 D.1); 0 says that there is none.
    """
    room = max(longest_pdu_bytes - PDV_HEADER.size if longest_pdu_bytes else len(content), 1)
    starts = range(0, len(content), room)
    return b"".join(
        _pdu(
            context_id,
            _LAST_DATA_FRAGMENT if start == starts[-1] else _DATA_FRAGMENT,
            content[start : start + room],
        )
        for start in starts
    )


def _plain_store_request(plain: re.Match[bytes]) -> Request | None:
    class_length, sop_class, class_uid, message_id, instance_length, instance, instance_uid = plain.groups()
    if (
        len(sop_class) != _NUMBER.unpack(class_length)[0]
        or len(instance) != _NUMBER.unpack(instance_length)[0]
        or len(class_uid) > _LONGEST_UID
        or len(instance_uid) > _LONGEST_UID
    ):
        return None
    return Request(C_STORE_RQ, _NUMBER.unpack(message_id)[0], class_uid, instance_uid, True)


def _normalised_request(values: dict[int, bytes], field: int, *, has_data_set: bool) -> Request:
    sop_class, instance, type_id = _NORMALISED[field]
    request = Request(
        field,
        _number(values, _MESSAGE_ID),
        _read_uid(values, sop_class),
        _read_uid(values, instance),
        has_data_set,
        _number(values, type_id),
    )
    if not request.sop_class_uid or not request.sop_instance_uid:
        raise MalformedCommandError("a request that does not say what it concerns")
    return request


def _values(encoded: bytes | bytearray | memoryview) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    start, end = 0, len(encoded)
    while start < end:
        if end - start < _ELEMENT.size:
            raise MalformedCommandError("the command set ends inside an element")
        group, number, length = _ELEMENT.unpack_from(encoded, start)
        start += _ELEMENT.size
        if group != 0 or length > end - start:
            raise MalformedCommandError("the command set is damaged")
        values[number] = bytes(encoded[start : start + length])
        start += length
    return values


def _number(values: dict[int, bytes], number: int) -> int:
    value = values.get(number, b"")
    if len(value) != 2:
        raise MalformedCommandError("a number of the command set is missing or no number")
    return int(_NUMBER.unpack(value)[0])


def _read_uid(values: dict[int, bytes], number: int) -> bytes:
    uid = values.get(number, b"").rstrip(b"\0 ")
    if uid and (len(uid) > _LONGEST_UID or not _UID.fullmatch(uid)):
        raise MalformedCommandError("a UID of the command set is not valid")
    return uid


def _pdu(context_id: int, control: int, fragment: bytes) -> bytes:
    return b"".join(
        (
            PDU_HEADER.pack(P_DATA, len(fragment) + PDV_HEADER.size),
            PDV_HEADER.pack(len(fragment) + 2, context_id, control),
            fragment,
        )
    )


def _short(number: int, value: int) -> bytes:
    return _ELEMENT.pack(0, number, _NUMBER.size) + _NUMBER.pack(value)


def _text(number: int, text: str) -> bytes:
    value = "".join(each if " " <= each <= "~" else "?" for each in text).encode("ascii")
    value += b" " * (len(value) % 2)
    return _ELEMENT.pack(0, number, len(value)) + value


def _uid(number: int, uid: bytes) -> bytes:
    value = uid + b"\0" * (len(uid) % 2)
    return _ELEMENT.pack(0, number, len(value)) + value
