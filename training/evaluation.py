"""Everything that is measured on a table of predictions, each number with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.calibration import OperatingPoint, operating_point
from models.errors import CalibrationError
from training import levels, metrics
from training.case_scores import CASE_SCORES
from training.delong import auc_interval
from training.errors import EvaluationError
from training.intervals import Interval, Resampling, ratio
from training.levels import Cases
from training.predictions import Predictions
from training.subgroups import Subgroup, subgroups_of

_NORMAL_95 = 1.959963984540054
_BAND_RESAMPLES = 500
GRID = np.linspace(0.0, 1.0, 101)
"""Values of 1 - specificity at which the band of an ROC curve is given."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What an operating point aims at, 0..1, see :func:`models.calibration.operating_point`."""

    specificity: float = 0.90
    sensitivity: float = 0.80

    def point_on(self, cases: Cases) -> OperatingPoint:
        """Choose the threshold on validation cases of two classes.

        Raises
        ------
        CalibrationError
            If there are too few of them.
        """
        return operating_point(
            cases.probabilities[:, 1],
            cases.labels == 1,
            groups=cases.groups,
            specificity=self.specificity,
            sensitivity=self.sensitivity,
        )


DEFAULT_TARGETS = Targets()


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One class against all others.

    Attributes
    ----------
    name : str
        The class.
    support : int
        Cases of it.
    scores : Mapping of str to Interval
        ``sensitivity`` (recall), ``specificity``, ``precision``, ``f1``, ``auc``, ``average_precision``;
        those alone that can be measured.
    """

    name: str
    support: int
    scores: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class PointScores:
    """What operating points that were chosen on validation cases give on the test cases.

    Attributes
    ----------
    points : Mapping of int to OperatingPoint
        Fold to the point of its network: a threshold belongs to one network and calls its cases alone.
    scores : Mapping of str to Interval
        ``sensitivity`` (recall), ``specificity``, ``precision``, ``f1`` of all test cases, each called at the
        threshold of its own fold.
    """

    points: Mapping[int, OperatingPoint]
    scores: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class LevelScores:
    """Everything measured at one level.

    Attributes
    ----------
    cases : Cases
        What was counted.
    women : int
        Different women among them.
    baseline_class, baseline : str, float
        The most frequent class, and the accuracy of always answering it.
    scores : Mapping of str to Interval
        ``accuracy``, ``balanced_accuracy``, ``macro_precision``, ``macro_f1``, ``auc`` (with more than two
        classes the mean of each against the others), ``average_precision``, ``brier``, ``log_loss``,
        ``calibration_slope``, ``calibration_intercept``, ``adaptive_ece``; those alone that can be measured.
    ece_by_chance : float or None
        What the adaptive ECE would stay below in 95 % of cases if the probabilities were right.
    classes : tuple of ClassScores
        One for each class that is asked for: the second alone of two.
    confusion : tuple of tuple of int
        True class in rows, predicted in columns.
    point : PointScores or None
        The operating points, where validation cases gave each fold one.
    band : tuple of numpy.ndarray or None
        Lowest and highest sensitivity at :data:`GRID`, 95 % at each point, for two classes.
    """

    cases: Cases
    women: int
    baseline_class: str
    baseline: float
    scores: Mapping[str, Interval]
    ece_by_chance: float | None
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    point: PointScores | None
    band: tuple[NDArray[np.float64], NDArray[np.float64]] | None

    @property
    def name(self) -> str:
        """``"image"``, ``"breast"`` or ``"woman"``."""
        return self.cases.level


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything measured on one table of predictions.

    Attributes
    ----------
    task : str
        The task.
    levels : tuple of LevelScores
        Image first.
    subgroups : tuple of Subgroup
        Of images.
    notes : tuple of str
        What was not measured, and why.
    """

    task: str
    levels: tuple[LevelScores, ...]
    subgroups: tuple[Subgroup, ...]
    notes: tuple[str, ...]


def evaluate(
    predictions: Predictions,
    validation: Mapping[int, Predictions] = MappingProxyType({}),
    *,
    targets: Targets = DEFAULT_TARGETS,
    seed: int = 0,
) -> Evaluation:
    """Measure everything on test predictions.

    Parameters
    ----------
    predictions : Predictions
        Of images that were not trained on.
    validation : Mapping of int to Predictions
        Fold to what its network said of its validation images, for the operating points; none is given
        unless every fold has some.
    targets : Targets
        Of the operating points.
    seed : int
        Of the resampling.

    Raises
    ------
    EvaluationError
        If `validation` is of another task or fold, or an image both validates and tests one fold.
    """
    for fold, validated in validation.items():
        _check_validation(predictions, validated, fold)
    measured: list[LevelScores] = []
    notes: list[str] = []
    for counting, counted in _levels(predictions, notes):
        if np.unique(counted.labels).size < 2:
            notes.append(f"Level {counted.level}: all cases are of one class, nothing can be told apart.")
            continue
        calibrating = {fold: counting(validated) for fold, validated in validation.items()}
        measured.append(_measure(counted, calibrating, targets, notes, seed))
    found = subgroups_of(predictions, seed=seed)
    return Evaluation(predictions.task, tuple(measured), found, tuple(notes))


def _check_validation(predictions: Predictions, validated: Predictions, fold: int) -> None:
    if (validated.task, validated.classes) != (predictions.task, predictions.classes):
        raise EvaluationError(
            "Validation and test predictions are of different tasks: name those of one run."
        )
    if (validated.folds != fold).any():
        raise EvaluationError("Validation predictions are of another fold than they stand for.")
    tested = {image for image, of in zip(predictions.images, predictions.folds, strict=True) if of == fold}
    if not tested.isdisjoint(validated.images):
        raise EvaluationError(
            "An image both validates and tests one fold: its threshold would know the answer."
        )


_Counting = Callable[[Predictions], Cases | None]


def _levels(predictions: Predictions, notes: list[str]) -> list[tuple[_Counting, Cases]]:
    """Give the levels that say something of their own, each with how its cases are counted."""
    found: list[tuple[_Counting, Cases]] = []
    if levels.are_patches(predictions):
        notes.append("Patches alone are counted: all patches of a patient are no breast with views.")
        return [(levels.images, levels.images(predictions))]
    for counting in (levels.images, levels.breasts, levels.women):
        counted = counting(predictions)
        if counted is None:
            notes.append("Level woman: a task with several classes has no higher breast.")
            continue
        if counted.left_out:
            notes.append(f"Level {counted.level}: {counted.left_out} have images of different classes.")
        if found and len(counted.labels) == len(found[-1][1].labels):
            notes.append(f"Level {counted.level}: the same as level {found[-1][1].level}, one case each.")
            continue
        found.append((counting, counted))
    return found


def _measure(
    cases: Cases,
    validation: Mapping[int, Cases | None],
    targets: Targets,
    notes: list[str],
    seed: int,
) -> LevelScores:
    resampling = Resampling(cases.groups, seed=seed)
    matrix = metrics.confusion(cases.labels, cases.predicted, len(cases.classes))
    support = matrix.sum(axis=1)
    asked = [1] if cases.is_binary else range(len(cases.classes))
    scores = {name: score(cases, resampling) for name, score in CASE_SCORES.items()}
    by_chance = None
    if cases.is_binary:
        scores |= _calibration_scores(cases, notes)
        by_chance = metrics.ece_by_chance(cases.probabilities[:, 1], seed=seed)
    return LevelScores(
        cases=cases,
        women=resampling.women,
        baseline_class=cases.classes[int(support.argmax())],
        baseline=float(support.max() / support.sum()),
        scores=scores,
        ece_by_chance=by_chance,
        classes=tuple(_class_scores(cases, number, resampling) for number in asked),
        confusion=tuple(tuple(int(count) for count in row) for row in matrix),
        point=_point_scores(cases, validation, targets, resampling, notes),
        band=_band(cases, seed) if cases.is_binary else None,
    )


def _calibration_scores(cases: Cases, notes: list[str]) -> dict[str, Interval]:
    scores, labels, count = cases.probabilities[:, 1], cases.labels == 1, len(cases.labels)
    unknown = float("nan")
    found = {"adaptive_ece": Interval(metrics.adaptive_ece(scores, labels), unknown, unknown, count)}
    try:
        line = metrics.calibration_line(scores, labels, np.asarray(cases.groups))
    except EvaluationError as error:
        notes.append(f"Level {cases.level}: {error}")
        return found
    for name, value, spread in (
        ("calibration_slope", line.slope, line.slope_error),
        ("calibration_intercept", line.intercept, line.intercept_error),
    ):
        half = _NORMAL_95 * spread
        found[name] = Interval(value, value - half, value + half, count)
    return found


def _class_scores(cases: Cases, number: int, resampling: Resampling) -> ClassScores:
    truth, called = cases.labels == number, cases.predicted == number
    scores = cases.probabilities[:, number]
    found = _called_scores(truth, called, resampling)
    if truth.any() and not truth.all():
        found["auc"] = auc_interval(scores, truth, cases.groups)
        found["average_precision"] = resampling.interval(
            lambda weights: metrics.weighted_average_precision(scores, truth, weights)
        )
    return ClassScores(cases.classes[number], int(truth.sum()), found)


def _called_scores(
    truth: NDArray[np.bool_], called: NDArray[np.bool_], resampling: Resampling
) -> dict[str, Interval]:
    parts = np.column_stack([2.0 * (truth & called), truth.astype(np.float64) + called])
    return {
        "sensitivity": resampling.share(called, truth),
        "specificity": resampling.share(~called, ~truth),
        "precision": resampling.share(truth, called),
        "f1": resampling.of_sums(parts, ratio),
    }


def _point_scores(
    cases: Cases,
    validation: Mapping[int, Cases | None],
    targets: Targets,
    resampling: Resampling,
    notes: list[str],
) -> PointScores | None:
    if not validation or not cases.is_binary:
        return None
    if (cases.folds == levels.SEVERAL).any():
        notes.append(f"Level {cases.level}: no operating point. Several folds answered for one case.")
        return None
    points: dict[int, OperatingPoint] = {}
    for fold in np.unique(cases.folds).tolist():
        if (validated := validation.get(fold)) is None:
            notes.append(f"Level {cases.level}: no operating point. Fold {fold} has no validation cases.")
            return None
        try:
            points[fold] = targets.point_on(validated)
        except CalibrationError as error:
            notes.append(f"Level {cases.level}: no operating point. Fold {fold}: {error}")
            return None
    thresholds = np.asarray([points[fold].threshold for fold in cases.folds.tolist()])
    called = cases.probabilities[:, 1] >= thresholds
    return PointScores(points, _called_scores(cases.labels == 1, called, resampling))


def _band(cases: Cases, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    drawn = Resampling(cases.groups, seed=seed, resamples=_BAND_RESAMPLES).values(
        lambda weights: metrics.sensitivity_at(cases.probabilities[:, 1], cases.labels == 1, weights, GRID)
    )
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return low, high


def best_level(evaluation: Evaluation) -> LevelScores:
    """Return the level nearest to the woman: what a person would ask about.

    Raises
    ------
    EvaluationError
        If nothing could be measured.
    """
    if not evaluation.levels:
        raise EvaluationError("Nothing could be measured: " + " ".join(evaluation.notes))
    return evaluation.levels[-1]


def level_named(evaluation: Evaluation, name: str) -> LevelScores | None:
    """Return the scores of a level, if it was measured."""
    return next((level for level in evaluation.levels if level.name == name), None)
