"""The segmentation: where the model looked in one image, as three bands that viewers colour.

Bands are BINARY segments, because viewers show no FRACTIONAL one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import ResultError
from dicom_node.results import colours, wording
from dicom_node.results.attention import attention_segment, images_with
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.measurement_groups import tracking_identifier
from dicom_node.results.segment_frames import add_binary_pixels, new_segmentation
from models.contract import EVIDENCE_BANDS, ImageScore

_COLOURS = (colours.YELLOW, colours.ORANGE, colours.RED)
_BANDS = tuple(range(1, len(EVIDENCE_BANDS) + 1))


def build(order: BuildOrder) -> list[Dataset]:
    """Build one segmentation for each image whose score comes with evidence.

    Parameters
    ----------
    order : BuildOrder
        What to show.

    Returns
    -------
    list of pydicom.dataset.Dataset
        In the order of the scores; empty where the model gave no evidence.
    """
    context = order.context
    return [
        _segmentation(context, score, evidence, ordinal)
        for ordinal, score, evidence in images_with(context, lambda s: s.evidence, "an evidence map")
    ]


def _segmentation(
    context: ResultContext, score: ImageScore, evidence: NDArray[np.uint8], ordinal: int
) -> Dataset:
    if int(evidence.max()) > _BANDS[-1]:
        raise ResultError("an evidence map does not fit: it has bands that reports do not know")
    place = wording.place(score)
    instance = new_segmentation(
        context,
        score,
        kind="segmentation",
        first_series_number=9201,
        ordinal=ordinal,
        description=f"AI attention {place}",
        content=("AI_ATTENTION", f"Where the AI model looked in {place}; not the outline of a lesion"),
        segments=[_segment(context, score, band) for band in _BANDS],
    )
    source = context.source(score.sop_instance_uid)
    add_binary_pixels(instance, source, np.stack([evidence == band for band in _BANDS]))
    return instance


def _segment(context: ResultContext, score: ImageScore, band: int) -> Dataset:
    """Describe one band. The strongest carries the tracking identity of the image's measurement group."""
    low, high = EVIDENCE_BANDS[band - 1]
    extent = f"{low:.0%}-{high:.0%}".replace("%", "", 1).replace("%", " %")
    strongest = band == _BANDS[-1]
    name = tracking_identifier(score)
    return attention_segment(
        context,
        score,
        number=band,
        label=f"AI attention, {extent} of the maximum in this image",
        tracking=(
            context.tracking_uid(score.sop_instance_uid, 0 if strongest else band),
            name if strongest else f"{name}, attention {extent}",
        ),
        colour=_COLOURS[band - 1],
    )
