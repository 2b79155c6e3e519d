"""Where drawn lesions lie on a network's grid, and which cells of its map they touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.resampling import Geometry
from training.errors import EvaluationError
from training.records import Lesion

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LocatedMap:
    """One image's map and what it should point at, all on the network's grid.

    Attributes
    ----------
    group : str
        The woman.
    activation : numpy.ndarray
        ``(h, w)`` the map, spread over the whole grid; higher points more.
    areas : tuple of numpy.ndarray
        ``(rows, columns)`` bool of the grid, one for each lesion; empty for an image without any.
    inside : numpy.ndarray
        ``(rows, columns)`` bool of the grid: the breast. What a map says outside is not looked at.

    Raises
    ------
    EvaluationError
        If shapes do not fit, the map is not finite, or there is nothing inside.
    """

    group: str
    activation: NDArray[np.float64]
    areas: tuple[Mask, ...]
    inside: Mask

    def __post_init__(self) -> None:
        grid = self.inside.shape
        fits = all(area.shape == grid and area.any() for area in self.areas)
        is_map = self.activation.ndim == 2 and self.inside.ndim == 2
        if not is_map or not fits or self.activation.shape[0] > grid[0] or self.activation.shape[1] > grid[1]:
            raise EvaluationError("A map must not be finer than its grid, and each lesion lies on the grid.")
        if not np.isfinite(self.activation).all() or not self.inside.any():
            raise EvaluationError("A map must be finite, and there must be a breast on the grid.")

    @property
    def union(self) -> Mask:
        """All lesions together."""
        return np.any(self.areas, axis=0) if self.areas else np.zeros(self.inside.shape, np.bool_)


def lesion_area(
    lesion: Lesion, geometry: Geometry, grid: tuple[int, int], mask: NDArray[np.bool_] | None = None
) -> Mask | None:
    """Draw a lesion on the grid: its mask where there is one, its circle otherwise.

    Parameters
    ----------
    lesion : Lesion
        Circle in pixels of the source image.
    geometry : Geometry
        Grid to source image.
    grid : tuple of int
        Rows and columns of the grid.
    mask : numpy.ndarray or None
        ``(rows, columns)`` bool of the source image: the lesion's outline filled.

    Returns
    -------
    numpy.ndarray or None
        ``grid`` bool, at least one cell; None where the lesion lies off the grid.
    """
    rows, columns = np.indices(grid, dtype=np.float64) + 0.5
    x, y = geometry.to_source(columns, rows)
    if mask is not None:
        row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
        on_image = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
        area = np.zeros(grid, np.bool_)
        area[on_image] = mask[row[on_image], column[on_image]]
    else:
        area = np.hypot(x - lesion.centre[0], y - lesion.centre[1]) <= lesion.radius
    if not area.any():
        # Smaller than a cell: the cell that holds its centre.
        at_x, at_y = (float(v[0]) for v in geometry.to_grid(*(np.asarray([c]) for c in lesion.centre)))
        if not (0.0 <= at_x < grid[1] and 0.0 <= at_y < grid[0]):
            return None
        area[int(at_y), int(at_x)] = True
    return area


def touched(area: Mask, cells: tuple[int, int]) -> Mask:
    """Return which cells of a map ``(h, w)`` an area of the grid touches."""
    found = np.zeros(cells, np.bool_)
    rows, columns = np.nonzero(area)
    found[rows * cells[0] // area.shape[0], columns * cells[1] // area.shape[1]] = True
    return found


def on_grid(activation: NDArray[np.float64], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Spread a map over the grid, bilinear between the centres of its cells."""
    scales = [cells / size for cells, size in zip(activation.shape, grid, strict=True)]
    places = np.meshgrid(
        *((np.arange(size) + 0.5) * scale - 0.5 for size, scale in zip(grid, scales, strict=True)),
        indexing="ij",
    )
    return np.asarray(ndimage.map_coordinates(activation, places, order=1, mode="nearest"))


def shuffled(maps: Sequence[LocatedMap], random: np.random.Generator) -> list[LocatedMap]:
    """Put the values of each map at random places inside the breast: what a map without knowledge shows."""
    found = []
    for one in maps:
        is_inside = touched(one.inside, one.activation.shape)
        mixed = one.activation.copy()
        mixed[is_inside] = random.permutation(mixed[is_inside])
        found.append(LocatedMap(one.group, mixed, one.areas, one.inside))
    return found
