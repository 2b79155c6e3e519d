"""Grey values as a network takes them: in standard deviations of what is shown, whatever the detector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ONE_GREY_LEVEL = 1.0  # of 16 bits: what is flat becomes zeros, not noise blown up


def standardise(
    grid: NDArray[np.float32], mask: NDArray[np.bool_], *, clip_low: float, clip_high: float
) -> NDArray[np.float32]:
    """Subtract the mean of what is shown and divide by its standard deviation.

    Parameters
    ----------
    grid : numpy.ndarray
        ``(rows, columns)`` float32 P-values.
    mask : numpy.ndarray
        ``(rows, columns)`` bool, True where something is shown; somewhere it must be.
    clip_low, clip_high : float
        Bounds of the result, in standard deviations.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns)`` float32, 0 outside `mask`.
    """
    shown = grid[mask].astype(np.float64)
    deviation = max(float(shown.std()), _ONE_GREY_LEVEL)
    standardised = (grid - np.float32(shown.mean())) / np.float32(deviation)
    np.clip(standardised, clip_low, clip_high, out=standardised)
    standardised[~mask] = 0.0
    return standardised.astype(np.float32, copy=False)
