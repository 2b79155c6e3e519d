"""What a network's answers for the cases of a level are worth together: each score with its interval.

Evaluation, its subgroups and comparison take a score from here: it is one number wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from training import metrics
from training.delong import auc_interval
from training.intervals import Interval, Resampling
from training.levels import Cases

Array = NDArray[np.float64]


def accuracy(cases: Cases, resampling: Resampling) -> Interval:
    """Share of cases whose most probable class is the true one."""
    return resampling.share(cases.are_right)


def balanced_accuracy(cases: Cases, resampling: Resampling) -> Interval:
    """Mean over the classes of the share of their cases that are right."""
    return _of_confusion(cases, resampling, lambda matrix: metrics.macro(metrics.sensitivity(matrix)))


def macro_precision(cases: Cases, resampling: Resampling) -> Interval:
    """Mean of the classes' precision, see :func:`training.metrics.macro_precision`."""
    return _of_confusion(cases, resampling, metrics.macro_precision)


def macro_f1(cases: Cases, resampling: Resampling) -> Interval:
    """Mean of the classes' F1."""
    return _of_confusion(cases, resampling, lambda matrix: metrics.macro(metrics.f1(matrix)))


def auc(cases: Cases, resampling: Resampling) -> Interval:
    """Area under the ROC curve; DeLong's interval for two classes, otherwise resampled :func:`mean_auc`."""
    if cases.is_binary:
        return auc_interval(cases.probabilities[:, 1], cases.labels == 1, cases.groups)
    return resampling.interval(lambda weights: mean_auc(cases, weights))


def mean_auc(cases: Cases, weights: Array) -> Array:
    """AUC of each class that has cases against the others, their mean, for each row of weights ``(r, n)``."""
    return _mean_over_classes(metrics.weighted_auc, cases, weights)


def average_precision(cases: Cases, resampling: Resampling) -> Interval:
    """Average precision of the second of two classes; of more, the mean of each against the others."""
    if cases.is_binary:
        scores, truth = cases.probabilities[:, 1], cases.labels == 1
        return resampling.interval(lambda weights: metrics.weighted_average_precision(scores, truth, weights))
    return resampling.interval(
        lambda weights: _mean_over_classes(metrics.weighted_average_precision, cases, weights)
    )


def brier(cases: Cases, resampling: Resampling) -> Interval:
    """Mean Brier score."""
    return resampling.mean(metrics.brier_parts(cases.probabilities, cases.labels))


def log_loss(cases: Cases, resampling: Resampling) -> Interval:
    """Mean log-loss."""
    return resampling.mean(metrics.log_loss_parts(cases.probabilities, cases.labels))


CASE_SCORES: Mapping[str, Callable[[Cases, Resampling], Interval]] = MappingProxyType(
    {
        "accuracy": accuracy,
        "balanced_accuracy": balanced_accuracy,
        "macro_precision": macro_precision,
        "macro_f1": macro_f1,
        "auc": auc,
        "average_precision": average_precision,
        "brier": brier,
        "log_loss": log_loss,
    }
)
"""Every score by the name that reports and bundles call it."""


def _of_confusion(cases: Cases, resampling: Resampling, statistic: Callable[[Array], Array]) -> Interval:
    """Measure a number ``(r,)`` of confusion matrices ``(r, k, k)``."""
    known = len(cases.classes)
    cells = np.eye(known * known)[cases.labels * known + cases.predicted]
    return resampling.of_sums(cells, lambda sums: statistic(sums.reshape(-1, known, known)))


def _mean_over_classes(statistic: metrics.OfScores, cases: Cases, weights: Array) -> Array:
    present = np.unique(cases.labels)
    found = [statistic(cases.probabilities[:, k], cases.labels == k, weights) for k in present]
    return metrics.macro(np.stack(found, axis=-1))
