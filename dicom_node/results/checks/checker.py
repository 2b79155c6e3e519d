"""The last look at finished objects before they leave: every rule that applies to them.

It reads the bytes, not the data sets they were made from, and knows nothing of how they were built. The
validators that know the whole standard run in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_node.errors import ResultError
from dicom_node.results.checks import (
    cad_report,
    fallbacks,
    header,
    measurement_report,
    segmentation,
    structured_report,
    text_report,
    together,
)
from dicom_node.results.checks.rules import Fault, Rule, Subject, faults_of

_MOST_NAMED = 5
_SR = (*structured_report.RULES,)
_MEASUREMENTS = (*_SR, *measurement_report.RULES)
RULES_OF_CLASS: dict[str, tuple[Rule, ...]] = {
    "1.2.840.10008.5.1.4.1.1.88.22": (*_SR, *text_report.RULES),
    "1.2.840.10008.5.1.4.1.1.88.33": _MEASUREMENTS,
    "1.2.840.10008.5.1.4.1.1.88.34": _MEASUREMENTS,
    "1.2.840.10008.5.1.4.1.1.88.50": (*_SR, *cad_report.RULES),
    "1.2.840.10008.5.1.4.1.1.88.59": (*_SR, *fallbacks.KEY_OBJECT_RULES),
    "1.2.840.10008.5.1.4.1.1.66.4": tuple(segmentation.RULES),
    "1.2.840.10008.5.1.4.1.1.11.1": tuple(fallbacks.PRESENTATION_STATE_RULES),
    "1.2.840.10008.5.1.4.1.1.7": tuple(fallbacks.SECONDARY_CAPTURE_RULES),
    "1.2.840.10008.5.1.4.1.1.104.1": tuple(fallbacks.PDF_RULES),
}
"""SOP Class UID -> the rules of its kind, beside those for every object."""


def check_objects(objects: Sequence[Dataset], sources: Iterable[Dataset] = ()) -> list[Fault]:
    """Hold result objects against every rule that applies to them, alone and together.

    Parameters
    ----------
    objects : sequence of pydicom.dataset.Dataset
        As read from their files, with pixel data: all objects of one study revision, or some of it.
    sources : iterable of pydicom.dataset.Dataset, optional
        Headers of the images that they were made from; rules that need them are silent without.

    Returns
    -------
    list of Fault
        Empty when nothing is wrong; no patient data.
    """
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    found = []
    for instance in objects:
        rules = RULES_OF_CLASS.get(str(instance.get("SOPClassUID", "")), ())
        found += faults_of(Subject(instance, by_uid), (*header.RULES, *rules, *together.SOURCE_RULES))
    return found + together.faults_together(objects, by_uid)


def check_analyses(objects: Sequence[Dataset], sources: Iterable[Dataset] = ()) -> list[Fault]:
    """Hold result objects of several studies, revisions or algorithms against every rule.

    Only objects of one study, made of one revision by one algorithm, are held against one another.

    Parameters
    ----------
    objects : sequence of pydicom.dataset.Dataset
        As for :func:`check_objects`.
    sources : iterable of pydicom.dataset.Dataset, optional
        Headers of images. Objects of one study are held against all of them, so that a result of other
        images is seen; where there are several studies, each is held against its own.

    Returns
    -------
    list of Fault
        Empty when nothing is wrong; no patient data.
    """
    headers = list(sources)
    studies = {str(instance.get("StudyInstanceUID", "")) for instance in objects}
    found = []
    for analysis in together.analyses_of(objects):
        study = str(analysis[0].get("StudyInstanceUID", ""))
        own = [h for h in headers if len(studies) == 1 or h.get("StudyInstanceUID") == study]
        found += check_objects(analysis, own)
    return found


def refuse_faulty(contents: Iterable[bytes], sources: Iterable[Dataset] = ()) -> None:
    """Refuse result objects that must not go out.

    Parameters
    ----------
    contents : iterable of bytes
        Whole Part 10 files.
    sources : iterable of pydicom.dataset.Dataset, optional
        Headers of the images that they were made from.

    Raises
    ------
    ResultError
        Naming what is wrong; no patient data.
    """
    objects = [dcmread(BytesIO(content)) for content in contents]
    faults = check_objects(objects, sources)
    if faults:
        classes = {str(o.get("SOPInstanceUID", "")): str(o.get("SOPClassUID", "")) for o in objects}
        first = classes.get(faults[0].sop_instance_uid)
        raise ResultError(f"an object of SOP class {first} failed its own check: {in_short(faults)}")


def faults_of_file(path: Path) -> list[Fault]:
    """Hold one stored object against the rules that need nothing else.

    Parameters
    ----------
    path : pathlib.Path
        A Part 10 file.

    Raises
    ------
    ResultError
        When it is no DICOM file.
    """
    try:
        instance = dcmread(path)
    except (InvalidDicomError, EOFError) as exc:
        raise ResultError("the stored object is no DICOM file any more; restore it from a backup") from exc
    return check_objects([instance])


def in_short(faults: Sequence[Fault]) -> str:
    """Put the first few faults into one line."""
    named = "; ".join(str(fault) for fault in faults[:_MOST_NAMED])
    more = len(faults) - _MOST_NAMED
    return f"{named}; and {more} more" if more > 0 else named
