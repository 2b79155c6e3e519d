"""The rejection note: a Key Object Selection by which an archive withdraws results (IHE IOCM).

An archive that knows the profile hides what the note lists; any other keeps the note as a document that a
reader can open. The note says nothing about images: it lists results of this node alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from highdicom.sr import CompositeContentItem, ContentItem, ImageContentItem
from pydicom.dataset import Dataset

from dicom_node.results import codes
from dicom_node.results.content_tree import (
    CONTAINS,
    SEGMENTATION_STORAGE,
    add_key_objects,
    hierarchy,
)
from dicom_node.results.context import Analysis
from dicom_node.results.header import new_instance

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
KIND = "rejection_note"

# What a Key Object Selection names as IMAGE; everything else of ours is a COMPOSITE (PS3.16 TID 2010).
_IMAGE_CLASSES = frozenset(
    {
        SEGMENTATION_STORAGE,
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
    }
)


class RejectionReason(StrEnum):
    """Why results are withdrawn."""

    SUPERSEDED = "superseded"  # a later revision of the study was analysed
    RECALLED = "recalled"  # the model that made them was recalled


@dataclass(frozen=True, slots=True)
class Rejected:
    """One delivered result object that is to be withdrawn."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


_TITLES = {
    RejectionReason.SUPERSEDED: codes.REJECTED_FOR_QUALITY,
    RejectionReason.RECALLED: codes.REJECTED_FOR_SAFETY,
}
_DESCRIPTIONS = {
    RejectionReason.SUPERSEDED: "AI results replaced by those of a later revision of the study",
    RejectionReason.RECALLED: "AI results withdrawn: the model that made them was recalled",
}


def build(
    context: Analysis, reason: RejectionReason, rejected: Sequence[Rejected], ordinal: int = 0
) -> Dataset:
    """Build a rejection note.

    Parameters
    ----------
    context : Analysis
        The revision whose results replace the rejected ones.
    reason : RejectionReason
        Decides the document title (PS3.16 CID 7010): a superseded result is rejected for quality reasons,
        and stays visible where a site wants that; a recalled one for patient safety reasons, never shown.
    rejected : sequence of Rejected
        What to withdraw, at least one object of the same study.
    ordinal : int, optional
        Tells apart the notes of one revision, where destinations got different objects.

    Returns
    -------
    pydicom.dataset.Dataset
        A Key Object Selection Document (PS3.3 A.35.4, PS3.16 TID 2010).

    Raises
    ------
    ValueError
        When nothing is rejected.
    """
    if not rejected:
        raise ValueError("a rejection note needs at least one object to reject")
    note = new_instance(
        context,
        sop_class_uid=KEY_OBJECT_SELECTION,
        kind=KIND,
        modality="KO",
        series_number=9511,
        description="AI results withdrawn",
        ordinal=ordinal,
    )
    study = str(context.sources[0].StudyInstanceUID)
    note.ReferencedPerformedProcedureStepSequence = []
    note.CurrentRequestedProcedureEvidenceSequence = hierarchy(
        (study, item.series_instance_uid, item.sop_class_uid, item.sop_instance_uid) for item in rejected
    )
    references = [_reference(item) for item in rejected]
    add_key_objects(note, context, _TITLES[reason], _DESCRIPTIONS[reason], references)
    return note


def _reference(item: Rejected) -> ContentItem:
    kind = ImageContentItem if item.sop_class_uid in _IMAGE_CLASSES else CompositeContentItem
    return kind(codes.SOURCE, item.sop_class_uid, item.sop_instance_uid, relationship_type=CONTAINS)
