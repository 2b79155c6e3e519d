"""What is the same picture, however it was turned, mirrored, inverted, brightened or stored."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pixel_key(pixels: NDArray[Any]) -> str | None:
    """Return a digest that all copies of a picture share.

    The same for its eight flips and quarter turns, for its negative, and after any change of grey values
    that keeps their order (another window without clipping, another number of bits). Copies that were
    cropped, resized or compressed with loss have another key.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(rows, columns)`` or ``(channels, rows, columns)``, any type without NaN.

    Returns
    -------
    str or None
        None where all pixels are the same: an empty picture is a copy of nothing.
    """
    values, ranks = np.unique(pixels, return_inverse=True)
    if values.size < 2:
        return None
    order = ranks.reshape(pixels.shape).astype(np.min_scalar_type(values.size - 1))
    smallest = min(
        (turned.shape, np.ascontiguousarray(turned).tobytes())
        for polarity in (order, (values.size - 1) - order)
        for turned in orientations(polarity.astype(order.dtype.newbyteorder(">")))
    )
    return hashlib.sha256(repr(smallest[0]).encode("ascii") + smallest[1]).hexdigest()


def orientations(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the eight flips and quarter turns of the last two axes, the picture itself first."""
    turned = [np.rot90(pixels, turns, axes=(-2, -1)) for turns in range(4)]
    return turned + [np.flip(one, axis=-1) for one in turned]
