"""From an image as a reader sees it to the network's grid, once for training and inference.

Decides where the breast is, at which scale the network sees it and how grey values are standardised. Knows
neither DICOM nor torch. The same pixels always give the same bytes: no threads, no random numbers.

Order of work: padding to black, breast mask on a subsampled image, box around it, chest wall to the grid's
left edge, area-averaging onto a grid of fixed millimetres per cell, standardisation inside the breast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from models.contract import ImageView, Laterality, Region
from models.errors import NoBreastError

VERSION = "breast-grid-1"
"""Names this algorithm; a change of any output byte needs a new name."""

KNOWN_VERSIONS = frozenset({VERSION})

_MASK_ROWS = 256  # the breast is found on a copy of about this many samples per side
_MINIMUM_AREA = 0.02  # of the image; less is a marker or noise
_RISE_ABOVE_BACKGROUND = 0.04  # of the grey range; fat at the skin line is darker than 10 % on some displays
_CHEST_WALL_RATIO = 1.5  # the chest wall side of a breast is much taller than the nipple side


@dataclass(frozen=True, slots=True)
class Parameters:
    """What preprocessing can be asked for; stored in the bundle and part of its digest.

    Attributes
    ----------
    rows, columns : int
        Cells of the network's grid.
    pixel_mm : float
        Side of a cell in the detector plane, millimetres. A breast too large for the grid at this scale,
        or an image without a spacing, is scaled to fit.
    clip_low, clip_high : float
        Bounds of the standardised values, in standard deviations.
    version : str
        The algorithm, :data:`VERSION`.
    """

    rows: int = 384
    columns: int = 256
    pixel_mm: float = 0.6
    clip_low: float = -4.0
    clip_high: float = 8.0
    version: str = VERSION


@dataclass(frozen=True, slots=True)
class Breast:
    """Where the breast is in one image.

    Attributes
    ----------
    mask : numpy.ndarray
        ``(ceil(rows / step), ceil(columns / step))`` bool, sample ``[i, j]`` stands for the source pixels
        ``[i * step : (i + 1) * step, j * step : (j + 1) * step]``.
    step : int
        Source pixels per sample and axis.
    box : tuple of int
        Left, top, right, bottom in DICOM pixel coordinates (PS3.3 C.10.5), whole pixels.
    """

    mask: NDArray[np.bool_]
    step: int
    box: tuple[int, int, int, int]

    @property
    def chest_wall_side(self) -> Laterality | None:
        """The side whose breast has its chest wall where this one has it.

        On an image hung as it is read, the left breast's chest wall is at the left edge and the right
        breast's at the right (IHE Mammography Image, 4.16). None where the shape does not tell.
        """
        columns = np.flatnonzero(self.mask.any(axis=0))
        band = max(1, columns.size // 20)
        left = int(self.mask[:, columns[:band]].sum())
        right = int(self.mask[:, columns[-band:]].sum())
        if left > _CHEST_WALL_RATIO * right:
            return Laterality.LEFT
        if right > _CHEST_WALL_RATIO * left:
            return Laterality.RIGHT
        return None


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


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image on the network's grid.

    Attributes
    ----------
    tensor : numpy.ndarray
        ``(1, rows, columns)`` float32, standard deviations around the breast's mean, 0 outside the breast.
    region : Region
        The area of the source image that the tensor shows: the box around the breast.
    geometry : Geometry
        Grid to source.
    breast : Breast
        Where the breast is in the source.
    """

    tensor: NDArray[np.float32]
    region: Region
    geometry: Geometry
    breast: Breast


def find_breast(pixels: NDArray[np.uint16], padding: NDArray[np.bool_] | None = None) -> Breast:
    """Find the breast: the largest connected area brighter than the background.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(rows, columns)`` uint16 P-values.
    padding : numpy.ndarray, optional
        ``(rows, columns)`` bool, True where there is no image.

    Raises
    ------
    NoBreastError
        If nothing of a breast's size stands out from the background.
    """
    rows, columns = pixels.shape
    step = max(1, min(rows, columns) // _MASK_ROWS)
    samples = pixels[::step, ::step].astype(np.float32)
    is_image = np.ones(samples.shape, dtype=np.bool_) if padding is None else ~padding[::step, ::step]
    if not is_image.any():
        raise NoBreastError("The image consists of padding.")
    samples[~is_image] = samples[is_image].min()
    # One sample stands for step * step pixels: without the median, noise tears the mask apart.
    samples = ndimage.median_filter(samples, size=3)
    is_tissue = (samples > _background_limit(samples[is_image])) & is_image
    labels, count = ndimage.label(ndimage.binary_opening(is_tissue, np.ones((3, 3), dtype=np.bool_)))
    if count == 0:
        raise NoBreastError("Nothing in the image stands out from its background.")
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    if areas.max() < _MINIMUM_AREA * is_image.sum():
        raise NoBreastError("Nothing in the image is large enough to be a breast.")
    mask = ndimage.binary_fill_holes(labels == areas.argmax()) & is_image
    return Breast(mask=mask, step=step, box=_box_around(mask, step, rows, columns))


def _background_limit(samples: NDArray[np.float32]) -> float:
    """Return the grey value above which a sample is tissue: a little over the commonest dark value."""
    low, high = float(samples.min()), float(np.percentile(samples, 99.5))
    if high <= low:
        return float("inf")
    counts, edges = np.histogram(samples, bins=128, range=(low, high))
    background = float(edges[counts[:51].argmax() + 1])
    return background + _RISE_ABOVE_BACKGROUND * (high - low)


def _box_around(mask: NDArray[np.bool_], step: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    y = np.flatnonzero(mask.any(axis=1))
    x = np.flatnonzero(mask.any(axis=0))
    right, bottom = min(columns, int(x[-1] + 1) * step), min(rows, int(y[-1] + 1) * step)
    return int(x[0]) * step, int(y[0]) * step, right, bottom


def prepare(view: ImageView, parameters: Parameters, breast: Breast | None = None) -> Prepared:
    """Put one image on the network's grid.

    Parameters
    ----------
    view : ImageView
        An image that its task's gate accepted; its laterality says which side the chest wall is on.
    parameters : Parameters
        The bundle's.
    breast : Breast, optional
        What :func:`find_breast` gave for this image, where it was asked before.

    Raises
    ------
    NoBreastError
        If no breast is found.
    """
    breast = breast or find_breast(view.pixels, view.padding)
    geometry = _geometry(view, breast, parameters)
    across = _axis_weights(geometry, breast.box[0], breast.box[2], 1, parameters.columns, along_rows=False)
    down = _axis_weights(geometry, breast.box[1], breast.box[3], 1, parameters.rows, along_rows=True)
    left, top, right, bottom = breast.box
    values = view.pixels[top:bottom, left:right].astype(np.float32)
    if view.padding is not None:
        values[view.padding[top:bottom, left:right]] = 0.0
    grid = _resample(values, down, across)
    mask = _mask_on_grid(breast, geometry, parameters)
    return Prepared(
        tensor=_standardise(grid, mask, parameters)[np.newaxis],
        region=Region(float(left), float(top), float(right), float(bottom)),
        geometry=geometry,
        breast=breast,
    )


def _geometry(view: ImageView, breast: Breast, parameters: Parameters) -> Geometry:
    left, top, right, bottom = breast.box
    width, height = right - left, bottom - top
    row_spacing, column_spacing = view.spacing_mm or (1.0, 1.0)
    # Without a spacing there is no true scale: the breast fills the grid.
    cell_mm = parameters.pixel_mm if view.spacing_mm else 0.0
    cell_mm = max(
        cell_mm, width * column_spacing / parameters.columns, height * row_spacing / parameters.rows
    )
    scale_x, scale_y = cell_mm / column_spacing, cell_mm / row_spacing
    is_flipped = view.laterality is Laterality.RIGHT
    return Geometry(
        source_rows=view.rows,
        source_columns=view.columns,
        origin_x=float(right if is_flipped else left),
        origin_y=(top + bottom - parameters.rows * scale_y) / 2.0,
        scale_x=scale_x,
        scale_y=scale_y,
        is_flipped=is_flipped,
    )


def _axis_weights(
    geometry: Geometry, start: int, stop: int, step: int, cells: int, *, along_rows: bool
) -> Any:  # scipy.sparse.csr_array, which has no type stubs
    """Return the ``(cells, samples)`` matrix that averages samples of one axis over the grid's cells.

    Sample ``i`` covers ``[start + i * step, start + (i + 1) * step)`` of the source, cut at `stop`. A weight
    is the part of the cell that the sample covers, so parts of a cell off the image count as 0.
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
    return sparse.csr_array(
        (
            lengths[is_covered].astype(np.float32),
            (np.floor(middles[is_covered]).astype(np.intp), sample[is_covered]),
        ),
        shape=(cells, low.size),
    )


def _resample(values: NDArray[np.float32], down: Any, across: Any) -> NDArray[np.float32]:
    """Average `values` over the grid's cells: rows first, because that reads memory in order."""
    averaged: NDArray[np.float32] = np.ascontiguousarray((across @ np.ascontiguousarray((down @ values).T)).T)
    return averaged


def _mask_on_grid(breast: Breast, geometry: Geometry, parameters: Parameters) -> NDArray[np.bool_]:
    step = breast.step
    down = _axis_weights(geometry, 0, geometry.source_rows, step, parameters.rows, along_rows=True)
    across = _axis_weights(geometry, 0, geometry.source_columns, step, parameters.columns, along_rows=False)
    return _resample(breast.mask.astype(np.float32), down, across) >= 0.5


def _standardise(
    grid: NDArray[np.float32], mask: NDArray[np.bool_], parameters: Parameters
) -> NDArray[np.float32]:
    tissue = grid[mask].astype(np.float64)
    if tissue.size == 0:
        raise NoBreastError("The breast is smaller than a cell of the network's grid.")
    # One grey level of 16 bits: a flat breast becomes zeros, not noise blown up.
    deviation = max(float(tissue.std()), 1.0)
    standardised = (grid - np.float32(tissue.mean())) / np.float32(deviation)
    np.clip(standardised, parameters.clip_low, parameters.clip_high, out=standardised)
    standardised[~mask] = 0.0
    return standardised.astype(np.float32, copy=False)
