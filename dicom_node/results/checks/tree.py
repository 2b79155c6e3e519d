"""Walking through data sets and content trees without tripping over what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydicom.dataset import Dataset


class Node(NamedTuple):
    """A content item and its path from the root, such as ``(1, 9, 1)`` (PS3.3 C.17.3.2.5)."""

    path: tuple[int, ...]
    item: Dataset

    @property
    def place(self) -> str:
        """The path as it is written, such as ``"1.9.1"``."""
        return ".".join(map(str, self.path))


def nodes_of(item: Dataset, path: tuple[int, ...] = (1,)) -> Iterator[Node]:
    """Walk a content tree, root first; nothing for a data set that is no content item."""
    if "ValueType" in item or "RelationshipType" in item or "ContentSequence" in item:
        yield Node(path, item)
    for number, child in enumerate(item.get("ContentSequence") or (), start=1):
        yield from nodes_of(child, (*path, number))


def code_of(item: Dataset, sequence: str) -> tuple[str, str]:
    """Give value and scheme of the first code in a sequence; empty where there is none."""
    codes = item.get(sequence)
    if not codes:
        return "", ""
    return str(codes[0].get("CodeValue", "")), str(codes[0].get("CodingSchemeDesignator", ""))


def concept(item: Dataset) -> str:
    """Give the code value of a content item's name."""
    return code_of(item, "ConceptNameCodeSequence")[0]


def coded_value(item: Dataset) -> str:
    """Give the code value of a CODE item's value."""
    return code_of(item, "ConceptCodeSequence")[0]


def children(
    item: Dataset, name: str | None = None, value_type: str | None = None, relationship: str | None = None
) -> list[Dataset]:
    """Give the children of a content item that match everything asked for."""
    return [
        child
        for child in item.get("ContentSequence") or ()
        if (name is None or concept(child) == name)
        and (value_type is None or child.get("ValueType") == value_type)
        and (relationship is None or child.get("RelationshipType") == relationship)
    ]


def number(item: Dataset) -> tuple[float | None, tuple[str, str]]:
    """Give a NUM item's value and its unit's code; None where it has no value."""
    measured = item.get("MeasuredValueSequence")
    if not measured:
        return None, ("", "")
    value = measured[0].get("NumericValue")
    unit = code_of(measured[0], "MeasurementUnitsCodeSequence")
    return (None if value in (None, "") else float(value)), unit


def referenced_uid(item: Dataset) -> str:
    """Give the SOP Instance UID that a content item references."""
    references = item.get("ReferencedSOPSequence")
    return str(references[0].get("ReferencedSOPInstanceUID", "")) if references else ""


def points(item: Dataset) -> list[tuple[float, float]]:
    """Give the points of an SCOORD item or a graphic object, column before row."""
    data = [float(value) for value in _list(item.get("GraphicData"))]
    return list(zip(data[::2], data[1::2], strict=False))


def evidence(document: Dataset) -> list[Dataset]:
    """Give every SOP instance reference of a document's evidence sequences (PS3.3 C.17.2)."""
    return [
        reference
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in document.get(keyword) or ()
        for series in study.get("ReferencedSeriesSequence") or ()
        for reference in series.get("ReferencedSOPSequence") or ()
    ]


def evidence_uids(document: Dataset) -> list[str]:
    """Give the SOP Instance UIDs of a document's evidence, repeated ones repeatedly."""
    return [str(reference.ReferencedSOPInstanceUID) for reference in evidence(document)]


def items_of(data_set: Dataset, skipped: frozenset[str] = frozenset()) -> Iterator[Dataset]:
    """Walk a data set and every item of its sequences.

    Nothing but sequences is decoded: patient data may fit no character set.
    """
    yield data_set
    for tag in data_set.keys():  # noqa: SIM118 - iterating a data set decodes its elements
        if data_set.get_item(tag).VR == "SQ":
            element = data_set[tag]
            if element.keyword not in skipped:
                for item in element.value or ():
                    yield from items_of(item, skipped)


def _list(value: object) -> list[float]:
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "__iter__") else [value]  # type: ignore[list-item]
