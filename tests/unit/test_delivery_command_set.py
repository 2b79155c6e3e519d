"""Command sets as bytes, against the library's own reading and writing of them."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom.dsutils import encode

from dicom_node.delivery.command_set import (
    C_STORE_RSP,
    ReportRequest,
    Response,
    decoded_report_request,
    decoded_response,
    encoded_c_echo_rq,
    encoded_c_store_rq,
    encoded_n_action_rq,
    encoded_n_event_report_rq,
    encoded_n_event_report_rsp,
)

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
VERIFICATION = "1.2.840.10008.1.1"
COMMITMENT, COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
LONGEST_UID = "1.2.3456789.1" + "0" * 51


def read(encoded: bytes) -> Dataset:
    return read_dataset(BytesIO(encoded), is_implicit_VR=True, is_little_endian=True)


def padded(uid: str) -> bytes:
    """Encode a UID to even length (PS3.5 6.2)."""
    return uid.encode() + (b"\0" if len(uid) % 2 else b"")


def encoded_response(**elements: int | str) -> bytes:
    data_set = Dataset()
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    encoded = encode(data_set, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return encoded


@pytest.mark.parametrize("uid", ["2.25.1", "2.25.12", "2.25.123"])
def test_a_store_request_names_the_object_and_announces_a_data_set(uid: str) -> None:
    encoded = encoded_c_store_rq(7, COMPREHENSIVE_SR, uid)
    command = read(encoded)

    assert command.CommandGroupLength == len(encoded) - 12
    assert command.AffectedSOPClassUID == COMPREHENSIVE_SR
    assert command.AffectedSOPInstanceUID == uid
    assert encoded.endswith(struct.pack("<HHI", 0, 0x1000, len(padded(uid))) + padded(uid))
    assert (command.CommandField, command.MessageID, command.Priority) == (0x0001, 7, 0)
    assert command.CommandDataSetType != 0x0101
    assert [element.tag for element in command] == sorted(element.tag for element in command)


def test_an_echo_request_announces_no_data_set() -> None:
    command = read(encoded_c_echo_rq(65535, VERIFICATION))

    assert (command.CommandField, command.MessageID) == (0x0030, 65535)
    assert command.AffectedSOPClassUID == VERIFICATION
    assert command.CommandDataSetType == 0x0101


def test_an_action_request_names_what_is_to_act_and_announces_a_data_set() -> None:
    command = read(encoded_n_action_rq(7, COMMITMENT, COMMITMENT_INSTANCE, 1))

    assert (command.CommandField, command.MessageID, command.ActionTypeID) == (0x0130, 7, 1)
    assert command.RequestedSOPClassUID == COMMITMENT
    assert command.RequestedSOPInstanceUID == COMMITMENT_INSTANCE
    assert command.CommandDataSetType != 0x0101


def test_a_report_request_is_read_as_it_was_written() -> None:
    encoded = encoded_n_event_report_rq(7, COMMITMENT, COMMITMENT_INSTANCE, 2)
    command = read(encoded)

    assert (command.CommandField, command.MessageID, command.EventTypeID) == (0x0100, 7, 2)
    assert command.AffectedSOPClassUID == COMMITMENT
    assert command.AffectedSOPInstanceUID == COMMITMENT_INSTANCE
    assert command.CommandDataSetType != 0x0101
    assert decoded_report_request(encoded) == ReportRequest(7, COMMITMENT, COMMITMENT_INSTANCE, 2)


def test_the_answer_to_a_report_names_it_and_announces_no_data_set() -> None:
    report = ReportRequest(7, COMMITMENT, COMMITMENT_INSTANCE, 2)
    command = read(encoded_n_event_report_rsp(report, 0x0115))

    assert (command.CommandField, command.MessageIDBeingRespondedTo) == (0x8100, 7)
    assert (command.Status, command.EventTypeID) == (0x0115, 2)
    assert command.AffectedSOPClassUID == COMMITMENT
    assert command.AffectedSOPInstanceUID == COMMITMENT_INSTANCE
    assert command.CommandDataSetType == 0x0101


REPORT_REQUEST: dict[str, int | str] = {
    "AffectedSOPClassUID": COMMITMENT,
    "CommandField": 0x0100,
    "MessageID": 7,
    "CommandDataSetType": 0x0102,
    "AffectedSOPInstanceUID": LONGEST_UID,
    "EventTypeID": 2,
}


def test_a_report_request_is_read_with_a_uid_of_the_greatest_length() -> None:
    assert decoded_report_request(encoded_response(**REPORT_REQUEST)).sop_instance_uid == LONGEST_UID


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"CommandField": 0x0130}, "not an N-EVENT-REPORT request"),
        ({"CommandDataSetType": 0x0101}, "not an N-EVENT-REPORT request"),
        ({"CommandDataSetType": None}, "not an N-EVENT-REPORT request"),
        ({"MessageID": None}, "mandatory"),
        ({"EventTypeID": None}, "mandatory"),
        ({"AffectedSOPClassUID": None}, "UID"),
        ({"AffectedSOPInstanceUID": None}, "UID"),
        ({"AffectedSOPInstanceUID": LONGEST_UID + "1"}, "UID"),
        ({"AffectedSOPInstanceUID": "1.2.x"}, "UID"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.filterwarnings("ignore:The value length")
def test_a_request_that_is_no_whole_report_is_refused(change: dict[str, Any], words: str) -> None:
    elements = {
        keyword: value for keyword, value in {**REPORT_REQUEST, **change}.items() if value is not None
    }
    with pytest.raises(ValueError, match=words):
        decoded_report_request(encoded_response(**elements))


@pytest.mark.parametrize(("kind", "announced"), [(0x0101, False), (0x0001, True), (0x0102, True)])
def test_a_response_tells_whether_a_data_set_follows(kind: int, announced: bool) -> None:
    assert decoded_response(encoded_response(CommandDataSetType=kind)).has_data_set is announced


def test_a_response_is_read_with_the_request_that_it_answers() -> None:
    encoded = encoded_response(
        AffectedSOPClassUID=COMPREHENSIVE_SR,
        CommandField=C_STORE_RSP,
        MessageIDBeingRespondedTo=9,
        CommandDataSetType=0x0101,
        Status=0xB000,
        ErrorComment="anything",
    )

    assert decoded_response(encoded) == Response(C_STORE_RSP, 9, 0xB000)


def test_a_command_set_may_end_with_an_empty_element() -> None:
    empty = struct.pack("<HHI", 0, 0x0902, 0)
    assert decoded_response(encoded_response(Status=0xB000) + empty).status == 0xB000


def test_what_a_response_leaves_out_is_not_made_up() -> None:
    assert decoded_response(encoded_response(CommandDataSetType=0x0101)) == Response(None, None, None)


def test_a_status_of_a_wrong_length_is_no_status() -> None:
    assert decoded_response(struct.pack("<HHIB", 0, 0x0900, 1, 0)).status is None


@pytest.mark.parametrize(
    "encoded",
    [
        b"\0",
        struct.pack("<HHI", 0, 0x0900, 0xFFFFFFFF),
        struct.pack("<HHIH", 0x0010, 0x0010, 2, 0),
    ],
    ids=["half an element", "a length beyond the end", "an element of another group"],
)
def test_a_damaged_command_set_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="command set"):
        decoded_response(encoded)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else(encoded: bytes) -> None:
    try:
        response = decoded_response(encoded)
    except ValueError:
        return
    assert response.status is None or 0 <= response.status <= 0xFFFF
