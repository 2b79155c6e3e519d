"""The measurement report: a TID 1500 SR whose every measurement group has an image region.

A group with a number but without coordinates stops OHIF from loading the whole report, so a score of an
image is bound to the region that was fed to the network. Two SOP classes carry the same content.
"""

from __future__ import annotations

from collections.abc import Iterator

from highdicom.sr import CodeContentItem, ContentItem, NumContentItem, TextContentItem
from pydicom.dataset import Dataset

from dicom_node.results import codes, wording
from dicom_node.results.content_tree import (
    CONTAINS,
    HAS_ACQ_CONTEXT,
    HAS_CONCEPT_MOD,
    add_document,
    container,
    image,
    observation_context,
    procedure,
    with_children,
)
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.header import new_instance
from dicom_node.results.lesions import lesions
from dicom_node.results.measurement_groups import frames_of_segments, image_group, lesion_group
from dicom_node.results.source import pair, view_modifiers_of
from models.contract import Outcome

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"

# Each form of the report is an object of its own; by (every class, by segment).
_FORMS = {(False, False): "", (True, False): ".all_classes", (False, True): ".segments"}


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


def build_all_classes(order: BuildOrder) -> list[Dataset]:
    """Build the report as :func:`build` does, with the probability of every class of each image.

    Parameters
    ----------
    order : BuildOrder
        What to report; the segmentations made before are listed as evidence.

    Returns
    -------
    list of pydicom.dataset.Dataset
        One document; none for a refused study or one that was not scored by classes.
    """
    if not any(score.classes for score in order.context.prediction.images):
        return []
    return _build(order, COMPREHENSIVE_3D_SR, every_class=True)


def build_segments(order: BuildOrder) -> list[Dataset]:
    """Build the report as :func:`build` does, with places marked as frames of the segmentation of lesions.

    Parameters
    ----------
    order : BuildOrder
        What to report; the lesion segmentations must have been made before.

    Returns
    -------
    list of pydicom.dataset.Dataset
        One document, or none for a refused study.
    """
    return _build(order, COMPREHENSIVE_3D_SR, by_segment=True)


def build_segments_2d(order: BuildOrder) -> list[Dataset]:
    """Build the report of :func:`build_segments` as Comprehensive SR."""
    return _build(order, COMPREHENSIVE_SR, by_segment=True)


def _build(
    order: BuildOrder, sop_class_uid: str, *, every_class: bool = False, by_segment: bool = False
) -> list[Dataset]:
    context = order.context
    if context.prediction.outcome is Outcome.REFUSED:
        return []
    document = new_instance(
        context,
        sop_class_uid=sop_class_uid,
        # The two SOP classes are two objects, and an archive may get both.
        kind=f"measurement_report.{sop_class_uid}{_FORMS[every_class, by_segment]}",
        modality="SR",
        series_number=9101,
        description="AI mammography scores",
    )
    groups = [image_group(context, s, every_class=every_class) for s in context.prediction.images]
    frames = frames_of_segments(order.siblings) if by_segment else {}
    groups += [lesion_group(context, lesion, frames.get(lesion.tracking_uid)) for lesion in lesions(context)]
    children = [
        *observation_context(context),
        procedure(context),
        container(codes.IMAGE_LIBRARY, [_library_group(context)]),
        container(codes.IMAGING_MEASUREMENTS, groups),
        container(codes.QUALITATIVE_EVALUATIONS, _comments(context)),
    ]
    add_document(document, order, codes.IMAGING_MEASUREMENT_REPORT, "1500", children)
    return [document]


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
    orientation = pair(source, "PatientOrientation")
    for name, value in zip((codes.ORIENTATION_ROW, codes.ORIENTATION_COLUMN), orientation, strict=False):
        yield TextContentItem(name, str(value), HAS_ACQ_CONTEXT)
    # PS3.3 10.7.1.3: the row spacing, which is vertical, comes first; TID 1603 wants it last.
    spacing = reversed(pair(source, "ImagerPixelSpacing"))
    for name, value in zip((codes.HORIZONTAL_SPACING, codes.VERTICAL_SPACING), spacing, strict=False):
        yield NumContentItem(name, float(value), codes.MILLIMETRE, relationship_type=HAS_ACQ_CONTEXT)
    side, view = context.side_and_view(source)
    if side:
        yield CodeContentItem(codes.IMAGE_LATERALITY, codes.SIDES[side], HAS_ACQ_CONTEXT)
    if view:
        item = CodeContentItem(codes.IMAGE_VIEW, codes.VIEWS[view], HAS_ACQ_CONTEXT)
        modifiers = [
            CodeContentItem(codes.IMAGE_VIEW_MODIFIER, code, HAS_CONCEPT_MOD)
            for code in view_modifiers_of(source)
        ]
        yield with_children(item, modifiers) if modifiers else item


def _comments(context: ResultContext) -> list[ContentItem]:
    sentences = wording.impression(context)
    sentences += wording.breasts(context)
    sentences += wording.findings(context)
    sentences += wording.refusals(context)
    sentences.append(wording.model(context))
    return [TextContentItem(codes.COMMENT, " ".join(sentences), CONTAINS)]
