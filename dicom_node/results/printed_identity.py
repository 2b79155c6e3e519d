"""The patient's and the study's identity on paper, as far as a page can print it without a mistake.

A printed page leaves the archive that knows whose it is, so it has to say. A name in characters that the
page's font lacks is left to the archive: a name with gaps would be another name.
"""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

_CODECS = {"": "ascii", "ISO_IR 6": "ascii", "ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}
_PRINTED = (
    ("Patient ID", "PatientID"),
    ("Name", "PatientName"),
    ("Date of birth", "PatientBirthDate"),
    ("Study date", "StudyDate"),
    ("Accession number", "AccessionNumber"),
)
_NOT_PRINTABLE = "see the archive: its characters cannot be printed here"
_DATE_LENGTH = 8


def printed_identity(source: Dataset) -> list[tuple[str, str]]:
    """Give what identifies patient and study, as pairs of label and text in Windows-1252.

    Parameters
    ----------
    source : pydicom.dataset.Dataset
        Header of an image; nothing in it is decoded.

    Returns
    -------
    list of (str, str)
        Patient ID, name, date of birth, study date, accession number; without those that are empty.
    """
    found = []
    for label, keyword in _PRINTED:
        text = _text(source, keyword)
        if text is None:
            found.append((label, _NOT_PRINTABLE))
        elif text:
            found.append((label, text))
    return found


def _text(source: Dataset, keyword: str) -> str | None:
    """Decode one element: empty where it has no value, None where it cannot be printed."""
    element = source.get_item(tag_for_keyword(keyword) or 0)
    value = "" if element is None or element.value is None else element.value
    is_name = keyword == "PatientName"
    if isinstance(value, bytes):
        # PS3.5 6.2.1: the first group of a name is the one in the letters that most sets share.
        group = value.split(b"=")[0] if is_name else value
        try:
            text = group.decode(_CODECS.get(_character_set(source), "ascii"))
        except UnicodeDecodeError:
            return None
    else:
        text = str(value).split("=")[0] if is_name else str(value)
    text = text.strip(" \0")
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        return None
    if not text.isprintable():
        return None
    return _name(text) if is_name else _date(text) if keyword.endswith("Date") else text


def _character_set(source: Dataset) -> str:
    value = source.get("SpecificCharacterSet") or ""
    return value if isinstance(value, str) else str(value[0] or "")


def _name(text: str) -> str:
    family, _, others = text.partition("^")
    return ", ".join(part for part in (family, " ".join(others.replace("^", " ").split())) if part)


def _date(text: str) -> str:
    is_date = len(text) == _DATE_LENGTH and text.isdigit()
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if is_date else text
