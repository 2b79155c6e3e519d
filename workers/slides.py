"""The slide half of a score job: whole slides in, what is said of them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from db.scoring import ScoreInput
from dicom_node.errors import ImageError
from dicom_node.images.reader import ImageReader, read_header
from dicom_node.images.slides import read_slide
from dicom_node.results.source import bear_several_patient_ids, lacks_patient_id
from dicom_node.spool import Spool
from models.classifier import Classifier, Stopwatch
from models.contract import Refusal, RefusalCode, SlideStudyPrediction, SlideView
from models.slide_classifier import predict_slides
from workers.eligibility import reason_against


def analyse(
    work: ScoreInput,
    classifier: Classifier,
    spool: Spool,
    reader: ImageReader,
    *,
    stopwatch: Stopwatch,
    check: Callable[[], None],
) -> tuple[tuple[Dataset, ...], SlideStudyPrediction]:
    """Read and score the slides of a revision.

    Parameters
    ----------
    work : ScoreInput
        The revision's objects.
    classifier : Classifier
        Who answers; of a task that reads slides.
    spool : Spool
        Where the objects lie.
    reader : ImageReader
        Decodes in its disposable child process.
    stopwatch : callable
        Times each stage.
    check : callable
        Asked between the bands of a slide, which takes minutes; what it raises ends the work.

    Returns
    -------
    tuple
        Headers of all objects that could be read, and what the model said.
    """
    headers: list[Dataset] = []
    views: list[SlideView] = []
    unreadable: list[Refusal] = []
    for instance in work.instances:
        path, uid = spool.path_of(instance.spool_name), instance.sop_instance_uid
        try:
            header = read_header(path, uid)
            headers.append(header)
            if code := reason_against(header, instance, classifier):
                unreadable.append(Refusal(code, uid))
            else:
                views.append(_watched(read_slide(reader, path, uid).view, check))
        except ImageError as error:
            unreadable.append(Refusal(RefusalCode(error.code), uid))
    # The first one's patient is that of the results.
    headers.sort(key=lacks_patient_id)
    if bear_several_patient_ids(headers):
        views.clear()
        unreadable = [Refusal(RefusalCode.SEVERAL_PATIENTS, i.sop_instance_uid) for i in work.instances]
    prediction = predict_slides(classifier, views, unreadable, stopwatch=stopwatch, refusal_of=_refusal_of)
    return tuple(headers), prediction


def _watched(view: SlideView, check: Callable[[], None]) -> SlideView:
    def read(top: int, bottom: int) -> NDArray[np.uint8]:
        check()
        return view.read(top, bottom)

    return replace(view, read=read)


def _refusal_of(view: SlideView, error: Exception) -> Refusal | None:
    """A tile that cannot be decoded costs its slide; a disk that fails costs the attempt."""
    if isinstance(error, ImageError):
        return Refusal(RefusalCode(error.code), view.sop_instance_uid)
    return None
