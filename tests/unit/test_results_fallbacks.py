"""What holds for every fallback object alike: bytes, identity, patient, standing, times."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.datadict import tag_for_keyword

from dicom_node.results.builders import build_all
from dicom_node.results.checks.checker import check_objects
from dicom_node.results.context import BuiltObject, ResultContext
from models.contract import Laterality, Refusal, RefusalCode
from tests import results_contexts as given

KINDS = ("presentation_state", "secondary_capture", "key_objects", "encapsulated_pdf")
OUTCOMES: dict[str, Callable[..., ResultContext]] = {
    "positive": given.positive,
    "negative": given.negative,
    "partial": given.partial,
    "refused": given.refused,
    "superseding": given.superseding,
}
HEADERS: dict[str, dict[str, Any]] = {
    "Japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
    "Korean": {"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "Hong^Gildong=洪^吉洞"},
    "Greek": {"SpecificCharacterSet": "ISO_IR 126", "PatientName": "Διονυσιος^Α"},
    "German": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Äneas^Rüdiger"},
    "sex U, long accession number": {"PatientSex": "U", "AccessionNumber": "ACC-1234567890-ABCDE"},
    "bare": dict.fromkeys(
        ("PatientName", "PatientID", "AccessionNumber", "StudyID", "StudyDate", "PatientSex")
    ),
    "no orientation, spacing, window": dict.fromkeys(
        ("PatientOrientation", "ImagerPixelSpacing", "WindowCenter", "WindowWidth", "PresentationLUTShape")
    ),
}
COPIED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "SpecificCharacterSet",
)


def sources(overrides: dict[str, Any], *, implicit: bool = False) -> tuple[Dataset, ...]:
    with warnings.catch_warnings():
        # pydicom warns of the 20 characters while the image is written, which is the sender's doing.
        warnings.simplefilter("ignore")
        return given.sources(implicit=implicit, **overrides)


def fallbacks(context: ResultContext) -> tuple[BuiltObject, ...]:
    return build_all(context, KINDS)


def raw(instance: Dataset, keyword: str) -> bytes:
    """Give the bytes of an element as they stand in the file, without padding."""
    element = instance.get_item(tag_for_keyword(keyword) or 0)
    if element is None or not element.value:
        return b""
    value = element.value if isinstance(element.value, bytes) else str(element.value).encode()
    return value.rstrip(b" \0")


def written(source: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, source)
    return buffer.getvalue()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_objects_built_again_have_the_same_bytes(outcome: str) -> None:
    first, second = fallbacks(OUTCOMES[outcome]()), fallbacks(OUTCOMES[outcome]())
    assert [o.content for o in first] == [o.content for o in second]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("positive", [4, 2, 1, 1]),
        ("negative", [4, 1, 0, 1]),
        ("partial", [3, 1, 0, 1]),
        ("refused", [0, 1, 0, 1]),
        ("superseding", [4, 2, 1, 1]),
    ],
)
def test_every_outcome_gives_what_there_is_to_say(outcome: str, expected: list[int]) -> None:
    kinds = [o.kind for o in fallbacks(OUTCOMES[outcome]())]
    assert [kinds.count(kind) for kind in KINDS] == expected


def test_what_is_asked_for_beside_it_changes_nothing() -> None:
    together = {o.sop_instance_uid: o.content for o in fallbacks(given.positive())}
    for kind in KINDS:
        for alone in build_all(given.positive(), [kind]):
            assert together[alone.sop_instance_uid] == alone.content


def test_each_kind_has_a_series_and_each_object_a_uid_of_its_own() -> None:
    objects = fallbacks(given.positive())
    assert len({o.sop_instance_uid for o in objects}) == len(objects)
    assert len({o.series_instance_uid for o in objects}) == len(KINDS)
    later = fallbacks(given.superseding())
    assert not {o.sop_instance_uid for o in objects} & {o.sop_instance_uid for o in later}
    assert not {o.series_instance_uid for o in objects} & {o.series_instance_uid for o in later}


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
@pytest.mark.parametrize("name", HEADERS)
def test_patient_and_study_are_those_of_the_images_to_the_byte(name: str, implicit: bool) -> None:
    headers = sources(HEADERS[name], implicit=implicit)
    expected = {keyword: raw(headers[0], keyword) for keyword in COPIED}
    before = [written(source) for source in headers]
    for built in fallbacks(given.positive(headers)):
        result = given.read(built)
        assert {keyword: raw(result, keyword) for keyword in COPIED} == expected
    assert [written(source) for source in headers] == before


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_no_object_claims_to_be_verified_and_none_names_a_person_as_its_maker(outcome: str) -> None:
    for built in fallbacks(OUTCOMES[outcome]()):
        result = given.read(built)
        assert result.SeriesDescription.endswith("(not verified)")
        assert len(result.SeriesDescription) <= 64
        assert result.get("VerificationFlag", "UNVERIFIED") == "UNVERIFIED"
        assert result.get("ContentCreatorName", "AI^Node") == "AI^Node"
        assert result.ContributingEquipmentSequence[-1].DeviceUID


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("name", ["German", "Japanese", "no orientation, spacing, window"])
def test_the_nodes_own_rules_hold(outcome: str, name: str) -> None:
    headers = sources(HEADERS[name])
    results = [given.read(built) for built in fallbacks(OUTCOMES[outcome](headers))]
    assert [str(fault) for fault in check_objects(results, headers)] == []


def test_a_study_of_one_breast_says_which() -> None:
    left = (
        Refusal(RefusalCode.IMPLANT, str(image.SOPInstanceUID), Laterality.LEFT, image.ViewPosition)
        for image in given.images()[2:]
    )
    said = given.prediction(given.POSITIVE, tuple(left))
    for built in build_all(given.context(said), ["presentation_state", "secondary_capture"]):
        assert given.read(built).Laterality == "R"
    for built in build_all(given.positive(), ["presentation_state", "secondary_capture"]):
        assert given.read(built)["Laterality"].is_empty
