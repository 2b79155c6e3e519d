"""Rules for the measurement report: PS3.16 TID 1500 and 1410, IHE AIR, and what viewers need of it."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.results.checks.rules import Level, RuleBook, Subject, unless
from dicom_node.results.checks.structured_report import selected_images, template_of
from dicom_node.results.checks.text_report import admits_gaps, sentences
from dicom_node.results.checks.tree import children, coded_value, concept, points, referenced_uid

RULES = RuleBook()

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_REGION_TYPES = ("SCOORD", "SCOORD3D")


@RULES.rule("MR-02", Level.IHE_AIR, "Procedure reported names the imaging procedure, not the algorithm")
def _procedure(subject: Subject) -> Iterator[str]:
    named = children(subject.instance, "121058", "CODE", "HAS CONCEPT MOD")
    yield from unless(named and "111411" not in map(coded_value, named))


@RULES.rule("MR-03", Level.VIEWER, "a group of the image library has every image with a region (OHIF)")
def _library(subject: Subject) -> Iterator[str]:
    entries = {
        referenced_uid(entry)
        for library in children(subject.instance, "111028", "CONTAINER")
        for group in children(library, "126200", "CONTAINER")
        for entry in children(group, None, "IMAGE")
    }
    yield from unless(entries, "no group")
    for node in subject.nodes:
        if node.item.get("ValueType") == "SCOORD":
            for image in selected_images(subject.instance, node.item):
                yield from unless(referenced_uid(image) in entries, node.place)


@RULES.rule("MR-04", Level.STANDARD, "there are measurement groups of TID 1410, none of them empty")
def _groups(subject: Subject) -> Iterator[str]:
    groups = groups_of(subject.instance)
    yield from unless(groups, "none")
    for place, group in groups:
        yield from unless(template_of(group) == "1410" and children(group), place)


@RULES.rule("MR-05", Level.IHE_AIR, "each group has a tracking identifier and a tracking UID of its own")
def _tracking(subject: Subject) -> Iterator[str]:
    seen: set[str] = set()
    for place, group in groups_of(subject.instance):
        names = children(group, "112039", "TEXT", "HAS OBS CONTEXT")
        uids = [str(item.UID) for item in children(group, "112040", "UIDREF", "HAS OBS CONTEXT")]
        yield from unless(len(names) == 1 and len(uids) == 1 and not seen & set(uids), place)
        seen.update(uids)


@RULES.rule("MR-06", Level.IHE_AIR, "each group names its algorithm and version (TID 4019)")
def _algorithm(subject: Subject) -> Iterator[str]:
    for place, group in groups_of(subject.instance):
        named = all(children(group, name, "TEXT", "HAS CONCEPT MOD") for name in ("111001", "111003"))
        yield from unless(named, place)


@RULES.rule("MR-07", Level.VIEWER, "each group has one image region, or a segment where a site asked for it")
def _regions(subject: Subject) -> Iterator[str]:
    # OHIF loads no report with a group that has neither; one with a segment neither, which profiles say.
    for place, group in groups_of(subject.instance):
        if segment_frames(group):
            yield from unless(not children(group, "111030"), f"{place}: region and segment")
            continue
        regions = [r for r in children(group, "111030") if r.get("ValueType") in _REGION_TYPES]
        yield from unless(len(regions) == 1, place)


@RULES.rule("MR-08", Level.VIEWER, "a region is selected from an image named 111040 (Stone)")
def _named(subject: Subject) -> Iterator[str]:
    for place, region in _flat_regions(subject.instance):
        images = children(region, None, "IMAGE", "SELECTED FROM")
        yield from unless(images and all(concept(image) == "111040" for image in images), place)


@RULES.rule("MR-09", Level.VIEWER, "a region is a point or a closed polyline (Stone)")
def _shapes(subject: Subject) -> Iterator[str]:
    for place, region in _flat_regions(subject.instance):
        corners = points(region)
        closed = len(corners) > 3 and corners[0] == corners[-1]
        kind = region.get("GraphicType")
        yield from unless(kind == "POINT" or (kind == "POLYLINE" and closed), place)


@RULES.rule("MR-10", Level.VIEWER, "each region says that the finding is bounded by it (3D Slicer)")
def _purpose(subject: Subject) -> Iterator[str]:
    for place, group in groups_of(subject.instance):
        if segment_frames(group):
            continue
        purposes = [coded_value(item) for item in children(group, "130400", "CODE")]
        yield from unless(purposes == ["75958009"], place)


@RULES.rule("MR-11", Level.PROJECT, "each group on a projection image names the site and its side")
def _site(subject: Subject) -> Iterator[str]:
    for place, group in groups_of(subject.instance):
        sites = children(group, "363698007", "CODE", "HAS CONCEPT MOD")
        flat = bool(children(group, "111030", "SCOORD"))
        sided = not flat or all(children(s, "272741003", "CODE", "HAS CONCEPT MOD") for s in sites)
        yield from unless(len(sites) == 1 and sided, place)


@RULES.rule("MR-12", Level.PROJECT, "each group has a result: a finding or a probability, that at most once")
def _result(subject: Subject) -> Iterator[str]:
    for place, group in groups_of(subject.instance):
        probabilities = children(group, "111047", "NUM")
        stated = probabilities or children(group, "121071", "CODE")
        yield from unless(stated and len(probabilities) <= 1, place)


@RULES.rule("MR-13", Level.PROJECT, "a comment says that no radiologist verified it, and what is missing")
def _comment(subject: Subject) -> Iterator[str]:
    comments = [t for c in children(subject.instance, "C0034375", "CONTAINER") for t in sentences(c)]
    yield from unless(any("Not verified by a radiologist" in text for text in comments), "not verified")
    yield from unless(admits_gaps(subject.instance), "incomplete")


@RULES.rule("MR-14", Level.STANDARD, "a segment reference has a frame or a segment number, not both")
def _segments(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        for reference in node.item.get("ReferencedSOPSequence") or ():
            both = "ReferencedFrameNumber" in reference and "ReferencedSegmentNumber" in reference
            yield from unless(not both, node.place)


@RULES.rule("MR-15", Level.STANDARD, "a segment reference names one frame, and its source image")
def _frames(subject: Subject) -> Iterator[str]:
    for place, group in groups_of(subject.instance):
        frames = segment_frames(group)
        sources = children(group, "121233", "IMAGE")
        yield from unless(len(frames) <= 1 and len(sources) == len(frames), place)
        for frame in frames:
            (reference,) = frame.ReferencedSOPSequence
            is_segmentation = reference.ReferencedSOPClassUID == _SEGMENTATION
            yield from unless(is_segmentation and reference.get("ReferencedFrameNumber"), f"{place}: frame")


def segment_frames(group: Dataset) -> list[Dataset]:
    """Give the items of a measurement group that reference a frame of a segmentation."""
    return children(group, "121214", "IMAGE")


def groups_of(report: Dataset) -> list[tuple[str, Dataset]]:
    """Give the measurement groups with their names for a message, in order."""
    groups = [
        group
        for measurements in children(report, "126010", "CONTAINER")
        for group in children(measurements, "125007", "CONTAINER")
    ]
    return [(f"group {position}", group) for position, group in enumerate(groups, start=1)]


def tracking_uids(report: Dataset) -> set[str]:
    """Give the tracking UIDs of all measurement groups, or of all findings of a CAD report."""
    uids = {str(report.UID)} if concept(report) == "112040" else set()
    for child in children(report):
        uids |= tracking_uids(child)
    return uids


def _flat_regions(report: Dataset) -> Iterator[tuple[str, Dataset]]:
    for place, group in groups_of(report):
        for region in children(group, "111030", "SCOORD"):
            yield place, region
