"""From logits to probabilities, and from validation scores to an operating point.

Both are fitted on validation cases and stored in one bundle; neither is carried over to another.
"""

from __future__ import annotations

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
    name: str = "default",
    specificity: float = 0.90,
    sensitivity: float = 0.80,
    confidence: float = 0.95,
) -> OperatingPoint:
    """Choose a threshold by order statistics, so that its targets hold for new cases with `confidence`.

    The k-th smallest of n negative scores has at least the share p of all future negatives below it with
    probability ``P(Binomial(n, p) < k)``; a plain quantile misses its target in half of all samples. Where
    the two classes leave a gap, the threshold lies in its middle on the logit scale; otherwise specificity
    is kept.

    Parameters
    ----------
    scores : array_like
        ``(n,)`` calibrated probabilities of validation cases, 0..1.
    labels : array_like
        ``(n,)`` 0 or 1.
    name : str
        Name of the point.
    specificity, sensitivity, confidence : float
        The targets, 0..1.

    Raises
    ------
    CalibrationError
        If there are too few negative cases for the target at this confidence.
    """
    values, truth = _checked(scores, labels)
    lowest = _upper_order_statistic(values[~truth], specificity, confidence)
    if lowest is None:
        needed = int(np.ceil(np.log(1.0 - confidence) / np.log(specificity)))
        raise CalibrationError(
            f"{int((~truth).sum())} negative validation cases cannot show a specificity of {specificity:.2f} "
            f"with {confidence:.0%} confidence: use at least {needed}."
        )
    mirrored = _upper_order_statistic(-values[truth], sensitivity, confidence)
    highest = -mirrored if mirrored is not None else -np.inf
    is_met = bool(highest > lowest)
    threshold = _between(lowest, float(highest)) if is_met else float(np.nextafter(lowest, 1.0))
    return OperatingPoint(name, threshold, specificity, sensitivity, confidence, is_met)


def _upper_order_statistic(values: NDArray[np.float64], share: float, confidence: float) -> float | None:
    """Return the smallest value with `share` of the population at or below it, or None if n is too small."""
    from scipy import stats  # see fit_temperature

    ordered = np.sort(values)
    ranks = np.arange(1, ordered.size + 1)
    holds = np.flatnonzero(stats.binom.cdf(ranks - 1, ordered.size, share) >= confidence)
    return float(ordered[holds[0]]) if holds.size else None


def _between(low: float, high: float) -> float:
    middle = special.expit((special.logit(max(low, 1e-6)) + special.logit(min(high, 1.0 - 1e-6))) / 2.0)
    return float(middle)


def _checked(values: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.asarray(values, dtype=np.float64).ravel()
    truth = np.asarray(labels).ravel().astype(np.bool_)
    if scores.shape != truth.shape or not np.isfinite(scores).all():
        raise CalibrationError("Calibration needs one finite score for each label.")
    if truth.all() or not truth.any():
        raise CalibrationError("Calibration needs validation cases of both classes.")
    return scores, truth
