"""Rules for the Mammography CAD SR: PS3.16 TID 4000 and what hangs together in it.

Its images are referenced by position, so that one item too many makes every later reference wrong; and
workstations draw what it says without a second look.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_node.results.checks.rules import Level, RuleBook, Subject, unless
from dicom_node.results.checks.structured_report import item_at, selected_images
from dicom_node.results.checks.tree import (
    Node,
    children,
    code_of,
    coded_value,
    concept,
    evidence_uids,
    points,
    referenced_uid,
)

RULES = RuleBook()

_SECTIONS = ["111028", "111017", "111064", "111065"]
_FINDING, _COMPOSITE = "111059", "111015"
_CENTRE, _OUTLINE = "111010", "111041"
# PS3.16 CID 6047: whether all algorithms succeeded, and whether there are findings.
_SUMMARIES = {
    "111241": (True, False),
    "111242": (True, True),
    "111243": (False, False),
    "111244": (False, True),
    "111245": (False, False),
}
_SUCCEEDED, _PARTLY, _FAILED, _NOT_ATTEMPTED = "111222", "111223", "111224", "111225"
# Heading, its container of successes, its container of failures, and what these hold.
_STATUSES = (
    ("111064", "111063", "111025", "111022"),
    ("111065", "111062", "111024", "111004"),
)
_INTENTS = frozenset({"111150", "111151", "111152"})
_BREASTS = frozenset({"80248007", "73056007", "63762007", "T-04030", "T-04020", "T-04080"})
# PS3.16 CID 6016 less CID 6014: what is a finding only together with another one.
_MASS_OR_ASYMMETRY = frozenset(
    {"129788004", "129789007", "129790003", "F-01791", "F-01792", "F-01793", "111459"}
)
_ASYMMETRIES = frozenset({"129789007", "129790003", "F-01792", "F-01793"})
_CONTRALATERAL = "111155"
_LIBRARY_ENTRY = ("111027", "111031")
_ORIENTATION_AND_SPACING = {
    "PatientOrientation": ("111044", "111043"),
    "ImagerPixelSpacing": ("111026", "111066"),
}


@RULES.rule("CAD-01", Level.STANDARD, "library, summary, detections, analyses are there once, in order")
def _sections(subject: Subject) -> Iterator[str]:
    found = [concept(item) for item in children(subject.instance) if concept(item) in _SECTIONS]
    yield from unless(found == _SECTIONS)


@RULES.rule("CAD-02", Level.STANDARD, "by-reference items lead to an image of the library")
def _by_reference(subject: Subject) -> Iterator[str]:
    entries = _library(subject.instance)
    for node in subject.nodes:
        if "ReferencedContentItemIdentifier" in node.item:
            target = item_at(subject.instance, node.item)
            yield from unless(any(target is entry for entry in entries), node.place)


@RULES.rule("CAD-03", Level.STANDARD, "the library describes images alone, each by side (CID 6022) and view")
def _entries(subject: Subject) -> Iterator[str]:
    entries = _library(subject.instance)
    yield from unless(entries, "empty")
    for position, entry in enumerate(entries, start=1):
        wanted = list(_LIBRARY_ENTRY)
        source = subject.sources.get(referenced_uid(entry))
        for keyword, names in _ORIENTATION_AND_SPACING.items():
            value = source.get(keyword) if source is not None else None
            if isinstance(value, MultiValue) and len(value) == 2 and all(value):
                wanted += names
        named = all(len(children(entry, name, None, "HAS ACQ CONTEXT")) == 1 for name in wanted)
        sides = set(map(coded_value, children(entry, "111027")))
        described = entry.get("ValueType") == "IMAGE" and named and sides <= _BREASTS
        yield from unless(described, f"image {position}")


@RULES.rule("CAD-04", Level.STANDARD, "the evidence is exactly the library's images")
def _evidence(subject: Subject) -> Iterator[str]:
    library = {referenced_uid(entry) for entry in _library(subject.instance)}
    yield from unless(library == set(evidence_uids(subject.instance)))


@RULES.rule("CAD-05", Level.STANDARD, "the summary agrees with the findings and with how the algorithms went")
def _summary(subject: Subject) -> Iterator[str]:
    for item in children(subject.instance, "111017", "CODE"):
        summary = _SUMMARIES.get(coded_value(item))
        yield from unless(summary, "code")
        if summary:
            all_succeeded, has_findings = summary
            yield from unless(has_findings == bool(_impressions(subject.instance)), "findings")
            failures = {_PARTLY, _FAILED}
            states = {coded_value(s) for name, *_ in _STATUSES for s in children(subject.instance, name)}
            agrees = all_succeeded == (not states & failures)
            yield from unless(coded_value(item) == "111245" or agrees, "states")


@RULES.rule(
    "CAD-06", Level.STANDARD, "detections and analyses have the containers that their status asks for"
)
def _statuses(subject: Subject) -> Iterator[str]:
    for heading, successes, failures, held in _STATUSES:
        for item in children(subject.instance, heading, "CODE"):
            state = coded_value(item)
            known = state in (_SUCCEEDED, _PARTLY, _FAILED, _NOT_ATTEMPTED)
            yield from unless(known, f"{heading}: code")
            for name, wanted in (
                (successes, state in (_SUCCEEDED, _PARTLY)),
                (failures, state in (_PARTLY, _FAILED)),
            ):
                found = children(item, name, "CONTAINER", "INFERRED FROM")
                filled = all(children(c, held, "CODE", "CONTAINS") for c in found)
                yield from unless(len(children(item, name)) == len(found) == int(wanted) and filled, name)


@RULES.rule("CAD-07", Level.STANDARD, "what was performed names its algorithm and its images")
def _performed(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        if concept(node.item) in ("111022", "111004"):
            images = [
                child
                for child in children(node.item, relationship="HAS PROPERTIES")
                if "ReferencedContentItemIdentifier" in child or child.get("ValueType") == "IMAGE"
            ]
            series = children(node.item, "112002", "UIDREF")
            yield from unless(_names_algorithm(node.item) and (images or series), node.place)


@RULES.rule("CAD-08", Level.STANDARD, "each impression and finding states its rendering intent (CID 6034)")
def _intents(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        if concept(node.item) in ("111034", _FINDING, _COMPOSITE):
            intents = children(node.item, "111056", "CODE", "HAS CONCEPT MOD")
            yield from unless(len(intents) == 1 and coded_value(intents[0]) in _INTENTS, node.place)


@RULES.rule("CAD-09", Level.STANDARD, "each impression holds a finding")
def _impressed(subject: Subject) -> Iterator[str]:
    for position, item in enumerate(_impressions(subject.instance), start=1):
        held = children(item, _FINDING, "CODE", "CONTAINS") + children(item, _COMPOSITE, "CODE", "CONTAINS")
        yield from unless(held and item.get("ValueType") == "CONTAINER", f"impression {position}")


@RULES.rule("CAD-10", Level.STANDARD, "each finding names its algorithm and has a tracking UID")
def _identified(subject: Subject) -> Iterator[str]:
    for node in _findings(subject):
        tracked = all(
            children(node.item, name, kind, "HAS OBS CONTEXT")
            for name, kind in (("112039", "TEXT"), ("112040", "UIDREF"))
        )
        yield from unless(_names_algorithm(node.item) and tracked, node.place)


@RULES.rule("CAD-11", Level.STANDARD, "a mass or an asymmetry is no single image finding (CID 6014)")
def _single(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        if concept(node.item) == _FINDING:
            yield from unless(coded_value(node.item) not in _MASS_OR_ASYMMETRY, node.place)


@RULES.rule(
    "CAD-12", Level.STANDARD, "a single image finding has one centre, and an outline on the same image"
)
def _placed(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        if concept(node.item) != _FINDING:
            continue
        centres = children(node.item, _CENTRE, "SCOORD", "HAS PROPERTIES")
        shapes = children(node.item, None, "SCOORD")
        images = {referenced_uid(i) for s in shapes for i in selected_images(subject.instance, s)}
        single = len(centres) == 1 and centres[0].get("GraphicType") == "POINT"
        yield from unless(single and len(images) == 1, node.place)
        for outline in children(node.item, _OUTLINE, "SCOORD"):
            corners = points(outline)
            closed = len(corners) > 3 and corners[0] == corners[-1]
            yield from unless(outline.get("GraphicType") != "POLYLINE" or closed, f"{node.place}: outline")


@RULES.rule("CAD-13", Level.STANDARD, "a composite feature has a type, a scope and at least two parts")
def _composites(subject: Subject) -> Iterator[str]:
    for node in subject.nodes:
        if concept(node.item) != _COMPOSITE:
            continue
        parts = children(node.item, relationship="INFERRED FROM")
        kinds = [coded_value(item) for item in children(node.item, "111016", "CODE", "HAS PROPERTIES")]
        scopes = children(node.item, "111057", "CODE", "HAS PROPERTIES")
        yield from unless(len(parts) >= 2 and len(kinds) == len(scopes) == 1, node.place)
        if coded_value(node.item) in _ASYMMETRIES:
            yield from unless(kinds == [_CONTRALATERAL], f"{node.place}: type")


@RULES.rule("CAD-14", Level.PROJECT, "what was found in an image was successfully looked for in that image")
def _looked_for(subject: Subject) -> Iterator[str]:
    report = subject.instance
    looked: set[tuple[tuple[str, str], str]] = set()
    for node in subject.nodes:
        if concept(node.item) == "111063":
            for performed in children(node.item, "111022", "CODE"):
                kind = code_of(performed, "ConceptCodeSequence")
                looked |= {(kind, uid) for uid in _performed_on(report, performed)}
    for node in subject.nodes:
        if concept(node.item) == _FINDING:
            kind = code_of(node.item, "ConceptCodeSequence")
            shapes = children(node.item, None, "SCOORD")
            images = {referenced_uid(i) for s in shapes for i in selected_images(report, s)}
            yield from unless(all((kind, uid) in looked for uid in images), node.place)


@RULES.rule("CAD-15", Level.PROJECT, "an overall impression names its algorithm (TID 4002)")
def _overall(subject: Subject) -> Iterator[str]:
    for item in children(subject.instance, "111017", "CODE"):
        stated = children(item, "111033") + children(item, "111005")
        yield from unless(not stated or _names_algorithm(item))
        yield from unless(stated or not children(item, "111013"), "certainty of nothing")


def single_finding_uids(report: Dataset) -> set[str]:
    """Give the tracking UIDs of a CAD report's single image findings."""
    uids = set()
    for child in children(report):
        if concept(child) == _FINDING:
            uids |= {str(item.UID) for item in children(child, "112040", "UIDREF")}
        uids |= single_finding_uids(child)
    return uids


def _library(report: Dataset) -> list[Dataset]:
    return [e for library in children(report, "111028", "CONTAINER") for e in children(library)]


def _impressions(report: Dataset) -> list[Dataset]:
    return [i for s in children(report, "111017") for i in children(s, "111034")]


def _findings(subject: Subject) -> Iterator[Node]:
    return (node for node in subject.nodes if concept(node.item) in (_FINDING, _COMPOSITE))


def _names_algorithm(item: Dataset) -> bool:
    named = [children(item, name, "TEXT", "HAS PROPERTIES") for name in ("111001", "111003")]
    return all(len(items) == 1 and items[0].get("TextValue") for items in named)


def _performed_on(report: Dataset, performed: Dataset) -> set[str]:
    uids = set()
    for child in children(performed, relationship="HAS PROPERTIES"):
        target = item_at(report, child) if "ReferencedContentItemIdentifier" in child else child
        if target is not None and (uid := referenced_uid(target)):
            uids.add(uid)
    return uids
