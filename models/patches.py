"""A colour patch of a histology slide on the network's grid, once for training and inference.

Colours stay as published: no stain is normalised. A patch that a slide's edge cut is padded with white glass
at its right and lower edge. Each colour is standardised by a mean and a deviation that are stored with the
bundle. Knows neither DICOM nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import PreprocessingError
from models.resampling import Geometry, axis_weights, resample

VERSION = "colour-patch-1"
"""Names this algorithm; a change of any output byte needs a new name."""

_GLASS = 255


@dataclass(frozen=True, slots=True)
class PatchParameters:
    """What preprocessing of patches can be asked for; stored in the bundle and part of its digest.

    Attributes
    ----------
    rows, columns : int
        Cells of the network's grid.
    patch_pixels : int
        Side of a whole patch in pixels of the slide's level.
    mean_red, mean_green, mean_blue : float
        Subtracted, where 0 is black and 1 the full colour.
    deviation_red, deviation_green, deviation_blue : float
        Divided by, on the same scale, above 0.
    version : str
        The algorithm, :data:`VERSION`.
    """

    rows: int = 50
    columns: int = 50
    patch_pixels: int = 50
    mean_red: float = 0.5
    mean_green: float = 0.5
    mean_blue: float = 0.5
    deviation_red: float = 0.25
    deviation_green: float = 0.25
    deviation_blue: float = 0.25
    version: str = VERSION

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the tensor."""
        return 3, self.rows, self.columns


def prepare_patch(pixels: NDArray[np.uint8], parameters: PatchParameters) -> NDArray[np.float32]:
    """Put one patch on the network's grid.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(rows, columns, 3)`` uint8 RGB, at most ``patch_pixels`` a side.
    parameters : PatchParameters
        The bundle's.

    Returns
    -------
    numpy.ndarray
        ``(3, parameters.rows, parameters.columns)`` float32, red first.

    Raises
    ------
    PreprocessingError
        If the array is no such patch.
    """
    side = parameters.patch_pixels
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise PreprocessingError("A patch has rows, columns and three colours of 8 bits.")
    if max(pixels.shape[:2]) > side:
        raise PreprocessingError(f"A patch has at most {side} x {side} pixels; cut the image into patches.")
    whole = np.full((side, side, 3), _GLASS, dtype=np.float32)
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    colours = np.ascontiguousarray(np.moveaxis(whole, 2, 0))
    if (parameters.rows, parameters.columns) != (side, side):
        colours = _on_grid(colours, parameters)
    mean = np.array([parameters.mean_red, parameters.mean_green, parameters.mean_blue], np.float32)
    deviation = np.array(
        [parameters.deviation_red, parameters.deviation_green, parameters.deviation_blue], np.float32
    )
    standardised: NDArray[np.float32] = (colours / np.float32(255.0) - mean[:, None, None]) / deviation[
        :, None, None
    ]
    return standardised


def _on_grid(colours: NDArray[np.float32], parameters: PatchParameters) -> NDArray[np.float32]:
    side = parameters.patch_pixels
    geometry = patch_geometry(parameters)
    down = axis_weights(geometry, 0, side, 1, parameters.rows, along_rows=True)
    across = axis_weights(geometry, 0, side, 1, parameters.columns, along_rows=False)
    return np.stack([resample(colour, down, across) for colour in colours])


def patch_geometry(parameters: PatchParameters) -> Geometry:
    """Return how the network's grid lies on a whole patch."""
    side = parameters.patch_pixels
    return Geometry(
        source_rows=side,
        source_columns=side,
        origin_x=0.0,
        origin_y=0.0,
        scale_x=side / parameters.columns,
        scale_y=side / parameters.rows,
        is_flipped=False,
    )
