"""Rules across objects, and between objects and the images that they were made from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset

from dicom_node.results.checks.cad_report import single_finding_uids
from dicom_node.results.checks.header import MODALITY_OF_CLASS, ZONE, processing_equipment
from dicom_node.results.checks.measurement_report import tracking_uids
from dicom_node.results.checks.rules import Fault, Level, RuleBook, Subject, unless
from dicom_node.results.checks.structured_report import template_of
from dicom_node.results.checks.tree import evidence, evidence_uids

SOURCE_RULES = RuleBook()

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
# The Series Description alone tells a revision to everybody, in the words of each kind of result.
_REVISION = re.compile(r", revision (\d+) \(not verified\)$")
_COPIED = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_COPIED_SEQUENCES = (
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "IssuerOfAccessionNumberSequence",
)


@SOURCE_RULES.rule(
    "SRC-01", Level.STANDARD, "patient and study attributes are those of the images, unchanged"
)
def _copied(subject: Subject) -> Iterator[str]:
    for source in list(subject.sources.values())[:1]:
        for keyword in _COPIED:
            yield from unless(_same(source, subject.instance, keyword), keyword)
        for keyword in _COPIED_SEQUENCES:
            yield from unless((keyword in source) == (keyword in subject.instance), keyword)


@SOURCE_RULES.rule("SRC-02", Level.STANDARD, "a result is no instance of the images' series")
def _own_series(subject: Subject) -> Iterator[str]:
    series = {source.get("SeriesInstanceUID") for source in subject.sources.values()}
    yield from unless(subject.instance.get("SeriesInstanceUID") not in series)


@SOURCE_RULES.rule("SRC-03", Level.STANDARD, "its zone is that of the images where they name one")
def _zone(subject: Subject) -> Iterator[str]:
    for source in list(subject.sources.values())[:1]:
        zone = str(source.get("TimezoneOffsetFromUTC") or "").strip()
        own = str(subject.instance.get("TimezoneOffsetFromUTC") or "")
        # Only a well-formed one is taken over; no zone lies at minus nothing.
        if ZONE.fullmatch(zone) and zone != "-0000":
            yield from unless(own == zone)


def analyses_of(objects: Iterable[Dataset]) -> list[list[Dataset]]:
    """Put together the objects of one study that one algorithm made of one revision.

    Parameters
    ----------
    objects : iterable of pydicom.dataset.Dataset
        Result objects of any studies.

    Returns
    -------
    list of list of pydicom.dataset.Dataset
        One list for each analysis; those and the objects in them in the order given.
    """
    found: dict[tuple[str, frozenset[str], str], list[Dataset]] = {}
    for instance in objects:
        key = (str(instance.get("StudyInstanceUID", "")), _devices(instance), _revision(instance))
        found.setdefault(key, []).append(instance)
    return list(found.values())


def faults_together(objects: Sequence[Dataset], sources: Mapping[str, Dataset]) -> list[Fault]:
    """Hold objects of one analysis against one another.

    Parameters
    ----------
    objects : sequence of pydicom.dataset.Dataset
        All that was made of one study revision, or some of it.
    sources : mapping of str to pydicom.dataset.Dataset
        Headers of the images by SOP Instance UID; may be empty.
    """
    found = []
    for identifier, level, text, broken_by in _RULES:
        found += [Fault(identifier, level, text, uid, where) for uid, where in broken_by(objects, sources)]
    return found


_Breach = tuple[str, str]
_Finder = Callable[[Sequence[Dataset], Mapping[str, Dataset]], Iterable[_Breach]]


def _one_identity(objects: Sequence[Dataset], _: Mapping[str, Dataset]) -> Iterator[_Breach]:
    counts = Counter(map(_uid, objects))
    yield from ((_uid(o), "") for o in objects if counts[_uid(o)] > 1)


def _alone(objects: Sequence[Dataset], _: Mapping[str, Dataset]) -> Iterator[_Breach]:
    counts = Counter(str(o.get("SeriesInstanceUID", "")) for o in objects)
    for instance in objects:
        if (
            instance.get("Modality") in ("SR", "SEG")
            and counts[str(instance.get("SeriesInstanceUID", ""))] > 1
        ):
            yield _uid(instance), ""


def _one_study(objects: Sequence[Dataset], _: Mapping[str, Dataset]) -> Iterator[_Breach]:
    first = objects[0].get("StudyInstanceUID") if objects else None
    yield from ((_uid(o), "") for o in objects if o.get("StudyInstanceUID") != first)


def _one_device(objects: Sequence[Dataset], _: Mapping[str, Dataset]) -> Iterator[_Breach]:
    devices = {_uid(o): _devices(o) for o in objects}
    first = next(iter(devices.values()), frozenset())
    yield from ((uid, "") for uid, named in devices.items() if named != first)


def _tracked(objects: Sequence[Dataset], _: Mapping[str, Dataset]) -> Iterator[_Breach]:
    reports = [o for o in objects if template_of(o) == "1500"]
    if not reports:
        return
    known = set().union(*(tracking_uids(report) for report in reports))
    for instance in objects:
        uids = {str(s.get("TrackingUID")) for s in instance.get("SegmentSequence") or ()}
        # Of the three bands the strongest stands for the image's score; a map of values stands for itself.
        if uids and instance.get("SegmentationType") == "BINARY" and not uids & known:
            yield _uid(instance), "segment"
        drawn = {
            str(drawing.TrackingUID)
            for annotation in instance.get("GraphicAnnotationSequence") or ()
            for keyword in ("GraphicObjectSequence", "TextObjectSequence")
            for drawing in annotation.get(keyword) or ()
            if "TrackingUID" in drawing
        }
        if drawn - known:
            yield _uid(instance), "mark"
        if template_of(instance) == "4000" and single_finding_uids(instance) - known:
            yield _uid(instance), "finding"


def _listed(objects: Sequence[Dataset], _: Mapping[str, Dataset]) -> Iterator[_Breach]:
    segmentations = {_uid(o) for o in objects if o.get("SOPClassUID") == SEGMENTATION}
    for report in objects:
        if template_of(report) in ("1500", "2000"):
            missing = segmentations - set(evidence_uids(report))
            if missing:
                yield _uid(report), f"{len(missing)} missing"


def _known(objects: Sequence[Dataset], sources: Mapping[str, Dataset]) -> Iterator[_Breach]:
    for report in objects if sources else ():
        # Results may be listed that are not at hand, and those of an earlier revision in a rejection note.
        images = {
            str(reference.ReferencedSOPInstanceUID)
            for reference in evidence(report)
            if str(reference.ReferencedSOPClassUID) not in MODALITY_OF_CLASS
        }
        if strange := images - set(sources):
            yield _uid(report), f"{len(strange)} images"


_RULES: tuple[tuple[str, Level, str, _Finder], ...] = (
    ("SET-01", Level.STANDARD, "no two objects have one SOP Instance UID", _one_identity),
    ("SET-02", Level.VIEWER, "a report or segmentation is alone in its series (OHIF)", _alone),
    ("SET-03", Level.STANDARD, "the objects belong to one study", _one_study),
    ("SET-04", Level.IHE_AIR, "the objects come from one algorithm", _one_device),
    ("SET-05", Level.IHE_AIR, "segments and marks are tracked as in the measurement report", _tracked),
    ("SET-06", Level.IHE_AIR, "the reports list every segmentation as evidence", _listed),
    ("SET-07", Level.STANDARD, "the evidence is of the images that were analysed", _known),
)


def _devices(instance: Dataset) -> frozenset[str]:
    return frozenset(str(item.get("DeviceUID")) for item in processing_equipment(instance))


def _revision(instance: Dataset) -> str:
    named = _REVISION.search(str(instance.get("SeriesDescription") or ""))
    return named[1] if named else "1"


def _uid(instance: Dataset) -> str:
    return str(instance.get("SOPInstanceUID", ""))


def _same(source: Dataset, result: Dataset, keyword: str) -> bool:
    """Compare one element of two data sets, byte by byte as long as nobody has decoded it."""
    tag = tag_for_keyword(keyword) or 0
    ours, theirs = result.get_item(tag), source.get_item(tag)
    raw = [e.value for e in (ours, theirs) if isinstance(e, RawDataElement) and isinstance(e.value, bytes)]
    if len(raw) == 2:
        return bool(raw[0].rstrip(b" \0") == raw[1].rstrip(b" \0"))
    return _decoded(result, tag) == _decoded(source, tag)


def _decoded(data_set: Dataset, tag: int) -> str:
    # The element itself stays as it is: results copy those of the sources undecoded.
    element = data_set.get_item(tag)
    if isinstance(element, RawDataElement):
        character_set = data_set.get("SpecificCharacterSet")
        encodings = convert_encodings(character_set) if character_set else [default_encoding]
        element = convert_raw_data_element(element, encoding=encodings)
    return "" if element is None or element.value is None else str(element.value)
