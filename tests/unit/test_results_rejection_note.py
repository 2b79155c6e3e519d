"""What a rejection note says, and that it is the same whenever it is built again."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from io import BytesIO

import highdicom as hd
import pytest
from pydicom import Dataset

from dicom_node.results import encoding
from dicom_node.results.builders import DEFAULT_KINDS, build_all, finished
from dicom_node.results.context import BuiltObject
from dicom_node.results.rejection_note import (
    KEY_OBJECT_SELECTION,
    Rejected,
    RejectionReason,
    build,
)
from tests import results_contexts as given

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@cache
def delivered() -> list[Rejected]:
    """Give what revision 1 of a positive study left at a destination."""
    return [
        Rejected(o.sop_class_uid, o.sop_instance_uid, o.series_instance_uid)
        for o in build_all(given.positive(), [*DEFAULT_KINDS, "secondary_capture"])
    ]


def note(reason: RejectionReason = RejectionReason.SUPERSEDED, **overrides: object) -> BuiltObject:
    context = given.superseding(given.sources(**overrides))
    return finished("rejection_note", build(context, reason, delivered()), context)


def references(document: Dataset) -> list[tuple[str, str]]:
    return [
        (item.ValueType, item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in given.content_items(document)
        if "ReferencedSOPSequence" in item
    ]


@pytest.mark.parametrize(
    ("reason", "title", "words"),
    [
        (RejectionReason.SUPERSEDED, "113001", "a later revision"),
        (RejectionReason.RECALLED, "113037", "the model that made them was recalled"),
    ],
)
def test_title_and_words_tell_why_the_results_are_withdrawn(
    reason: RejectionReason, title: str, words: str
) -> None:
    document = given.read(note(reason))
    assert document.SOPClassUID == KEY_OBJECT_SELECTION
    assert (document.Modality, document.SeriesNumber) == ("KO", 9511)
    assert document.SeriesDescription == "AI results withdrawn, revision 2 (not verified)"
    assert document.ConceptNameCodeSequence[0].CodeValue == title
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    (description,) = given.named(document, "113012")
    assert description.TextValue.startswith("AI results ")
    assert words in description.TextValue


def test_it_lists_every_rejected_object_once_and_no_image_of_the_study() -> None:
    document = given.read(note())
    listed = references(document)
    assert [uid for _, uid in listed] == [item.sop_instance_uid for item in delivered()]
    pictures = {SEGMENTATION, SECONDARY_CAPTURE}
    assert pictures <= {item.sop_class_uid for item in delivered()}
    images = {item.sop_instance_uid for item in delivered() if item.sop_class_uid in pictures}
    assert {uid for kind, uid in listed if kind == "IMAGE"} == images
    assert {uid for kind, uid in listed if kind == "COMPOSITE"} == {u for _, u in listed} - images
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    evidence = {
        r.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for r in s.ReferencedSOPSequence
    }
    assert evidence == {uid for _, uid in listed}
    assert evidence.isdisjoint(str(image.SOPInstanceUID) for image in given.images())


def test_built_again_it_is_the_same_and_other_notes_are_other_objects() -> None:
    context = given.superseding()
    first = build(context, RejectionReason.SUPERSEDED, delivered())
    assert encoding.encode(first) == note().content
    second = build(context, RejectionReason.SUPERSEDED, delivered()[:1], ordinal=1)
    later = build(replace(context, revision=3), RejectionReason.SUPERSEDED, delivered())
    assert len({first.SOPInstanceUID, second.SOPInstanceUID, later.SOPInstanceUID}) == 3
    assert len({first.SeriesInstanceUID, second.SeriesInstanceUID, later.SeriesInstanceUID}) == 3


@pytest.mark.filterwarnings("ignore:The value length .20. exceeds")
def test_patient_and_study_are_those_of_the_images() -> None:
    name = "Yamada^Tarou=山田^太郎"
    document = given.read(
        note(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name, AccessionNumber="A" * 20)
    )
    assert document.PatientName == name
    assert document.AccessionNumber == "A" * 20
    assert document.StudyInstanceUID == given.images()[0].StudyInstanceUID


def test_highdicom_reads_it() -> None:
    dataset = hd.ko.KeyObjectSelectionDocument.from_dataset(given.read(note()))
    assert len(dataset.content.get_references()) == len(delivered())
    assert BytesIO(note().content).read(132)[128:] == b"DICM"


def test_a_note_that_rejects_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one object"):
        build(given.superseding(), RejectionReason.RECALLED, [])
