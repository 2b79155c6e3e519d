"""From an image as a reader sees it to the network's grid, once for training and inference.

Decides where the breast is, at which scale the network sees it and how grey values are standardised. Knows
neither DICOM nor torch. The same pixels always give the same bytes: no threads, no random numbers.

Order of work: padding to black, breast mask on a subsampled image, box around it, chest wall to the grid's
left edge, area-averaging onto a grid of fixed millimetres per cell, standardisation inside the breast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import ImageView, Laterality, Region
from models.errors import NoBreastError
from models.grey_values import standardise
from models.resampling import Geometry, axis_weights, resample

VERSION = "breast-grid-1"
"""Names this algorithm; a change of any output byte needs a new name."""

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
        or an image without a spacing, is scaled to fit. A side too small for any breast (0.01) therefore
        lets every breast fill the grid, whatever its true size.
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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the tensor."""
        return 1, self.rows, self.columns


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
    from scipy import ndimage  # the listener knows the tasks, too, and looks at no image

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
    across = axis_weights(geometry, breast.box[0], breast.box[2], 1, parameters.columns, along_rows=False)
    down = axis_weights(geometry, breast.box[1], breast.box[3], 1, parameters.rows, along_rows=True)
    left, top, right, bottom = breast.box
    values = view.pixels[top:bottom, left:right].astype(np.float32)
    if view.padding is not None:
        values[view.padding[top:bottom, left:right]] = 0.0
    grid = resample(values, down, across)
    mask = _mask_on_grid(breast, geometry, parameters)
    if not mask.any():
        raise NoBreastError("The breast is smaller than a cell of the network's grid.")
    tensor = standardise(grid, mask, clip_low=parameters.clip_low, clip_high=parameters.clip_high)
    return Prepared(
        tensor=tensor[np.newaxis],
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


def _mask_on_grid(breast: Breast, geometry: Geometry, parameters: Parameters) -> NDArray[np.bool_]:
    step = breast.step
    down = axis_weights(geometry, 0, geometry.source_rows, step, parameters.rows, along_rows=True)
    across = axis_weights(geometry, 0, geometry.source_columns, step, parameters.columns, along_rows=False)
    return resample(breast.mask.astype(np.float32), down, across) >= 0.5
