"""The outline of an area of pixels as a polygon in DICOM pixel coordinates.

Knows nothing of images or findings: a mask in, corners out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TOLERANCE = 1.0
"""Largest distance, in pixels, between an outline and the pixel edges that it stands for."""


def outline_of(mask: NDArray[np.bool_], corner: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Walk round one connected area along the edges of its pixels and leave out what makes no difference.

    Parameters
    ----------
    mask : numpy.ndarray
        ``(rows, columns)`` bool, one area whose pixels are connected by their sides. Holes are ignored.
    corner : tuple of int
        Column and row of the mask's first pixel in the image.

    Returns
    -------
    tuple of (float, float)
        Columns and rows of the corners, clockwise on the screen, the first not repeated, at least four;
        ``0\\0`` is the outer corner of the image's first pixel (PS3.3 C.10.5).
    """
    path = _simplified(_edge_path(ndimage.binary_fill_holes(mask)))
    return tuple((float(x + corner[0]), float(y + corner[1])) for x, y in path)


def _edge_path(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the ``(n, 2)`` grid points of a closed walk round the mask, the area on the right hand."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    # Start and step of each edge: top, right, bottom and left side of pixels with nothing beyond.
    sides = (
        (inside & ~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (inside & ~padded[1:-1, 2:], (1, 0), (0, 1)),
        (inside & ~padded[2:, 1:-1], (1, 1), (-1, 0)),
        (inside & ~padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    following: dict[tuple[int, int], tuple[int, int]] = {}
    for is_edge, (start_x, start_y), (step_x, step_y) in sides:
        for y, x in np.argwhere(is_edge).tolist():
            # Without holes no two pixels of one area meet at a corner alone, so a point has one way on.
            following[x + start_x, y + start_y] = (x + start_x + step_x, y + start_y + step_y)
    path = [min(following)]
    while (point := following[path[-1]]) != path[0]:
        path.append(point)
    return np.array(path, np.int64)


def _simplified(path: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep the points that the others lie within the tolerance of (Ramer, Douglas and Peucker)."""
    opposite = int(np.hypot(*(path - path[0]).T).argmax())
    closed = np.concatenate([path, path[:1]])
    keep = np.zeros(len(closed), np.bool_)
    keep[[0, opposite]] = True
    # The farthest point of either half stays in any case, or nothing would be left of a thin area.
    spans = [(0, opposite, 0.0), (opposite, len(closed) - 1, 0.0)]
    while spans:
        first, last, tolerance = spans.pop()
        between = closed[first + 1 : last] - closed[first]
        if not len(between):
            continue
        along = closed[last] - closed[first]
        distance = np.abs(between[:, 0] * along[1] - between[:, 1] * along[0]) / np.hypot(*along)
        middle = first + 1 + int(distance.argmax())
        if distance.max() > tolerance:
            keep[middle] = True
            spans += [(first, middle, TOLERANCE), (middle, last, TOLERANCE)]
    return path[np.flatnonzero(keep[:-1])]
