"""The attention map itself, as a FRACTIONAL segmentation, for the few viewers that shade by value.

A class activation is not a probability; the standard's only other fractional type, occupancy, would be
further from the truth. Label and description say what the values are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.results import codes, colours, wording
from dicom_node.results.context import BuildOrder, ResultContext
from dicom_node.results.measurement_groups import tracking_identifier
from dicom_node.results.segment_frames import (
    add_fractional_pixels,
    new_segmentation,
    require_same_size,
    segment,
)
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
        _segmentation(context, score, score.attention, ordinal)
        for ordinal, score in enumerate(context.prediction.images)
        if score.attention is not None and score.attention.any()
    ]


def _segmentation(
    context: ResultContext, score: ImageScore, attention: NDArray[np.uint8], ordinal: int
) -> Dataset:
    source = context.source(score.sop_instance_uid)
    require_same_size(attention, source, "an attention map")
    place = wording.place(score)
    name = f"{tracking_identifier(score)}, heat map"
    instance = new_segmentation(
        context,
        score,
        kind="fractional_segmentation",
        first_series_number=9241,
        ordinal=ordinal,
        description=f"AI heat map {place}",
        content=("AI_HEATMAP", f"AI heat map of {place}; share of its maximum, no probability"),
        segments=[
            segment(
                context,
                score,
                number=1,
                label="AI heat map",
                description="Where the AI model looked; not the outline of a lesion",
                category=codes.SPATIAL_CONCEPT,
                property_type=codes.CLASS_ACTIVATION,
                tracking=(context.tracking_uid(score.sop_instance_uid, _BEYOND_THE_BANDS), name),
                colour=colours.ORANGE,
            )
        ],
    )
    add_fractional_pixels(instance, source, np.where(attention < _FAINTEST, np.uint8(0), attention))
    return instance
