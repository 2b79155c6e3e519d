"""The text report of a study of slides, whatever came of it: short sentences for a pathologist, in ASCII."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from highdicom.sr import CodeContentItem, ContentItem, TextContentItem
from pydicom.dataset import Dataset

from dicom_node.results import codes
from dicom_node.results.content_tree import (
    CONTAINS,
    INFERRED_FROM,
    add_content,
    add_general_module,
    container,
    hierarchy,
    image,
    observation_context,
    with_children,
)
from dicom_node.results.context import Analysis, BuiltObject
from dicom_node.results.header import new_instance
from dicom_node.results.source import referenced
from dicom_node.results.text_report import ENHANCED_SR, OUTCOME_IN_CODES, STATUS
from dicom_node.results.wording import compared, model_of, result, standing
from models.contract import CANCER, Outcome, RefusalCode, SlidePrediction, SlideStudyPrediction

READERS = "a radiologist or pathologist"
"""Who has not verified what is said of slides."""

_HOW_SCORES_COMBINE = (
    "Score of a slide: mean of its ten highest patches. Score of the study: the highest slide."
)

_LEAVES_NOTHING_OUT = (RefusalCode.OTHER_SLIDE_LEVEL, RefusalCode.NOT_SLIDE_TISSUE)


def build(
    context: Analysis, prediction: SlideStudyPrediction, siblings: tuple[BuiltObject, ...] = ()
) -> Dataset:
    """Build the text report.

    Parameters
    ----------
    context : Analysis
        The study's analysis; its sources are the headers of all its slide images.
    prediction : models.contract.SlideStudyPrediction
        What the model said.
    siblings : tuple of BuiltObject
        The maps of patches, which are listed as evidence.
    """
    document = new_instance(
        context,
        sop_class_uid=ENHANCED_SR,
        kind="text_report",
        modality="SR",
        series_number=9103,
        description="AI pathology report",
    )
    sources = [(str(s.StudyInstanceUID), str(s.SeriesInstanceUID), *referenced(s)) for s in context.sources]
    maps = [
        (o.study_instance_uid, o.series_instance_uid, o.sop_class_uid, o.sop_instance_uid) for o in siblings
    ]
    add_general_module(document, context, hierarchy([*sources, *maps]))
    sentences = [
        TextContentItem(codes.IMPRESSION, text, CONTAINS)
        for text in (result(prediction, CANCER), *standing(context, prediction.outcome, READERS))
    ]
    children = [
        *observation_context(context),
        container(codes.IMPRESSIONS, sentences),
        container(codes.FINDINGS, [*_findings(context, prediction)]),
        container(codes.PROCEDURE_DESCRIPTIONS, [*_procedure(context, prediction)]),
    ]
    add_content(document, codes.DIAGNOSTIC_IMAGING_REPORT, "2000", children)
    return document


def analysed(prediction: SlidePrediction) -> str:
    """Say how much of a slide was analysed."""
    known = int((~np.isnan(prediction.patches)).sum())
    return f"{known} of {prediction.patches.size} patches analysed; the others hold no tissue."


def _findings(context: Analysis, prediction: SlideStudyPrediction) -> Iterator[ContentItem]:
    by_uid = {str(source.SOPInstanceUID): source for source in context.sources}
    for number, slide in enumerate(prediction.slides, start=1):
        score = compared(slide.probability, slide.threshold)
        yield _about(by_uid[slide.sop_instance_uid], f"Slide {number}: probability of cancer {score}.")
        yield TextContentItem(codes.FINDING, f"Slide {number}: {analysed(slide)}", CONTAINS)
    for refusal in prediction.refusals:
        source = by_uid.get(refusal.sop_instance_uid or "")
        # Beside slides that were analysed, their labels and other levels leave nothing out.
        if source is not None and not (prediction.slides and refusal.code in _LEAVES_NOTHING_OUT):
            yield _about(source, f"{refusal.sentence}.")
        elif source is None:
            yield TextContentItem(codes.FINDING, f"{refusal.sentence}.", CONTAINS)


def _about(source: Dataset, sentence: str) -> ContentItem:
    item = TextContentItem(codes.FINDING, sentence, CONTAINS)
    return with_children(item, [image(codes.ORIGINAL_SOURCE, source, INFERRED_FROM)])


def _procedure(context: Analysis, prediction: SlideStudyPrediction) -> Iterator[ContentItem]:
    outcome = [STATUS[prediction.outcome]]
    if prediction.outcome is not Outcome.SCORED:
        outcome += dict.fromkeys(codes.refusal_reason(refusal.code) for refusal in prediction.refusals)
    for code in outcome:
        yield CodeContentItem(codes.PROCEDURE_DESCRIPTION, code, CONTAINS)
    sentences = [OUTCOME_IN_CODES, model_of(context.bundle)]
    if prediction.slides:
        sentences.append(_HOW_SCORES_COMBINE)
    yield TextContentItem(codes.PROCEDURE_DESCRIPTION, " ".join(sentences), CONTAINS)
