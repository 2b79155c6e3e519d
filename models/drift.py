"""Does a device still send what it used to? Scores, pixels and headers of a window against a reference.

Every threshold knows the number of studies: a population stability index of 0.1 says nothing about 50 studies
and much about 5,000. All tests of one window together raise a false alarm in at most 1 % of windows; half of
that goes to the scores, where drift hurts, the other half is shared by everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FALSE_ALARMS = 0.01
"""Share of windows without drift that raise an alarm, at most."""

MINIMUM_REFERENCE = 200
MINIMUM_WINDOW = 50
"""Studies below which nothing is said."""

_BINS = 10
_LEAST_EXPECTED = 5.0  # studies in a cell of a table, for chi-square to be true


@dataclass(frozen=True, slots=True)
class Studies:
    """What was seen of ``n`` studies of one device.

    Attributes
    ----------
    scores : numpy.ndarray
        ``(n,)`` float64 calibrated probabilities, 0..1.
    numbers : Mapping of str to numpy.ndarray
        ``(n,)`` float64 each: the pixels in numbers.
    categories : Mapping of str to tuple of str
        ``n`` values each: header elements.
    """

    scores: NDArray[np.float64]
    numbers: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signal:
    """One test of one window.

    Attributes
    ----------
    name : str
        What was looked at and how, such as ``"score, PSI"``.
    value : float
        The statistic.
    p_value : float
        How likely as much is without drift, 0..1.
    level : float
        The p-value from which it is an alarm.
    """

    name: str
    value: float
    p_value: float
    level: float

    @property
    def is_alarm(self) -> bool:
        """Whether this is drift."""
        return self.p_value < self.level


def signals(reference: Studies, window: Studies) -> tuple[Signal, ...]:
    """Compare a window with a reference; empty where either has too few studies.

    Parameters
    ----------
    reference : Studies
        From when all was well; at least :data:`MINIMUM_REFERENCE`.
    window : Studies
        Later ones, none of them in the reference; at least :data:`MINIMUM_WINDOW`.
    """
    if reference.scores.size < MINIMUM_REFERENCE or window.scores.size < MINIMUM_WINDOW:
        return ()
    of_scores = list(_score_tests(reference.scores, window.scores))
    of_inputs = list(_input_tests(reference, window))
    share = FALSE_ALARMS / 2 if of_inputs else FALSE_ALARMS
    return tuple(
        Signal(name, value, p_value, share / len(tests))
        for tests in (of_scores, of_inputs)
        for name, value, p_value in tests
    )


def stability_index(reference: ArrayLike, window: ArrayLike) -> tuple[float, float]:
    """Population stability index over tenths of the reference, and its p-value without drift.

    Without drift the index is distributed like ``(1 / n + 1 / m)`` times chi-square with one degree of
    freedom fewer than there are bins; it is compared with that rather than with a fixed number.

    Parameters
    ----------
    reference, window : array_like
        ``(n,)`` and ``(m,)`` values.
    """
    before, after = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    edges = np.unique(np.quantile(before, np.arange(1, _BINS) / _BINS))
    expected = _counted(before, edges) + 0.5
    found = _counted(after, edges) + 0.5
    old, new = expected / expected.sum(), found / found.sum()
    index = float(np.sum((new - old) * np.log(new / old)))
    scale = 1.0 / before.size + 1.0 / after.size
    return index, float(stats.chi2.sf(index / scale, edges.size))


def _counted(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    places = np.searchsorted(edges, values, side="right")
    return np.bincount(places, minlength=edges.size + 1).astype(np.float64)


def _score_tests(
    reference: NDArray[np.float64], window: NDArray[np.float64]
) -> Iterator[tuple[str, float, float]]:
    yield ("score, PSI", *stability_index(reference, window))
    yield ("score, Kolmogorov-Smirnov", *_kolmogorov(reference, window))
    shift = stats.mannwhitneyu(window, reference, method="asymptotic")
    share = float(shift.statistic) / (reference.size * window.size)
    yield "score, rank shift", share - 0.5, float(shift.pvalue)


def _input_tests(reference: Studies, window: Studies) -> Iterator[tuple[str, float, float]]:
    for name in sorted(set(reference.numbers) & set(window.numbers)):
        yield (f"{name}, Kolmogorov-Smirnov", *_kolmogorov(reference.numbers[name], window.numbers[name]))
    for name in sorted(set(reference.categories) & set(window.categories)):
        yield (f"{name}, chi-square", *_chi_square(reference.categories[name], window.categories[name]))


def _kolmogorov(reference: NDArray[np.float64], window: NDArray[np.float64]) -> tuple[float, float]:
    found = stats.ks_2samp(reference, window, method="asymp")
    return float(found.statistic), float(found.pvalue)


def _chi_square(reference: Sequence[str], window: Sequence[str]) -> tuple[float, float]:
    """Compare how often each value occurs; rare ones count as one, so that chi-square stays true."""
    before, after = Counter(reference), Counter(window)
    share = len(window) / (len(reference) + len(window))
    common = sorted(
        value
        for value in before.keys() | after.keys()
        if (before[value] + after[value]) * min(share, 1.0 - share) >= _LEAST_EXPECTED
    )
    table = np.asarray([[counts[value] for value in common] for counts in (before, after)], dtype=np.float64)
    rare = np.asarray([[len(reference)], [len(window)]]) - table.sum(axis=1, keepdims=True)
    if rare.sum() * min(share, 1.0 - share) >= _LEAST_EXPECTED:
        table = np.hstack([table, rare])
    if table.shape[1] < 2:
        return 0.0, 1.0
    found = stats.chi2_contingency(table, correction=False)
    return float(found.statistic), float(found.pvalue)
