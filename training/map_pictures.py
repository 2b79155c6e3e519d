"""Example pictures of a report: the image as the network sees it, its map, and what was drawn by people."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.lesion_areas import LocatedMap, on_grid

HEIGHT = 420
"""Rows of a picture, pixels."""

_SHOWN_SHARE = 0.5  # of the map's maximum, as for the overlap
_STRENGTH = 0.45
_MAP_COLOUR, _LESION_COLOUR = (230.0, 60.0, 40.0), (255, 220, 60)


def overlay_png(tensor: NDArray[np.float32], located: LocatedMap) -> bytes:
    """Draw one image with its map in red and outlines of its lesions in yellow.

    Parameters
    ----------
    tensor : numpy.ndarray
        ``(channels, rows, columns)`` float32, the prepared image.
    located : LocatedMap
        Its map and lesions on the same grid.

    Returns
    -------
    bytes
        A PNG without any text in it.
    """
    grey = tensor.mean(axis=0)
    low, high = np.percentile(grey[located.inside], [1.0, 99.5])
    shade = np.where(located.inside, np.clip((grey - low) / max(high - low, 1e-6), 0.0, 1.0), 0.0) * 255.0
    picture = np.repeat(shade[:, :, np.newaxis], 3, axis=2)
    values = np.where(located.inside, on_grid(located.activation, located.inside.shape), -np.inf)
    highest = float(values.max())
    if highest > 0.0:
        # From half of the maximum on, the colour grows with the map.
        strength = np.clip((values / highest - _SHOWN_SHARE) / (1.0 - _SHOWN_SHARE), 0.0, 1.0)
        alpha = (np.where(values >= _SHOWN_SHARE * highest, 0.2, 0.0) + strength * _STRENGTH)[
            :, :, np.newaxis
        ]
        picture = picture * (1.0 - alpha) + np.asarray(_MAP_COLOUR) * alpha
    size = (max(1, round(HEIGHT * grey.shape[1] / grey.shape[0])), HEIGHT)
    shown = np.asarray(Image.fromarray(np.rint(picture).astype(np.uint8)).resize(size)).copy()
    for area in located.areas:
        large = np.asarray(Image.fromarray(area).resize(size, Image.Resampling.NEAREST))
        outline = ndimage.binary_dilation(large, iterations=2) & ~large
        shown[outline] = _LESION_COLOUR
    stream = io.BytesIO()
    Image.fromarray(shown).save(stream, format="png")
    return stream.getvalue()
