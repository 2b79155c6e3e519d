"""The text report: an Enhanced SR that every viewer can print, and the only one of a refused study.

It always says something: what was found, or which images or study were not analysed and why.
"""

from __future__ import annotations

from highdicom.sr import CodeContentItem, ContentItem, TextContentItem
from pydicom.dataset import Dataset

from dicom_node.results import codes, wording
from dicom_node.results.content_tree import (
    CONTAINS,
    INFERRED_FROM,
    add_document,
    container,
    image,
    observation_context,
    with_children,
)
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.header import new_instance
from models.contract import Outcome, Refusal

ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"

STATUS = {
    Outcome.SCORED: codes.SUCCEEDED,
    Outcome.PARTIAL: codes.PARTIALLY_SUCCEEDED,
    Outcome.REFUSED: codes.NOT_ATTEMPTED,
}
"""How far an analysis went, in the standard's codes."""

# OHIF prints codes and text without a break: the brackets and the space before them keep the two apart.
OUTCOME_IN_CODES = " (outcome of the automatic analysis, in codes of DICOM)."
"""The sentence that follows the codes of :data:`STATUS` and of the refusals."""

_HOW_SCORES_COMBINE = "Score of a breast: mean of its views. Score of the study: the higher breast."


def build(order: BuildOrder) -> list[Dataset]:
    """Build the text report of a study, whatever came of its analysis.

    Parameters
    ----------
    order : BuildOrder
        What to report.

    Returns
    -------
    list of pydicom.dataset.Dataset
        One document.
    """
    context = order.context
    document = new_instance(
        context,
        sop_class_uid=ENHANCED_SR,
        kind="text_report",
        modality="SR",
        series_number=9103,
        description="AI mammography report",
    )
    impressions = [TextContentItem(codes.IMPRESSION, text, CONTAINS) for text in wording.impression(context)]
    children = [
        *observation_context(context),
        container(codes.IMPRESSIONS, impressions),
        container(codes.FINDINGS, _findings(context)),
        container(codes.PROCEDURE_DESCRIPTIONS, _procedure(context)),
    ]
    add_document(document, order, codes.DIAGNOSTIC_IMAGING_REPORT, "2000", children)
    return [document]


def _findings(context: ResultContext) -> list[ContentItem]:
    sentences = [*wording.breasts(context), *wording.findings(context)]
    scored = [TextContentItem(codes.FINDING, text, CONTAINS) for text in sentences]
    return scored + [_refused(context, refusal) for refusal in context.prediction.refusals]


def _refused(context: ResultContext, refusal: Refusal) -> ContentItem:
    item = TextContentItem(codes.FINDING, f"{wording.refusal(context.prediction, refusal)}.", CONTAINS)
    if refusal.sop_instance_uid is None:
        return item
    source = context.source(refusal.sop_instance_uid)
    return with_children(item, [image(codes.ORIGINAL_SOURCE, source, INFERRED_FROM)])


def _procedure(context: ResultContext) -> list[ContentItem]:
    """Say how the analysis went, in codes and in words; TID 2002 wants the codes first."""
    prediction = context.prediction
    outcome = [STATUS[prediction.outcome]]
    outcome += dict.fromkeys(codes.refusal_reason(refusal.code) for refusal in prediction.refusals)
    sentences = [OUTCOME_IN_CODES, wording.model(context)]
    if prediction.outcome is not Outcome.REFUSED:
        sentences.append(_HOW_SCORES_COMBINE)
    return [
        *(CodeContentItem(codes.PROCEDURE_DESCRIPTION, code, CONTAINS) for code in outcome),
        TextContentItem(codes.PROCEDURE_DESCRIPTION, " ".join(sentences), CONTAINS),
    ]
