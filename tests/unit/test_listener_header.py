"""Reading a received data set: complete, bounded, and no further than routing needs."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from dicom_node.errors import UnfitObjectError
from dicom_node.listener.contexts import TRANSFER_SYNTAX_BY_UID
from dicom_node.listener.elements import walk
from dicom_node.listener.header import InstanceHeader, read_header
from dicom_node.listener.limits import ListenerLimits
from models.contract import Laterality
from tests.listening import EXPLICIT_LITTLE, PATIENT_ID, encoded, mammogram

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
SYNTAXES = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, JPEG_BASELINE)


def read(data: bytes, syntax: str = EXPLICIT_LITTLE, **limits: int) -> InstanceHeader:
    """Read with some limits."""
    return read_header(memoryview(data), TRANSFER_SYNTAX_BY_UID[syntax], ListenerLimits(**limits))


def nested(depth: int, *, has_undefined_length: bool) -> Dataset:
    """A data set with sequences in sequences."""
    inner = Dataset()
    for _ in range(depth):
        outer = Dataset()
        outer.ViewCodeSequence = [inner]
        outer["ViewCodeSequence"].is_undefined_length = has_undefined_length
        inner.is_undefined_length_sequence_item = has_undefined_length
        inner = outer
    return inner


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_encoding_gives_the_same_header(syntax: str) -> None:
    dataset = mammogram(ViewCodeSequence=[Dataset()])
    dataset.ViewCodeSequence[0].CodeValue = "399368009"
    dataset.ViewCodeSequence[0].CodingSchemeDesignator = "SCT"
    header = read(encoded(dataset, syntax), syntax)
    assert header.sop_instance_uid == dataset.SOPInstanceUID
    assert (header.study_instance_uid, header.series_instance_uid) == ("2.25.100", "2.25.101")
    assert (header.patient_id, header.accession_number, header.modality) == (PATIENT_ID, "A1", "MG")
    assert (header.facts.laterality, header.facts.view) == (Laterality.RIGHT, "MLO")
    assert header.facts.for_presentation


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("has_undefined_length", [False, True])
def test_every_truncation_is_seen(syntax: str, has_undefined_length: bool) -> None:
    dataset = mammogram(Rows=4, Columns=4, PixelData=bytes(32))
    dataset.ViewCodeSequence = [nested(2, has_undefined_length=has_undefined_length)]
    dataset["ViewCodeSequence"].is_undefined_length = has_undefined_length
    data = encoded(dataset, syntax)
    read(data, syntax)
    elements = walk(memoryview(data), TRANSFER_SYNTAX_BY_UID[syntax], ListenerLimits()).elements
    # A data set that ends behind a whole element is not truncated; without its identifiers it is refused too.
    whole_elements = {end for _, _, end, _ in elements.values()}
    for length in range(len(data)):
        if length not in whole_elements:
            with pytest.raises(UnfitObjectError):
                read(data[:length], syntax)


def test_nul_padding_at_the_end_is_tolerated_and_other_trailing_bytes_are_not() -> None:
    data = encoded(mammogram())
    assert read(data + bytes(2)).modality == read(data + bytes(512)).modality == "MG"
    for tail in (b"\x01", b"\x00\x01", b"garbage!", b"\xff" * 64):
        with pytest.raises(UnfitObjectError):
            read(data + tail)


@pytest.mark.parametrize("group", [0x0000, 0x0002])
def test_groups_that_do_not_belong_into_a_data_set_are_refused(group: int) -> None:
    element = struct.pack("<HH2sH", group, 0x0010, b"UI", 4) + b"1.2\0"
    with pytest.raises(UnfitObjectError):
        read(element + encoded(mammogram()))


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_an_identifying_uid_is_needed(keyword: str) -> None:
    with pytest.raises(UnfitObjectError, match="missing"):
        read(encoded(mammogram(**{keyword: None})))
    with pytest.raises(UnfitObjectError, match="missing"):
        read(encoded(mammogram(**{keyword: ""})))


@pytest.mark.parametrize(
    "uid", [b"1.2.03", b"1..2", b"1.2.", b".1.2", b"1.2/34", b"1.2\n34", b"1\x002.34", b"a.b.cd", b"1.2 34"]
)
def test_an_invalid_uid_is_refused_and_not_quoted(uid: bytes) -> None:
    data = encoded(mammogram()).replace(b"2.25.101", uid.ljust(8, b"\0"))
    with pytest.raises(UnfitObjectError, match="Series Instance UID is not valid") as refusal:
        read(data)
    assert uid.decode() not in str(refusal.value)


def test_an_element_that_occurs_twice_is_refused() -> None:
    data = encoded(mammogram())
    with pytest.raises(UnfitObjectError, match="twice"):
        read(data[: data.index(b"\x08\x00\x18\x00")] + data)


@pytest.mark.parametrize("has_undefined_length", [False, True])
@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_deep_nesting_is_refused(syntax: str, has_undefined_length: bool) -> None:
    def data(depth: int) -> bytes:
        dataset = mammogram()
        dataset.update(nested(depth, has_undefined_length=has_undefined_length))
        return encoded(dataset, syntax)

    assert read(data(32), syntax).modality == "MG"
    with pytest.raises(UnfitObjectError, match="deeply"):
        read(data(33), syntax)


def test_a_bomb_of_open_sequences_is_refused_quickly() -> None:
    bomb = struct.pack("<HH2sxxLHHL", 0x0008, 0x1140, b"SQ", 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    whole = bomb * 100_000
    started = time.thread_time()
    with pytest.raises(UnfitObjectError):
        read(whole)
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("form", "rest", "syntax"),
    [
        ("<HH2sH", (b"LO", 0), EXPLICIT_LITTLE),
        ("<HH2sHL", (b"UT", 0, 0), EXPLICIT_LITTLE),
        ("<HHL", (0,), IMPLICIT_LITTLE),
        (">HH2sH", (b"LO", 0), EXPLICIT_BIG),
    ],
    ids=["short length", "long length", "implicit", "big endian"],
)
def test_as_many_elements_as_allowed_are_read_and_one_more_is_refused(
    form: str, rest: tuple[bytes | int, ...], syntax: str
) -> None:
    elements = [struct.pack(form, 0x0009, 0x1001 + number, *rest) for number in range(101)]
    with pytest.raises(UnfitObjectError, match="missing"):
        read(b"".join(elements[:100]), syntax, max_elements=100)
    with pytest.raises(UnfitObjectError, match="too many"):
        read(b"".join(elements), syntax, max_elements=100)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
def test_an_element_of_every_value_representation_is_followed_to_its_end(order: str) -> None:
    syntax = TRANSFER_SYNTAX_BY_UID[EXPLICIT_LITTLE if order == "<" else EXPLICIT_BIG]
    heads = [("HH2sH", vr, 8) for vr in EXPLICIT_VR_LENGTH_16]
    heads += [("HH2s2xL", vr, 12) for vr in EXPLICIT_VR_LENGTH_32 if vr != "SQ"]
    data, places = b"", {}
    for number, (form, vr, size) in enumerate(heads, start=0x1001):
        places[0x00090000 | number] = (len(data), len(data) + size, len(data) + size + 4, False)
        data += struct.pack(order + form, 0x0009, number, vr.encode(), 4) + bytes(4)
    assert walk(memoryview(data), syntax, ListenerLimits()).elements == places


def test_an_item_outside_a_sequence_is_refused_whatever_it_says_that_it_is() -> None:
    element = struct.pack("<HH2sH", 0xFFFE, 0xE000, b"LO", 0)
    with pytest.raises(UnfitObjectError):
        read(encoded(mammogram()) + element)


def test_padding_is_tolerated_up_to_64_kib() -> None:
    data = encoded(mammogram())
    assert read(data + bytes(1 << 16)).modality == "MG"
    with pytest.raises(UnfitObjectError):
        read(data + bytes((1 << 16) + 2))


def test_lengths_beyond_the_end_allocate_nothing() -> None:
    lying = struct.pack("<HH2sxxL", 0x0009, 0x1001, b"OB", 0xFFFFFFF0)
    with pytest.raises(UnfitObjectError, match="longer"):
        read(encoded(mammogram()) + lying)


@pytest.mark.parametrize(
    "elements",
    [
        pytest.param({"Rows": 65535, "Columns": 65535}, id="fewer pixels than described"),
        pytest.param({"NumberOfFrames": "2"}, id="fewer frames than described"),
        pytest.param({"NumberOfFrames": "0"}, id="no frames"),
        pytest.param({"NumberOfFrames": "-1"}, id="a negative number of frames"),
        pytest.param({"NumberOfFrames": "999999999999"}, id="more frames than there can be"),
        pytest.param({"Rows": 0}, id="no rows"),
        pytest.param({"Columns": None}, id="no columns at all"),
        pytest.param({"SamplesPerPixel": 3}, id="fewer samples than described"),
    ],
)
def test_pixels_that_contradict_their_description_are_refused(elements: dict[str, Any]) -> None:
    with pytest.raises(UnfitObjectError):
        read(encoded(mammogram(**elements)))


@pytest.mark.parametrize("number", [b"two ", b"1e3 ", b"\xb2 ", b"1" * 14, b"0x10"], ids=repr)
def test_a_number_of_frames_that_is_no_number_is_refused(number: bytes) -> None:
    data = encoded(mammogram(NumberOfFrames="1234"))
    place = data.index(b"IS\x04\x001234") + 2
    with pytest.raises(UnfitObjectError, match="no positive number"):
        read(data[:place] + struct.pack("<H", len(number)) + number + data[place + 6 :])


def test_rows_that_are_no_number_are_refused() -> None:
    data = encoded(mammogram())
    place = data.index(b"\x28\x00\x10\x00US\x02\x00")
    with pytest.raises(UnfitObjectError, match="no number"):
        read(data[: place + 6] + b"\x04\x00" + b"many" + data[place + 10 :])


@pytest.mark.parametrize(
    "elements",
    [
        pytest.param({"PixelData": bytes(64 * 48 * 2 + 200)}, id="padding behind the pixels"),
        pytest.param(
            {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": bytes(384)},
            id="one bit per pixel",
        ),
        pytest.param(
            {"BitsAllocated": 8, "SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422"},
            id="chrominance at half the samples",
        ),
    ],
)
def test_pixels_that_only_look_odd_are_taken(elements: dict[str, Any]) -> None:
    assert read(encoded(mammogram(**elements))).modality == "MG"


def test_an_object_without_pixels_is_taken() -> None:
    data = encoded(mammogram())
    assert read(data[: data.index(b"\xe0\x7f\x10\x00")]).modality == "MG"


def test_text_is_decoded_by_the_data_sets_own_character_set() -> None:
    dataset = mammogram(SpecificCharacterSet="ISO_IR 192", PatientID="Ж-7")
    assert read(encoded(dataset)).patient_id == "Ж-7"


def test_an_unknown_character_set_loses_no_image() -> None:
    dataset = mammogram(SpecificCharacterSet="ISO_IR 192", PatientID="é1")
    data = encoded(dataset).replace(b"ISO_IR 192", b"KLINGON 1 ")
    assert read(data).patient_id.endswith("1")


def test_an_oddly_described_view_loses_no_image() -> None:
    data = encoded(mammogram(ImageLaterality=None)).replace(b"MG", b"M\xff")
    assert read(data).facts.laterality is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_data_sets_are_read_or_refused_and_never_crash(data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from(SYNTAXES))
    dataset = mammogram(Rows=4, Columns=4, PixelData=bytes(32))
    dataset.ViewCodeSequence = [nested(2, has_undefined_length=True)]
    damaged = bytearray(encoded(dataset, syntax))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = read(bytes(damaged), syntax)
    except UnfitObjectError:
        return
    assert "\0" not in header.patient_id


def read_often(dataset: Dataset, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """Read a data set until it is known, and return it encoded."""
    data = encoded(dataset, syntax)
    for _ in range(4):
        read(data, syntax)
    return data


def test_what_is_known_of_one_object_is_not_said_of_the_next() -> None:
    read_often(mammogram(1))
    other = mammogram(2, PatientID="ZZOTHER_ID", AccessionNumber="B2", ImageLaterality="L")
    header = read(encoded(other))
    assert header.sop_instance_uid == other.SOPInstanceUID
    assert (header.patient_id, header.accession_number) == ("ZZOTHER_ID", "B2")
    assert header.facts.laterality is Laterality.LEFT


@pytest.mark.parametrize(
    ("known", "changed"),
    [
        pytest.param(b"US\x02\x00\x40\x00", b"US\x02\x00\xff\xff", id="fewer pixels than described"),
        pytest.param(b"2.25.100", b"2.25.01x", id="an invalid UID"),
        pytest.param(b"2.25.9001", b"2.25.0001", id="an invalid UID of the object itself"),
    ],
)
def test_an_object_like_those_before_it_is_checked_like_them(known: bytes, changed: bytes) -> None:
    data = read_often(mammogram(Rows=64, SOPInstanceUID="2.25.9001"))
    assert known in data
    with pytest.raises(UnfitObjectError):
        read(data.replace(known, changed))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_known_object_that_is_damaged_is_read_like_an_unknown_one(data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from(SYNTAXES))
    dataset = mammogram(Rows=4, Columns=4, PixelData=bytes(32))
    dataset.ViewCodeSequence = [nested(2, has_undefined_length=data.draw(st.booleans()))]
    damaged = bytearray(read_often(dataset, syntax))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    results: list[object] = []
    # What is known is known under its limits.
    for limits in ({}, {"max_elements": data.draw(st.integers(10_000, 49_999))}):
        try:
            results.append(read(bytes(damaged), syntax, **limits))
        except UnfitObjectError as refusal:
            results.append(str(refusal))
    assert results[0] == results[1]
