"""What the segmentations of model attention share: whose they are, and what their segments are said to be.

Attention is a place of class activation, which is no finding and no lesion's outline; category, type and
description of every segment say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.results import codes
from dicom_node.results.context import ResultContext
from dicom_node.results.segment_frames import require_same_size, segment
from models.contract import ImageScore

Map = NDArray[np.uint8]


def images_with(
    context: ResultContext, map_of: Callable[[ImageScore], Map | None], what: str
) -> Iterator[tuple[int, ImageScore, Map]]:
    """Give each image that has a map with anything in it: its place among the scores, its score, the map.

    Parameters
    ----------
    context : ResultContext
        What is reported.
    map_of : callable
        Takes the map from a score.
    what : str
        The map in words, for whoever hands in one that does not fit.

    Raises
    ------
    ResultError
        When a map has not one value for each pixel of its image.
    """
    for ordinal, score in enumerate(context.prediction.images):
        values = map_of(score)
        if values is not None and values.any():
            require_same_size(values, context.source(score.sop_instance_uid), what)
            yield ordinal, score, values


def attention_segment(
    context: ResultContext,
    score: ImageScore,
    *,
    number: int,
    label: str,
    tracking: tuple[str, str],
    colour: CIELabColor,
) -> Dataset:
    """Describe one segment of attention; see :func:`~dicom_node.results.segment_frames.segment`."""
    return segment(
        context,
        score,
        number=number,
        label=label,
        description="Where the AI model looked; not the outline of a lesion",
        category=codes.SPATIAL_CONCEPT,
        property_type=codes.CLASS_ACTIVATION,
        tracking=tracking,
        colour=colour,
    )
