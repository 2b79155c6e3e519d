"""Rules for segmentations of one image: pixels, references, segments, and what viewers need (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.results.checks.pixels import faults_of_compressed, is_compressed
from dicom_node.results.checks.rules import Level, RuleBook, Subject, unless
from dicom_node.results.checks.tree import code_of

RULES = RuleBook()

_SIDES = frozenset({("24028007", "SCT"), ("7771000", "SCT")})
_CODES = (
    "SegmentedPropertyCategoryCodeSequence",
    "SegmentedPropertyTypeCodeSequence",
    "AnatomicRegionSequence",
)
_ALGORITHM = ("AlgorithmFamilyCodeSequence", "AlgorithmName", "AlgorithmVersion")
_BITS = {"BINARY": 1, "FRACTIONAL": 8}


@RULES.rule("SEG-01", Level.STANDARD, "its type is BINARY, or FRACTIONAL with a type and a maximum")
def _type(subject: Subject) -> Iterator[str]:
    seg = subject.instance
    kind = str(seg.get("SegmentationType", ""))
    yield from unless(_BITS.get(kind) == seg.get("BitsAllocated"), "BitsAllocated")
    if kind == "FRACTIONAL":
        yield from unless(seg.get("SegmentationFractionalType") in ("PROBABILITY", "OCCUPANCY"), "type")
        yield from unless(seg.get("MaximumFractionalValue"), "MaximumFractionalValue")


@RULES.rule("SEG-02", Level.STANDARD, "Pixel Data has as many bits as its frames need")
def _pixels(subject: Subject) -> Iterator[str]:
    seg = subject.instance
    if is_compressed(seg):
        yield from faults_of_compressed(seg)
        return
    bits = seg.Rows * seg.Columns * seg.NumberOfFrames * seg.BitsAllocated
    length = -(-bits // 8)
    yield from unless(len(seg.PixelData) == length + length % 2)


@RULES.rule("SEG-03", Level.STANDARD, "there are functional groups for each frame")
def _frames(subject: Subject) -> Iterator[str]:
    seg = subject.instance
    if _is_tiled(seg):
        return
    yield from unless(len(seg.PerFrameFunctionalGroupsSequence) == seg.NumberOfFrames)


@RULES.rule("SEG-04", Level.STANDARD, "segments are numbered from 1, labelled, coded and placed in the body")
def _segments(subject: Subject) -> Iterator[str]:
    segments = subject.instance.SegmentSequence
    numbers = [segment.get("SegmentNumber") for segment in segments]
    yield from unless(numbers == list(range(1, len(segments) + 1)) and numbers, "numbers")
    for segment in segments:
        described = segment.get("SegmentLabel") and all(code_of(segment, c)[0] for c in _CODES)
        yield from unless(described, _place(segment))


@RULES.rule("SEG-05", Level.STANDARD, "segments are automatic and name their algorithm and its version")
def _algorithm(subject: Subject) -> Iterator[str]:
    for segment in subject.instance.SegmentSequence:
        item = (segment.get("SegmentationAlgorithmIdentificationSequence") or [Dataset()])[0]
        named = segment.get("SegmentAlgorithmType") == "AUTOMATIC" and segment.get("SegmentAlgorithmName")
        yield from unless(named and all(item.get(keyword) for keyword in _ALGORITHM), _place(segment))


@RULES.rule("SEG-06", Level.IHE_AIR, "each segment has a tracking identifier and a tracking UID of its own")
def _tracking(subject: Subject) -> Iterator[str]:
    seen: set[str] = set()
    for segment in subject.instance.SegmentSequence:
        uid = str(segment.get("TrackingUID", ""))
        yield from unless(segment.get("TrackingID") and uid and uid not in seen, _place(segment))
        seen.add(uid)


@RULES.rule("SEG-07", Level.STANDARD, "the side is in the region's modifier, no Laterality in the series")
def _side(subject: Subject) -> Iterator[str]:
    seg = subject.instance
    yield from unless("Laterality" not in seg, "Laterality")
    for segment in () if _is_slide(seg) else seg.SegmentSequence:
        region = segment.AnatomicRegionSequence[0]
        yield from unless(code_of(region, "AnatomicRegionModifierSequence") in _SIDES, _place(segment))


@RULES.rule("SEG-08", Level.VIEWER, "Referenced Series Sequence names the image (OHIF shows nothing without)")
def _referenced(subject: Subject) -> Iterator[str]:
    yield from unless(referenced_images(subject.instance))


@RULES.rule("SEG-09", Level.STANDARD, "each frame is derived from an image that the series reference names")
def _derived(subject: Subject) -> Iterator[str]:
    seg = subject.instance
    if _is_slide(seg):
        return
    known = referenced_images(seg)
    for position, frame in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        origins = {
            str(image.ReferencedSOPInstanceUID)
            for derivation in frame.get("DerivationImageSequence") or ()
            for image in derivation.SourceImageSequence
        }
        yield from unless(origins and origins <= known, f"frame {position}")


@RULES.rule("SEG-10", Level.VIEWER, "each frame names its segment (Weasis looks nowhere else)")
def _identified(subject: Subject) -> Iterator[str]:
    seg = subject.instance
    if _is_tiled(seg):
        return
    numbers = {segment.SegmentNumber for segment in seg.SegmentSequence}
    for position, frame in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        named = frame.get("SegmentIdentificationSequence")
        yield from unless(named and named[0].ReferencedSegmentNumber in numbers, f"frame {position}")


@RULES.rule("SEG-11", Level.VIEWER, "pixel measures and an orientation are there (OHIF hangs without)")
def _planes(subject: Subject) -> Iterator[str]:
    seg = subject.instance
    if _is_slide(seg):
        return
    groups = [*seg.SharedFunctionalGroupsSequence, *seg.PerFrameFunctionalGroupsSequence]
    for keyword in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        yield from unless(any(group.get(keyword) is not None for group in groups), keyword)


@RULES.rule("SEG-12", Level.STANDARD, "Patient Orientation is there, if only empty (PS3.3 C.7.6.1)")
def _orientation(subject: Subject) -> Iterator[str]:
    yield from unless(_is_slide(subject.instance) or "PatientOrientation" in subject.instance)


@RULES.rule("SEG-13", Level.STANDARD, "rows and columns are those of the image")
def _size(subject: Subject) -> Iterator[str]:
    seg = subject.instance
    for uid in () if _is_slide(seg) else referenced_images(seg):
        source = subject.sources.get(uid)
        if source is not None:
            same = (seg.Rows, seg.Columns) == (source.get("Rows"), source.get("Columns"))
            yield from unless(same)


@RULES.rule("SEG-14", Level.PROJECT, "a binary segment has a colour")
def _colour(subject: Subject) -> Iterator[str]:
    if subject.instance.get("SegmentationType") == "BINARY":
        for segment in subject.instance.SegmentSequence:
            yield from unless(segment.get("RecommendedDisplayCIELabValue"), _place(segment))


@RULES.rule("SEG-15", Level.STANDARD, "dimension indices are of one organisation and fit their frames")
def _dimensions(subject: Subject) -> Iterator[str]:
    seg = subject.instance
    organised = {str(o.DimensionOrganizationUID) for o in seg.DimensionOrganizationSequence}
    indices = seg.DimensionIndexSequence
    yield from unless(all(str(i.DimensionOrganizationUID) in organised for i in indices), "organisation")
    for position, frame in enumerate(seg.get("PerFrameFunctionalGroupsSequence") or (), start=1):
        content = frame.get("FrameContentSequence")
        if content and "DimensionIndexValues" in content[0]:
            values = content[0].DimensionIndexValues
            count = 1 if isinstance(values, int) else len(values)
            yield from unless(count == len(indices), f"frame {position}")


def referenced_images(seg: Dataset) -> set[str]:
    """Give the SOP Instance UIDs of Referenced Series Sequence (0008,1115)."""
    return {
        str(reference.ReferencedSOPInstanceUID)
        for series in seg.get("ReferencedSeriesSequence") or ()
        for reference in series.get("ReferencedInstanceSequence") or ()
    }


def _is_tiled(seg: Dataset) -> bool:
    return str(seg.get("DimensionOrganizationType")) == "TILED_FULL"


def _is_slide(seg: Dataset) -> bool:
    return _is_tiled(seg) or "TotalPixelMatrixOriginSequence" in seg


def _place(segment: Dataset) -> str:
    return f"segment {segment.get('SegmentNumber')}"
