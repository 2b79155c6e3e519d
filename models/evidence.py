"""From a class activation map on the network's grid to bands and marks on the source image's pixels.

Decides which source pixels lie in which evidence band, and which places the map points at. Does not know
whether a map is shown or may point: the classifier decides that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from models.contract import EVIDENCE_BANDS, LesionMark
from models.outlines import outline_of
from models.preprocessing import Prepared
from models.resampling import Geometry

_MARKED_SHARE = EVIDENCE_BANDS[1][0]  # bands 2 and 3 together
_MOST_MARKS = 3  # per image; more places at once are no localisation


def band_image(
    activation: NDArray[np.float32], prepared: Prepared, *, grid_shape: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Mark the bands of a class activation map on the source image.

    Parameters
    ----------
    activation : numpy.ndarray
        ``(h, w)`` float32, the map over the whole network grid; only what is above 0 is evidence.
    prepared : Prepared
        The image that the map belongs to.
    grid_shape : tuple of int, optional
        Rows and columns of the network's grid, by default those of the prepared tensor.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns)`` uint8 of the source image: the 1-based index into
        :data:`models.contract.EVIDENCE_BANDS`, 0 below the lowest band and outside the breast. All 0 where
        the map has nothing above 0 inside the breast.
    """
    values = _values_in_box(activation, prepared, grid_shape)
    left, top, right, bottom = prepared.breast.box
    bands = np.zeros((prepared.geometry.source_rows, prepared.geometry.source_columns), dtype=np.uint8)
    highest = float(values.max())
    if highest > 0.0:
        inside = bands[top:bottom, left:right]
        for lower, _ in EVIDENCE_BANDS:
            inside += values >= np.float32(lower * highest)
    return bands


def attention_image(activation: NDArray[np.float32], prepared: Prepared) -> NDArray[np.uint8]:
    """Spread a class activation map over the source image.

    Parameters
    ----------
    activation : numpy.ndarray
        ``(h, w)`` float32, the map over the whole network grid; only what is above 0 is evidence.
    prepared : Prepared
        The image that the map belongs to.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns)`` uint8 of the source image: share of the map's maximum inside the breast, 255 for
        the maximum, 0 outside the breast.
    """
    values = _values_in_box(activation, prepared)
    left, top, right, bottom = prepared.breast.box
    image = np.zeros((prepared.geometry.source_rows, prepared.geometry.source_columns), dtype=np.uint8)
    highest = float(values.max())
    if highest > 0.0:
        image[top:bottom, left:right] = np.rint(values * np.float32(255.0 / highest)).astype(np.uint8)
    return image


def marks_of(
    activation: NDArray[np.float32], prepared: Prepared, probability: float
) -> tuple[LesionMark, ...]:
    """Point at the places where a class activation map is strong.

    Parameters
    ----------
    activation : numpy.ndarray
        ``(h, w)`` float32, the map over the whole network grid; only what is above 0 is evidence.
    prepared : Prepared
        The image that the map belongs to.
    probability : float
        The image's calibrated probability, 0..1. Each mark carries it: a map shares out evidence within the
        image and has no calibration of its own.

    Returns
    -------
    tuple of LesionMark
        At most three connected areas of the two upper :data:`models.contract.EVIDENCE_BANDS`, the strongest
        first. The centre is where the map is highest. Empty where the map has nothing above 0.
    """
    values = _values_in_box(activation, prepared)
    highest = float(values.max())
    if highest <= 0.0:
        return ()
    labels, _ = ndimage.label(values >= np.float32(_MARKED_SHARE * highest))
    areas = ndimage.find_objects(labels)
    peaks = [_peak(values, labels, area, number) for number, area in enumerate(areas, start=1)]
    ranked = sorted(range(len(areas)), key=lambda index: (-values[peaks[index]], peaks[index]))
    cell = prepared.geometry.scale_x * prepared.geometry.scale_y
    left, top = prepared.breast.box[:2]
    marks: list[LesionMark] = []
    for index in ranked:
        rows, columns = areas[index]
        inside = labels[rows, columns] == index + 1
        # What is smaller than a cell of the network's grid is a crumb that the breast's edge cut off.
        if not marks or inside.sum() >= cell:
            row, column = peaks[index]
            centre = (left + float(column) + 0.5, top + float(row) + 0.5)
            outline = outline_of(inside, (left + columns.start, top + rows.start))
            marks.append(LesionMark(centre, outline, probability))
    return tuple(marks[:_MOST_MARKS])


def _peak(
    values: NDArray[np.float32], labels: NDArray[np.int32], area: tuple[slice, slice], number: int
) -> tuple[int, int]:
    """Return row and column of the highest value of one labelled area, the first of several."""
    inside = np.where(labels[area] == number, values[area], np.float32(-1.0))
    row, column = divmod(int(inside.argmax()), inside.shape[1])
    return area[0].start + row, area[1].start + column


def _values_in_box(
    activation: NDArray[np.float32], prepared: Prepared, grid_shape: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Return the positive map on the source pixels of the breast's box, 0 outside the breast."""
    grid_rows, grid_columns = grid_shape or prepared.tensor.shape[1:]
    left, top, right, bottom = (int(edge) for edge in prepared.breast.box)
    across = _interpolation(
        prepared.geometry, left, right, grid_columns, activation.shape[1], along_rows=False
    )
    down = _interpolation(prepared.geometry, top, bottom, grid_rows, activation.shape[0], along_rows=True)
    positive = np.maximum(activation, 0.0).astype(np.float32)
    # Columns first, on the few rows of the map; then rows, in the order of memory.
    on_columns = np.ascontiguousarray((across @ np.ascontiguousarray(positive.T)).T)
    values: NDArray[np.float32] = down @ on_columns
    values *= _mask_in_box(prepared)
    return values


def _interpolation(
    geometry: Geometry, start: int, stop: int, grid_cells: int, map_cells: int, *, along_rows: bool
) -> Any:  # scipy.sparse.csr_array, which has no type stubs
    """Return the ``(stop - start, map_cells)`` matrix of linear interpolation between map cells' centres."""
    centres = np.arange(start, stop, dtype=np.float64) + 0.5
    zero = np.zeros_like(centres)
    on_grid = geometry.to_grid(zero, centres)[1] if along_rows else geometry.to_grid(centres, zero)[0]
    position = np.clip(on_grid * (map_cells / grid_cells) - 0.5, 0.0, map_cells - 1.0)
    lower = np.minimum(np.floor(position).astype(np.intp), max(map_cells - 2, 0))
    upper = np.minimum(lower + 1, map_cells - 1)
    share = (position - lower).astype(np.float32)
    pixel = np.arange(centres.size)
    return sparse.csr_array(
        (
            np.concatenate([1.0 - share, share]),
            (np.concatenate([pixel, pixel]), np.concatenate([lower, upper])),
        ),
        shape=(centres.size, map_cells),
    )


def _mask_in_box(prepared: Prepared) -> NDArray[np.bool_]:
    """Return the breast mask of the box at source resolution."""
    step = prepared.breast.step
    left, top, right, bottom = prepared.breast.box
    samples = prepared.breast.mask[top // step : -(-bottom // step), left // step : -(-right // step)]
    return samples.repeat(step, axis=0).repeat(step, axis=1)[: bottom - top, : right - left]
