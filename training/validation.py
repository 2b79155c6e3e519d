"""How good a network is on its validation part: what stops training and is shown while it runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from training.imbalance import ClassBalance


@dataclass(frozen=True, slots=True)
class Validated:
    """Scores of one epoch.

    Attributes
    ----------
    log_loss : float
        Mean negative log-likelihood, natural logarithm, with the prior of the population.
    auc : float or None
        Area under the ROC curve; with several classes the mean of each against the others. None where a
        class has no case.
    """

    log_loss: float
    auc: float | None


def validate(outputs: NDArray[np.float64], labels: NDArray[np.int64], balance: ClassBalance) -> Validated:
    """Score raw outputs ``(n, k)`` against labels ``(n,)``, after the correction of the prior."""
    logits = outputs + np.asarray(balance.natural_shift)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    logarithms = special.log_softmax(logits, axis=1)
    log_loss = -float(logarithms[np.arange(len(labels)), labels].mean())
    scored = range(1, 2) if logits.shape[1] == 2 else range(logits.shape[1])
    areas = [_area(logarithms[:, index] - _others(logarithms, index), labels == index) for index in scored]
    known = [area for area in areas if area is not None]
    return Validated(log_loss, float(np.mean(known)) if len(known) == len(areas) else None)


def _others(logarithms: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """Log-probability of all classes but one: a difference to it still tells what rounds to 1 apart."""
    others: NDArray[np.float64] = special.logsumexp(np.delete(logarithms, index, axis=1), axis=1)
    return others


def _area(scores: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> float | None:
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if not positives or not negatives:
        return None
    ranks = stats.rankdata(scores)
    return float((ranks[is_positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
