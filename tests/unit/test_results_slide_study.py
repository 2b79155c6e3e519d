"""What a study of slides is told by: each slide's objects, and one text report that is never silent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dicom_node.errors import ResultError
from dicom_node.results.context import PredecessorDocument
from dicom_node.results.slide import SLIDE_KINDS, SlideStudyContext, build_slide_study
from models.contract import Outcome, Refusal, RefusalCode, SlideStudyPrediction
from tests import results_contexts as given
from tests import slide_contexts as slides
from tests.result_matrix import CHARACTER_SETS

TWO = (slides.slide(), slides.slide(SOPInstanceUID=slides.OTHER_UID))


def kinds(context: SlideStudyContext) -> list[str]:
    return [built.kind for built in build_slide_study(context)]


def sentences(context: SlideStudyContext) -> list[str]:
    (report,) = build_slide_study(context, ["text_report"])
    return given.texts(given.read(report))


def test_a_scored_study_has_a_map_and_a_report_of_each_slide_and_one_text() -> None:
    both = SlideStudyPrediction(
        "idc", Outcome.SCORED, 0.5, (slides.said(), slides.said(0.2, sop_instance_uid=slides.OTHER_UID))
    )
    context = slides.study(both, TWO)
    assert kinds(context) == [*["slide_segmentation"] * 2, *["slide_report"] * 2, "text_report"]
    built = build_slide_study(context)
    assert len({item.sop_instance_uid for item in built}) == 5
    assert len({item.series_instance_uid for item in built}) == 5
    assert "AI result: POSITIVE. Probability of cancer 96.0 %, at or above the threshold of 50.0 %." in (
        sentences(context)
    )


def test_the_text_report_lists_slides_and_maps_as_evidence() -> None:
    overlay, _, text = build_slide_study(slides.study())
    (study,) = given.read(text).CurrentRequestedProcedureEvidenceSequence
    listed = {
        r.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for r in s.ReferencedSOPSequence
    }
    assert listed == {slides.SLIDE_UID, overlay.sop_instance_uid}


def test_a_partly_analysed_study_says_which_slide_was_left_out_and_why() -> None:
    context = slides.study(slides.partly(0.2), TWO)
    said = sentences(context)
    result = "AI result: INCOMPLETE. Probability of cancer in what was analysed 20.0 %, below the threshold"
    assert any(sentence.startswith(result) for sentence in said)
    assert "An image not analysed: no tissue was found on the slide." in said
    assert "What was not analysed may contain disease." in said
    assert not any("NEGATIVE" in sentence for sentence in said)
    *_, report = build_slide_study(context)
    assert given.read(report).CompletionFlag == "PARTIAL"


def test_the_report_of_one_slide_is_not_taken_for_that_of_the_study() -> None:
    both = SlideStudyPrediction(
        "idc", Outcome.SCORED, 0.5, (slides.said(), slides.said(0.2, sop_instance_uid=slides.OTHER_UID))
    )
    reports = build_slide_study(slides.study(both, TWO), ["slide_report"])
    results = [given.texts(given.read(report))[-1].split(" Probability")[0] for report in reports]
    assert results == ["AI result of slide 1: POSITIVE.", "AI result of slide 2: NEGATIVE."]


def test_every_result_of_a_slide_names_it_as_the_text_report_does() -> None:
    both = SlideStudyPrediction(
        "idc", Outcome.SCORED, 0.5, (slides.said(), slides.said(0.2, sop_instance_uid=slides.OTHER_UID))
    )
    built = build_slide_study(slides.study(both, TWO))
    assert [str(given.read(item).SeriesDescription) for item in built] == [
        "AI probability of each patch, slide 1 (not verified)",
        "AI probability of each patch, slide 2 (not verified)",
        "AI score of slide 1 (not verified)",
        "AI score of slide 2 (not verified)",
        "AI pathology report (not verified)",
    ]
    (said,) = (text for text in given.texts(given.read(built[-1])) if text.startswith("Slide 2: probability"))
    assert said == "Slide 2: probability of cancer 20.0 %, below the threshold of 50.0 %."


def test_a_refused_study_has_a_text_report_alone() -> None:
    context = slides.study(slides.refused())
    assert kinds(context) == ["text_report"]
    said = sentences(context)
    assert "AI result: NONE. The study was not scored; this does not mean that it is normal." in said
    assert "An image not analysed: resolution of the slide is too low for the model." in said


@pytest.mark.parametrize("code", [RefusalCode.OTHER_SLIDE_LEVEL, RefusalCode.NOT_SLIDE_TISSUE])
def test_labels_and_other_levels_beside_an_analysed_slide_are_not_reported_as_left_out(
    code: RefusalCode,
) -> None:
    refusals = (Refusal(code, slides.OTHER_UID),)
    prediction = SlideStudyPrediction("idc", Outcome.SCORED, 0.5, (slides.said(),), refusals)
    assert not any("not analysed" in sentence for sentence in sentences(slides.study(prediction, TWO)))


def test_a_study_of_a_label_alone_says_what_it_holds() -> None:
    refusals = (
        Refusal(RefusalCode.NO_SCORABLE_IMAGE),
        Refusal(RefusalCode.NOT_SLIDE_TISSUE, slides.SLIDE_UID),
    )
    said = sentences(slides.study(SlideStudyPrediction("idc", Outcome.REFUSED, 0.5, refusals=refusals)))
    assert "An image not analysed: label, overview or thumbnail of a slide." in said


def test_a_superseding_study_names_what_it_replaces() -> None:
    earlier = PredecessorDocument("1.2.840.10008.5.1.4.1.1.88.22", "2.25.1", "2.25.2", "2.25.8102")
    context = slides.study(revision=2, predecessors=(earlier,))
    *_, of_slide, report = build_slide_study(context)
    replaced = "Revision 2 of this AI report; it replaces the earlier AI report of the study."
    assert replaced in sentences(context)
    assert replaced in given.texts(given.read(of_slide))[-1]
    assert given.read(report).PredecessorDocumentsSequence
    first = {item.sop_instance_uid for item in build_slide_study(slides.study())}
    assert not first & {item.sop_instance_uid for item in build_slide_study(context)}


def test_a_report_without_its_map_is_whole() -> None:
    (report,) = build_slide_study(slides.study(), ["slide_report"])
    assert report.kind == "slide_report"


@pytest.mark.parametrize("character_set", CHARACTER_SETS)
@pytest.mark.parametrize("prediction", [slides.partly(), slides.partly(0.2), slides.refused()])
def test_names_are_copied_as_they_are(prediction: SlideStudyPrediction, character_set: str) -> None:
    overrides = CHARACTER_SETS[character_set]
    sources = (slides.slide(**overrides), slides.slide(SOPInstanceUID=slides.OTHER_UID, **overrides))
    context = slides.study(prediction, sources)
    built = build_slide_study(context)
    assert [item.content for item in built] == [item.content for item in build_slide_study(context)]
    for item in built:
        assert given.read(item).PatientName == overrides["PatientName"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: slides.study(sources=(slides.slide(SOPInstanceUID=slides.OTHER_UID),)),
        lambda: slides.study(SlideStudyPrediction("idc", Outcome.REFUSED, 0.5)),
        lambda: slides.study(SlideStudyPrediction("idc", Outcome.SCORED, 0.5)),
        lambda: slides.study(SlideStudyPrediction("idc", Outcome.PARTIAL, 0.5, (slides.said(),))),
        lambda: build_slide_study(slides.study(), ["presentation_state"]),
    ],
)
def test_what_contradicts_itself_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ResultError):
        wrong()


def test_the_kinds_are_those_that_profiles_may_ask_for() -> None:
    assert set(kinds(slides.study())) == set(SLIDE_KINDS)
