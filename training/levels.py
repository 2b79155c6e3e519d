"""From images to breasts to women: the same steps that scoring takes.

A breast's probability is the mean of its views, a woman's is that of her higher breast.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.tasks import all_tasks
from training.predictions import Predictions

IMAGE, BREAST, WOMAN = "image", "breast", "woman"
SEVERAL = -1
"""Stands for a fold where networks of several folds answered for one case: a split image by image."""


@dataclass(frozen=True, slots=True)
class Cases:
    """What is counted at one level.

    Attributes
    ----------
    level : str
        ``"image"``, ``"breast"`` or ``"woman"``.
    classes : tuple of str
        Names of the ``k`` classes.
    groups : tuple of str
        ``n`` names: the woman of each case.
    labels : numpy.ndarray
        ``(n,)`` int64 index of the true class.
    probabilities : numpy.ndarray
        ``(n, k)`` float64, rows add up to 1.
    folds : numpy.ndarray
        ``(n,)`` int64: the fold whose network answered; :data:`SEVERAL` where more than one did.
    left_out : int
        Breasts whose images are of different classes, so that the breast has none.
    """

    level: str
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    folds: NDArray[np.int64]
    left_out: int = 0

    @property
    def is_binary(self) -> bool:
        """Whether the second class alone is asked for."""
        return len(self.classes) == 2

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Most probable class of each case; the second of two from .5 on."""
        if self.is_binary:
            return (self.probabilities[:, 1] >= 0.5).astype(np.int64)
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def are_right(self) -> NDArray[np.bool_]:
        """Whether the predicted class of each case is the true one."""
        return np.asarray(self.labels == self.predicted)

    def chosen(self, rows: NDArray[np.bool_]) -> Cases:
        """Return some of the cases."""
        groups = tuple(name for name, is_chosen in zip(self.groups, rows, strict=True) if is_chosen)
        return Cases(
            self.level, self.classes, groups, self.labels[rows], self.probabilities[rows], self.folds[rows]
        )


def are_patches(predictions: Predictions) -> bool:
    """Whether images are patches of slides: all those of a patient are no breast with views."""
    task = all_tasks().get(predictions.task)
    return task is not None and task.slides is not None


def images(predictions: Predictions) -> Cases:
    """Count images."""
    return Cases(
        IMAGE,
        predictions.classes,
        predictions.groups,
        predictions.labels,
        predictions.probabilities,
        predictions.folds,
    )


def breasts(predictions: Predictions) -> Cases:
    """Count breasts: probabilities are means over views.

    With two classes a breast is of the second where any of its images is. With more it has a class only
    where its images agree; the others are left out.
    """
    names, first, member = np.unique(np.asarray(predictions.breasts), return_index=True, return_inverse=True)
    counts = np.bincount(member)
    means = np.zeros((names.size, len(predictions.classes)))
    np.add.at(means, member, predictions.probabilities)
    means /= counts[:, None]
    highest, lowest = _extremes(predictions.labels, member, names.size)
    groups = tuple(predictions.groups[row] for row in first)
    folds = _one_fold(predictions.folds, member, names.size)
    found = Cases(BREAST, predictions.classes, groups, highest, means, folds)
    if found.is_binary:
        return found
    agree = highest == lowest
    kept = found.chosen(agree)
    return replace(kept, left_out=int((~agree).sum()))


def women(predictions: Predictions) -> Cases | None:
    """Count women: the higher of her breasts; None for tasks with more than two classes."""
    of_breasts = breasts(predictions)
    if not of_breasts.is_binary:
        return None
    names, member = np.unique(np.asarray(of_breasts.groups), return_inverse=True)
    highest = np.zeros(names.size)
    np.maximum.at(highest, member, of_breasts.probabilities[:, 1])
    labels, _ = _extremes(of_breasts.labels, member, names.size)
    probabilities = np.column_stack([1.0 - highest, highest])
    folds = _one_fold(of_breasts.folds, member, names.size)
    return Cases(WOMAN, predictions.classes, tuple(map(str, names)), labels, probabilities, folds)


def _one_fold(folds: NDArray[np.int64], member: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    highest, lowest = _extremes(folds, member, count)
    return np.where(highest == lowest, highest, SEVERAL)


def _extremes(
    labels: NDArray[np.int64], member: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    highest = np.full(count, -1, dtype=np.int64)
    lowest = np.full(count, np.iinfo(np.int64).max, dtype=np.int64)
    np.maximum.at(highest, member, labels)
    np.minimum.at(lowest, member, labels)
    return highest, lowest
