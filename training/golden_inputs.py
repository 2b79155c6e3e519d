"""Made-up inputs whose answers a bundle is released with: bundles leave the house, people's images do not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_GRAINS = (0.0, 1.0, 3.0, 8.0, 20.0)  # cells: from noise to slow shades, as images hold both


def golden_inputs(shape: tuple[int, int, int], *, seed: int) -> list[NDArray[np.float32]]:
    """Draw noise of several grains, each of mean 0 and deviation 1 as prepared images have.

    Parameters
    ----------
    shape : tuple of int
        Channels, rows and columns of the network's input.
    seed : int
        The same one gives the same inputs.
    """
    random = np.random.default_rng(seed)
    inputs = []
    for grain in _GRAINS:
        noise = random.normal(size=shape)
        smooth = ndimage.gaussian_filter(noise, (0.0, grain, grain)) if grain else noise
        inputs.append(((smooth - smooth.mean()) / max(smooth.std(), 1e-6)).astype(np.float32))
    return inputs
