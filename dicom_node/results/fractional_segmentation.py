"""The attention map itself, as a FRACTIONAL segmentation, for the few viewers that shade by value.

A class activation is not a probability; the standard's only other fractional type, occupancy, would be
further from the truth. Label and description say what the values are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.results import colours, wording
from dicom_node.results.attention import attention_segment, images_with
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.measurement_groups import tracking_identifier
from dicom_node.results.segment_frames import add_fractional_pixels, new_segmentation
from models.contract import EVIDENCE_BANDS, ImageScore

_BEYOND_THE_BANDS = len(EVIDENCE_BANDS) + 1  # the map is tracked apart from its three bands
_FAINTEST = 6  # of 255; less than 2 % of the maximum would only veil the image


def build(order: BuildOrder) -> list[Dataset]:
    """Build one segmentation for each image whose score comes with the values of its map.

    Parameters
    ----------
    order : BuildOrder
        What to show.

    Returns
    -------
    list of pydicom.dataset.Dataset
        In the order of the scores; empty where nobody asked for the values.
    """
    context = order.context
    return [
        _segmentation(context, score, attention, ordinal)
        for ordinal, score, attention in images_with(context, lambda s: s.attention, "an attention map")
    ]


def _segmentation(
    context: ResultContext, score: ImageScore, attention: NDArray[np.uint8], ordinal: int
) -> Dataset:
    place = wording.place(score)
    tracking_uid = context.tracking_uid(score.sop_instance_uid, _BEYOND_THE_BANDS)
    only_segment = attention_segment(
        context,
        score,
        number=1,
        label="AI heat map",
        tracking=(tracking_uid, f"{tracking_identifier(score)}, heat map"),
        colour=colours.ORANGE,
    )
    instance = new_segmentation(
        context,
        score,
        kind="fractional_segmentation",
        first_series_number=9241,
        ordinal=ordinal,
        description=f"AI heat map {place}",
        content=("AI_HEATMAP", f"AI heat map of {place}; share of its maximum, no probability"),
        segments=[only_segment],
    )
    source = context.source(score.sop_instance_uid)
    add_fractional_pixels(instance, source, np.where(attention < _FAINTEST, np.uint8(0), attention))
    return instance
