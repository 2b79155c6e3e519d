"""The last look at a finished file before it leaves: what a PACS or a viewer would stumble over.

It reads the bytes, not the data set they were made from, and knows nothing of how they were built. The
validators that know the whole standard run in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import ResultError

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_LONGEST_UID = 64
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
    "ContentDate",
    "ContentTime",
    "TimezoneOffsetFromUTC",
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


def check(content: bytes) -> None:
    """Refuse a result object that must not go out.

    Parameters
    ----------
    content : bytes
        A whole Part 10 file.

    Raises
    ------
    ResultError
        Naming what is wrong; no patient data.
    """
    instance = dcmread(BytesIO(content))
    faults = list(_header_faults(instance))
    if instance.Modality in _FAULTS_BY_MODALITY:
        faults += _FAULTS_BY_MODALITY[instance.Modality](instance)
    if faults:
        raise ResultError(
            f"an object of SOP class {instance.get('SOPClassUID')} failed its own check: {'; '.join(faults)}"
        )


def _header_faults(instance: Dataset) -> Iterator[str]:
    yield from (f"{keyword} is empty" for keyword in _FILLED if instance.get(keyword) in (None, ""))
    yield from (f"{keyword} is missing" for keyword in _PRESENT if keyword not in instance)
    if any(len(uid) > _LONGEST_UID or not _UID.fullmatch(uid) for uid in _uids(instance)):
        yield "a UID is not valid"


def _uids(data_set: Dataset) -> Iterator[str]:
    # Patient data stays undecoded: some of it fits no character set, and it is the sender's to answer for.
    for tag in data_set.keys():  # noqa: SIM118 - iterating a data set decodes its elements
        vr = data_set.get_item(tag).VR
        if vr == "UI":
            yield str(data_set[tag].value)
        elif vr == "SQ":
            for item in data_set[tag].value:
                yield from _uids(item)


def _report_faults(report: Dataset) -> Iterator[str]:
    items = list(_walk(report))
    evidence = [str(r.ReferencedSOPInstanceUID) for r in _evidence(report)]
    images = {str(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for i in items if _type(i) == "IMAGE"}
    if images - set(evidence) or not evidence:
        yield "an image of the report is not among its evidence"
    if len(evidence) != len(set(evidence)):
        yield "an instance is named twice as evidence"
    if any(not str(item.get("TextValue", "")).isascii() for item in items):
        yield "a text of the report is not ASCII"
    groups = [item for item in items if _concept(item) == "125007"]
    for child in ("111030", "112039", "112040", "111047"):
        if any(child not in map(_concept, group.ContentSequence) for group in groups):
            yield f"a measurement group lacks its item {child}"
    if report.VerificationFlag != "UNVERIFIED":
        yield "the report claims to be verified"


def _overlay_faults(overlay: Dataset) -> Iterator[str]:
    bits = overlay.Rows * overlay.Columns * overlay.NumberOfFrames * overlay.BitsAllocated
    length = -(-bits // 8)
    if len(overlay.PixelData) != length + length % 2:
        yield "Pixel Data has the wrong length"
    if len(overlay.PerFrameFunctionalGroupsSequence) != overlay.NumberOfFrames:
        yield "functional groups and frames differ in number"
    tracking = [segment.TrackingUID for segment in overlay.SegmentSequence]
    if len(tracking) != len(set(tracking)):
        yield "two segments have one tracking UID"


_FAULTS_BY_MODALITY = {"SR": _report_faults, "SEG": _overlay_faults}


def _evidence(report: Dataset) -> Iterator[Dataset]:
    for study in report.get("CurrentRequestedProcedureEvidenceSequence", ()):
        for series in study.ReferencedSeriesSequence:
            yield from series.ReferencedSOPSequence


def _walk(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from _walk(child)


def _type(item: Dataset) -> str:
    return str(item.get("ValueType", ""))


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""
