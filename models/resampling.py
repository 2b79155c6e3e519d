"""How cells of a network's grid lie on a source image, and the averaging of one onto the other.

The same numbers map pixels to the grid and marks on the grid back to pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Geometry:
    """How cells of the network's grid lie on the source image.

    A point ``(x, y)`` of the grid, with the grid's outer corner at ``(0, 0)``, is the source point
    ``(origin_x ± x * scale_x, origin_y + y * scale_y)`` in DICOM pixel coordinates, minus when flipped.

    Attributes
    ----------
    source_rows, source_columns : int
        Size of the source image.
    origin_x, origin_y : float
        The source point under the grid's outer corner; may lie outside the image.
    scale_x, scale_y : float
        Source pixels per cell, positive.
    is_flipped : bool
        Whether grid columns run against source columns.
    """

    source_rows: int
    source_columns: int
    origin_x: float
    origin_y: float
    scale_x: float
    scale_y: float
    is_flipped: bool

    def to_grid(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Source points to grid points, both in units of their own pixels with the outer corner at 0."""
        direction = -1.0 if self.is_flipped else 1.0
        return direction * (x - self.origin_x) / self.scale_x, (y - self.origin_y) / self.scale_y

    def to_source(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Grid points to source points, the inverse of :meth:`to_grid`."""
        direction = -1.0 if self.is_flipped else 1.0
        return self.origin_x + direction * x * self.scale_x, self.origin_y + y * self.scale_y


def axis_weights(
    geometry: Geometry, start: int, stop: int, step: int, cells: int, *, along_rows: bool
) -> Any:  # scipy.sparse.csr_array, which has no type stubs
    """Return the ``(cells, samples)`` matrix that averages samples of one axis over the grid's cells.

    Sample ``i`` covers ``[start + i * step, start + (i + 1) * step)`` of the source, cut at `stop`. A weight
    is the part of the cell that the sample covers, so parts of a cell off the image count as 0.

    Parameters
    ----------
    geometry : Geometry
        How the grid lies on the source.
    start, stop : int
        First pixel of the first sample and end of the last, source pixels.
    step : int
        Source pixels in a sample.
    cells : int
        Cells of the grid on this axis.
    along_rows : bool
        Whether the axis runs down the image, over its rows.

    Returns
    -------
    scipy.sparse.csr_array
        ``(cells, samples)`` float32, 0..1.
    """
    ends = np.append(np.arange(start, stop, step), stop).astype(np.float64)
    zero = np.zeros_like(ends)
    on_grid = geometry.to_grid(zero, ends)[1] if along_rows else geometry.to_grid(ends, zero)[0]
    # Rounding must not leave slivers outside the grid or split a cell's edge in two.
    on_grid = np.clip(np.round(on_grid, 9), 0.0, float(cells))
    low, high = np.minimum(on_grid[:-1], on_grid[1:]), np.maximum(on_grid[:-1], on_grid[1:])
    cuts = np.unique(np.concatenate([on_grid, np.arange(cells + 1, dtype=np.float64)]))
    lengths, middles = np.diff(cuts), (cuts[1:] + cuts[:-1]) / 2.0
    order = np.argsort(low, kind="stable")
    sample = order[np.clip(np.searchsorted(low[order], middles, side="right") - 1, 0, low.size - 1)]
    is_covered = (middles > low[sample]) & (middles < high[sample])
    from scipy import sparse  # the listener knows the tasks, too, and looks at no image

    return sparse.csr_array(
        (
            lengths[is_covered].astype(np.float32),
            (np.floor(middles[is_covered]).astype(np.intp), sample[is_covered]),
        ),
        shape=(cells, low.size),
    )


def resample(values: NDArray[np.float32], down: Any, across: Any) -> NDArray[np.float32]:
    """Average `values` over the grid's cells: rows first, because that reads memory in order."""
    averaged: NDArray[np.float32] = np.ascontiguousarray((across @ np.ascontiguousarray((down @ values).T)).T)
    return averaged
