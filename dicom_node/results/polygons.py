"""Polygons in DICOM pixel coordinates and the pixels inside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def filled(outline: Sequence[tuple[float, float]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark the pixels whose centres lie inside a polygon.

    Parameters
    ----------
    outline : sequence of (float, float)
        Columns and rows of its corners; ``0\\0`` is the outer corner of the first pixel, so the centre of
        the first pixel is ``0.5\\0.5`` (PS3.3 C.10.5). It is closed from the last corner to the first.
    shape : tuple of int
        Rows and columns of the image.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns)`` bool. Where the polygon crosses itself, what is inside an odd number of times.
    """
    points = np.asarray(outline, np.float64)
    mask = np.zeros(shape, np.bool_)
    # A pixel is inside where an odd number of sides passes its centre on the left.
    first, last = _centres(points[:, 1].min(), points[:, 1].max(), shape[0])
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = _centres(min(y1, y2), max(y1, y2), shape[0])
        rows = np.arange(low, high)
        crossing = x1 + (rows + 0.5 - y1) * ((x2 - x1) / (y2 - y1)) if len(rows) else np.empty(0)
        columns = np.clip(np.ceil(crossing - 0.5), 0, shape[1]).astype(np.intp)
        is_inside = columns < shape[1]
        mask[rows[is_inside], columns[is_inside]] ^= True
    mask[first:last] = np.logical_xor.accumulate(mask[first:last], axis=1)
    return mask


def _centres(low: float, high: float, count: int) -> tuple[int, int]:
    """Give the range of rows whose centres lie in ``[low, high)``."""
    first, last = (int(np.clip(np.ceil(value - 0.5), 0, count)) for value in (low, high))
    return first, last
