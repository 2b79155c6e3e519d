"""Results in the default transfer syntax: the same elements with the same values, as others read them."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset

from dicom_node.delivery.default_syntax import in_default_syntax
from dicom_node.results.builders import RESULT_BUILDERS, build_all
from tests import results_contexts as given

SEQUENCE = b"SQ"
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = (
    struct.pack("<HHI", 0xFFFE, number, length)
    for number, length in ((0xE000, UNDEFINED), (0xE00D, 0), (0xE0DD, 0))
)


def data_set_of(content: bytes) -> bytes:
    """Give a file's data set as it is encoded."""
    end_of_length = 128 + 4 + 12
    return content[end_of_length + int.from_bytes(content[end_of_length - 4 : end_of_length], "little") :]


def read(rewritten: bytes) -> Dataset:
    return read_dataset(BytesIO(rewritten), is_implicit_VR=True, is_little_endian=True)


def short(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def long(group: int, element: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    stated = len(value) if length is None else length
    return struct.pack("<HH2sxxI", group, element, vr, stated) + value


def implicit(group: int, element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, element, len(value)) + value


def test_every_kind_of_result_reads_as_the_same_data_set() -> None:
    built = build_all(given.positive(), list(RESULT_BUILDERS))
    assert {item.kind for item in built} >= {"text_report", "measurement_report", "segmentation"}
    for item in built:
        before = Dataset(dcmread(BytesIO(item.content)))
        if "PixelData" in before:
            before["PixelData"].VR = "OW"  # PS3.5 A.1: whatever it was before
        assert read(in_default_syntax(data_set_of(item.content))) == before, item.kind


def test_values_stay_as_they_are_byte_for_byte() -> None:
    # No character set has this name, and its padding is more than it needs.
    name = b"\xff\xfe^\x81\x00   "
    assert in_default_syntax(short(0x0010, 0x0010, b"PN", name)) == implicit(0x0010, 0x0010, name)


def test_sequences_of_either_length_become_the_same_bytes() -> None:
    inside = short(0x0020, 0x000E, b"UI", b"2.25.7")
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside
    delimited = long(0x0008, 0x1115, SEQUENCE, ITEM + inside + ITEM_END + SEQUENCE_END, UNDEFINED)
    after = short(0x0010, 0x0020, b"LO", b"ID")

    rewritten = in_default_syntax(delimited + after)

    assert rewritten == in_default_syntax(long(0x0008, 0x1115, SEQUENCE, item) + after)
    expected = Dataset()
    expected.ReferencedSeriesSequence = [Dataset()]
    expected.ReferencedSeriesSequence[0].SeriesInstanceUID = "2.25.7"
    expected.PatientID = "ID"
    assert read(rewritten) == expected


TEXT = short(0x0010, 0x0020, b"LO", b"ID")


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (TEXT[:-1], "longer than what holds it"),
        (TEXT + b"\x10\x00", "ends inside an element"),
        (TEXT.replace(b"LO", b"??"), "no value representation"),
        (long(0x0008, 0x1115, SEQUENCE, struct.pack("<HHI", 0x0010, 0x0020, 0)), "no item"),
        (long(0x0008, 0x1115, SEQUENCE, SEQUENCE_END), "no item"),
        (long(0x0008, 0x1115, SEQUENCE, b"", 8), "longer than what holds it"),
        (long(0x0008, 0x1115, SEQUENCE, struct.pack("<HHI", 0xFFFE, 0xE000, 1)), "longer than what holds it"),
        (TEXT + ITEM_END, "no value representation"),
        (long(0x0008, 0x1115, SEQUENCE, ITEM + TEXT), "an item has no end"),
        (long(0x0008, 0x1115, SEQUENCE, ITEM + ITEM_END, UNDEFINED), "a sequence has no end"),
        (long(0x7FE0, 0x0010, b"OB", ITEM + SEQUENCE_END, UNDEFINED), "no sequence"),
    ],
    ids=[
        "cut value",
        "cut head",
        "no representation",
        "no item",
        "ends though its length is stated",
        "short sequence",
        "long item",
        "ends twice",
        "open item",
        "open sequence",
        "compressed",
    ],
)
def test_what_cannot_be_rewritten_is_said_to_be_so(damaged: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        in_default_syntax(damaged)
