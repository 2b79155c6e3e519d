"""A marked region of a mammogram on the network's grid: for networks that are shown lesions, not breasts.

The region is centred on the grid at one scale for both axes, so that shapes stay shapes; what lies off the
image or is padding stays 0. Grey values are standardised by mean and deviation of the region itself. Right
breasts are mirrored, as :mod:`models.preprocessing` does. Knows neither DICOM nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import ImageView, Laterality, Region
from models.errors import PreprocessingError
from models.grey_values import standardise
from models.resampling import Geometry, axis_weights, resample

VERSION = "lesion-region-1"
"""Names this algorithm; a change of any output byte needs a new name."""


@dataclass(frozen=True, slots=True)
class RegionParameters:
    """What preprocessing of regions can be asked for; stored in the bundle and part of its digest.

    Attributes
    ----------
    rows, columns : int
        Cells of the network's grid.
    clip_low, clip_high : float
        Bounds of the standardised values, in standard deviations.
    version : str
        The algorithm, :data:`VERSION`.
    """

    rows: int = 224
    columns: int = 224
    clip_low: float = -4.0
    clip_high: float = 8.0
    version: str = VERSION

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the tensor."""
        return 1, self.rows, self.columns


@dataclass(frozen=True, slots=True)
class PreparedRegion:
    """One region on the network's grid.

    Attributes
    ----------
    tensor : numpy.ndarray
        ``(1, rows, columns)`` float32, standard deviations around the region's mean, 0 off the image.
    region : Region
        What was asked for, cut at the image's edges.
    geometry : Geometry
        Grid to source.
    """

    tensor: NDArray[np.float32]
    region: Region
    geometry: Geometry


def prepare_region(view: ImageView, region: Region, parameters: RegionParameters) -> PreparedRegion:
    """Put one region of an image on the network's grid.

    Parameters
    ----------
    view : ImageView
        The whole image; its laterality says whether it is mirrored.
    region : Region
        The part to show, in DICOM pixel coordinates of the image. It may reach beyond the image.
    parameters : RegionParameters
        The bundle's.

    Raises
    ------
    PreprocessingError
        If nothing of the image lies within the region.
    """
    left, top = max(0, int(np.floor(region.left))), max(0, int(np.floor(region.top)))
    right = min(view.columns, int(np.ceil(region.right)))
    bottom = min(view.rows, int(np.ceil(region.bottom)))
    if not (left < right and top < bottom):
        raise PreprocessingError("The region lies off the image; correct its coordinates.")
    geometry = _geometry(view, region, parameters)
    is_image = np.ones((bottom - top, right - left), dtype=np.bool_)
    if view.padding is not None:
        is_image &= ~view.padding[top:bottom, left:right]
    values = np.where(is_image, view.pixels[top:bottom, left:right], 0).astype(np.float32)
    down = axis_weights(geometry, top, bottom, 1, parameters.rows, along_rows=True)
    across = axis_weights(geometry, left, right, 1, parameters.columns, along_rows=False)
    mask = resample(is_image.astype(np.float32), down, across) >= 0.5
    if not mask.any():
        raise PreprocessingError("The region shows nothing but padding; correct its coordinates.")
    grid = resample(values, down, across)
    tensor = standardise(grid, mask, clip_low=parameters.clip_low, clip_high=parameters.clip_high)
    return PreparedRegion(
        tensor=tensor[np.newaxis],
        region=Region(float(left), float(top), float(right), float(bottom)),
        geometry=geometry,
    )


def _geometry(view: ImageView, region: Region, parameters: RegionParameters) -> Geometry:
    width, height = region.right - region.left, region.bottom - region.top
    scale = max(width / parameters.columns, height / parameters.rows)
    half_grid = parameters.columns * scale / 2.0
    middle = (region.left + region.right) / 2.0
    is_flipped = view.laterality is Laterality.RIGHT
    return Geometry(
        source_rows=view.rows,
        source_columns=view.columns,
        origin_x=middle + half_grid if is_flipped else middle - half_grid,
        origin_y=(region.top + region.bottom - parameters.rows * scale) / 2.0,
        scale_x=scale,
        scale_y=scale,
        is_flipped=is_flipped,
    )
