"""Where a picture of one image gets its lines: the model's marks, or the edge of its strongest attention.

Points are DICOM pixel coordinates, column before row: ``0\\0`` is the outer corner of the first pixel
(PS3.3 C.10.5.1.2), so that lines drawn from them need no half pixel of correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.results.context import ResultContext
from dicom_node.results.lesions import Lesion, lesions_of
from models.contract import ImageScore
from models.outlines import outline_of

Points = NDArray[np.float64]

_OUTLINED_BAND, _STRONGEST_BAND = 2, 3
# More lines than these would hide the breast that they are drawn on.
_MOST_OUTLINES = 4


@dataclass(frozen=True, slots=True)
class Outline:
    """One closed line.

    Attributes
    ----------
    points : numpy.ndarray
        ``(n, 2)`` float64, column and row; the first point is repeated at the end.
    lesion : Lesion or None
        The marked place that it is round; None for attention, which is no lesion.
    """

    points: Points
    lesion: Lesion | None


def outlines_of(context: ResultContext, score: ImageScore) -> tuple[Outline, ...]:
    """Give the lines to draw on one image.

    Parameters
    ----------
    context : ResultContext
        Says whether its bundle may point at places.
    score : models.contract.ImageScore
        What the model said of the image.

    Returns
    -------
    tuple of Outline
        Those of the marks of a bundle that localises; else round the areas of bands 2 and 3 that reach band
        3, the largest first, at most four; none where there is neither.
    """
    if context.bundle.localises and score.marks:
        return tuple(
            Outline(_closed(np.array(lesion.mark.outline, np.float64)), lesion)
            for lesion in lesions_of(context, score)
        )
    if score.evidence is None:
        return ()
    return tuple(Outline(points, None) for points in _attention(score.evidence)[:_MOST_OUTLINES])


def _attention(evidence: NDArray[np.uint8]) -> list[Points]:
    # Most of a mammogram is air: labels are made where the attention is, and there alone.
    rows, columns = (np.flatnonzero((evidence >= _OUTLINED_BAND).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    bands = evidence[top : rows[-1] + 1, left : columns[-1] + 1]
    labels, _ = ndimage.label(bands >= _OUTLINED_BAND)
    numbers, sizes = np.unique(labels[bands >= _STRONGEST_BAND], return_counts=True)
    boxes = ndimage.find_objects(labels)
    found = []
    for number in numbers[np.argsort(-sizes, kind="stable")]:
        down, across = boxes[number - 1]
        corner = (left + across.start, top + down.start)
        found.append(_closed(np.array(outline_of(labels[down, across] == number, corner))))
    return found


def _closed(points: Points) -> Points:
    return points if np.array_equal(points[0], points[-1]) else np.vstack([points, points[:1]])
