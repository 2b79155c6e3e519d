"""The findings of a Mammography CAD report: marked places, alone or put together from two images.

A mass is no Single Image Finding in PS3.16 CID 6014. Seen in one view it is a density; seen in both views of
a breast it is a Composite Feature of two densities. An asymmetry has one part in each breast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_node.results import cad_codes, codes, identity, plain_items
from dicom_node.results.context import ResultContext
from dicom_node.results.lesions import Lesion, code_of, lesions
from dicom_node.results.plain_items import (
    CONTAINS,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    HAS_PROPERTIES,
    INFERRED_FROM,
    Position,
)
from models.contract import ImageScore

_CALCIFICATIONS = (codes.CALCIFICATION_FINDING.value, cad_codes.CLUSTER.value)
_ASYMMETRIES = {code.value: code for code in (cad_codes.ASYMMETRY, cad_codes.FOCAL_ASYMMETRY)}
_AS_THEY_ARE = {code.value: code for code in (cad_codes.CALCIFICATION, cad_codes.DISTORTION)}


@dataclass(frozen=True, slots=True)
class Impression:
    """One mark of the report: a place, or two that are one feature.

    Attributes
    ----------
    parts : tuple of Lesion
        One place, or two on different images.
    feature : pydicom.sr.coding.Code or None
        What two places are together; None for one.
    """

    parts: tuple[Lesion, ...]
    feature: Code | None = None


def impressions(context: ResultContext) -> list[Impression]:
    """Put a study's marked places together, in the order of its images.

    Two places are one mass where each view of the breast has exactly one of it: with more, nobody knows which
    belongs to which. The same holds for an asymmetry and the same view of both breasts.
    """
    found = list(lesions(context))
    paired: dict[str, Impression] = {}
    for first, second in combinations(found, 2):
        feature = _common_feature(first, second)
        if feature and _is_only_one(first, found) and _is_only_one(second, found):
            both = Impression((first, second), feature)
            if not {first.tracking_uid, second.tracking_uid} & paired.keys():
                paired |= {first.tracking_uid: both, second.tracking_uid: both}
    marks: list[Impression] = []
    for lesion in found:
        impression = paired.get(lesion.tracking_uid) or Impression((lesion,))
        if not any(impression is other for other in marks):
            marks.append(impression)
    return marks


def _common_feature(first: Lesion, second: Lesion) -> Code | None:
    one, other = first.score, second.score
    if first.finding.value != second.finding.value:
        return None
    is_mass = first.finding.value == cad_codes.MASS.value
    if is_mass and one.laterality is other.laterality and one.view != other.view:
        return cad_codes.MASS
    if one.laterality is not other.laterality and one.view == other.view:
        return _ASYMMETRIES.get(first.finding.value)
    return None


def _is_only_one(lesion: Lesion, found: Sequence[Lesion]) -> bool:
    """Tell whether its image has no other place of the same finding."""
    alike = [x for x in found if x.score is lesion.score and x.finding.value == lesion.finding.value]
    return len(alike) == 1


def detected(finding: Code) -> Code:
    """Give the Single Image Finding (PS3.16 CID 6014) that a finding is reported as."""
    if finding.value in _CALCIFICATIONS:
        return cad_codes.CLUSTER
    return _AS_THEY_ARE.get(finding.value, cad_codes.DENSITY)


def detections(scores: Iterable[ImageScore]) -> list[Code]:
    """Give what the model looked for: densities, and whatever its classes and marks name beside them."""
    looked_for = [cad_codes.DENSITY]
    for image in scores:
        named = [score.finding for score in image.classes]
        named += [mark.finding for mark in image.marks if mark.finding]
        looked_for += [detected(code_of(f)) for f in named if f.value != codes.NORMAL_TISSUE.value]
    return list({code.value: code for code in looked_for}.values())


def algorithm(context: ResultContext) -> Iterator[Dataset]:
    """Name the algorithm (PS3.16 TID 4019)."""
    yield plain_items.text(HAS_PROPERTIES, codes.ALGORITHM_NAME, context.bundle.name)
    yield plain_items.text(HAS_PROPERTIES, codes.ALGORITHM_VERSION, context.bundle.version)


def impression_item(
    context: ResultContext, impression: Impression, positions: dict[str, Position]
) -> Dataset:
    """Report one mark (PS3.16 TID 4003).

    Parameters
    ----------
    context : ResultContext
        What is reported.
    impression : Impression
        The mark.
    positions : dict of str to tuple of int
        By SOP Instance UID, where each image is in the report's Image Library.
    """
    if impression.feature is None:
        finding = _single(context, impression.parts[0], CONTAINS, positions)
    else:
        finding = _composite(context, impression, impression.feature, positions)
    intent = _intent(context, impression.parts)
    return plain_items.container(INFERRED_FROM, cad_codes.INDIVIDUAL_IMPRESSION, [intent, finding])


def _intent(context: ResultContext, parts: Iterable[Lesion]) -> Dataset:
    """Ask for presentation of what is at or above the threshold (PS3.4 O.2.2.1)."""
    reached = max(part.mark.probability for part in parts) >= context.prediction.threshold
    value = cad_codes.REQUIRED if reached else cad_codes.OPTIONAL
    return plain_items.coded(HAS_CONCEPT_MOD, cad_codes.RENDERING_INTENT, value)


def _tracking(name: str, uid: str) -> Iterator[Dataset]:
    yield plain_items.text(HAS_OBS_CONTEXT, codes.TRACKING_IDENTIFIER, name)
    yield plain_items.uid_reference(HAS_OBS_CONTEXT, codes.TRACKING_UNIQUE_IDENTIFIER, uid)


def _probability(context: ResultContext, value: float, certainty: Code) -> Dataset:
    """Say the probability of cancer; of anything else how certain the finding is."""
    name = codes.PROBABILITY_OF_CANCER if context.is_about_cancer else certainty
    return plain_items.number(HAS_PROPERTIES, name, round(value * 100, 4), codes.PERCENT)


def _single(
    context: ResultContext, lesion: Lesion, relationship: str, positions: dict[str, Position]
) -> Dataset:
    """Report one place in one image (PS3.16 TID 4006); the order of the items is the template's."""
    kind = detected(lesion.finding)
    position = positions[lesion.score.sop_instance_uid]
    outline = (*lesion.mark.outline, lesion.mark.outline[0])
    items = [
        _intent(context, [lesion]),
        *_tracking(lesion.name, lesion.tracking_uid),
        *algorithm(context),
        _probability(context, lesion.mark.probability, codes.CERTAINTY_OF_FINDING),
        plain_items.coordinates(HAS_PROPERTIES, cad_codes.CENTRE, "POINT", [lesion.mark.centre], position),
        plain_items.coordinates(HAS_PROPERTIES, cad_codes.OUTLINE, "POLYLINE", outline, position),
        *_described(lesion, kind),
    ]
    return plain_items.coded(relationship, cad_codes.SINGLE_IMAGE_FINDING, kind, items)


def _described(lesion: Lesion, kind: Code) -> Iterator[Dataset]:
    if kind is cad_codes.CLUSTER:
        # TID 4010 wants a word about the calcifications: that they lie together is what a mark says.
        name = cad_codes.CALCIFICATION_DISTRIBUTION
        yield plain_items.coded(HAS_PROPERTIES, name, cad_codes.GROUPED)
    own = lesion.own_class
    if kind is cad_codes.DENSITY and own and own.margins:
        yield plain_items.coded(HAS_PROPERTIES, codes.MARGINS, code_of(own.margins))


def _composite(
    context: ResultContext, impression: Impression, feature: Code, positions: dict[str, Position]
) -> Dataset:
    """Report two places as one feature (PS3.16 TID 4004)."""
    parts = impression.parts
    is_mass = feature is cad_codes.MASS
    relation = cad_codes.RELATED_SPATIALLY if is_mass else cad_codes.RELATED_CONTRALATERALLY
    uids = [part.tracking_uid for part in parts]
    tracking_uid = identity.uid_for("tracking.feature", context.bundle, uids)
    items = [
        _intent(context, parts),
        *_tracking(" and ".join(part.name for part in parts), tracking_uid),
        plain_items.coded(HAS_PROPERTIES, cad_codes.COMPOSITE_TYPE, relation),
        plain_items.coded(HAS_PROPERTIES, cad_codes.SCOPE_OF_FEATURE, cad_codes.ON_SEVERAL_IMAGES),
        *algorithm(context),
        _probability(context, max(part.mark.probability for part in parts), cad_codes.CERTAINTY_OF_FEATURE),
        *(_single(context, part, INFERRED_FROM, positions) for part in parts),
    ]
    return plain_items.coded(CONTAINS, cad_codes.COMPOSITE_FEATURE, feature, items)
