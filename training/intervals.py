"""How far a measured number may be from the true one: 95 % intervals.

A share of independent cases gets Wilson's interval. Everything else is resampled by woman: her images
resemble each other, so an interval that counted images would be too narrow.

References
----------
Wilson: J Am Stat Assoc 22 (1927) 209-212.
Clopper, Pearson: Biometrika 26 (1934) 404-413.
Field, Welsh: J R Stat Soc B 69 (2007) 369-390 (bootstrapping clusters).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000
_CELLS = 4_000_000  # weights held at once: 32 MB

Weighted = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Takes weights ``(r, n)`` of ``n`` cases in ``r`` resamples and gives the statistic ``(r,)`` of each."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured number, its 95 % interval and the number of cases that it was measured on.

    ``value`` is NaN where the number is not defined, such as the precision of a class that was never
    predicted; ``low`` and ``high`` are NaN where nothing can be said about its spread.
    """

    value: float
    low: float
    high: float
    cases: int


def wilson(hits: float, cases: int) -> Interval:
    """Share of hits among independent cases with Wilson's interval.

    Parameters
    ----------
    hits : float
        0..`cases`.
    cases : int
        0 gives an undefined share between 0 and 1.
    """
    if cases == 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2.0))
    share = hits / cases
    centre = (share + z * z / (2 * cases)) / (1 + z * z / cases)
    half = z / (1 + z * z / cases) * float(np.sqrt(share * (1 - share) / cases + z * z / (4 * cases**2)))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), cases)


def exact(hits: int, cases: int) -> Interval:
    """Share of hits among independent cases with Clopper and Pearson's interval, for claims about few cases.

    It covers the truth in 95 % at least, also near 0 and 1, where Wilson's may fall short.

    Parameters
    ----------
    hits : int
        0..`cases`.
    cases : int
        At least 1.
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, cases - hits + 1))
    high = 1.0 if hits == cases else float(stats.beta.ppf(1.0 - tail, hits + 1, cases - hits))
    return Interval(hits / cases, low, high, cases)


class Resampling:
    """Draws women with replacement, the same ones for every statistic.

    Parameters
    ----------
    groups : sequence of str
        Woman of each of ``n`` cases.
    seed : int
        Of the draws.
    resamples : int
        How often; 1,000 or more for an interval.
    """

    def __init__(self, groups: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        names, self._member = np.unique(np.asarray(groups), return_inverse=True)
        self.women = int(names.size)
        self.cases = len(groups)
        random = np.random.default_rng(seed)
        drawn = random.integers(0, self.women, (resamples, self.women))
        cells = (drawn + self.women * np.arange(resamples)[:, None]).ravel()
        self._counts = np.bincount(cells, minlength=self.women * resamples).reshape(drawn.shape)

    def interval(self, statistic: Weighted) -> Interval:
        """Percentile interval of a statistic; NaN where too few resamples define it."""
        value = float(statistic(np.ones((1, self.cases)))[0])
        return self._bounded(value, self.values(statistic))

    def values(self, statistic: Weighted) -> NDArray[np.float64]:
        """Return the statistic of every resample."""
        size = max(1, _CELLS // self.cases)
        parts = [
            statistic(self._counts[start : start + size].astype(np.float64)[:, self._member])
            for start in range(0, len(self._counts), size)
        ]
        return np.concatenate(parts)

    def of_sums(
        self, parts: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> Interval:
        """Percentile interval of a function of sums, such as a ratio, without going through the cases.

        Parameters
        ----------
        parts : numpy.ndarray
            ``(n, k)`` what each case adds to the sums.
        statistic : callable
            From sums ``(r, k)`` to values ``(r,)``.
        """
        value = float(statistic(parts.sum(axis=0, keepdims=True))[0])
        return self._bounded(value, statistic(self.sums(parts)))

    def mean(self, values: NDArray[np.float64]) -> Interval:
        """Percentile interval of the mean of what each case gives, ``(n,)``."""
        return self.of_sums(np.column_stack([values, np.ones_like(values)]), ratio)

    def sums(self, parts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums ``(resamples, k)`` of what each case adds, ``(n, k)``."""
        of_women = np.zeros((self.women, parts.shape[1]))
        np.add.at(of_women, self._member, parts)
        return self._counts @ of_women

    def share(self, hits: ArrayLike, among: ArrayLike | None = None) -> Interval:
        """Share of hits: Wilson's interval where each woman has one case, otherwise by woman.

        Where all cases hit, or none, resampling sees no spread; then Wilson's interval counts women.

        Parameters
        ----------
        hits : array_like
            ``(n,)`` bool.
        among : array_like or None
            ``(n,)`` bool, the cases that count; all where None.
        """
        counted = np.ones(self.cases, np.bool_) if among is None else np.asarray(among, dtype=np.bool_)
        hit = np.asarray(hits, dtype=np.bool_) & counted
        cases, women = int(counted.sum()), int(np.unique(self._member[counted]).size)
        if women == cases:
            return wilson(float(hit.sum()), cases)
        if not hit.any() or hit.sum() == cases:
            bound = wilson(women if hit.any() else 0, women)
            return Interval(bound.value, bound.low, bound.high, cases)
        parts = np.column_stack([hit, counted]).astype(np.float64)
        found = self.of_sums(parts, ratio)
        return Interval(found.value, found.low, found.high, cases)

    def _bounded(self, value: float, drawn: NDArray[np.float64]) -> Interval:
        return percentile_interval(value, drawn, self.cases)


def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """First column divided by the second, NaN where that is 0."""
    below = sums[:, 1]
    found = np.full(len(sums), np.nan)
    np.divide(sums[:, 0], below, out=found, where=below > 0)
    return found


def percentile_interval(value: float, drawn: NDArray[np.float64], cases: int) -> Interval:
    """Take the interval from resampled values; NaN where fewer than half of them are defined."""
    defined = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or defined.size < drawn.size / 2:
        return Interval(value, float("nan"), float("nan"), cases)
    tail = 100.0 * (1.0 - CONFIDENCE) / 2.0
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high), cases)
