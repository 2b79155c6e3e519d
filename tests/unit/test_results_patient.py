"""Patient and study attributes arrive in every result byte for byte, however odd the images are."""

from __future__ import annotations

import warnings
from datetime import timedelta, timezone
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicom_node.results.builders import build_all
from dicom_node.results.source import local_time
from tests import results_contexts as given

COPIED = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SpecificCharacterSet",
)
NAMES: dict[str, tuple[list[str] | str, str, bytes]] = {
    # Character set, name as text, name as bytes (PS3.5 annexes H, I and K).
    "Japanese": (
        ["", "ISO 2022 IR 87"],
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "Korean": (
        ["", "ISO 2022 IR 149"],
        "Hong^Gildong=洪^吉洞=홍^길동",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    "Greek": ("ISO_IR 126", "Διονυσιος", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2"),
    "German": ("ISO_IR 100", "Äneas^Rüdiger", b"\xc4neas^R\xfcdiger"),
    "Unicode": ("ISO_IR 192", "Wang^XiaoDong=王^小东", "Wang^XiaoDong=王^小东".encode()),
}


def raw(instance: Dataset, keyword: str) -> bytes | None:
    """Give the bytes of an element as they stand in the file, or None where it is absent."""
    element = instance.get_item(tag_for_keyword(keyword) or 0)
    if element is None:
        return None
    # Specific Character Set is decoded while reading.
    value = element.value if isinstance(element.value, bytes) else str(element.value).encode()
    return value or b""


def with_raw_name(headers: tuple[Dataset, ...], name: bytes) -> tuple[Dataset, ...]:
    """Put the very bytes of the standard's example into headers, as a foreign sender would."""
    tag = Tag("PatientName")
    padded = name + b" " * (len(name) % 2)
    for source in headers:
        implicit = bool(source.original_encoding[0])
        vr = None if implicit else "PN"
        source[tag] = RawDataElement(tag, vr, len(padded), padded, 0, implicit, True)
    return headers


def written(source: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, source)
    return buffer.getvalue()


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
@pytest.mark.parametrize("language", NAMES)
def test_names_keep_their_bytes_in_every_character_set(language: str, implicit: bool) -> None:
    character_set, text, name = NAMES[language]
    headers = with_raw_name(given.sources(implicit=implicit, SpecificCharacterSet=character_set), name)
    for built in build_all(given.positive(headers)):
        result = dcmread(BytesIO(built.content))
        assert (raw(result, "PatientName") or b"").rstrip() == name
        assert str(result.PatientName) == text
        assert result.SpecificCharacterSet == character_set


def test_bytes_that_no_character_set_explains_are_passed_on() -> None:
    damaged = with_raw_name(given.sources(SpecificCharacterSet="ISO_IR 192"), b"M\xfcller^Eva")
    for built in build_all(given.positive(damaged)):
        assert (raw(dcmread(BytesIO(built.content)), "PatientName") or b"").rstrip() == b"M\xfcller^Eva"


@pytest.mark.parametrize("language", ["Japanese", "German"])
def test_names_that_somebody_has_decoded_already_keep_their_bytes_too(language: str) -> None:
    character_set, _, name = NAMES[language]
    headers = with_raw_name(given.sources(SpecificCharacterSet=character_set), name)
    assert all(str(source.PatientName) for source in headers)
    for built in build_all(given.positive(headers)):
        assert (raw(dcmread(BytesIO(built.content)), "PatientName") or b"").rstrip() == name


def test_the_institution_of_the_modality_keeps_its_characters() -> None:
    headers = given.sources(SpecificCharacterSet="ISO_IR 100", InstitutionName="Universitätsklinik")
    for built in build_all(given.positive(headers)):
        acquisition = given.read(built).ContributingEquipmentSequence[0]
        assert acquisition.InstitutionName == "Universitätsklinik"


@pytest.mark.parametrize(
    "odd",
    [
        {"PatientSex": "U"},
        {"AccessionNumber": "ACC-1234567890-ABCDE"},
        {"PatientID": " 0042/7 ", "IssuerOfPatientID": "HOSPITAL"},
        {"StudyDate": "20260105", "StudyTime": "093000.123456"},
        {"PatientName": "", "PatientID": "", "PatientBirthDate": "", "PatientSex": "", "AccessionNumber": ""},
        {
            "PatientAge": "066Y",
            "StudyDescription": "Mammographie bilatérale",
            "SpecificCharacterSet": "ISO_IR 100",
        },
    ],
    ids=["sex U", "20 characters", "spaces", "fractions", "empty", "accent"],
)
def test_odd_values_are_neither_corrected_nor_shortened(odd: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        # pydicom warns of the 20 characters while the image is written, which is the sender's doing.
        warnings.simplefilter("ignore")
        headers = given.sources(**odd)
    expected = {keyword: raw(headers[0], keyword) for keyword in COPIED}
    before = [written(source) for source in headers]
    for built in build_all(given.positive(headers)):
        result = dcmread(BytesIO(built.content))
        assert {keyword: raw(result, keyword) for keyword in COPIED} == expected
    assert [written(source) for source in headers] == before


TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)


def test_attributes_that_the_images_lack_are_there_and_empty() -> None:
    bare = given.sources(
        **dict.fromkeys((*TYPE_2, "PatientAge", "StudyDescription", "SpecificCharacterSet", "Manufacturer"))
    )
    for outcome in (given.positive, given.refused):
        for built in build_all(outcome(bare)):
            result = given.read(built)
            assert all(result[keyword].is_empty for keyword in TYPE_2)
            assert "PatientAge" not in result
            assert "SpecificCharacterSet" not in result
            assert len(result.ContributingEquipmentSequence) == 1


def test_other_patient_ids_and_issuers_come_along() -> None:
    other, issuer = Dataset(), Dataset()
    other.PatientID, other.TypeOfPatientID = "OTHER-1", "TEXT"
    issuer.LocalNamespaceEntityID = "RIS"
    for implicit in (False, True):
        headers = given.sources(
            implicit=implicit, OtherPatientIDsSequence=[other], IssuerOfAccessionNumberSequence=[issuer]
        )
        for built in build_all(given.positive(headers)):
            result = given.read(built)
            assert result.OtherPatientIDsSequence[0].PatientID == "OTHER-1"
            assert result.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"


def test_a_modality_whose_maker_is_empty_is_not_described() -> None:
    for built in build_all(given.positive(given.sources(Manufacturer=""))):
        (processing,) = given.read(built).ContributingEquipmentSequence
        assert processing.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"


@pytest.mark.parametrize("offset", ["", "0900", "+2400", "+9900", "local"])
def test_a_zone_that_is_none_counts_as_absent(offset: str) -> None:
    source, site = Dataset(), timezone(timedelta(hours=-7))
    source.TimezoneOffsetFromUTC = offset
    assert local_time(source, given.ANALYSED_AT, site).isoformat() == "2026-01-05T16:30:15-07:00"


@pytest.mark.parametrize(
    ("offset", "told"),
    [
        ("+0900", "2026-01-06T08:30:15+09:00"),
        ("-0330", "2026-01-05T20:00:15-03:30"),
        ("+0000", "2026-01-05T23:30:15+00:00"),
    ],
)
def test_a_moment_is_told_in_the_zone_of_its_image(offset: str, told: str) -> None:
    source, site = Dataset(), timezone(timedelta(hours=-7))
    source.TimezoneOffsetFromUTC = offset
    assert local_time(source, given.ANALYSED_AT, site).isoformat() == told
