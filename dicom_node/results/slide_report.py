"""The report of a slide's score: a TID 1500 SR whose region is a polygon on the slide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom.sr import (
    CodeContentItem,
    ContentItem,
    GraphicTypeValues3D,
    NumContentItem,
    Scoord3DContentItem,
    TextContentItem,
    UIDRefContentItem,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.results import codes
from dicom_node.results.content_tree import (
    CONTAINS,
    HAS_ACQ_CONTEXT,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    add_content,
    add_general_module,
    container,
    hierarchy,
    image,
    observation_context,
    procedure,
    with_children,
)
from dicom_node.results.context import Analysis, BuiltObject
from dicom_node.results.header import new_instance
from dicom_node.results.slide_segmentation import TRACKING_IDENTIFIER
from dicom_node.results.slide_text_report import READERS, analysed
from dicom_node.results.source import referenced
from dicom_node.results.wording import compared, model_of, parameters, standing
from models.contract import Outcome, SlidePrediction

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


def build(
    context: Analysis,
    prediction: SlidePrediction,
    corners: NDArray[np.float64],
    tracking_uid: str,
    overlays: Sequence[BuiltObject],
    *,
    number: int,
) -> Dataset:
    """Build the report.

    Parameters
    ----------
    context : Analysis
        The slide's analysis.
    prediction : models.contract.SlidePrediction
        What the model said.
    corners : numpy.ndarray
        ``(n, 3)`` slide coordinates, millimetres, round what was analysed, closed.
    tracking_uid : str
        That of the slide's score.
    overlays : sequence of BuiltObject
        The maps of patches of the study's slides, which are listed as evidence.
    number : int
        Which of the study's slides it is, from 1.
    """
    (source,) = context.sources
    document = new_instance(
        context,
        sop_class_uid=COMPREHENSIVE_3D_SR,
        kind="slide_report",
        modality="SR",
        series_number=9101,
        description=f"AI score of slide {number}",
    )
    of_source = (str(source.StudyInstanceUID), str(source.SeriesInstanceUID), *referenced(source))
    of_maps = [
        (o.study_instance_uid, o.series_instance_uid, o.sop_class_uid, o.sop_instance_uid) for o in overlays
    ]
    add_general_module(document, context, hierarchy([of_source, *of_maps]))
    entry = image(codes.SOURCE, source, CONTAINS)
    modality = CodeContentItem(codes.MODALITY, codes.SLIDE_MICROSCOPY, HAS_ACQ_CONTEXT)
    library = container(codes.IMAGE_LIBRARY_GROUP, [with_children(entry, [modality])])
    add_content(
        document,
        codes.IMAGING_MEASUREMENT_REPORT,
        "1500",
        [
            *observation_context(context),
            *_specimen(source),
            procedure(context, codes.PATHOLOGY),
            container(codes.IMAGE_LIBRARY, [library]),
            container(codes.IMAGING_MEASUREMENTS, [_group(context, prediction, corners, tracking_uid)]),
            container(codes.QUALITATIVE_EVALUATIONS, [_comment(context, prediction, number)]),
        ],
    )
    return document


def _specimen(source: Dataset) -> Iterator[ContentItem]:
    """Say that a specimen and no person was looked at (PS3.16 TID 1006, 1009)."""
    specimens = list(source.get("SpecimenDescriptionSequence") or ())
    if len(specimens) == 1 and specimens[0].get("SpecimenUID"):
        yield CodeContentItem(codes.SUBJECT_CLASS, codes.SPECIMEN, HAS_OBS_CONTEXT)
        yield UIDRefContentItem(codes.SPECIMEN_UID, str(specimens[0].SpecimenUID), HAS_OBS_CONTEXT)
        identifier = str(specimens[0].get("SpecimenIdentifier") or "")
        if identifier and identifier.isascii():
            yield TextContentItem(codes.SPECIMEN_IDENTIFIER, identifier, HAS_OBS_CONTEXT)


def _group(
    context: Analysis, prediction: SlidePrediction, corners: NDArray[np.float64], tracking_uid: str
) -> ContentItem:
    bundle, threshold = context.bundle, prediction.threshold
    opinion = codes.MALIGNANT if prediction.probability >= threshold else codes.BENIGN
    percentage = round(prediction.probability * 100, 4)
    (source,) = context.sources
    region = Scoord3DContentItem(
        codes.IMAGE_REGION,
        GraphicTypeValues3D.POLYGON,
        np.round(corners, 6),
        str(source.FrameOfReferenceUID),
        relationship_type=CONTAINS,
    )
    items = [
        TextContentItem(codes.TRACKING_IDENTIFIER, TRACKING_IDENTIFIER, HAS_OBS_CONTEXT),
        UIDRefContentItem(codes.TRACKING_UNIQUE_IDENTIFIER, tracking_uid, HAS_OBS_CONTEXT),
        CodeContentItem(codes.FINDING_SITE, codes.BREAST, HAS_CONCEPT_MOD),
        TextContentItem(codes.ALGORITHM_NAME, bundle.name, HAS_CONCEPT_MOD),
        TextContentItem(codes.ALGORITHM_VERSION, bundle.version, HAS_CONCEPT_MOD),
        TextContentItem(codes.ALGORITHM_PARAMETERS, parameters(threshold), HAS_CONCEPT_MOD),
        CodeContentItem(codes.ALGORITHM_FAMILY, codes.ARTIFICIAL_INTELLIGENCE, HAS_CONCEPT_MOD),
        NumContentItem(codes.PROBABILITY_OF_CANCER, percentage, codes.PERCENT, relationship_type=CONTAINS),
        CodeContentItem(codes.CLASSIFICATION, opinion, CONTAINS),
        CodeContentItem(codes.GEOMETRIC_PURPOSE, codes.BOUNDED_BY, CONTAINS),
        region,
    ]
    return container(codes.MEASUREMENT_GROUP, items, template_id="1410")


def _comment(context: Analysis, prediction: SlidePrediction, number: int) -> ContentItem:
    word = "POSITIVE" if prediction.probability >= prediction.threshold else "NEGATIVE"
    value = compared(prediction.probability, prediction.threshold)
    sentences = [
        # The study may have other slides, and a result of its own.
        f"AI result of slide {number}: {word}. Probability of cancer {value}.",
        analysed(prediction),
        *standing(context, Outcome.SCORED, READERS),
        model_of(context.bundle),
    ]
    return TextContentItem(codes.COMMENT, " ".join(sentences), CONTAINS)
