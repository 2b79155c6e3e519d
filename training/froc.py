"""The FROC curve of maps: the share of lesions that they mark, by the false marks per image that this costs.

Marks are the peaks of a map inside the breast; a lesion is marked by a peak that touches it.

References
----------
Bunch et al.: J Appl Photogr Eng 4 (1978) 166-171.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.intervals import Interval, Resampling, percentile_interval
from training.lesion_areas import LocatedMap, touched

FALSE_MARKS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""False marks per image at which the curve is read."""

_RESAMPLES = 500

Array = NDArray[np.float64]


def froc(maps: Sequence[LocatedMap], seed: int) -> tuple[tuple[float, ...], Interval]:
    """Return the curve at :data:`FALSE_MARKS`, and its mean there with the interval by woman.

    Parameters
    ----------
    maps : sequence of LocatedMap
        One for each image; images without lesions count for false marks.
    seed : int
        Of the resampling.
    """
    marks = _Marks.of(maps)
    lesions = int(marks.lesions.sum())
    if not marks.heights.size:  # a flat or negative map marks nothing
        return (0.0,) * len(FALSE_MARKS), Interval(0.0, 0.0, 0.0, lesions)
    drawn = Resampling(marks.names, seed=seed, resamples=_RESAMPLES).values(marks.curves)
    curve = marks.curves(np.ones((1, len(marks.names))))[0]
    mean = percentile_interval(float(curve.mean()), drawn.mean(axis=1), lesions)
    return tuple(float(value) for value in curve), mean


@dataclass(frozen=True, slots=True)
class _Marks:
    """Everything that maps mark, and what there was to mark.

    Attributes
    ----------
    names : tuple of str
        The ``w`` women.
    images, lesions : numpy.ndarray
        ``(w,)`` how many each woman has.
    heights : numpy.ndarray
        ``(m,)`` of the marks, the highest first.
    women : numpy.ndarray
        ``(m,)`` whose image each mark is on: index into `names`.
    are_lesions : numpy.ndarray
        ``(m,)`` whether each marks a lesion.
    """

    names: tuple[str, ...]
    images: Array
    lesions: Array
    heights: Array
    women: NDArray[np.int64]
    are_lesions: NDArray[np.bool_]

    @classmethod
    def of(cls, maps: Sequence[LocatedMap]) -> _Marks:
        names = tuple(sorted({one.group for one in maps}))
        number = {name: index for index, name in enumerate(names)}
        images, lesions = np.zeros(len(names)), np.zeros(len(names))
        marks: list[tuple[float, int, bool]] = []
        for one in maps:
            woman = number[one.group]
            images[woman] += 1
            lesions[woman] += len(one.areas)
            marks += [(height, woman, is_lesion) for height, is_lesion in _marks(one)]
        marks.sort(key=lambda mark: -mark[0])
        return cls(
            names,
            images,
            lesions,
            heights=np.asarray([height for height, _, _ in marks]),
            women=np.asarray([woman for _, woman, _ in marks], dtype=np.int64),
            are_lesions=np.asarray([is_lesion for _, _, is_lesion in marks], dtype=np.bool_),
        )

    def curves(self, weights: Array) -> Array:
        """Read the curve ``(r, k)`` at the ``k`` :data:`FALSE_MARKS` in resamples of the women ``(r, w)``."""
        # Marks of equal height are shown together: a curve is read at the last of them.
        last = np.append(self.heights[1:] != self.heights[:-1], True)
        found = []
        for row in weights:
            of_marks = row[self.women]
            marked = np.cumsum(of_marks * self.are_lesions)[last]
            false = np.cumsum(of_marks * ~self.are_lesions)[last] / (row @ self.images)
            at = np.searchsorted(false, FALSE_MARKS, side="right")
            found.append(np.append(0.0, marked)[at] / max(row @ self.lesions, 1e-9))
        return np.asarray(found)


def _marks(one: LocatedMap) -> list[tuple[float, bool]]:
    """Height of each peak and whether it marks a lesion; a lesion counts once, at its highest peak."""
    is_inside = touched(one.inside, one.activation.shape)
    values = np.where(is_inside, one.activation, -np.inf)
    is_peak = (values == ndimage.maximum_filter(values, size=3, mode="nearest")) & (values > 0.0)
    places = np.argwhere(is_peak)
    lesions = [touched(area, one.activation.shape) for area in one.areas]
    found: list[tuple[float, bool]] = []
    hit: dict[int, float] = {}
    for row, column in places:
        height = float(values[row, column])
        marked = [index for index, area in enumerate(lesions) if area[row, column]]
        for index in marked:
            hit[index] = max(hit.get(index, -np.inf), height)
        if not marked:
            found.append((height, False))
    return found + [(height, True) for height in hit.values()]
