"""Content items as plain data sets, for templates that highdicom cannot write.

Mammography CAD reports point at their images by reference: at a position in their own tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_node.errors import ResultError
from dicom_node.results.content_tree import sop_reference
from dicom_node.results.header import code_item
from dicom_node.results.source import referenced

CONTAINS = "CONTAINS"
HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
HAS_ACQ_CONTEXT = "HAS ACQ CONTEXT"
HAS_PROPERTIES = "HAS PROPERTIES"
INFERRED_FROM = "INFERRED FROM"
SELECTED_FROM = "SELECTED FROM"

Position = tuple[int, ...]
"""Where an item is in its tree: 1-based numbers of the children from the root, which is 1 (PS3.3 C.17.3)."""

# SNOMED codes that reports of breast CAD used before they were renumbered (PS3.16 table O-1 has them all).
_SRT = {
    "129793001": "F-01796",
    "129788004": "F-01791",
    "129769006": "F-01775",
    "129770007": "F-01776",
    "129792006": "F-01795",
    "129790003": "F-01793",
    "129789007": "F-01792",
    "129766004": "F-01772",
    "80248007": "T-04030",
    "73056007": "T-04020",
    "399162004": "R-10242",
    "399368009": "R-10226",
    "399260004": "R-10224",
    "399352003": "R-10228",
    "399192008": "R-1024A",
    "399163009": "R-102D6",
    "399055006": "R-102D7",
    "399209000": "R-102D5",
    "129738007": "F-01741",
    "129741003": "F-01744",
    "129742005": "F-01745",
    "133884007": "P5-B3402",
    "133889002": "P5-B3412",
}


def coded(relationship: str, name: Code, value: Code, children: Iterable[Dataset] = ()) -> Dataset:
    """Make a CODE item."""
    item = _item(relationship, "CODE", name, children)
    item.ConceptCodeSequence = [code_item(value)]
    return item


def container(relationship: str, name: Code, children: Iterable[Dataset]) -> Dataset:
    """Make a CONTAINER item whose content is separate."""
    item = _item(relationship, "CONTAINER", name, children)
    item.ContinuityOfContent = "SEPARATE"
    return item


def text(relationship: str, name: Code, value: str) -> Dataset:
    """Make a TEXT item."""
    item = _item(relationship, "TEXT", name)
    item.TextValue = value
    return item


def dated(relationship: str, name: Code, value: str) -> Dataset:
    """Make a DATE item."""
    item = _item(relationship, "DATE", name)
    item.Date = value
    return item


def timed(relationship: str, name: Code, value: str) -> Dataset:
    """Make a TIME item."""
    item = _item(relationship, "TIME", name)
    item.Time = value
    return item


def number(relationship: str, name: Code, value: float, unit: Code) -> Dataset:
    """Make a NUM item; at most 16 characters of its value are kept (PS3.5 6.2, DS)."""
    measured = Dataset()
    measured.MeasurementUnitsCodeSequence = [code_item(unit)]
    measured.NumericValue = f"{value:.10g}"
    item = _item(relationship, "NUM", name)
    item.MeasuredValueSequence = [measured]
    return item


def uid_reference(relationship: str, name: Code, value: str) -> Dataset:
    """Make a UIDREF item."""
    item = _item(relationship, "UIDREF", name)
    item.UID = value
    return item


def coordinates(
    relationship: str,
    name: Code,
    graphic_type: str,
    points: Sequence[tuple[float, float]],
    position: Position,
) -> Dataset:
    """Make a SCOORD item selected from the image at a position; points are columns and rows."""
    item = _item(relationship, "SCOORD", name, [by_reference(SELECTED_FROM, position)])
    item.GraphicType = graphic_type
    item.GraphicData = [float(value) for point in points for value in point]
    return item


def image(relationship: str, source: Dataset, frame: int | None, children: Iterable[Dataset]) -> Dataset:
    """Make an IMAGE item without a concept name."""
    item = _item(relationship, "IMAGE", None, children)
    reference = sop_reference(*referenced(source))
    if frame is not None:
        reference.ReferencedFrameNumber = frame
    item.ReferencedSOPSequence = [reference]
    return item


def by_reference(relationship: str, position: Position) -> Dataset:
    """Make an item that stands for the one at a position of the same tree."""
    item = Dataset()
    item.RelationshipType = relationship
    item.ReferencedContentItemIdentifier = list(position)
    return item


def use_srt(root: Dataset) -> None:
    """Write every SNOMED code below an item with its former SRT value, in place.

    Raises
    ------
    ResultError
        When a code has none here; old and new ones must not be mixed.
    """
    for item in _walk(root):
        for sequence in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
            for code in item.get(sequence, ()):
                if code.CodingSchemeDesignator == "SCT":
                    if code.CodeValue not in _SRT:
                        raise ResultError(f"the code {code.CodeValue} has no SRT value; send SCT codes")
                    code.CodeValue, code.CodingSchemeDesignator = _SRT[code.CodeValue], "SRT"


def _walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from _walk(child)


def _item(relationship: str, value_type: str, name: Code | None, children: Iterable[Dataset] = ()) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    if name is not None:
        item.ConceptNameCodeSequence = [code_item(name)]
    if below := list(children):
        item.ContentSequence = below
    return item
