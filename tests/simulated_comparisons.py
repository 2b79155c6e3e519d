"""Comparisons of two bundles whose true difference is known, to see how often each verdict is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from training.promotion import Decision, PairedCases, judge


def simulated_cases(
    rng: np.random.Generator,
    *,
    positives: int,
    negatives: int,
    champion_auc: float,
    difference: float,
    correlation: float = 0.7,
    specificity: float = 0.9,
) -> PairedCases:
    """Draw cases of two calibrated bundles whose areas differ by a known amount.

    Latent scores are binormal with equal variances; each bundle's probability is the true one given its own
    score, and its threshold the score with the wanted specificity.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where chance comes from.
    positives, negatives : int
        Cases of each kind.
    champion_auc : float
        True area of the champion, 0.5..1.
    difference : float
        True area of the challenger minus that of the champion.
    correlation : float
        Between the two scores of one case.
    specificity : float
        True specificity of both thresholds.
    """
    areas = (champion_auc, champion_auc + difference)
    shifts = [float(np.sqrt(2.0) * stats.norm.ppf(area)) for area in areas]
    labels = np.repeat([True, False], [positives, negatives])
    noise = rng.multivariate_normal([0.0, 0.0], [[1.0, correlation], [correlation, 1.0]], labels.size)
    prior = np.log(positives / negatives)
    cut = float(stats.norm.ppf(specificity))
    scores, thresholds = [], []
    for number, shift in enumerate(shifts):
        latent = noise[:, number] + shift * labels
        scores.append(_posterior(latent, shift, prior))
        thresholds.append(float(_posterior(np.asarray([cut]), shift, prior)[0]))
    return PairedCases(labels, scores[0], scores[1], thresholds[0], thresholds[1])


def decisions(drawn: Sequence[PairedCases]) -> dict[Decision, float]:
    """Share of each verdict over several comparisons, 0..1."""
    found = [judge(cases).decision for cases in drawn]
    return {decision: found.count(decision) / len(found) for decision in Decision}


def _posterior(latent: NDArray[np.float64], shift: float, prior: float) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-(shift * latent - shift**2 / 2.0 + prior))), dtype=np.float64)
