"""Which objects of a hospital can be trained on, whose they are, and from which device.

What scoring would refuse by its header is left out here, with the same reasons, so that a network never
learns from images that it will not be shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_node.header_values import MALFORMED
from dicom_node.mammography_views import ROUTING_KEYWORDS, routing_facts
from models.contract import REFUSAL_MEANINGS, Laterality, RefusalCode
from models.tasks import Task
from training.image_files import is_dicom

_KEYWORDS = (
    *ROUTING_KEYWORDS,
    "SOPInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "AccessionNumber",
    "Manufacturer",
    "ManufacturerModelName",
)


@dataclass(frozen=True, slots=True)
class FoundImage:
    """One object by its header.

    Attributes
    ----------
    path : Path
        Where it lies.
    sop_instance_uid, study_instance_uid : str
        Its identity.
    patient, accession_number : str
        For joining alone: they reach no record.
    laterality, view : Laterality or None, str or None
        As :class:`models.contract.ImageView`.
    scanner : str
        Manufacturer and model.
    reason_against : str or None
        Why it is not trained on, in words.
    """

    path: Path
    sop_instance_uid: str
    study_instance_uid: str
    patient: str
    accession_number: str
    laterality: Laterality | None
    view: str | None
    scanner: str
    reason_against: str | None


def header_of(path: Path, keywords: Sequence[str] | None = None) -> Dataset | None:
    """Return a Part 10 file's header without pixels, or None where it is none that can be read."""
    try:
        if not is_dicom(path):
            return None
        with path.open("rb") as file:
            return dcmread(file, stop_before_pixels=True, specific_tags=list(keywords) if keywords else None)
    except (OSError, InvalidDicomError, *MALFORMED):
        return None


def found_image(path: Path, task: Task) -> FoundImage | None:
    """Read what is needed of one file's header.

    Returns
    -------
    FoundImage or None
        None for what is no DICOM object with an identity.
    """
    header = header_of(path, _KEYWORDS)
    if header is None:
        return None
    uid, study = _text(header, "SOPInstanceUID"), _text(header, "StudyInstanceUID")
    if not uid or not study:
        return None
    facts = routing_facts(header)
    sop_class = _text(header, "SOPClassUID")
    reason: str | None = None
    if sop_class not in task.scored_sop_classes:
        reason = REFUSAL_MEANINGS[task.reason_against(sop_class)]
    elif facts.traits:
        reason = ", ".join(sorted(trait.value.replace("_", " ") for trait in facts.traits))
    elif facts.view not in ("CC", "MLO"):
        reason = REFUSAL_MEANINGS[RefusalCode.NON_STANDARD_VIEW]
    elif facts.laterality is None:
        reason = REFUSAL_MEANINGS[RefusalCode.LATERALITY_MISSING]
    return FoundImage(
        path=path,
        sop_instance_uid=uid,
        study_instance_uid=study,
        patient=f"{_text(header, 'IssuerOfPatientID')}\\{_text(header, 'PatientID')}",
        accession_number=_text(header, "AccessionNumber"),
        laterality=facts.laterality,
        view=facts.view,
        scanner=" ".join(
            filter(None, (_text(header, "Manufacturer"), _text(header, "ManufacturerModelName")))
        ),
        reason_against=reason,
    )


def _text(header: Dataset, keyword: str) -> str:
    try:
        return str(header.get(keyword) or "").strip()
    except MALFORMED:
        return ""


def groups(images: Iterable[FoundImage]) -> dict[str, str]:
    """Name the patient of each image by the smallest UID of his or her studies.

    Patient IDs must not leave the objects, and records are written to files. Images without a Patient ID are
    grouped by study.

    Returns
    -------
    dict of str to str
        SOP Instance UID to the name of the group.
    """
    by_patient: dict[str, list[FoundImage]] = {}
    for image in images:
        who = image.patient if image.patient != "\\" else f"\\{image.study_instance_uid}"
        by_patient.setdefault(who, []).append(image)
    return {
        image.sop_instance_uid: min(each.study_instance_uid for each in of_patient)
        for of_patient in by_patient.values()
        for image in of_patient
    }


def usable(images: Sequence[FoundImage]) -> tuple[list[FoundImage], list[str]]:
    """Return each image that can be trained on once, by UID, and notes on what is left out."""
    reasons = Counter(image.reason_against for image in images if image.reason_against)
    kept = {image.sop_instance_uid: image for image in reversed(images) if not image.reason_against}
    notes = [f"{count} images are left out: {reason}." for reason, count in sorted(reasons.items())]
    if repeated := len(images) - sum(reasons.values()) - len(kept):
        notes.append(f"{repeated} files are copies of images that are there already.")
    return [image for _, image in sorted(kept.items())], notes
