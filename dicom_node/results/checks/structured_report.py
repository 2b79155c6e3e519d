"""Rules for every structured report: evidence, references, coordinates, numbers, honesty (PS3.3 C.17)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.results.checks.header import processing_equipment, texts
from dicom_node.results.checks.rules import Level, RuleBook, Subject, unless
from dicom_node.results.checks.tree import (
    Node,
    children,
    code_of,
    coded_value,
    concept,
    evidence,
    evidence_uids,
    number,
    points,
    referenced_uid,
)

RULES = RuleBook()

# Root template -> document titles that go with it.
_TITLES = {
    "1500": {"126000"},
    "2000": {"18748-4"},
    "2010": {"113000", "113001", "113037", "113038", "113039"},
    "4000": {"111036"},
}
_KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
_PROBABILITIES = frozenset({"111047", "111012", "111011", "111013"})
_POINTS = {"POINT": 1, "CIRCLE": 2, "ELLIPSE": 4}
_LEAST_POLYLINE = 2
_REFERENCES = frozenset({"IMAGE", "COMPOSITE", "WAVEFORM"})
_VALUE_KEYWORD = {
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "CODE": "ConceptCodeSequence",
    "NUM": "MeasuredValueSequence",
}
_SIDES = frozenset({("24028007", "SCT"), ("7771000", "SCT")})


@RULES.rule("SR-01", Level.STANDARD, "the root is a container that names its template and the title of that")
def _root(subject: Subject) -> Iterator[str]:
    root = subject.instance
    template = template_of(root)
    yield from unless(root.get("ValueType") == "CONTAINER", "ValueType")
    yield from unless(template in _TITLES, "template")
    yield from unless(concept(root) in _TITLES.get(template, ()), "title")


@RULES.rule("SR-02", Level.STANDARD, "completion is stated, and an incomplete report says so in words")
def _completion(subject: Subject) -> Iterator[str]:
    report = subject.instance
    if _is_key_object(report):
        return
    yield from unless(report.get("CompletionFlag") in ("COMPLETE", "PARTIAL"), "CompletionFlag")
    if report.get("CompletionFlag") == "PARTIAL":
        yield from unless(report.get("CompletionFlagDescription"), "CompletionFlagDescription")
    yield from unless(report.get("ContentDate") and report.get("ContentTime"), "ContentDate")


@RULES.rule("SR-03", Level.PROJECT, "no algorithm's report is verified or final")
def _unverified(subject: Subject) -> Iterator[str]:
    report = subject.instance
    if _is_key_object(report):
        return
    yield from unless(report.get("VerificationFlag") == "UNVERIFIED", "VerificationFlag")
    yield from unless(report.get("PreliminaryFlag") == "PRELIMINARY", "PreliminaryFlag")
    yield from unless("VerifyingObserverSequence" not in report, "VerifyingObserverSequence")


@RULES.rule("SR-04", Level.STANDARD, "whatever the report references is among its evidence")
def _evidence(subject: Subject) -> Iterator[str]:
    listed = set(evidence_uids(subject.instance))
    yield from unless(listed, "no evidence")
    for node in subject.nodes:
        if node.item.get("ValueType") in _REFERENCES:
            yield from unless(referenced_uid(node.item) in listed, node.place)


@RULES.rule("SR-05", Level.STANDARD, "no instance is listed twice as evidence")
def _repeated(subject: Subject) -> Iterator[str]:
    repeated = sum(count > 1 for count in Counter(evidence_uids(subject.instance)).values())
    yield from unless(not repeated, f"{repeated} instances")


@RULES.rule("SR-06", Level.STANDARD, "content items have a relationship and the value of their type")
def _items(subject: Subject) -> Iterator[str]:
    for node in subject.nodes[1:]:
        yield from unless(node.item.get("RelationshipType"), f"{node.place}: relationship")
        kind = node.item.get("ValueType")
        yield from unless(kind or "ReferencedContentItemIdentifier" in node.item, f"{node.place}: type")
        if keyword := _VALUE_KEYWORD.get(str(kind)):
            yield from unless(node.item.get(keyword), f"{node.place}: value")


@RULES.rule("SR-07", Level.PROJECT, "texts are ASCII")
def _ascii(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        yield from unless(str(node.item.get("TextValue", "")).isascii(), node.place)


@RULES.rule("SR-08", Level.STANDARD, "coordinates fit their graphic type and are selected from an image")
def _graphics(subject: Subject) -> Iterator[str]:
    for node in _spatial(subject):
        data, kind = points(node.item), str(node.item.get("GraphicType", ""))
        fits = len(data) == _POINTS[kind] if kind in _POINTS else len(data) >= _LEAST_POLYLINE
        whole = len(node.item.get("GraphicData") or ()) == 2 * len(data)
        yield from unless(fits and whole and (kind in _POINTS or kind == "POLYLINE"), node.place)
        yield from unless(selected_images(subject.instance, node.item), f"{node.place}: no image")


@RULES.rule("SR-09", Level.PROJECT, "coordinates lie inside their image")
def _inside(subject: Subject) -> Iterator[str]:
    sizes = _sizes(subject)
    for node in _spatial(subject):
        data = points(node.item)
        within = all(column >= 0 and row >= 0 for column, row in data)
        for image in selected_images(subject.instance, node.item):
            columns, rows = sizes.get(referenced_uid(image), (float("inf"), float("inf")))
            within &= all(column <= columns and row <= rows for column, row in data)
        yield from unless(within, node.place)


@RULES.rule("SR-10", Level.STANDARD, "units are of UCUM")
def _units(subject: Subject) -> Iterator[str]:
    for node in _numbers(subject):
        yield from unless(number(node.item)[1][1] == "UCUM", node.place)


@RULES.rule("SR-11", Level.STANDARD, "probabilities and certainties are 0 to 100 per cent")
def _percents(subject: Subject) -> Iterator[str]:
    for node in _numbers(subject):
        if concept(node.item) in _PROBABILITIES:
            value, unit = number(node.item)
            yield from unless(value is not None and 0 <= value <= 100 and unit == ("%", "UCUM"), node.place)


@RULES.rule("SR-12", Level.PROJECT, "no person is named as observer")
def _persons(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        person = concept(node.item) == "121008" or coded_value(node.item) == "121006"
        yield from unless(not person and node.item.get("ValueType") != "PNAME", node.place)


@RULES.rule("SR-13", Level.STANDARD, "the report names its language (TID 1204)")
def _language(subject: Subject) -> Iterator[str]:
    yield from unless(children(subject.instance, "121049", "CODE", "HAS CONCEPT MOD"))


@RULES.rule("SR-14", Level.IHE_AIR, "the algorithm is named as in the contributing equipment")
def _algorithm(subject: Subject) -> Iterator[str]:
    equipment = processing_equipment(subject.instance)
    names = {str(item.get("ManufacturerModelName")) for item in equipment}
    allowed = {
        "111001": names,
        "121015": names,
        "111003": {v for item in equipment for v in texts(item.get("SoftwareVersions"))},
        "121014": {str(item.get("Manufacturer")) for item in equipment},
        "121012": {str(item.get("DeviceUID")) for item in equipment},
    }
    for node in subject.nodes:
        if (name := concept(node.item)) in allowed:
            value = str(node.item.get("TextValue") or node.item.get("UID") or "")
            yield from unless(value in allowed[name], f"{node.place}: {name}")


@RULES.rule("SR-15", Level.STANDARD, "a side of the body is Right or Left of SNOMED CT (CID 244)")
def _sides(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        if concept(node.item) == "272741003":
            yield from unless(code_of(node.item, "ConceptCodeSequence") in _SIDES, node.place)


@RULES.rule("SR-16", Level.STANDARD, "SCT and SRT codes are not mixed")
def _schemes(subject: Subject) -> Iterator[str]:
    used = {
        code_of(node.item, sequence)[1]
        for node in subject.nodes
        for sequence in ("ConceptNameCodeSequence", "ConceptCodeSequence")
    }
    yield from unless(not {"SCT", "SRT"} <= used)


@RULES.rule("SR-17", Level.STANDARD, "a report replaces others than itself, and names them wholly")
def _predecessors(subject: Subject) -> Iterator[str]:
    for study in subject.instance.get("PredecessorDocumentsSequence") or ():
        for series in study.ReferencedSeriesSequence:
            for reference in series.ReferencedSOPSequence:
                named = reference.ReferencedSOPInstanceUID and reference.ReferencedSOPClassUID
                yield from unless(named and reference.ReferencedSOPInstanceUID != subject.uid)


@RULES.rule("SR-18", Level.STANDARD, "an image is referenced by the SOP class that it is of")
def _classes(subject: Subject) -> Iterator[str]:
    for reference in evidence(subject.instance):
        source = subject.sources.get(str(reference.ReferencedSOPInstanceUID))
        if source is not None:
            yield from unless(reference.ReferencedSOPClassUID == source.SOPClassUID)


@RULES.rule("SR-19", Level.STANDARD, "a place in a multi-frame image names the frame")
def _frames(subject: Subject) -> Iterator[str]:
    for node in _spatial(subject):
        for image in selected_images(subject.instance, node.item):
            source = subject.sources.get(referenced_uid(image))
            if source is not None and int(source.get("NumberOfFrames") or 1) > 1:
                yield from unless(image.ReferencedSOPSequence[0].get("ReferencedFrameNumber"), node.place)


@RULES.rule("SR-20", Level.PROJECT, "the observer is a device, named by its UID (TID 1001, 1004)")
def _observer(subject: Subject) -> Iterator[str]:
    # TID 4000 has no observer; its device is in the header.
    if template_of(subject.instance) == "4000":
        return
    kinds = children(subject.instance, "121005", "CODE", "HAS OBS CONTEXT")
    yield from unless([coded_value(kind) for kind in kinds] == ["121007"], "121005")
    yield from unless(children(subject.instance, "121012", "UIDREF", "HAS OBS CONTEXT"), "121012")


def template_of(item: Dataset) -> str:
    """Give the template identifier of a container in the DCMR; empty where it names none."""
    templates = item.get("ContentTemplateSequence")
    if not templates or templates[0].get("MappingResource") != "DCMR":
        return ""
    return str(templates[0].get("TemplateIdentifier", ""))


def selected_images(document: Dataset, spatial: Dataset) -> list[Dataset]:
    """Give the IMAGE items that coordinates are selected from, by value or by reference."""
    found = []
    for child in children(spatial, relationship="SELECTED FROM"):
        by_reference = "ReferencedContentItemIdentifier" in child
        target = item_at(document, child) if by_reference else child
        if target is not None and target.get("ValueType") == "IMAGE":
            found.append(target)
    return found


def item_at(document: Dataset, reference: Dataset) -> Dataset | None:
    """Follow a by-reference item; None where it leads nowhere (PS3.3 C.17.3.2.5)."""
    target = reference.ReferencedContentItemIdentifier
    path = [target] if isinstance(target, int) else list(target or ())
    item = document
    if not path or path[0] != 1:
        return None
    for position in path[1:]:
        below = item.get("ContentSequence") or ()
        if not 1 <= position <= len(below):
            return None
        item = below[position - 1]
    return item


def _is_key_object(document: Dataset) -> bool:
    return str(document.get("SOPClassUID")) == _KEY_OBJECTS


def _spatial(subject: Subject) -> Iterator[Node]:
    return (node for node in subject.nodes if node.item.get("ValueType") == "SCOORD")


def _numbers(subject: Subject) -> Iterator[Node]:
    return (node for node in subject.nodes if node.item.get("ValueType") == "NUM")


def _sizes(subject: Subject) -> dict[str, tuple[float, float]]:
    """Columns and rows of each image: what its entry in the report's library says, better its own header."""
    sizes = {}
    for node in subject.nodes:
        if node.item.get("ValueType") == "IMAGE":
            columns, rows = children(node.item, "110911", "NUM"), children(node.item, "110910", "NUM")
            if columns and rows:
                sizes[referenced_uid(node.item)] = (number(columns[0])[0] or 0.0, number(rows[0])[0] or 0.0)
    for uid, source in subject.sources.items():
        if source.get("Columns") and source.get("Rows"):
            sizes[uid] = (float(source.Columns), float(source.Rows))
    return sizes
