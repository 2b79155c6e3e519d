"""The image half of a score job: a revision's objects in, what a display would show of them out."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import Dataset

from db.scoring import ScoreInput
from db.tables import Instance
from dicom_node.errors import ImageError
from dicom_node.images.reader import ImageReader, read_header
from dicom_node.results.source import bear_several_patient_ids, lacks_patient_id
from dicom_node.spool import Spool
from models.classifier import Classifier
from models.contract import ImageView, Laterality, Refusal, RefusalCode
from workers.eligibility import reason_against


@dataclass(frozen=True, slots=True)
class ReadStudy:
    """What could be read of a revision.

    Attributes
    ----------
    headers : tuple of pydicom.dataset.Dataset
        Of all objects that are readable, without pixel data.
    views : tuple of ImageView
        What gate and network get to see.
    unreadable : tuple of Refusal
        Why the rest is not among the views.
    """

    headers: tuple[Dataset, ...]
    views: tuple[ImageView, ...]
    unreadable: tuple[Refusal, ...]


def read(work: ScoreInput, classifier: Classifier, spool: Spool, reader: ImageReader) -> ReadStudy:
    """Read the images of a revision; what is wrong with one object costs that object alone.

    Images of several patients are the exception: nothing can be said of them in the name of one.

    Parameters
    ----------
    work : ScoreInput
        The revision's objects.
    classifier : Classifier
        Who answers; of a task that looks at whole images.
    spool : Spool
        Where the objects lie.
    reader : ImageReader
        Decodes in its disposable child process.

    Raises
    ------
    OSError
        If the machine fails, which says nothing about an object.
    """
    headers: list[Dataset] = []
    views: list[ImageView] = []
    unreadable: list[Refusal] = []
    for instance in work.instances:
        path, uid = spool.path_of(instance.spool_name), instance.sop_instance_uid
        try:
            header = read_header(path, uid)
            headers.append(header)
            if code := reason_against(header, instance, classifier):
                unreadable.append(_refusal(instance, code))
            else:
                views.append(reader.read(path, uid).view)
        except ImageError as error:
            unreadable.append(_refusal(instance, RefusalCode(error.code)))
    # The first one's patient is that of the results.
    headers.sort(key=lacks_patient_id)
    if bear_several_patient_ids(headers):
        views.clear()
        unreadable = [_refusal(instance, RefusalCode.SEVERAL_PATIENTS) for instance in work.instances]
    return ReadStudy(tuple(headers), tuple(views), tuple(unreadable))


def _refusal(instance: Instance, code: RefusalCode) -> Refusal:
    side = Laterality(instance.laterality) if instance.laterality else None
    return Refusal(code, instance.sop_instance_uid, side, instance.view)
