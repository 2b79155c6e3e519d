"""DIMSE command sets as bytes: the requests that this node sends as requestor, and the responses to them.

Read and written here and not through data set classes, because those put values of a damaged response into
warnings. Pure: no socket, no state.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# PS3.7 Annex E: elements of group 0000.
_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001
_EVENT_TYPE_ID = 0x1002
_ACTION_TYPE_ID = 0x1008

C_STORE_RSP = 0x8001
C_ECHO_RSP = 0x8030
N_EVENT_REPORT_RSP = 0x8100
N_ACTION_RSP = 0x8130
_C_STORE_RQ = 0x0001
_C_ECHO_RQ = 0x0030
_N_EVENT_REPORT_RQ = 0x0100
_N_ACTION_RQ = 0x0130
_PRIORITY_MEDIUM = 0x0000
_HAS_DATA_SET = 0x0001
_NO_DATA_SET = 0x0101
_LONGEST_UID = 64
_UID_CHARACTERS = frozenset(b"0123456789.")


@dataclass(frozen=True)
class Response:
    """What a response says; an element that is absent or of a wrong length is None."""

    command_field: int | None
    message_id_being_responded_to: int | None
    status: int | None
    has_data_set: bool = False


@dataclass(frozen=True)
class ReportRequest:
    """An N-EVENT-REPORT request (PS3.7 10.3.1); a data set follows it."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    event_type: int


def encoded_c_store_rq(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Encode a C-STORE request that a data set follows (PS3.7 9.3.1.1)."""
    return _encoded(
        (_AFFECTED_SOP_CLASS_UID, _uid(sop_class_uid)),
        (_COMMAND_FIELD, _ushort(_C_STORE_RQ)),
        (_MESSAGE_ID, _ushort(message_id)),
        (_PRIORITY, _ushort(_PRIORITY_MEDIUM)),
        (_COMMAND_DATA_SET_TYPE, _ushort(_HAS_DATA_SET)),
        (_AFFECTED_SOP_INSTANCE_UID, _uid(sop_instance_uid)),
    )


def encoded_c_echo_rq(message_id: int, sop_class_uid: str) -> bytes:
    """Encode a C-ECHO request (PS3.7 9.3.5.1)."""
    return _encoded(
        (_AFFECTED_SOP_CLASS_UID, _uid(sop_class_uid)),
        (_COMMAND_FIELD, _ushort(_C_ECHO_RQ)),
        (_MESSAGE_ID, _ushort(message_id)),
        (_COMMAND_DATA_SET_TYPE, _ushort(_NO_DATA_SET)),
    )


def encoded_n_action_rq(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, action_type: int
) -> bytes:
    """Encode an N-ACTION request that a data set follows (PS3.7 10.3.4)."""
    return _encoded(
        (_REQUESTED_SOP_CLASS_UID, _uid(sop_class_uid)),
        (_COMMAND_FIELD, _ushort(_N_ACTION_RQ)),
        (_MESSAGE_ID, _ushort(message_id)),
        (_COMMAND_DATA_SET_TYPE, _ushort(_HAS_DATA_SET)),
        (_REQUESTED_SOP_INSTANCE_UID, _uid(sop_instance_uid)),
        (_ACTION_TYPE_ID, _ushort(action_type)),
    )


def encoded_n_event_report_rq(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int
) -> bytes:
    """Encode an N-EVENT-REPORT request that a data set follows (PS3.7 10.3.1)."""
    return _encoded(
        (_AFFECTED_SOP_CLASS_UID, _uid(sop_class_uid)),
        (_COMMAND_FIELD, _ushort(_N_EVENT_REPORT_RQ)),
        (_MESSAGE_ID, _ushort(message_id)),
        (_COMMAND_DATA_SET_TYPE, _ushort(_HAS_DATA_SET)),
        (_AFFECTED_SOP_INSTANCE_UID, _uid(sop_instance_uid)),
        (_EVENT_TYPE_ID, _ushort(event_type)),
    )


def encoded_n_event_report_rsp(report: ReportRequest, status: int) -> bytes:
    """Encode the response to an N-EVENT-REPORT request, without a data set (PS3.7 10.3.1)."""
    return _encoded(
        (_AFFECTED_SOP_CLASS_UID, _uid(report.sop_class_uid)),
        (_COMMAND_FIELD, _ushort(N_EVENT_REPORT_RSP)),
        (_MESSAGE_ID_BEING_RESPONDED_TO, _ushort(report.message_id)),
        (_COMMAND_DATA_SET_TYPE, _ushort(_NO_DATA_SET)),
        (_STATUS, _ushort(status)),
        (_AFFECTED_SOP_INSTANCE_UID, _uid(report.sop_instance_uid)),
        (_EVENT_TYPE_ID, _ushort(report.event_type)),
    )


def decoded_report_request(encoded: bytes) -> ReportRequest:
    """Read the command set of an N-EVENT-REPORT request.

    Raises
    ------
    ValueError
        If the bytes are none, or not a whole one with a data set.
    """
    elements = dict(_elements(encoded))
    message_id, event_type = _number(elements, _MESSAGE_ID), _number(elements, _EVENT_TYPE_ID)
    has_data_set = _number(elements, _COMMAND_DATA_SET_TYPE) not in (None, _NO_DATA_SET)
    if _number(elements, _COMMAND_FIELD) != _N_EVENT_REPORT_RQ or not has_data_set:
        raise ValueError("not an N-EVENT-REPORT request with a data set")
    if message_id is None or event_type is None:
        raise ValueError("an N-EVENT-REPORT request without its mandatory elements")
    return ReportRequest(
        message_id,
        _text(elements, _AFFECTED_SOP_CLASS_UID),
        _text(elements, _AFFECTED_SOP_INSTANCE_UID),
        event_type,
    )


def decoded_response(encoded: bytes) -> Response:
    """Read a response's command set.

    Raises
    ------
    ValueError
        If the bytes are no command set.
    """
    elements = dict(_elements(encoded))
    return Response(
        command_field=_number(elements, _COMMAND_FIELD),
        message_id_being_responded_to=_number(elements, _MESSAGE_ID_BEING_RESPONDED_TO),
        status=_number(elements, _STATUS),
        has_data_set=_number(elements, _COMMAND_DATA_SET_TYPE) not in (None, _NO_DATA_SET),
    )


def _encoded(*elements: tuple[int, bytes]) -> bytes:
    """Encode as PS3.7 6.3.1 demands: Implicit VR Little Endian, ascending, group length first."""
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in elements)
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _elements(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(encoded):
        if start + 8 > len(encoded):
            raise ValueError("the command set ends inside an element")
        group, element, length = struct.unpack_from("<HHI", encoded, start)
        end = start + 8 + length
        if group != 0 or end > len(encoded):
            raise ValueError("the command set is damaged")
        yield element, encoded[start + 8 : end]
        start = end


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _text(elements: dict[int, bytes], element: int) -> str:
    # Sent back as it came: what is no UID must not become one that this node vouches for.
    value = elements.get(element, b"").rstrip(b"\0 ")
    if not value or len(value) > _LONGEST_UID or not set(value) <= _UID_CHARACTERS:
        raise ValueError("a UID is absent or damaged")
    return value.decode("ascii")


def _ushort(value: int) -> bytes:
    return struct.pack("<H", value)


def _uid(uid: str) -> bytes:
    encoded = uid.encode("ascii")
    return encoded + b"\0" * (len(encoded) % 2)
