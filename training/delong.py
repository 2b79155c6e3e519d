"""The area under the ROC curve: its value, its variance, and whether two of them differ.

The variance is DeLong's; where women have several cases each, Obuchowski's extension of it, which counts a
woman's cases as resembling each other.

References
----------
DeLong, DeLong, Clarke-Pearson: Biometrics 44 (1988) 837-845.
Obuchowski: Biometrics 53 (1997) 567-578.
Newcombe: Stat Med 17 (1998) 873-890 (differences of two shares).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from training.errors import EvaluationError
from training.intervals import CONFIDENCE, Interval, wilson

_NOTHING = 1e-12  # a standard error of roundings alone


@dataclass(frozen=True, slots=True)
class AucCovariance:
    """Areas of ``m`` models on the same cases.

    Attributes
    ----------
    values : numpy.ndarray
        ``(m,)`` float64, 0..1.
    covariance : numpy.ndarray
        ``(m, m)`` float64.
    positives, negatives : int
        Cases of each kind.
    """

    values: NDArray[np.float64]
    covariance: NDArray[np.float64]
    positives: int
    negatives: int


@dataclass(frozen=True, slots=True)
class AucDifference:
    """The first model's area minus the second's.

    Attributes
    ----------
    value, low, high : float
        Difference and its 95 % interval.
    p_value : float
        Two-sided, of no difference.
    """

    value: float
    low: float
    high: float
    p_value: float


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Share of pairs of a positive and a negative case in the right order; ties count half.

    Raises
    ------
    EvaluationError
        If a class is missing.
    """
    values, truth = _checked(np.atleast_2d(np.asarray(scores, dtype=np.float64)), labels)
    return float(_placements(values[0], truth)[0].mean())


def covariance(scores: ArrayLike, labels: ArrayLike, groups: Sequence[str] | None = None) -> AucCovariance:
    """Estimate the areas of several models and how they vary together.

    Parameters
    ----------
    scores : array_like
        ``(m, n)``, or ``(n,)`` for one model; higher means more likely positive.
    labels : array_like
        ``(n,)`` bool.
    groups : sequence of str or None
        Woman of each case; None where every case is another woman's.

    Raises
    ------
    EvaluationError
        If a class is missing.
    """
    values, truth = _checked(np.atleast_2d(np.asarray(scores, dtype=np.float64)), labels)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    placed = [_placements(row, truth) for row in values]
    areas = np.asarray([of_positives.mean() for of_positives, _ in placed])
    _, member = np.unique(
        np.arange(truth.size) if groups is None else np.asarray(groups), return_inverse=True
    )
    of_positives = _sums([p - a for (p, _), a in zip(placed, areas, strict=True)], member[truth], member)
    of_negatives = _sums([n - a for (_, n), a in zip(placed, areas, strict=True)], member[~truth], member)
    mixed = _inflated(of_positives @ of_negatives.T, member) / (positives * negatives)
    found = (
        _inflated(of_positives @ of_positives.T, member[truth]) / positives**2
        + _inflated(of_negatives @ of_negatives.T, member[~truth]) / negatives**2
        + mixed
        + mixed.T
    )
    return AucCovariance(areas, found, positives, negatives)


def auc_interval(scores: ArrayLike, labels: ArrayLike, groups: Sequence[str] | None = None) -> Interval:
    """Area of one model with its 95 % interval, made on the logit scale so that it stays within 0..1.

    Where the classes do not overlap at all the variance says nothing; then the interval is Wilson's for as
    many hits as the rarer class has women, which is wider than it need be.

    Raises
    ------
    EvaluationError
        If a class is missing.
    """
    found = covariance(scores, labels, groups)
    value, cases = float(found.values[0]), found.positives + found.negatives
    error = float(np.sqrt(max(found.covariance[0, 0], 0.0)))
    if not 0.0 < value < 1.0 or error <= _NOTHING:
        rarer = min(_women(labels, groups, positive) for positive in (True, False))
        bound = wilson(value * rarer, rarer)
        return Interval(value, bound.low, bound.high, cases)
    centre, half = special.logit(value), _quantile() * error / (value * (1.0 - value))
    return Interval(value, float(special.expit(centre - half)), float(special.expit(centre + half)), cases)


def difference(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, groups: Sequence[str] | None = None
) -> tuple[float, float]:
    """Return how far the first area lies above the second, and the standard error of that.

    Where every case is placed like all others of its class by both models, the variance says nothing, however
    few cases there are. Then the two intervals of the areas are added as squares (Newcombe's way), which is
    wider than it need be. Only equal areas have an error of 0. Parameters are those of
    :func:`paired_difference`.
    """
    both = np.vstack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    found = covariance(both, labels, groups)
    value = float(found.values[0] - found.values[1])
    contrast = np.asarray([1.0, -1.0])
    error = float(np.sqrt(max(contrast @ found.covariance @ contrast, 0.0)))
    if error > _NOTHING or value == 0.0:
        return value, error
    higher, lower = (auc_interval(scores, labels, groups) for scores in (both if value > 0 else both[::-1]))
    return value, float(np.hypot(higher.value - higher.low, lower.high - lower.value)) / _quantile()


def paired_difference(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, groups: Sequence[str] | None = None
) -> AucDifference:
    """Compare two models on the same cases.

    Parameters
    ----------
    first, second : array-like
        ``(n,)`` scores of each; higher means class 1.
    labels : array-like
        ``(n,)`` true classes, 0 or 1.
    groups : sequence of str, optional
        Woman of each case, since cases of one woman depend on each other. Without them all are independent.

    Returns
    -------
    AucDifference
        Of the first minus the second, with its 95 % interval and two-sided p-value.

    Raises
    ------
    EvaluationError
        If a class is missing.
    """
    value, error = difference(first, second, labels, groups)
    if error == 0.0:
        return AucDifference(value, value, value, 1.0)
    half = _quantile() * error
    p_value = 2.0 * float(stats.norm.sf(abs(value) / error))
    return AucDifference(value, value - half, value + half, p_value)


def _placements(
    scores: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of the other class that each positive, and each negative, is on the right side of."""
    positives, negatives = scores[truth], scores[~truth]
    ranks = stats.rankdata(scores)
    of_positives = (ranks[truth] - stats.rankdata(positives)) / negatives.size
    of_negatives = 1.0 - (ranks[~truth] - stats.rankdata(negatives)) / positives.size
    return of_positives, of_negatives


def _sums(
    rows: Sequence[NDArray[np.float64]], of_cases: NDArray[np.int64], member: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Sum each row within the women: ``(m, women)``."""
    women = int(member.max()) + 1
    return np.stack([np.bincount(of_cases, weights=row, minlength=women) for row in rows])


def _inflated(products: NDArray[np.float64], member: NDArray[np.int64]) -> NDArray[np.float64]:
    """Correct for the degree of freedom that the mean took."""
    women = np.unique(member).size
    return products * (women / max(women - 1, 1))


def _women(labels: ArrayLike, groups: Sequence[str] | None, positive: bool) -> int:
    truth = np.asarray(labels, dtype=np.bool_) == positive
    return int(truth.sum()) if groups is None else len(set(np.asarray(groups)[truth].tolist()))


def _quantile() -> float:
    return float(stats.norm.ppf(0.5 + CONFIDENCE / 2.0))


def _checked(scores: NDArray[np.float64], labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    truth = np.asarray(labels, dtype=np.bool_).ravel()
    if scores.shape[1] != truth.size or not np.isfinite(scores).all():
        raise EvaluationError("An ROC curve needs one finite score for each label.")
    if truth.all() or not truth.any():
        raise EvaluationError("An ROC curve needs cases of both classes.")
    return scores, truth
