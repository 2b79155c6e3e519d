"""What is not built: contradictions are refused before, and faulty objects after building."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from io import BytesIO
from types import ModuleType
from typing import Any

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from dicom_node.errors import ResultError
from dicom_node.results import cad_codes, codes
from dicom_node.results.builders import DEFAULT_KINDS, RESULT_BUILDERS, build_all
from dicom_node.results.checks.checker import refuse_faulty
from dicom_node.results.source import bear_several_patient_ids
from models.contract import Laterality, Outcome, Refusal, RefusalCode
from tests import results_contexts as given


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sources": ()}, "no source images"),
        ({"analysed_at": datetime(2026, 1, 5, 12, 0)}, "time zone"),
        ({"node": replace(given.NODE, institution_name="Universitätsklinik")}, "institution_name"),
        ({"node": replace(given.NODE, ae_title="A" * 17)}, "ae_title"),
        ({"node": replace(given.NODE, serial_number="")}, "serial_number"),
        ({"bundle": replace(given.BUNDLE, version="1\\2")}, "bundle version"),
    ],
)
def test_a_context_that_cannot_be_reported_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ResultError, match=message):
        replace(given.positive(), **wrong)


def test_images_of_two_studies_are_refused() -> None:
    one, two = given.sources(), given.sources(StudyInstanceUID="2.25.5")
    with pytest.raises(ResultError, match="several studies"):
        given.positive((*one[:2], *two[2:]))


def test_scores_of_images_of_two_patients_are_refused_but_the_report_of_the_refusal_is_not() -> None:
    mixed = (*given.sources()[:3], *given.sources(PatientID="OTHER-2")[3:])
    with pytest.raises(ResultError, match="Patient IDs"):
        given.positive(mixed)
    reasons = tuple(
        Refusal(RefusalCode.SEVERAL_PATIENTS, str(source.SOPInstanceUID), Laterality(side), view)
        for source, (side, view) in zip(mixed, given.VIEWS, strict=True)
    )
    said = replace(given.refused().prediction, refusals=reasons)
    (built,) = build_all(given.context(said, mixed))
    words = given.texts(given.read(built))
    assert "R CC not analysed: images of the study bear different Patient IDs." in words


def with_ids(*patient_ids: str | None) -> list[Dataset]:
    return [given.header(given.images()[0], overrides={"PatientID": value}) for value in patient_ids]


@pytest.mark.parametrize(
    ("patient_ids", "several"),
    [
        (("P-1", "P-1"), False),
        (("P-1", "P-1 "), False),
        (("P-1", ""), False),
        ((None, "P-1", None), False),
        (("", ""), False),
        (("P-1", "P-2"), True),
        (("P-1", "p-1"), True),
        (("P-1", "", "P-2"), True),
    ],
)
def test_images_bear_several_patient_ids_where_two_of_them_differ(
    patient_ids: tuple[str | None, ...], several: bool
) -> None:
    read = with_ids(*patient_ids)
    assert bear_several_patient_ids(read) is several
    for header in read:
        _ = header.get("PatientID")
    assert bear_several_patient_ids(read) is several, "decoded headers"


def test_a_prediction_that_contradicts_itself_or_its_images_is_refused() -> None:
    said = given.prediction(given.POSITIVE)
    first = said.images[0]
    faulty = {
        "outcome contradicts": replace(said, outcome=Outcome.REFUSED),
        "no refusal": replace(said, outcome=Outcome.PARTIAL),
        "not among": replace(said, images=(replace(first, sop_instance_uid="2.25.4"), *said.images[1:])),
        "outside 0..1": replace(said, images=(replace(first, probability=1.5), *said.images[1:])),
        "region outside": replace(
            said, images=(replace(first, region=replace(first.region, right=1e5)), *said.images[1:])
        ),
    }
    for message, prediction in faulty.items():
        with pytest.raises(ResultError, match=message):
            given.context(prediction)


def test_a_kind_that_no_builder_makes_is_refused() -> None:
    with pytest.raises(ResultError, match="no result of kind"):
        build_all(given.positive(), ("text_report", "letter"))


def broken(kind: str, change: Any) -> bytes:
    """Build an object of a kind, break it and write it again."""
    instance = given.read(next(o for o in build_all(given.positive()) if o.kind == kind))
    change(instance)
    buffer = BytesIO()
    dcmwrite(buffer, instance)
    return buffer.getvalue()


def without_regions(report: Dataset) -> None:
    for group in given.named(report, "125007"):
        group.ContentSequence = [i for i in group.ContentSequence if i.ValueType != "SCOORD"]


def without_evidence(report: Dataset) -> None:
    report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence = []


@pytest.mark.parametrize(
    ("kind", "change", "fault"),
    [
        ("text_report", lambda ds: delattr(ds, "AccessionNumber"), "OBJ-04 .*AccessionNumber"),
        ("text_report", lambda ds: setattr(ds, "DeviceSerialNumber", ""), "OBJ-03 .*DeviceSerialNumber"),
        (
            "text_report",
            lambda ds: setattr(ds, "InstanceCreatorUID", "1.02.3"),
            "OBJ-01 .*InstanceCreatorUID",
        ),
        ("text_report", lambda ds: setattr(ds, "VerificationFlag", "VERIFIED"), "SR-03 .*VerificationFlag"),
        ("measurement_report", without_regions, "MR-07 .*group 1"),
        ("measurement_report", without_evidence, "SR-04 .*no evidence"),
        ("segmentation", lambda ds: setattr(ds, "Rows", 8), "SEG-02"),
        (
            "segmentation",
            lambda ds: setattr(ds.SegmentSequence[0], "TrackingUID", ds.SegmentSequence[1].TrackingUID),
            "SEG-06 .*segment 2",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_faulty_object_fails_its_own_check(kind: str, change: Any, fault: str) -> None:
    with pytest.raises(ResultError, match=fault) as raised:
        refuse_faulty([broken(kind, change)])
    assert "Phantom^Demo" not in str(raised.value)


def test_every_asked_kind_is_built_in_the_order_of_the_table_and_no_other() -> None:
    kinds = list(dict.fromkeys(built.kind for built in build_all(given.positive(), DEFAULT_KINDS[::-1])))
    assert kinds == [kind for kind in RESULT_BUILDERS if kind in DEFAULT_KINDS]
    (report,) = build_all(given.positive(), ["text_report"])
    assert report.kind == "text_report"


# What pydicom's dictionary does not list, and what PS3.16 CID 4014 writes in other words than it.
UNLISTED = {
    ("C0034375", "UMLS", "Qualitative Evaluations"),
    ("en-US", "RFC5646", "English (United States)"),
    ("108257001", "SCT", "Anatomic pathology procedure"),
    ("{pixels}", "UCUM", "Pixels"),
    ("399260004", "SCT", "medio-lateral"),
}


def concepts_of(table: ModuleType) -> list[Code]:
    values = list(vars(table).values())
    nested = [each for value in values if isinstance(value, dict) for each in value.values()]
    return [value for value in (*values, *nested) if isinstance(value, Code)]


def meanings_of(code: Code) -> set[str]:
    """Give what the dictionary calls a code, without invisible spaces and what tells types apart."""
    entries: dict[str, Any] = concepts.get(code.scheme_designator, {})
    known = [meaning for values in entries.values() for meaning in values.get(code.value, ())[:1]]
    return {meaning.replace("\u200b", "").removesuffix(" (attribute)").lower() for meaning in known}


@pytest.mark.parametrize(("table", "least"), [(codes, 90), (cad_codes, 50)], ids=["codes", "cad_codes"])
def test_codes_are_those_of_the_standard_in_ascii(table: ModuleType, least: int) -> None:
    """A wrong code under the right words, or right under wrong ones, says something else of a patient."""
    found = concepts_of(table)
    assert len(found) >= least
    for code in found:
        assert code.meaning.isascii()
        assert len(code.meaning) <= 64
        is_listed = code.meaning.lower() in meanings_of(code)
        assert is_listed or (code.value, code.scheme_designator, code.meaning) in UNLISTED, code


def test_what_is_written_is_a_part_10_file_in_explicit_little_endian() -> None:
    for built in build_all(given.positive()):
        instance = dcmread(BytesIO(built.content))
        assert built.content[128:132] == b"DICM"
        assert instance.file_meta.TransferSyntaxUID == built.transfer_syntax_uid == "1.2.840.10008.1.2.1"
        assert instance.file_meta.MediaStorageSOPInstanceUID == built.sop_instance_uid
        assert instance.file_meta.MediaStorageSOPClassUID == built.sop_class_uid
