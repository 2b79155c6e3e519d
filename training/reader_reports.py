"""What human readers wrote in structured reports, as labels.

A report counts if a person made it: its root states an observer of the type Person (PS3.16 TID 1001), or it
is verified (Verification Flag, PS3.3 C.17.2). A device's report never counts, or a network would learn from
itself. In it, these coded items count wherever they stand:

* Assessment Category (111005, DCM): BI-RADS 4, 4A to 4C, 5 and 6 say malignant, 1 to 3 say not malignant
  (PS3.16 CID 6026). BI-RADS 0 says that the assessment is incomplete, and nothing here.
* Classification (278201002, SCT): Malignant (21594007, SCT) or Benign (30807003, SCT).
* Finding (121071, DCM): Malignant neoplasm of breast (254837009, SCT).

An item speaks for the images that its nearest container refers to; without any, for the side that the
container or an outer one names; without one, for the whole study. Of several reports the one of the latest
content date and time wins, and in it malignant wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_node.header_values import items, text
from models.contract import Laterality

_Code = tuple[str, str]

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_OBSERVER_TYPE, _PERSON = ("121005", "DCM"), ("121006", "DCM")
_LATERALITY = ("272741003", "SCT")
_SIDES = {("24028007", "SCT"): Laterality.RIGHT, ("7771000", "SCT"): Laterality.LEFT}
_ASSESSMENT = ("111005", "DCM")
_CATEGORIES: dict[_Code, int] = {
    ("397140005", "SCT"): 1,
    ("397141009", "SCT"): 2,
    ("397143007", "SCT"): 3,
    ("397144001", "SCT"): 4,
    ("397145000", "SCT"): 5,
    ("MA.II.A.5.4A", "BI"): 4,
    ("MA.II.A.5.4B", "BI"): 4,
    ("MA.II.A.5.4C", "BI"): 4,
    ("MA.II.A.5.6", "BI"): 6,
}
_SAYINGS: dict[tuple[_Code, _Code], bool] = {
    (("278201002", "SCT"), ("21594007", "SCT")): True,
    (("278201002", "SCT"), ("30807003", "SCT")): False,
    (("121071", "DCM"), ("254837009", "SCT")): True,
}


@dataclass(frozen=True, slots=True)
class Assessment:
    """One thing that a reader said.

    Attributes
    ----------
    is_malignant : bool
        What.
    study_instance_uid : str
        Of which study.
    images : frozenset of str
        Of which images; empty for all of the side.
    laterality : Laterality or None
        Of which side; None for both.
    """

    is_malignant: bool
    study_instance_uid: str
    images: frozenset[str]
    laterality: Laterality | None

    def is_about(self, study: str, image: str, side: Laterality | None) -> bool:
        """Whether it speaks for an image."""
        if study != self.study_instance_uid:
            return False
        if self.images:
            return image in self.images
        return self.laterality is None or self.laterality is side


def is_report_of_a_person(report: Dataset) -> bool:
    """Whether an object is a structured report that counts."""
    if not text(report, "SOPClassUID").startswith(_REPORTS):
        return False
    observers = {
        _code(item, "ConceptCodeSequence")
        for item in items(report, "ContentSequence")
        if _code(item, "ConceptNameCodeSequence") == _OBSERVER_TYPE
    }
    if observers:
        return observers == {_PERSON}
    return text(report, "VerificationFlag") == "VERIFIED"


def assessments(report: Dataset, positive_birads: int = 4) -> list[Assessment]:
    """Return what a report says, in its order; nothing for a report that does not count.

    Parameters
    ----------
    report : pydicom.dataset.Dataset
        Any object.
    positive_birads : int
        The lowest category that counts as malignant.
    """
    if not is_report_of_a_person(report):
        return []
    study = text(report, "StudyInstanceUID")
    return list(_said(report, study, None, positive_birads))


def latest(reports: Iterable[Dataset]) -> list[Dataset]:
    """Return reports with the one of the latest content first."""

    def when(report: Dataset) -> tuple[str, str, str]:
        return text(report, "ContentDate"), text(report, "ContentTime"), text(report, "SOPInstanceUID")

    return sorted(reports, key=when, reverse=True)


def label_of(
    by_report: Iterable[Iterable[Assessment]], study: str, image: str, side: Laterality | None
) -> bool | None:
    """Return what the first report that speaks for an image says of it, malignant before not malignant.

    Parameters
    ----------
    by_report : iterable of iterable of Assessment
        Of each report, the latest first.
    study, image : str
        UIDs.
    side : Laterality or None
        The image's.
    """
    for said in by_report:
        about = [each.is_malignant for each in said if each.is_about(study, image, side)]
        if about:
            return any(about)
    return None


def _said(container: Dataset, study: str, side: Laterality | None, positive: int) -> Iterator[Assessment]:
    own = list(_own_items(container))
    sides = {_SIDES[value] for name, value in map(_codes, own) if name == _LATERALITY and value in _SIDES}
    side = sides.pop() if len(sides) == 1 else side
    images = frozenset(
        text(reference, "ReferencedSOPInstanceUID")
        for item in own
        for reference in items(item, "ReferencedSOPSequence")
    )
    for item in own:
        is_malignant = _saying(*_codes(item), positive)
        if is_malignant is not None:
            yield Assessment(is_malignant, study, images, side)
    for item in [container, *own]:
        for child in items(item, "ContentSequence"):
            if text(child, "ValueType") == "CONTAINER":
                yield from _said(child, study, side, positive)


def _own_items(item: Dataset) -> Iterator[Dataset]:
    """Items below `item` as far as the next containers."""
    for child in items(item, "ContentSequence"):
        if text(child, "ValueType") != "CONTAINER":
            yield child
            yield from _own_items(child)


def _saying(name: _Code, value: _Code, positive: int) -> bool | None:
    if name == _ASSESSMENT:
        category = _CATEGORIES.get(value)
        return None if category is None else category >= positive
    return _SAYINGS.get((name, value))


def _codes(item: Dataset) -> tuple[_Code, _Code]:
    return _code(item, "ConceptNameCodeSequence"), _code(item, "ConceptCodeSequence")


def _code(item: Dataset, sequence: str) -> _Code:
    for code in items(item, sequence):
        return text(code, "CodeValue"), text(code, "CodingSchemeDesignator")
    return "", ""
