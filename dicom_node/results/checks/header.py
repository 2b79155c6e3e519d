"""Rules for every object: identity, patient and study attributes, equipment, codes (PS3.3 C.7, C.12)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pydicom.dataset import Dataset

from dicom_node.results.checks.rules import Level, RuleBook, Subject, unless
from dicom_node.results.checks.tree import code_of, items_of

RULES = RuleBook()

MODALITY_OF_CLASS = {
    "1.2.840.10008.5.1.4.1.1.88.22": "SR",
    "1.2.840.10008.5.1.4.1.1.88.33": "SR",
    "1.2.840.10008.5.1.4.1.1.88.34": "SR",
    "1.2.840.10008.5.1.4.1.1.88.50": "SR",
    "1.2.840.10008.5.1.4.1.1.88.59": "KO",
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.11.1": "PR",
    "1.2.840.10008.5.1.4.1.1.7": "OT",
    "1.2.840.10008.5.1.4.1.1.104.1": "DOC",
}
"""SOP Class UID -> Modality (0008,0060), of everything that the node sends."""

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
ZONE = re.compile(r"[+-]([01]\d|2[0-3])[0-5]\d")
"""A value of Timezone Offset From UTC (0008,0201)."""
_LONGEST_UID = _LONGEST_MEANING = _LONGEST_DESCRIPTION = 64
_LOWEST_SERIES_NUMBER = 9000
_FILLED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "Modality",
    "SeriesDescription",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "SeriesDate",
    "SeriesTime",
    "TimezoneOffsetFromUTC",
    "InstanceCreatorUID",
)
_PRESENT = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_PERSONS = ("OperatorsName", "PerformingPhysicianName", "AuthorObserverSequence")
_ALGORITHM = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID")
# Copied from the images as they are: the sender's to answer for.
_COPIED = frozenset(
    {
        "IssuerOfPatientIDQualifiersSequence",
        "OtherPatientIDsSequence",
        "DeidentificationMethodCodeSequence",
        "IssuerOfAccessionNumberSequence",
        "ProcedureCodeSequence",
        "SpecimenDescriptionSequence",
        "ContainerTypeCodeSequence",
        "ContainerComponentSequence",
        "OpticalPathSequence",
    }
)


@RULES.rule("OBJ-01", Level.STANDARD, "every UID is valid (PS3.5 9.1)")
def _uids(subject: Subject) -> Iterator[str]:
    for item in items_of(subject.instance):
        for tag in item.keys():  # noqa: SIM118 - iterating a data set decodes its elements
            if item.get_item(tag).VR != "UI":
                continue
            value = item[tag].value
            values = [value] if isinstance(value, str) else list(value or ())
            if any(uid and (len(uid) > _LONGEST_UID or not _UID.fullmatch(uid)) for uid in values):
                yield item[tag].keyword


@RULES.rule("OBJ-02", Level.PROJECT, "its own UIDs are made from what it is made from (root 2.25)")
def _own_uids(subject: Subject) -> Iterator[str]:
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "InstanceCreatorUID"):
        yield from unless(str(subject.instance.get(keyword, "")).startswith("2.25."), keyword)


@RULES.rule("OBJ-03", Level.STANDARD, "what must have a value has one")
def _filled(subject: Subject) -> Iterator[str]:
    yield from (keyword for keyword in _FILLED if subject.instance.get(keyword) in (None, ""))


@RULES.rule("OBJ-04", Level.STANDARD, "patient and study attributes of type 2 are there, if only empty")
def _present(subject: Subject) -> Iterator[str]:
    yield from (keyword for keyword in _PRESENT if keyword not in subject.instance)


@RULES.rule("OBJ-05", Level.PROJECT, "the series says in ASCII that nobody verified it, or that it withdraws")
def _description(subject: Subject) -> Iterator[str]:
    text = str(subject.instance.get("SeriesDescription", ""))
    honest = "not verified" in text or "withdrawn" in text
    yield from unless(honest and text.isascii() and len(text) <= _LONGEST_DESCRIPTION)


@RULES.rule("OBJ-06", Level.IHE_AIR, "contributing equipment names the algorithm with its Device UID")
def _contributing(subject: Subject) -> Iterator[str]:
    items = processing_equipment(subject.instance)
    yield from unless(items, "no item with purpose 109102")
    for item in items:
        yield from (keyword for keyword in _ALGORITHM if not item.get(keyword))


@RULES.rule("OBJ-07", Level.PROJECT, "equipment and contributing equipment name the same algorithm")
def _equipment(subject: Subject) -> Iterator[str]:
    header = subject.instance
    for item in processing_equipment(header):
        for keyword in ("Manufacturer", "ManufacturerModelName"):
            yield from unless(item.get(keyword) == header.get(keyword), keyword)
        versions = texts(header.get("SoftwareVersions"))
        yield from unless(set(texts(item.get("SoftwareVersions"))) <= set(versions), "SoftwareVersions")


@RULES.rule("OBJ-08", Level.STANDARD, "the SOP class is one that the node makes, and has its Modality")
def _class(subject: Subject) -> Iterator[str]:
    modality = MODALITY_OF_CLASS.get(str(subject.instance.get("SOPClassUID", "")))
    yield from unless(modality and modality == subject.instance.get("Modality"))


@RULES.rule("OBJ-09", Level.STANDARD, "Timezone Offset From UTC is one")
def _zone(subject: Subject) -> Iterator[str]:
    yield from unless(ZONE.fullmatch(str(subject.instance.get("TimezoneOffsetFromUTC", ""))))


@RULES.rule("OBJ-10", Level.PROJECT, "series and content bear the time of the analysis")
def _times(subject: Subject) -> Iterator[str]:
    header = subject.instance
    for kind in ("Date", "Time"):
        expected = header.get(f"Series{kind}")
        for name in ("Content", "InstanceCreation", "PresentationCreation"):
            if f"{name}{kind}" in header:
                yield from unless(header.get(f"{name}{kind}") == expected, f"{name}{kind}")


@RULES.rule("OBJ-11", Level.STANDARD, "code meanings are ASCII of 1 to 64 characters")
def _meanings(subject: Subject) -> Iterator[str]:
    for item in items_of(subject.instance, _COPIED):
        if "CodingSchemeDesignator" in item and ("CodeValue" in item or "LongCodeValue" in item):
            text = str(item.get("CodeMeaning", ""))
            fit = 0 < len(text) <= _LONGEST_MEANING and text.isascii()
            yield from unless(fit, str(item.get("CodeValue")))


@RULES.rule("OBJ-12", Level.STANDARD, "file meta information and data set name the same object")
def _meta(subject: Subject) -> Iterator[str]:
    meta = getattr(subject.instance, "file_meta", None)
    if meta is None:
        return
    for keyword, own in (
        ("MediaStorageSOPClassUID", "SOPClassUID"),
        ("MediaStorageSOPInstanceUID", "SOPInstanceUID"),
    ):
        yield from unless(meta.get(keyword) == subject.instance.get(own), keyword)
    yield from unless(meta.get("TransferSyntaxUID"), "TransferSyntaxUID")


@RULES.rule("OBJ-13", Level.PROJECT, "no person is named as its author")
def _author(subject: Subject) -> Iterator[str]:
    header = subject.instance
    yield from unless(str(header.get("ContentCreatorName", "AI^Node")) == "AI^Node", "ContentCreatorName")
    yield from (keyword for keyword in _PERSONS if keyword in header)


@RULES.rule("OBJ-14", Level.PROJECT, "its series is numbered to come after the images")
def _series_number(subject: Subject) -> Iterator[str]:
    yield from unless(int(subject.instance.get("SeriesNumber") or 0) > _LOWEST_SERIES_NUMBER)


def processing_equipment(instance: Dataset) -> list[Dataset]:
    """Give the items of Contributing Equipment Sequence (0018,A001) that stand for the algorithm."""
    return [
        item
        for item in instance.get("ContributingEquipmentSequence") or ()
        if code_of(item, "PurposeOfReferenceCodeSequence") == ("109102", "DCM")
    ]


def texts(value: str | Iterable[str] | None) -> list[str]:
    """Give the values of an element that may have none, one or several."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(one) for one in value]
