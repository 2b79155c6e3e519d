"""Command sets as senders write them: the usual order and any other say the same, and nothing else passes."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from dicom_node.listener.command import MalformedCommandError, Request, decoded_command, encoded_response

CT_IMAGE = b"1.2.840.10008.5.1.4.1.1.2"
C_STORE_RQ, C_ECHO_RQ = 0x0001, 0x0030
Elements = dict[int, bytes]


def store_request(uid: bytes = b"2.25.7", message_id: int = 7) -> Elements:
    """The elements of a C-STORE request that have to be there, in order."""
    return {
        0x0002: CT_IMAGE + b"\0",
        0x0100: struct.pack("<H", C_STORE_RQ),
        0x0110: struct.pack("<H", message_id),
        0x0700: b"\0\0",
        0x0800: b"\1\0",
        0x1000: uid + b"\0" * (len(uid) % 2),
    }


def command(elements: Elements) -> bytes:
    """Encode them behind their group length."""
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements.items())
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


@pytest.mark.parametrize("uid", [b"2.25.7", b"2.25.77", b"1", b"1." + b"2" * 62])
def test_a_request_is_read_from_any_kind_of_bytes(uid: bytes) -> None:
    expected = Request(C_STORE_RQ, 0xFFFF, CT_IMAGE, uid, True)
    encoded = command(store_request(uid, 0xFFFF))
    for each in (encoded, bytearray(encoded), memoryview(b"?" + encoded)[1:]):
        assert decoded_command(each) == expected


def test_a_request_says_the_same_in_another_order_and_with_more_elements() -> None:
    usual = store_request()
    expected = decoded_command(command(usual))
    assert decoded_command(command(dict(reversed(usual.items())))) == expected
    assert decoded_command(command({**usual, 0x1030: b"MOVER ", 0x1031: b"\1\0"})) == expected
    assert decoded_command(command({**usual, 0x1000: b"2.25.7  "})) == expected
    assert decoded_command(command(usual)[12:]) == expected


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({0x0800: b"\1\1"}, id="no data set"),
        pytest.param({0x1000: b"2.25.07\0"}, id="no UID"),
        pytest.param({0x1000: b"1." + b"2" * 63 + b"\0"}, id="a UID of 65 characters"),
        pytest.param({0x0002: b"1." + b"2" * 63 + b"\0"}, id="a class of 65 characters"),
        pytest.param({0x1000: b""}, id="no instance"),
        pytest.param({0x0100: b"\2\0"}, id="another request"),
        pytest.param({0x0110: b"\1\0\0\0"}, id="a number of four bytes"),
    ],
)
def test_a_request_that_is_not_whole_or_not_valid_is_refused(changed: Elements) -> None:
    with pytest.raises(MalformedCommandError):
        decoded_command(command({**store_request(), **changed}))


@pytest.mark.parametrize("number", [0x0002, 0x1000])
@pytest.mark.parametrize("more", [-2, -1, 1, 2, 0x10000])
def test_a_wrong_length_is_refused(number: int, more: int) -> None:
    encoded = bytearray(command(store_request()))
    place = encoded.index(struct.pack("<HH", 0, number)) + 4
    length = struct.unpack_from("<L", encoded, place)[0]
    struct.pack_into("<L", encoded, place, length + more)
    with pytest.raises(MalformedCommandError):
        decoded_command(encoded)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_damaged_request_is_refused_or_says_what_another_reader_finds(data: st.DataObject) -> None:
    damaged = bytearray(command(store_request(data.draw(st.sampled_from([b"2.25.7", b"2.25.77"])))))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = decoded_command(damaged)
    except MalformedCommandError:
        return
    assert isinstance(request, Request)
    found = read_dataset(BytesIO(damaged), True, True)
    raw = {tag.element: found.get_item(tag).value for tag in tuple(found.keys())}
    assert raw[0x0100] == struct.pack("<H", request.field)
    assert raw[0x0110] == struct.pack("<H", request.message_id)
    assert raw[0x0002].rstrip(b"\0 ") == request.sop_class_uid
    assert raw.get(0x1000, b"").rstrip(b"\0 ") == request.sop_instance_uid
    assert (raw[0x0800] != b"\1\1") == request.has_data_set


@pytest.mark.parametrize("comment", ["", "the object is truncated", "x" * 65, "schön\n"])
def test_an_answer_may_say_why(comment: str) -> None:
    request = Request(C_STORE_RQ, 7, CT_IMAGE, b"2.25.7", has_data_set=True)
    pdu = encoded_response(request, 0xC000, 3, comment)
    found = read_dataset(BytesIO(pdu[12:]), True, True)
    assert found.CommandGroupLength == len(pdu) - 12 - 12
    assert [element.tag.element for element in found] == sorted(element.tag.element for element in found)
    assert (found.Status, found.AffectedSOPInstanceUID) == (0xC000, "2.25.7")
    said = "".join(character if " " <= character <= "~" else "?" for character in comment)[:64]
    assert found.get("ErrorComment", "") == said


@pytest.mark.parametrize("uid", [b"", b"2.25.7", b"2.25.77"])
def test_an_answer_is_read_by_others(uid: bytes) -> None:
    field = C_STORE_RQ if uid else C_ECHO_RQ
    pdu = encoded_response(Request(field, 7, CT_IMAGE, uid, bool(uid)), 0xA700, 3)
    kind, length, item_length, context_id, control = struct.unpack_from(">BxLLBB", pdu)
    assert (kind, length, item_length, context_id, control) == (4, len(pdu) - 6, len(pdu) - 10, 3, 3)
    found = read_dataset(BytesIO(pdu[12:]), True, True)
    assert found.CommandGroupLength == len(pdu) - 12 - 12
    assert (found.CommandField, found.Status) == (field | 0x8000, 0xA700)
    assert (found.MessageIDBeingRespondedTo, found.CommandDataSetType) == (7, 0x0101)
    assert found.AffectedSOPClassUID == CT_IMAGE.decode()
    assert found.get("AffectedSOPInstanceUID", "") == uid.decode()
