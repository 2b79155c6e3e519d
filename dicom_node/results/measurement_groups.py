"""The measurement groups of the report: one for each image scored, then one for each place marked.

Each group has an image region, see :mod:`dicom_node.results.measurement_report`. What it says of a finding
is coded by the rows of PS3.16 TID 1410; the order of the items is the template's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from highdicom.sr import (
    CodeContentItem,
    ContentItem,
    GraphicTypeValues,
    ImageContentItem,
    NumContentItem,
    ScoordContentItem,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom import dcmread
from pydicom.sr.coding import Code

from dicom_node.results import codes, wording
from dicom_node.results.content_tree import (
    CONTAINS,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    SELECTED_FROM,
    container,
    image,
    with_children,
)
from dicom_node.results.context import BuiltObject, ResultContext
from dicom_node.results.lesions import Lesion, code_of
from models.contract import ClassScore, ImageScore, Region


def tracking_identifier(score: ImageScore) -> str:
    """Name what a measurement group and its segment speak of, such as ``"AI image score R CC"``."""
    return f"AI image score {wording.place(score)}"


def image_group(context: ResultContext, score: ImageScore, *, every_class: bool = False) -> ContentItem:
    """Report what the model said of one image; the region is what was fed to the network.

    Parameters
    ----------
    context : ResultContext
        What is reported.
    score : models.contract.ImageScore
        The image's score; with classes, the most probable one is the finding.
    every_class : bool
        Whether to report the probability of every class instead of the first alone. OHIF prints them all
        under the same label.
    """
    classes = score.classes if every_class else score.classes[:1]
    top = score.classes[0] if score.classes else None
    return _group(
        context,
        score,
        tracking=(tracking_identifier(score), context.tracking_uid(score.sop_instance_uid)),
        finding=code_of(top.finding) if top else None,
        probability=score.probability,
        evaluations=[*_certainties(classes), *_margins(top)],
        region=_outline(context, score, _corners(score.region)),
    )


@dataclass(frozen=True, slots=True)
class SegmentFrame:
    """The frame of a segmentation that shows one segment."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int


def frames_of_segments(objects: Iterable[BuiltObject]) -> dict[str, SegmentFrame]:
    """Find the frame of each segment of the lesion segmentations by its tracking UID."""
    found = {}
    for item in objects:
        if item.kind == "lesion_segmentation":
            instance = dcmread(BytesIO(item.content), stop_before_pixels=True)
            for segment in instance.SegmentSequence:
                # Segments have one frame each, in their order.
                frame = SegmentFrame(item.sop_class_uid, item.sop_instance_uid, int(segment.SegmentNumber))
                found[str(segment.TrackingUID)] = frame
    return found


def lesion_group(context: ResultContext, lesion: Lesion, frame: SegmentFrame | None = None) -> ContentItem:
    """Report one marked place; the region is its outline, or a frame of a segmentation.

    Parameters
    ----------
    context : ResultContext
        What is reported.
    lesion : dicom_node.results.lesions.Lesion
        The place; segment and presentation state name it alike.
    frame : SegmentFrame, optional
        Its segment, for readers that want a reference instead of coordinates. OHIF does not load such a
        report.
    """
    outline = np.array([*lesion.mark.outline, lesion.mark.outline[0]], np.float32)
    return _group(
        context,
        lesion.score,
        tracking=(lesion.name, lesion.tracking_uid),
        finding=lesion.finding,
        probability=lesion.mark.probability,
        evaluations=_margins(lesion.own_class),
        region=_outline(context, lesion.score, outline)
        if frame is None
        else _segment(context, lesion, frame),
    )


def _group(
    context: ResultContext,
    score: ImageScore,
    *,
    tracking: tuple[str, str],
    finding: Code | None,
    probability: float,
    evaluations: Iterable[ContentItem],
    region: Iterable[ContentItem],
) -> ContentItem:
    bundle, threshold = context.bundle, context.prediction.threshold
    site = CodeContentItem(codes.FINDING_SITE, codes.BREAST, HAS_CONCEPT_MOD)
    side = CodeContentItem(codes.LATERALITY, codes.SIDES[score.laterality], HAS_CONCEPT_MOD)
    items = [
        TextContentItem(codes.TRACKING_IDENTIFIER, tracking[0], HAS_OBS_CONTEXT),
        UIDRefContentItem(codes.TRACKING_UNIQUE_IDENTIFIER, tracking[1], HAS_OBS_CONTEXT),
        *([CodeContentItem(codes.FINDING, finding, CONTAINS)] if finding else []),
        with_children(site, [side]),
        TextContentItem(codes.ALGORITHM_NAME, bundle.name, HAS_CONCEPT_MOD),
        TextContentItem(codes.ALGORITHM_VERSION, bundle.version, HAS_CONCEPT_MOD),
        TextContentItem(codes.ALGORITHM_PARAMETERS, wording.parameters(threshold), HAS_CONCEPT_MOD),
        CodeContentItem(codes.ALGORITHM_FAMILY, codes.ARTIFICIAL_INTELLIGENCE, HAS_CONCEPT_MOD),
        *_score(context, probability),
        *evaluations,
        *region,
    ]
    return container(codes.MEASUREMENT_GROUP, items, template_id="1410")


def _score(context: ResultContext, probability: float) -> Iterator[ContentItem]:
    """Say the probability of what the task looks for, and of cancer alone whether it is malignant."""
    if not context.is_about_cancer:
        item = _percentage(codes.CERTAINTY_OF_FINDING, probability)
        yield with_children(item, [CodeContentItem(codes.FINDING, codes.ABNORMAL_STRUCTURE, HAS_CONCEPT_MOD)])
        return
    opinion = codes.MALIGNANT if probability >= context.prediction.threshold else codes.BENIGN
    yield _percentage(codes.PROBABILITY_OF_CANCER, probability)
    yield CodeContentItem(codes.CLASSIFICATION, opinion, CONTAINS)


def _percentage(name: Code, probability: float) -> ContentItem:
    return NumContentItem(name, round(probability * 100, 4), codes.PERCENT, relationship_type=CONTAINS)


def _certainties(classes: Sequence[ClassScore]) -> Iterator[ContentItem]:
    """Say how sure the model is of each class (PS3.16 TID 300, with the class as modifier)."""
    for score in classes:
        item = _percentage(codes.CERTAINTY_OF_FINDING, score.probability)
        modifiers = [CodeContentItem(codes.FINDING, code_of(score.finding), HAS_CONCEPT_MOD)]
        if score.margins:
            # Several classes of the same finding differ in their margins alone.
            modifiers.append(CodeContentItem(codes.MARGINS, code_of(score.margins), HAS_CONCEPT_MOD))
        yield with_children(item, modifiers)


def _margins(score: ClassScore | None) -> Iterator[ContentItem]:
    if score and score.margins:
        yield CodeContentItem(codes.MARGINS, code_of(score.margins), CONTAINS)


def _outline(context: ResultContext, score: ImageScore, points: np.ndarray) -> Iterator[ContentItem]:
    yield CodeContentItem(codes.GEOMETRIC_PURPOSE, codes.BOUNDED_BY, CONTAINS)
    # A closed POLYLINE: the Stone viewer draws no other outline.
    item = ScoordContentItem(
        codes.IMAGE_REGION, GraphicTypeValues.POLYLINE, points, relationship_type=CONTAINS
    )
    source = context.source(score.sop_instance_uid)
    yield with_children(item, [image(codes.ORIGINAL_SOURCE, source, SELECTED_FROM, score.frame)])


def _segment(context: ResultContext, lesion: Lesion, frame: SegmentFrame) -> Iterator[ContentItem]:
    """Reference a frame of a segmentation and the image that it was made from (PS3.16 TID 1410)."""
    yield ImageContentItem(
        codes.SEGMENTATION_FRAME,
        frame.sop_class_uid,
        frame.sop_instance_uid,
        referenced_frame_numbers=frame.frame,
        relationship_type=CONTAINS,
    )
    source = context.source(lesion.score.sop_instance_uid)
    yield image(codes.SOURCE_FOR_SEGMENTATION, source, CONTAINS, lesion.score.frame)


def _corners(region: Region) -> np.ndarray:
    """Walk round a region, back to its start: ``(5, 2)`` float32, column and row."""
    left, top, right, bottom = region.left, region.top, region.right, region.bottom
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], np.float32)
