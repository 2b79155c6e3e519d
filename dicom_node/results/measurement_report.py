"""The measurement report: a TID 1500 SR whose every measurement group has an image region.

A group with a number but without coordinates stops OHIF from loading the whole report, so a score of an
image is bound to the region that was fed to the network. Two SOP classes carry the same content.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from highdicom.sr import (
    CodeContentItem,
    ContentItem,
    GraphicTypeValues,
    NumContentItem,
    ScoordContentItem,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_node.results import codes, wording
from dicom_node.results.content_tree import (
    CONTAINS,
    HAS_ACQ_CONTEXT,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    SELECTED_FROM,
    add_document,
    container,
    image,
    observation_context,
    procedure,
    with_children,
)
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.header import new_instance
from models.contract import ImageScore, Laterality, Outcome, Region

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"


def build(order: BuildOrder) -> list[Dataset]:
    """Build the measurement report as Comprehensive 3D SR, the class that IHE AI Results names.

    Parameters
    ----------
    order : BuildOrder
        What to report; the segmentations made before are listed as evidence.

    Returns
    -------
    list of pydicom.dataset.Dataset
        One document, or none for a refused study: no image region could be drawn.
    """
    return _build(order, COMPREHENSIVE_3D_SR)


def build_2d(order: BuildOrder) -> list[Dataset]:
    """Build the same report as Comprehensive SR, the only class whose regions the Stone viewer draws.

    Parameters
    ----------
    order : BuildOrder
        What to report; the segmentations made before are listed as evidence.

    Returns
    -------
    list of pydicom.dataset.Dataset
        One document, or none for a refused study: no image region could be drawn.
    """
    return _build(order, COMPREHENSIVE_SR)


def _build(order: BuildOrder, sop_class_uid: str) -> list[Dataset]:
    context = order.context
    if context.prediction.outcome is Outcome.REFUSED:
        return []
    document = new_instance(
        context,
        sop_class_uid=sop_class_uid,
        # The two SOP classes are two objects, and an archive may get both.
        kind=f"measurement_report.{sop_class_uid}",
        modality="SR",
        series_number=9101,
        description="AI mammography scores",
    )
    groups = [_group(context, score) for score in context.prediction.images]
    children = [
        *observation_context(context),
        procedure(context),
        container(codes.IMAGE_LIBRARY, [_library_group(context)]),
        container(codes.IMAGING_MEASUREMENTS, groups),
        container(codes.QUALITATIVE_EVALUATIONS, _comments(context)),
    ]
    add_document(document, order, codes.IMAGING_MEASUREMENT_REPORT, "1500", children)
    return [document]


def tracking_identifier(score: ImageScore) -> str:
    """Name what a measurement group and its segment speak of, such as ``"AI image score R CC"``."""
    return f"AI image score {wording.place(score)}"


def _library_group(context: ResultContext) -> ContentItem:
    entries = []
    for source in context.sources:
        entry = image(codes.SOURCE, source, CONTAINS)
        entries.append(with_children(entry, _descriptors(context, source)))
    return container(codes.IMAGE_LIBRARY_GROUP, entries)


def _descriptors(context: ResultContext, source: Dataset) -> Iterator[ContentItem]:
    """Describe an image as far as its header goes (PS3.16 TID 1602, 1603)."""
    if modality := codes.MODALITIES.get(str(source.get("Modality", ""))):
        yield CodeContentItem(codes.MODALITY, modality, HAS_ACQ_CONTEXT)
    for size, value in ((codes.ROWS, source.get("Rows")), (codes.COLUMNS, source.get("Columns"))):
        if value:
            yield NumContentItem(size, int(value), codes.PIXELS, relationship_type=HAS_ACQ_CONTEXT)
    orientation = _pair(source, "PatientOrientation")
    for name, value in zip((codes.ORIENTATION_ROW, codes.ORIENTATION_COLUMN), orientation, strict=False):
        yield TextContentItem(name, str(value), HAS_ACQ_CONTEXT)
    # PS3.3 10.7.1.3: the row spacing, which is vertical, comes first; TID 1603 wants it last.
    spacing = reversed(_pair(source, "ImagerPixelSpacing"))
    for name, value in zip((codes.HORIZONTAL_SPACING, codes.VERTICAL_SPACING), spacing, strict=False):
        yield NumContentItem(name, float(value), codes.MILLIMETRE, relationship_type=HAS_ACQ_CONTEXT)
    laterality = str(source.get("ImageLaterality", ""))
    if laterality in set(Laterality):
        side = codes.SIDES[Laterality(laterality)]
        yield CodeContentItem(codes.IMAGE_LATERALITY, side, HAS_ACQ_CONTEXT)
    if view := codes.VIEWS.get(_view(context, source)):
        yield CodeContentItem(codes.IMAGE_VIEW, view, HAS_ACQ_CONTEXT)


def _pair(source: Dataset, keyword: str) -> list[Any]:
    """Give the two values of an element, or none where it does not have two."""
    value = source.get(keyword)
    values = list(value) if isinstance(value, MultiValue) else []
    return values if len(values) == 2 and all(values) else []


def _view(context: ResultContext, source: Dataset) -> str:
    scored = {score.sop_instance_uid: score.view for score in context.prediction.images}
    return scored.get(str(source.SOPInstanceUID)) or str(source.get("ViewPosition", ""))


def _group(context: ResultContext, score: ImageScore) -> ContentItem:
    """Report one image's score (PS3.16 TID 1410); the order of the items is the template's."""
    bundle = context.bundle
    parameters = f"decision threshold {context.prediction.threshold:.4f}"
    site = CodeContentItem(codes.FINDING_SITE, codes.BREAST, HAS_CONCEPT_MOD)
    side = CodeContentItem(codes.LATERALITY, codes.SIDES[score.laterality], HAS_CONCEPT_MOD)
    tracking_uid = context.tracking_uid(score.sop_instance_uid)
    probability = round(score.probability * 100, 4)
    items = [
        TextContentItem(codes.TRACKING_IDENTIFIER, tracking_identifier(score), HAS_OBS_CONTEXT),
        UIDRefContentItem(codes.TRACKING_UNIQUE_IDENTIFIER, tracking_uid, HAS_OBS_CONTEXT),
        with_children(site, [side]),
        TextContentItem(codes.ALGORITHM_NAME, bundle.name, HAS_CONCEPT_MOD),
        TextContentItem(codes.ALGORITHM_VERSION, bundle.version, HAS_CONCEPT_MOD),
        TextContentItem(codes.ALGORITHM_PARAMETERS, parameters, HAS_CONCEPT_MOD),
        CodeContentItem(codes.ALGORITHM_FAMILY, codes.ARTIFICIAL_INTELLIGENCE, HAS_CONCEPT_MOD),
        NumContentItem(codes.PROBABILITY_OF_CANCER, probability, codes.PERCENT, relationship_type=CONTAINS),
        CodeContentItem(codes.GEOMETRIC_PURPOSE, codes.BOUNDED_BY, CONTAINS),
        _region(context, score),
    ]
    return container(codes.MEASUREMENT_GROUP, items, template_id="1410")


def _region(context: ResultContext, score: ImageScore) -> ContentItem:
    # A closed POLYLINE: the Stone viewer draws no other outline.
    item = ScoordContentItem(
        codes.IMAGE_REGION,
        GraphicTypeValues.POLYLINE,
        _corners(score.region),
        relationship_type=CONTAINS,
    )
    source = context.source(score.sop_instance_uid)
    return with_children(item, [image(codes.ORIGINAL_SOURCE, source, SELECTED_FROM)])


def _corners(region: Region) -> np.ndarray:
    """Walk round a region, back to its start: ``(5, 2)`` float32, column and row."""
    left, top, right, bottom = region.left, region.top, region.right, region.bottom
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], np.float32)


def _comments(context: ResultContext) -> list[ContentItem]:
    sentences = wording.impression(context)
    sentences += wording.breasts(context)
    sentences += [f"{refusal.sentence}." for refusal in context.prediction.refusals]
    sentences.append(wording.model(context))
    return [TextContentItem(codes.COMMENT, " ".join(sentences), CONTAINS)]
