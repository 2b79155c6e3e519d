"""The same numbers for parts of the images: scanner, view, density, … A group too small to say anything is
named and not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training import case_scores, levels
from training.intervals import Interval, Resampling
from training.levels import Cases
from training.predictions import Predictions

SMALLEST = 30
"""Images, and women, below which nothing is measured: chance would be the finding."""


@dataclass(frozen=True, slots=True)
class Subgroup:
    """Images that share a value.

    Attributes
    ----------
    name, value : str
        Such as ``"density"`` and ``"D"``.
    cases, women : int
        How many there are.
    is_suppressed : bool
        Whether there are fewer than :data:`SMALLEST`, so that nothing was measured.
    scores : Mapping of str to Interval
        ``accuracy``, ``balanced_accuracy`` and, where both classes are there, ``auc``.
    """

    name: str
    value: str
    cases: int
    women: int
    is_suppressed: bool
    scores: Mapping[str, Interval]


def subgroups_of(predictions: Predictions, *, seed: int = 0) -> tuple[Subgroup, ...]:
    """Measure every subgroup of images; unknown values are left out."""
    cases = levels.images(predictions)
    found = []
    for name, values in sorted(predictions.subgroups.items()):
        column = np.asarray(values)
        for value in sorted(set(values) - {""}):
            found.append(_measure(name, value, cases.chosen(column == value), seed))
    return tuple(found)


def _measure(name: str, value: str, cases: Cases, seed: int) -> Subgroup:
    count, women = len(cases.labels), len(set(cases.groups))
    if min(count, women) < SMALLEST:
        return Subgroup(name, value, count, women, True, {})
    resampling = Resampling(cases.groups, seed=seed, resamples=1000)
    scores = {
        "accuracy": case_scores.accuracy(cases, resampling),
        "balanced_accuracy": case_scores.balanced_accuracy(cases, resampling),
    }
    if cases.is_binary and np.unique(cases.labels).size == 2:
        scores["auc"] = case_scores.auc(cases, resampling)
    return Subgroup(name, value, count, women, False, scores)
