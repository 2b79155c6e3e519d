"""What results take over from their source images, unchanged.

Patient and study attributes must be those of the images byte for byte, or a PACS files the result under
another patient. Nothing is decoded, shortened, cleaned or invented here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from dicom_node.errors import ResultError
from dicom_node.mammography_views import view_modifiers
from dicom_node.results import codes

# PS3.3 C.7.1.1, C.7.2.1: type 2, so an image that lacks them still gives a result that has them, empty.
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_OPTIONAL = (
    "SpecificCharacterSet",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientBirthTime",
    "PatientAge",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyInstanceUID",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
)
# PS3.5 6.2: of a value of LO.
_LONGEST_TEXT = 64
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")
_REFERENCED_SOP_INSTANCE_UID = Tag(0x0008, 0x1155)


def copy_element(source: Dataset, target: Dataset, keyword: str) -> bool:
    """Copy one element as it stands in the source.

    Parameters
    ----------
    source : pydicom.dataset.Dataset
        Header of an image; not changed.
    target : pydicom.dataset.Dataset
        Gets the element; not touched where the source has none. Before it is written, pydicom must be
        told to keep undecoded elements, see :func:`keep_undecoded`.
    keyword : str
        The element's DICOM keyword.

    Returns
    -------
    bool
        Whether the source has the element.
    """
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in source:
        return False
    element = source.get_item(tag)
    vr = dictionary_VR(tag)
    if isinstance(element, RawDataElement) and vr != "SQ":
        # Implicit VR sources do not say the VR, and gateways may say UN.
        target[tag] = element._replace(VR=vr)
    else:
        target[tag] = deepcopy(source[tag])
    return True


def keep_undecoded(data_set: Dataset) -> None:
    """Have pydicom write the elements that were never decoded as they are.

    Otherwise it decodes them and encodes them again, and not every character set comes back the same.

    Parameters
    ----------
    data_set : pydicom.dataset.Dataset
        To be written in Explicit VR Little Endian.
    """
    character_set = data_set.get("SpecificCharacterSet")
    encodings = convert_encodings(character_set) if character_set else default_encoding
    data_set.set_original_encoding(False, True, encodings)


def is_filled(source: Dataset, keyword: str) -> bool:
    """Tell whether an element has a value, without decoding it."""
    element = source.get_item(tag_for_keyword(keyword) or 0)
    return element is not None and bool(element.value)


def pair(source: Dataset, keyword: str) -> list[Any]:
    """Give the two values of an element, or none where it does not have two."""
    value = source.get(keyword)
    values = list(value) if isinstance(value, MultiValue) else []
    return values if len(values) == 2 and all(values) else []


def pixel_shape(source: Dataset) -> tuple[int, int]:
    """Give the height and the width of a pixel as a ratio of integers, ``(1, 1)`` for a square one.

    Only the shape is told, which every plane shares; spacing would invite measuring in the wrong plane.
    """
    for keyword, factor in (
        ("PixelSpacing", 10_000),
        ("ImagerPixelSpacing", 10_000),
        ("PixelAspectRatio", 1),
    ):
        if values := pair(source, keyword):
            down, across = (round(float(value) * factor) for value in values)
            if min(down, across) > 0:
                return (down, across) if down != across else (1, 1)
    return (1, 1)


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Copy the patient's and the study's attributes, and the character set they are written in.

    Parameters
    ----------
    source : pydicom.dataset.Dataset
        Header of an image; not changed.
    target : pydicom.dataset.Dataset
        Gets the attributes; type 2 ones that the source lacks are there, empty.
    """
    for keyword in _OPTIONAL:
        copy_element(source, target, keyword)
    for keyword in _TYPE_2:
        if not copy_element(source, target, keyword):
            setattr(target, keyword, None)


def bear_several_patient_ids(sources: Iterable[Dataset]) -> bool:
    """Tell whether images name more than one patient; results could be filed under one of them alone.

    Parameters
    ----------
    sources : iterable of pydicom.dataset.Dataset
        Headers of the images of one study; nothing in them is decoded.

    Returns
    -------
    bool
        Whether two Patient IDs (0010,0020) differ. An image without one contradicts no other.
    """
    return len({_patient_id(source) for source in sources} - {b""}) > 1


def lacks_patient_id(source: Dataset) -> bool:
    """Tell whether an image names no patient; another one of its study may."""
    return not _patient_id(source)


def _patient_id(source: Dataset) -> bytes:
    element = source.get_item(Tag("PatientID"))
    value = None if element is None else element.value
    return (value if isinstance(value, bytes) else str(value or "").encode()).strip(b" \0")


def local_time(source: Dataset, moment: datetime, default_zone: tzinfo) -> datetime:
    """Express a moment in the zone of the images.

    Parameters
    ----------
    source : pydicom.dataset.Dataset
        Header of an image; its Timezone Offset From UTC (0008,0201) counts where it is valid.
    moment : datetime.datetime
        With a time zone.
    default_zone : datetime.tzinfo
        Zone of the site, for images that name none.

    Returns
    -------
    datetime.datetime
        The same moment in that zone.
    """
    match = _OFFSET.fullmatch(str(source.get("TimezoneOffsetFromUTC", "") or "").strip())
    if match is None:
        return moment.astimezone(default_zone)
    sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    if offset >= timedelta(hours=24):
        return moment.astimezone(default_zone)
    return moment.astimezone(timezone(-offset if sign == "-" else offset))


def procedure_reported(source: Dataset, unnamed: Code = codes.MAMMOGRAPHY) -> Code:
    """Give the code of the imaging procedure that the images come from.

    Parameters
    ----------
    source : pydicom.dataset.Dataset
        Header of an image.
    unnamed : pydicom.sr.coding.Code, optional
        The procedure of images that name none.

    Returns
    -------
    pydicom.sr.coding.Code
        The first item of Procedure Code Sequence (0008,1032) where it is complete, in ASCII and fits, or
        `unnamed`.
    """
    for item in source.get("ProcedureCodeSequence") or ():
        parts = [str(item.get(k) or "") for k in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")]
        if all(0 < len(part) <= _LONGEST_TEXT and part.isascii() for part in parts):
            return Code(*parts)
    return unnamed


def view_modifiers_of(source: Dataset) -> list[Code]:
    """Give what tells an image from others of its side and view: magnified, spot, implant displaced."""
    found = (codes.VIEW_MODIFIERS.get(value) for value in sorted(view_modifiers(source)))
    return list(dict.fromkeys(code for code in found if code))


def referenced(source: Dataset) -> tuple[str, str]:
    """Give the SOP Class UID and the SOP Instance UID by which an image is referenced.

    Raises
    ------
    ResultError
        When the image lacks them.
    """
    try:
        return str(source.SOPClassUID), str(source.SOPInstanceUID)
    except AttributeError as exc:
        raise ResultError("a source image has no SOP Class or Instance UID; ask the sender's vendor") from exc


def referenced_instances(data_set: Dataset) -> set[str]:
    """Give every SOP Instance UID that a data set references, at any depth; patient data stays undecoded."""
    found: set[str] = set()
    for tag in data_set.keys():  # noqa: SIM118 - iterating a data set decodes its elements
        if tag == _REFERENCED_SOP_INSTANCE_UID:
            found.add(str(data_set[tag].value))
        elif data_set.get_item(tag).VR == "SQ":
            found.update(*(referenced_instances(item) for item in data_set[tag].value))
    return found
