"""The outlines of marked places, filled: one BINARY segment for each mark of a bundle that localises."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.results import codes, colours, wording
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.lesions import Lesion, lesions_of
from dicom_node.results.polygons import filled
from dicom_node.results.segment_frames import add_binary_pixels, new_segmentation, segment
from models.contract import ImageScore


def build(order: BuildOrder) -> list[Dataset]:
    """Build one segmentation for each image with marks.

    Parameters
    ----------
    order : BuildOrder
        What to show.

    Returns
    -------
    list of pydicom.dataset.Dataset
        In the order of the scores; empty where nothing is marked or the bundle does not localise.
    """
    context = order.context
    if not context.bundle.localises:
        return []
    return [
        _segmentation(context, score, ordinal)
        for ordinal, score in enumerate(context.prediction.images)
        if score.marks
    ]


def _segmentation(context: ResultContext, score: ImageScore, ordinal: int) -> Dataset:
    source = context.source(score.sop_instance_uid)
    found = list(lesions_of(context, score))
    place = wording.place(score)
    instance = new_segmentation(
        context,
        score,
        kind="lesion_segmentation",
        first_series_number=9221,
        ordinal=ordinal,
        description=f"AI lesion outlines {place}",
        content=("AI_LESION", f"Places marked by the AI model in {place}"),
        segments=[_segment(context, lesion) for lesion in found],
    )
    shape = (int(source.Rows), int(source.Columns))
    frames: NDArray[np.bool_] = np.stack([filled(lesion.mark.outline, shape) for lesion in found])
    add_binary_pixels(instance, source, frames, overlap=bool((frames.sum(axis=0) > 1).any()))
    return instance


def _segment(context: ResultContext, lesion: Lesion) -> Dataset:
    probability = wording.percent(lesion.mark.probability, context.prediction.threshold)
    return segment(
        context,
        lesion.score,
        number=lesion.number,
        label=lesion.name,
        description=f"Marked by the AI model, probability of {context.prediction.target} {probability}",
        category=codes.ABNORMAL_STRUCTURE,
        property_type=lesion.finding,
        tracking=(lesion.tracking_uid, lesion.name),
        colour=colours.RED,
    )
