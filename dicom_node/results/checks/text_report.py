"""Rules for the text report: it always says something, and what it says is complete (PS3.16 TID 2000)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.results.checks.rules import Level, RuleBook, Subject, unless
from dicom_node.results.checks.tree import children, concept

RULES = RuleBook()

_NOT_ANALYSED = ("not analysed", "not scored")


@RULES.rule("TXT-01", Level.PROJECT, "impressions state the AI result and that no radiologist verified it")
def _impressions(subject: Subject) -> Iterator[str]:
    impressions = [t for c in children(subject.instance, "121072", "CONTAINER") for t in sentences(c)]
    yield from unless(any("AI result" in text for text in impressions), "AI result")
    yield from unless(any("Not verified by a radiologist" in text for text in impressions), "not verified")


@RULES.rule("TXT-02", Level.PROJECT, "an incomplete report says what was not analysed")
def _incomplete(subject: Subject) -> Iterator[str]:
    yield from unless(admits_gaps(subject.instance))


@RULES.rule("TXT-03", Level.STANDARD, "the report has findings or impressions, none of them empty")
def _contents(subject: Subject) -> Iterator[str]:
    containers = children(subject.instance, None, "CONTAINER")
    sections = [section for section in containers if concept(section) in ("121070", "121072")]
    yield from unless(sections, "no section")
    yield from unless(all(children(section) for section in sections), "empty section")


@RULES.rule("TXT-04", Level.PROJECT, "the report names the model that answered")
def _model(subject: Subject) -> Iterator[str]:
    name = str(subject.instance.get("ManufacturerModelName", ""))
    yield from unless(any(name in text for text in sentences(subject.instance)))


def sentences(item: Dataset) -> list[str]:
    """Give every text below a content item."""
    found = [str(item.TextValue)] if "TextValue" in item else []
    for child in children(item):
        found += sentences(child)
    return found


def admits_gaps(report: Dataset) -> bool:
    """Tell whether a report that is not complete says so in words."""
    if report.get("CompletionFlag") != "PARTIAL":
        return True
    return any(words in text for text in sentences(report) for words in _NOT_ANALYSED)
