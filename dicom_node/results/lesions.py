"""The identity of a marked place: one name and one tracking UID in every object that speaks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.sr.coding import Code

from dicom_node.results import codes, identity, wording
from dicom_node.results.context import ResultContext
from models.contract import ClassScore, CodedConcept, ImageScore, LesionMark


@dataclass(frozen=True, slots=True)
class Lesion:
    """One marked place of one image.

    Attributes
    ----------
    score : models.contract.ImageScore
        Its image.
    mark : models.contract.LesionMark
        The place.
    number : int
        Place among the image's marks, from 1.
    name : str
        Tracking Identifier, such as ``"AI lesion R CC 1"``.
    tracking_uid : str
        Tracking Unique Identifier; it stays through revisions.
    """

    score: ImageScore
    mark: LesionMark
    number: int
    name: str
    tracking_uid: str

    @property
    def own_class(self) -> ClassScore | None:
        """The image's class that says what the place is: the most probable one of the same finding."""
        return next((c for c in self.score.classes if c.finding == self.mark.finding), None)

    @property
    def finding(self) -> Code:
        """What it is taken for; a lesion where the model only tells malignant from not."""
        return code_of(self.mark.finding) if self.mark.finding else codes.LESION


def lesions(context: ResultContext) -> Iterator[Lesion]:
    """Give every marked place of a study, image by image; none of a bundle that does not localise."""
    if context.bundle.localises:
        for score in context.prediction.images:
            yield from lesions_of(context, score)


def lesions_of(context: ResultContext, score: ImageScore) -> Iterator[Lesion]:
    """Give the marked places of one image, in the order of its marks."""
    for number, mark in enumerate(score.marks, start=1):
        tracking_uid = identity.uid_for("tracking.lesion", context.bundle, [score.sop_instance_uid], number)
        yield Lesion(score, mark, number, f"AI lesion {wording.place(score)} {number}", tracking_uid)


def code_of(concept: CodedConcept) -> Code:
    """Give a concept of the inference contract as the code that content items take."""
    return Code(concept.value, concept.scheme, concept.meaning)
