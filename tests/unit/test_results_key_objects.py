"""The key object selection: which studies are flagged, in which words, and which of their images."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom import Dataset

from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from models.contract import BreastScore, Laterality, Outcome
from tests import results_contexts as given


def selection(context: ResultContext) -> Dataset:
    return given.only(build_all(context, ["key_objects"]), "key_objects")


def images(document: Dataset) -> list[str]:
    return [
        str(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for i in document.ContentSequence
        if i.ValueType == "IMAGE"
    ]


@pytest.mark.parametrize("outcome", [given.negative, given.partial, given.refused])
def test_a_study_that_is_not_positive_is_not_flagged(outcome: type) -> None:
    assert build_all(outcome(), ["key_objects"]) == ()


@pytest.mark.parametrize("outcome", [given.positive, given.superseding])
def test_a_positive_study_selects_its_positive_images_and_no_other(outcome: type) -> None:
    context = outcome()
    document = selection(context)
    positive = [s.sop_instance_uid for s in context.prediction.images if s.probability >= 0.5]
    assert images(document) == positive == [str(image.SOPInstanceUID) for image in given.images()[:2]]
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    evidence = [
        str(instance.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    assert evidence == positive


def test_the_title_is_of_interest_after_template_2010_in_a_series_of_its_own() -> None:
    document = selection(given.positive())
    title = document.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113000", "DCM")
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    assert (document.Modality, document.SeriesNumber, document.InstanceNumber) == ("KO", 9501, 1)
    assert not any("ConceptNameCodeSequence" in i for i in document.ContentSequence if i.ValueType == "IMAGE")


def test_a_device_and_no_person_made_the_selection() -> None:
    (observer,) = given.named(selection(given.positive()), "121005")
    assert observer.ConceptCodeSequence[0].CodeMeaning == "Device"
    assert not given.named(selection(given.positive()), "121008")


def test_one_line_says_result_and_standing() -> None:
    (line,) = given.named(selection(given.positive()), "113012")
    assert line.TextValue == (
        "AI POSITIVE, probability of cancer 87.0 % (threshold 50.0 %), not verified by a radiologist, "
        "demonstration model"
    )


def test_a_positive_study_of_which_not_every_image_was_analysed_says_so() -> None:
    said = given.prediction(given.POSITIVE, (given.implant_refusal(),))
    (line,) = given.named(selection(given.context(said)), "113012")
    expected = "AI POSITIVE, INCOMPLETE, probability of cancer 91.0 % (threshold 50.0 %), not verified"
    assert line.TextValue.startswith(expected)


def test_a_breast_just_above_the_threshold_by_rounding_still_selects_its_highest_image() -> None:
    said = given.prediction((0.4999, 0.4998, 0.1, 0.1))
    uids = tuple(score.sop_instance_uid for score in said.images[:2])
    rounded = replace(
        said,
        outcome=Outcome.SCORED,
        breasts=(BreastScore(Laterality.RIGHT, 0.5, uids),),
        study_probability=0.5,
    )
    assert images(selection(given.context(rounded))) == [uids[0]]
