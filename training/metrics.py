"""What predictions are worth, as numbers without opinion. No interval here: see :mod:`training.intervals`.

Functions that take counts or weights work on a leading axis of resamples too, so that an interval costs one
call. A number that is not defined (the precision of a class that is never predicted) is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from training.errors import EvaluationError

Array = NDArray[np.float64]
OfScores = Callable[[ArrayLike, ArrayLike, Array], Array]
"""From scores and labels ``(n,)`` with weights ``(r, n)`` to a number of each resample ``(r,)``."""

SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)
"""Where the log-loss stops: a probability of exactly 0 that came true would cost infinitely much."""


def confusion(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count cases by true class (rows) and predicted class (columns): ``(classes, classes)``."""
    cells = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def accuracy(matrix: ArrayLike) -> Array:
    """Share of cases on the diagonal of confusion matrices ``(..., k, k)``."""
    counts = np.asarray(matrix, dtype=np.float64)
    return _divided(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def sensitivity(matrix: ArrayLike) -> Array:
    """Share of each class that is found (recall): ``(..., k)``."""
    counts = np.asarray(matrix, dtype=np.float64)
    return _divided(_diagonal(counts), counts.sum(axis=-1))


def specificity(matrix: ArrayLike) -> Array:
    """Share of the other classes that is not called this class: ``(..., k)``."""
    counts = np.asarray(matrix, dtype=np.float64)
    others = counts.sum(axis=(-2, -1))[..., None] - counts.sum(axis=-1)
    return _divided(others - (counts.sum(axis=-2) - _diagonal(counts)), others)


def precision(matrix: ArrayLike) -> Array:
    """Share of what is called a class that is of it: ``(..., k)``."""
    counts = np.asarray(matrix, dtype=np.float64)
    return _divided(_diagonal(counts), counts.sum(axis=-2))


def f1(matrix: ArrayLike) -> Array:
    """Harmonic mean of precision and sensitivity of each class: ``(..., k)``."""
    counts = np.asarray(matrix, dtype=np.float64)
    return _divided(2 * _diagonal(counts), counts.sum(axis=-1) + counts.sum(axis=-2))


def support(matrix: ArrayLike) -> Array:
    """Cases of each class: ``(..., k)``."""
    return np.asarray(np.asarray(matrix, dtype=np.float64).sum(axis=-1))


def macro(of_classes: Array) -> Array:
    """Mean over the classes whose number is defined: ``(...)``."""
    defined = np.isfinite(of_classes)
    return _divided(np.where(defined, of_classes, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def macro_precision(matrix: ArrayLike) -> Array:
    """Mean precision over the classes, ``(...)``; not defined where a class has cases and is never called.

    The mean of the others would praise a network for never naming what is rare.
    """
    of_classes = precision(matrix)
    is_never_called = ~np.isfinite(of_classes) & (support(matrix) > 0)
    return np.asarray(np.where(is_never_called.any(axis=-1), np.nan, macro(of_classes)))


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of a curve, from the highest threshold to the lowest.

    For an ROC curve ``x`` is 1 - specificity and ``y`` sensitivity; for a precision-recall curve ``x`` is
    recall and ``y`` precision. The first threshold is infinity: nothing is called positive.
    """

    x: Array
    y: Array
    thresholds: Array


def roc(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """ROC curve with one point for each distinct score.

    Raises
    ------
    EvaluationError
        If a class is missing.
    """
    found, false, thresholds = _counted(scores, labels)
    return Curve(false / false[-1], found / found[-1], thresholds)


def precision_recall(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """Precision-recall curve; where nothing is called positive the precision counts as 1.

    Raises
    ------
    EvaluationError
        If a class is missing.
    """
    found, false, thresholds = _counted(scores, labels)
    called = found + false
    return Curve(found / found[-1], np.where(called > 0, found / np.maximum(called, 1), 1.0), thresholds)


def weighted_auc(scores: ArrayLike, labels: ArrayLike, weights: Array) -> Array:
    """Area under the ROC curve of weighted cases.

    Parameters
    ----------
    scores, labels : array_like
        ``(n,)``.
    weights : numpy.ndarray
        ``(r, n)``, 0 or above.

    Returns
    -------
    numpy.ndarray
        ``(r,)``; NaN where a class has no weight.
    """
    positives, negatives = _by_score(scores, labels, weights)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = (positives * (below + negatives / 2)).sum(axis=1)
    return _divided(pairs, positives.sum(axis=1) * negatives.sum(axis=1))


def weighted_average_precision(scores: ArrayLike, labels: ArrayLike, weights: Array) -> Array:
    """Mean precision over the positive cases in the order of their scores; shapes as :func:`weighted_auc`."""
    positives, negatives = (part[:, ::-1] for part in _by_score(scores, labels, weights))
    found = np.cumsum(positives, axis=1)
    precise = _divided(found, found + np.cumsum(negatives, axis=1))
    return _divided((positives * np.nan_to_num(precise)).sum(axis=1), positives.sum(axis=1))


def sensitivity_at(scores: ArrayLike, labels: ArrayLike, weights: Array, grid: Array) -> Array:
    """Read the ROC curve of weighted cases at given values of 1 - specificity.

    Parameters
    ----------
    scores, labels : array-like
        ``(n,)``; higher scores mean class 1.
    weights : numpy.ndarray
        ``(r, n)`` weight of each case in each of `r` resamples.
    grid : numpy.ndarray
        Values of 1 - specificity, rising, 0..1.

    Returns
    -------
    numpy.ndarray
        ``(r, len(grid))``; NaN where a class has no weight.
    """
    positives, negatives = (part[:, ::-1] for part in _by_score(scores, labels, weights))
    found = np.full((len(weights), grid.size), np.nan)
    for row, (of_positives, of_negatives) in enumerate(zip(positives, negatives, strict=True)):
        if of_positives.any() and of_negatives.any():
            false = np.append(0.0, np.cumsum(of_negatives)) / of_negatives.sum()
            true = np.append(0.0, np.cumsum(of_positives)) / of_positives.sum()
            found[row] = np.interp(grid, false, true)
    return found


def brier_parts(probabilities: ArrayLike, labels: ArrayLike) -> Array:
    """Squared distance of each case from the truth, ``(n,)``; the mean is the Brier score.

    Parameters
    ----------
    probabilities : array_like
        ``(n, k)``, rows add up to 1. With two classes the distance is that of the second class alone, 0..1;
        with more it is summed over the classes, 0..2.
    labels : array_like
        ``(n,)`` index of the true class.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    truth = np.eye(values.shape[1])[np.asarray(labels, np.int64)]
    squared = (values - truth) ** 2
    return np.asarray(squared[:, 1] if values.shape[1] == 2 else squared.sum(axis=1))


def log_loss_parts(probabilities: ArrayLike, labels: ArrayLike) -> Array:
    """Minus the logarithm of the probability of what was true, ``(n,)``; shapes as :func:`brier_parts`."""
    values = np.asarray(probabilities, dtype=np.float64)
    values = np.clip(values, SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)
    values = values / values.sum(axis=1, keepdims=True)
    return np.asarray(-np.log(values[np.arange(len(values)), np.asarray(labels, np.int64)]))


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """Logistic regression of the truth on the predicted log-odds.

    Attributes
    ----------
    slope, intercept : float
        1 and 0 where probabilities mean what they say. A slope below 1: too sure of itself.
    slope_error, intercept_error : float
        Standard errors that count a woman's cases as resembling each other.
    """

    slope: float
    intercept: float
    slope_error: float
    intercept_error: float


def calibration_line(probabilities: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> CalibrationLine:
    """Fit the calibration line of the positive class.

    Parameters
    ----------
    probabilities : array_like
        ``(n,)`` of the positive class, 0..1.
    labels : array_like
        ``(n,)`` bool.
    groups : array_like
        ``(n,)`` woman of each case.

    Raises
    ------
    EvaluationError
        If a class is missing, or the scores separate the classes so that no finite line fits.
    """
    edge = SMALLEST_PROBABILITY
    odds = special.logit(np.clip(np.asarray(probabilities, dtype=np.float64), edge, 1.0 - edge))
    truth = np.asarray(labels, dtype=np.bool_)
    positives, negatives = odds[truth], odds[~truth]
    if not positives.size or not negatives.size or np.ptp(odds) == 0.0:
        raise EvaluationError("A calibration line needs cases of both classes and different scores.")
    if positives.min() >= negatives.max() or positives.max() <= negatives.min():
        raise EvaluationError("The scores separate the classes: no finite calibration line fits.")
    design = np.column_stack([np.ones_like(odds), odds])
    beta = _logistic_fit(design, truth)
    residual = truth - special.expit(design @ beta)
    bread = np.linalg.inv(_information(design, beta))
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    scores = np.zeros((int(member.max()) + 1, 2))
    np.add.at(scores, member, design * residual[:, None])
    women = len(scores)
    errors = np.sqrt(np.diag(bread @ (scores.T @ scores) @ bread) * women / max(women - 1, 1))
    return CalibrationLine(float(beta[1]), float(beta[0]), float(errors[1]), float(errors[0]))


def adaptive_bins(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 10
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Mean probability, share of positives and number of cases in bins that hold equally many cases."""
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, order.size)) if part.size]
    return (
        np.asarray([values[part].mean() for part in parts]),
        np.asarray([truth[part].mean() for part in parts]),
        np.asarray([part.size for part in parts], dtype=np.int64),
    )


def adaptive_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> float:
    """Mean distance of probability and truth over bins of equally many cases, 0..1.

    Above 0 by chance even where the probabilities are right; :func:`ece_by_chance` says how far.
    """
    said, came, sizes = adaptive_bins(probabilities, labels, bins)
    return float((np.abs(said - came) * sizes).sum() / sizes.sum())


def ece_by_chance(probabilities: ArrayLike, *, seed: int = 0, draws: int = 200, bins: int = 10) -> float:
    """Return the 95 % quantile of :func:`adaptive_ece` if the probabilities were exactly right.

    Parameters
    ----------
    probabilities : array-like
        ``(n,)`` of class 1, 0..1.
    seed : int, optional
        Of the labels that are drawn from them.
    draws : int, optional
        How often labels are drawn.
    bins : int, optional
        As for :func:`adaptive_ece`.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    random = np.random.default_rng(seed)
    drawn = [adaptive_ece(values, random.random(values.size) < values, bins) for _ in range(draws)]
    return float(np.percentile(drawn, 95.0))


def _divided(above: Array, below: Array) -> Array:
    shape = np.broadcast_shapes(np.shape(above), np.shape(below))
    out = np.full(shape, np.nan)
    np.divide(above, below, out=out, where=np.asarray(below) > 0)
    return out


def _diagonal(counts: Array) -> Array:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _counted(scores: ArrayLike, labels: ArrayLike) -> tuple[Array, Array, Array]:
    """True and false positives from each threshold on, the highest first."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.bool_)
    if truth.all() or not truth.any():
        raise EvaluationError("A curve needs cases of both classes.")
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), values.size - 1)
    found = np.cumsum(truth[order])[ends]
    return (
        np.append(0.0, found),
        np.append(0.0, ends + 1.0 - found),
        np.append(np.inf, values[order][ends]),
    )


def _by_score(scores: ArrayLike, labels: ArrayLike, weights: Array) -> tuple[Array, Array]:
    """Weight of positives and negatives at each distinct score, the lowest first: two ``(r, u)``."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.bool_)
    order = np.argsort(values, kind="stable")
    starts = np.append(0, np.flatnonzero(np.diff(values[order])) + 1)
    sorted_weights, positive = weights[:, order], truth[order]
    return (
        np.add.reduceat(sorted_weights * positive, starts, axis=1),
        np.add.reduceat(sorted_weights * ~positive, starts, axis=1),
    )


def _logistic_fit(design: Array, truth: NDArray[np.bool_]) -> Array:
    """Maximum likelihood by Newton's method with halved steps."""
    beta = np.zeros(design.shape[1])
    loss = _logistic_loss(design, truth, beta)
    for _ in range(100):
        gradient = design.T @ (truth - special.expit(design @ beta))
        step = np.linalg.solve(_information(design, beta), gradient)
        while (new := _logistic_loss(design, truth, beta + step)) > loss + 1e-12 and np.abs(
            step
        ).max() > 1e-12:
            step /= 2
        beta, gained, loss = beta + step, loss - new, new
        if np.abs(step).max() < 1e-12 or gained < 1e-15 * max(loss, 1.0):
            break
    return beta


def _information(design: Array, beta: Array) -> Array:
    fitted = special.expit(design @ beta)
    return np.asarray((design * (fitted * (1 - fitted))[:, None]).T @ design)


def _logistic_loss(design: Array, truth: NDArray[np.bool_], beta: Array) -> float:
    odds = design @ beta
    return float((np.logaddexp(0.0, odds) - truth * odds).sum())
