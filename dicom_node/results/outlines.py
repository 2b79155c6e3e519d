"""Where a picture of one image gets its lines: the model's marks, or the edge of its strongest attention.

Points are DICOM pixel coordinates, column before row: ``0\\\\0`` is the outer corner of the first pixel
(PS3.3 C.10.5.1.2), so that lines drawn from them need no half pixel of correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.contract import ImageScore, LesionMark

Points = NDArray[np.float64]

_OUTLINED_BAND, _STRONGEST_BAND = 2, 3
# More lines than these would hide the breast that they are drawn on.
_MOST_OUTLINES = 4
_TOLERANCE_PX = 0.75
# Column and row of one step to the right, down, left and up: each is a right turn from the one before.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


@dataclass(frozen=True, slots=True)
class Outline:
    """One closed line.

    Attributes
    ----------
    points : numpy.ndarray
        ``(n, 2)`` float64, column and row; the first point is repeated at the end.
    mark : models.contract.LesionMark or None
        What the line is round; None for attention, which is no lesion.
    number : int
        Place of the mark among the image's marks, from 1; place of the area among the areas.
    """

    points: Points
    mark: LesionMark | None
    number: int


def outlines_of(score: ImageScore) -> tuple[Outline, ...]:
    """Give the lines to draw on one image.

    Parameters
    ----------
    score : models.contract.ImageScore
        What the model said of it.

    Returns
    -------
    tuple of Outline
        Those of the marks where the model localises; else round the areas of bands 2 and 3 that reach band
        3, the largest first, at most four; none where there is neither.
    """
    if score.marks:
        return tuple(
            Outline(_closed(np.array(mark.outline, np.float64)), mark, number)
            for number, mark in enumerate(score.marks, start=1)
        )
    if score.evidence is None:
        return ()
    return tuple(
        Outline(points, None, number)
        for number, points in enumerate(_attention(score.evidence)[:_MOST_OUTLINES], start=1)
    )


def outline_of(area: NDArray[np.bool_]) -> Points:
    """Walk round one connected area along the edges of its pixels.

    Parameters
    ----------
    area : numpy.ndarray
        ``(rows, columns)`` bool; one area, whose pixels touch by their sides. Holes are not walked round.

    Returns
    -------
    numpy.ndarray
        ``(n, 2)`` float64, column and row; closed, and nowhere more than 0.75 pixels from the very edge.
    """
    inside = np.pad(area, 1).tolist()
    row = next(number for number, line in enumerate(inside) if True in line)
    column = inside[row].index(True)
    start, heading = (column, row), 0
    corners = [start]
    while True:
        step = _STEPS[heading]
        column, row = column + step[0], row + step[1]
        # The area is at the right hand. Where two pixels meet by a corner alone they stay apart.
        if not _ahead(inside, column, row, heading, 0):
            turned = (heading + 1) % 4
        elif _ahead(inside, column, row, heading, -1):
            turned = (heading - 1) % 4
        else:
            continue
        corners.append((column, row))
        if (column, row) == start and turned == 0:
            break
        heading = turned
    return _simplified(np.array(corners, np.float64)) - 1.0


def _ahead(inside: list[list[bool]], column: int, row: int, heading: int, side: int) -> bool:
    """Tell whether the pixel ahead of a corner, at the right hand (0) or the left (-1), is in the area."""
    if heading == 0:
        return inside[row + side][column]
    if heading == 1:
        return inside[row][column - 1 - side]
    if heading == 2:
        return inside[row - 1 - side][column - 1]
    return inside[row - 1][column + side]


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
        points = outline_of(labels[down, across] == number)
        found.append(points + np.array([left + across.start, top + down.start]))
    return found


def _closed(points: Points) -> Points:
    return points if np.array_equal(points[0], points[-1]) else np.vstack([points, points[:1]])


def _simplified(points: Points) -> Points:
    """Leave out the points of a closed line that lie within the tolerance of it (Douglas and Peucker)."""
    farthest = int(np.argmax(np.hypot(*(points - points[0]).T)))
    kept = {0, farthest, len(points) - 1}
    spans = [(0, farthest), (farthest, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        distances = _distances(points[first + 1 : last], points[first], points[last])
        worst = int(np.argmax(distances))
        if distances[worst] > _TOLERANCE_PX:
            middle = first + 1 + worst
            kept.add(middle)
            spans += [(first, middle), (middle, last)]
    return points[sorted(kept)]


def _distances(points: Points, start: Points, end: Points) -> Points:
    """Distances of points from the piece of line between two others."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0.0, 1.0) if length else np.zeros(len(points))
    return np.asarray(np.hypot(*(points - start - share[:, np.newaxis] * along).T))
