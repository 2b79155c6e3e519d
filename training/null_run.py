"""Labels that mean nothing must not be predictable. Where they are, the split lets test images be recognised.

Half of the women, drawn at random, get the label 1. The model is the one that remembers most: each test image
is answered by the labels of the training images that look most like it. With an honest split nothing that it
remembers helps, and the AUC stays near .5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from training.intervals import CONFIDENCE
from training.pixel_keys import orientations

RUNS = 20
_NEIGHBOURS = 5
_BLOCKS = 12
_QUANTILES = 16
_ROWS = 1024  # test images whose distances are held at once

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NullRun:
    """The AUC of labels that mean nothing.

    Attributes
    ----------
    auc : float
        Mean over the runs, over women within each fold.
    low, high : float
        Where the AUC of a single run lies in 95 % of cases if nothing can be recognised. The mean of the
        runs is held to it, so that an honest split practically always passes.
    runs, women : int
        How often labels were drawn; how many women were tested.
    """

    auc: float
    low: float
    high: float
    runs: int
    women: int

    @property
    def is_inside(self) -> bool:
        """Whether nothing was recognised."""
        return self.low <= self.auc <= self.high


def small_features(pixels: NDArray[Any]) -> Array:
    """Describe a picture by few numbers that do not change when it is flipped or turned.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(rows, columns)`` or ``(channels, rows, columns)``.

    Returns
    -------
    numpy.ndarray
        ``(f,)`` float64: block means averaged over the eight orientations, and quantiles.
    """
    grey = np.asarray(pixels, dtype=np.float64)
    grey = grey.mean(axis=0) if grey.ndim == 3 else grey
    blocks = _means(_means(grey, _BLOCKS).T, _BLOCKS).T
    symmetric = np.mean(orientations(blocks), axis=0)
    quantiles = np.quantile(grey, np.linspace(0.0, 1.0, _QUANTILES))
    return np.concatenate([symmetric[np.triu_indices(_BLOCKS)], quantiles])


def null_run(
    features: Array,
    groups: Sequence[str],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    *,
    seed: int = 0,
    runs: int = RUNS,
) -> NullRun | None:
    """Draw labels without meaning and try to predict them.

    Parameters
    ----------
    features : numpy.ndarray
        ``(n, f)`` of :func:`small_features`.
    groups : sequence of str
        Woman of each image.
    folds : sequence of (numpy.ndarray, numpy.ndarray)
        Rows that train and rows that test, of each fold.
    seed : int
        Of the labels.
    runs : int
        How often labels are drawn.

    Returns
    -------
    NullRun or None
        None where no fold tests two women: then there is nothing to compare.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    random = np.random.default_rng(seed)
    half = np.arange(names.size) < names.size // 2
    labels = np.stack([random.permutation(half) for _ in range(runs)])
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    ordered, pairs, variance = np.zeros(runs), np.zeros(runs), np.zeros(runs)
    seen: set[int] = set()
    for training, test in folds:
        scores = _remembered(scaled, labels[:, member], training, test)
        tested, of_woman = np.unique(member[test], return_inverse=True)
        seen.update(tested.tolist())
        means = _mean_of_each(scores, of_woman, tested.size)
        for run in range(runs):
            truth = labels[run, tested]
            positives, negatives = int(truth.sum()), int((~truth).sum())
            ranks = stats.rankdata(means[run])
            ordered[run] += ranks[truth].sum() - positives * (positives + 1) / 2
            pairs[run] += positives * negatives
            variance[run] += positives * negatives * (positives + negatives + 1) / 12
    usable = pairs > 0
    if not usable.any():
        return None
    found = float((ordered[usable] / pairs[usable]).mean())
    spread_of_one = float((np.sqrt(variance[usable]) / pairs[usable]).mean())
    half_width = float(stats.norm.ppf(0.5 + CONFIDENCE / 2.0)) * spread_of_one
    return NullRun(
        found, max(0.0, 0.5 - half_width), min(1.0, 0.5 + half_width), int(usable.sum()), len(seen)
    )


def _means(values: Array, blocks: int) -> Array:
    """Average columns into `blocks` stretches of equal length, pixels shared where they do not divide."""
    edges = np.linspace(0.0, values.shape[1], blocks + 1)
    summed = np.concatenate([np.zeros((values.shape[0], 1)), np.cumsum(values, axis=1)], axis=1)
    whole = np.minimum(edges.astype(np.int64), values.shape[1] - 1)
    at_edges = summed[:, whole] + values[:, whole] * (edges - whole)
    return np.asarray(np.diff(at_edges, axis=1) / (values.shape[1] / blocks))


def _remembered(
    features: Array, labels: NDArray[np.bool_], training: NDArray[np.int64], test: NDArray[np.int64]
) -> Array:
    """Answer test images by the labels of the nearest training images: ``(runs, test)``."""
    known = features[training]
    nearest = min(_NEIGHBOURS, training.size)
    parts = []
    for start in range(0, test.size, _ROWS):
        asked = features[test[start : start + _ROWS]]
        distance = (asked**2).sum(axis=1)[:, None] + (known**2).sum(axis=1) - 2 * asked @ known.T
        chosen = np.argpartition(distance, nearest - 1, axis=1)[:, :nearest]
        weight = 1.0 / (np.maximum(np.take_along_axis(distance, chosen, axis=1), 0.0) + 1e-6)
        weight /= weight.sum(axis=1, keepdims=True)
        parts.append((labels[:, training[chosen]] * weight).sum(axis=2))
    return np.concatenate(parts, axis=1)


def _mean_of_each(scores: Array, of_woman: NDArray[np.int64], women: int) -> Array:
    counts = np.bincount(of_woman, minlength=women)
    return np.stack([np.bincount(of_woman, weights=row, minlength=women) / counts for row in scores])
