"""Command sets as bytes, against the library's own reading and writing of them."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom.dsutils import encode

from dicom_node.delivery.command_set import (
    C_STORE_RSP,
    Response,
    decoded_response,
    encoded_c_echo_rq,
    encoded_c_store_rq,
)

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
VERIFICATION = "1.2.840.10008.1.1"


def read(encoded: bytes) -> Dataset:
    return read_dataset(BytesIO(encoded), is_implicit_VR=True, is_little_endian=True)


def encoded_response(**elements: int | str) -> bytes:
    data_set = Dataset()
    for keyword, value in elements.items():
        setattr(data_set, keyword, value)
    encoded = encode(data_set, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return encoded


@pytest.mark.parametrize("uid", ["2.25.1", "2.25.12"])
def test_a_store_request_names_the_object_and_announces_a_data_set(uid: str) -> None:
    encoded = encoded_c_store_rq(7, COMPREHENSIVE_SR, uid)
    command = read(encoded)

    assert command.CommandGroupLength == len(encoded) - 12
    assert command.AffectedSOPClassUID == COMPREHENSIVE_SR
    assert command.AffectedSOPInstanceUID == uid
    assert (command.CommandField, command.MessageID, command.Priority) == (0x0001, 7, 0)
    assert command.CommandDataSetType != 0x0101
    assert [element.tag for element in command] == sorted(element.tag for element in command)


def test_an_echo_request_announces_no_data_set() -> None:
    command = read(encoded_c_echo_rq(65535, VERIFICATION))

    assert (command.CommandField, command.MessageID) == (0x0030, 65535)
    assert command.AffectedSOPClassUID == VERIFICATION
    assert command.CommandDataSetType == 0x0101


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
