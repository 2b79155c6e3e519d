"""Is one of two models right more often, on the same cases? McNemar's test, where a woman may have several.

Each woman counts by how many more of her cases one model gets right. If neither is better, every such number
might as well have the other sign; so many women, so many coins. With one case a woman this is the exact test
of the textbook.

References
----------
McNemar: Psychometrika 12 (1947) 153-157.
Durkalski et al.: Stat Med 22 (2003) 2417-2428 (women with several cases).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_COINS = 1000  # with more of them the sum is as normal as rounding allows


def gains_of_women(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: Sequence[str] | None
) -> NDArray[np.int64]:
    """Return of how many more of her cases the first model is right, for each woman, in no order.

    Parameters
    ----------
    first, second : numpy.ndarray
        ``(n,)`` bool: whether each model is right.
    groups : sequence of str or None
        Woman of each case; None where every case is another woman's.
    """
    gained = first.astype(np.int64) - second.astype(np.int64)
    if groups is None:
        return gained
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(member, weights=gained).astype(np.int64)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_], groups: Sequence[str] | None) -> float:
    """Two-sided p-value of two models being right equally often; parameters as of :func:`gains_of_women`."""
    gains = gains_of_women(first, second, groups)
    return min(1.0, 2.0 * chance_of(gains if gains.sum() >= 0 else -gains))


def chance_of(gains: NDArray[np.int64]) -> float:
    """How likely a sum as high as that of `gains` is, if coins decided their signs."""
    sizes, total = np.abs(gains[gains != 0]), int(gains.sum())
    if sizes.size == 0:
        return 1.0
    if (sizes == 1).all():
        return float(stats.binom.sf((sizes.size + total) // 2 - 1, sizes.size, 0.5))
    if sizes.size > _COINS:
        return float(stats.norm.sf((total - 1) / np.sqrt((sizes**2).sum())))  # sums go by steps of two
    most = int(sizes.sum())
    chances = np.zeros(2 * most + 1)  # of the sums from -most to most
    chances[most] = 1.0
    for size in sizes.tolist():
        thrown = np.zeros_like(chances)
        thrown[size:] = chances[:-size] / 2
        thrown[:-size] += chances[size:] / 2
        chances = thrown
    return float(chances[most + total :].sum())
