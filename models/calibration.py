"""From logits to probabilities, and from validation scores to an operating point.

Both are fitted on validation cases and stored in one bundle; neither is carried over to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from models.errors import CalibrationError


def probabilities(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Calibrated probabilities, 0..1, of raw `logits` (any shape)."""
    calibrated: NDArray[np.float64] = special.expit(np.asarray(logits, dtype=np.float64) / temperature)
    return calibrated


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Temperature that makes validation probabilities fit their labels best.

    Minimises the log-loss against Platt's smoothed targets, so that classes which do not overlap in a small
    validation set still get a finite temperature.

    Parameters
    ----------
    logits : array_like
        ``(n,)`` raw outputs of the network.
    labels : array_like
        ``(n,)`` 0 or 1.

    Returns
    -------
    float
        The temperature, 0.05..20.

    Raises
    ------
    CalibrationError
        If a class is missing or a logit is not finite.
    """
    from scipy import optimize  # a scorer applies what was fitted, and starts sooner without

    scores, truth = _checked(logits, labels)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0.0, scaled) - targets * scaled))

    bounds = (float(np.log(0.05)), float(np.log(20.0)))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The probability from which a study counts as positive.

    Attributes
    ----------
    name : str
        Such as ``"default"``.
    threshold : float
        Calibrated probability, 0..1; at or above it is positive.
    target_specificity, target_sensitivity : float
        What the rule aims at, 0..1.
    confidence : float
        With which the target holds for new cases like the validation cases, 0..1.
    sensitivity_is_met : bool
        Whether the threshold holds both targets, or specificity alone.
    """

    name: str
    threshold: float
    target_specificity: float
    target_sensitivity: float
    confidence: float
    sensitivity_is_met: bool


def operating_point(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    name: str = "default",
    specificity: float = 0.90,
    sensitivity: float = 0.80,
    confidence: float = 0.95,
) -> OperatingPoint:
    """Choose a threshold by order statistics, so that its targets hold for new cases with `confidence`.

    The k-th smallest of n negative scores has at least the share p of all future negatives below it with
    probability ``P(Binomial(n, p) < k)``; a plain quantile misses its target in half of all samples. Where
    women have several cases these count as so many as they are worth (Korn and Graubard, Survey Methodology
    24 (1998) 193-201): the more a woman's cases resemble each other, the higher k is.

    Where the two classes leave a gap, the threshold lies in its middle on the logit scale; otherwise
    specificity is kept.

    Parameters
    ----------
    scores : array_like
        ``(n,)`` calibrated probabilities of validation cases, 0..1.
    labels : array_like
        ``(n,)`` 0 or 1.
    groups : sequence of str or None
        Woman or patient of each case; None where every case is another one's.
    name : str
        Name of the point.
    specificity, sensitivity, confidence : float
        The targets, 0..1.

    Raises
    ------
    CalibrationError
        If there are too few negative cases, or women with such, for the target at this confidence.
    """
    values, truth = _checked(scores, labels)
    women = _members(values.size, groups)
    lowest = _upper_order_statistic(values[~truth], women[~truth], specificity, confidence)
    if lowest is None:
        needed = int(np.ceil(np.log(1.0 - confidence) / np.log(specificity)))
        there, different = int((~truth).sum()), np.unique(women[~truth]).size
        of_whom = "" if different == there else f" of {different} women or patients"
        raise CalibrationError(
            f"{there} negative validation cases{of_whom} cannot show a specificity of {specificity:.2f} "
            f"with {confidence:.0%} confidence: use at least {needed}{of_whom and ' women or patients'}."
        )
    mirrored = _upper_order_statistic(-values[truth], women[truth], sensitivity, confidence)
    highest = -mirrored if mirrored is not None else -np.inf
    is_met = bool(highest > lowest)
    threshold = _between(lowest, float(highest)) if is_met else float(np.nextafter(lowest, 1.0))
    return OperatingPoint(name, threshold, specificity, sensitivity, confidence, is_met)


def _upper_order_statistic(
    values: NDArray[np.float64], women: NDArray[np.int64], share: float, confidence: float
) -> float | None:
    """Return the smallest value with `share` of the population at or below it, or None if n is too small."""
    from scipy import stats  # see fit_temperature

    ordered = np.sort(values)
    ranks = np.arange(1, ordered.size + 1)
    holds = np.flatnonzero(stats.binom.cdf(ranks - 1, ordered.size, share) >= confidence)
    _, member, cases = np.unique(women, return_inverse=True, return_counts=True)
    if cases.size == ordered.size:
        return float(ordered[holds[0]]) if holds.size else None
    if share**cases.size > 1.0 - confidence:
        return None  # even if all cases lay below: there are not women enough
    for value in np.unique(ordered[holds]):
        below = values <= value
        worth = _worth(below, member, cases)
        hits = worth * float(below.mean())
        if stats.beta.sf(share, hits, worth - hits + 1.0) >= confidence:
            return float(value)
    return None


def _worth(hits: NDArray[np.bool_], member: NDArray[np.int64], cases: NDArray[np.int64]) -> float:
    """How many cases of different women tell as much of a share as these cases do, of some women each."""
    from scipy import stats  # see fit_temperature

    count, women, share = hits.size, cases.size, float(hits.mean())
    if women == 1 or share in (0.0, 1.0):
        return float(women)  # nothing is seen of how alike a woman's cases are
    off = np.bincount(member, weights=hits, minlength=women) - share * cases
    variance = float((off**2).sum()) * women / (women - 1)
    known = float(stats.t.ppf(0.975, count - 1) / stats.t.ppf(0.975, women - 1)) ** 2
    alone = known * count**2 * share * (1.0 - share)
    return min(float(count), alone / variance) if variance > 0.0 else float(count)


def _members(count: int, groups: Sequence[str] | None) -> NDArray[np.int64]:
    if groups is None:
        return np.arange(count)
    if len(groups) != count:
        raise CalibrationError("Calibration needs one woman or patient for each label.")
    return np.asarray(np.unique(np.asarray(groups), return_inverse=True)[1], dtype=np.int64)


def _between(low: float, high: float) -> float:
    """Return the middle of ``(low, high]`` on the logit scale, where 0 and 1 are no numbers."""
    edge = 1e-6
    outer = np.clip([low, high], edge, 1.0 - edge)
    middle = float(special.expit(special.logit(outer).mean()))
    return middle if low < middle <= high else high


def _checked(values: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.asarray(values, dtype=np.float64).ravel()
    truth = np.asarray(labels).ravel().astype(np.bool_)
    if scores.shape != truth.shape or not np.isfinite(scores).all():
        raise CalibrationError("Calibration needs one finite score for each label.")
    if truth.all() or not truth.any():
        raise CalibrationError("Calibration needs validation cases of both classes.")
    return scores, truth
