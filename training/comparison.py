"""Several models on the same test cases: which of them can be told apart at all.

References
----------
Holm: Scand J Stat 6 (1979) 65-70.
Piepho: J Comput Graph Stat 13 (2004) 456-466 (letters).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from training import levels
from training.case_scores import CASE_SCORES, mean_auc
from training.delong import AucDifference, paired_difference
from training.errors import EvaluationError
from training.evaluated_run import EvaluatedRun
from training.intervals import Interval, Resampling
from training.levels import Cases
from training.mcnemar import mcnemar
from training.predictions import Predictions

SIGNIFICANCE = 0.05
SCORES = ("auc", "accuracy", "log_loss")
LEVELS = (levels.IMAGE, levels.BREAST, levels.WOMAN)


@dataclass(frozen=True, slots=True)
class Competitor:
    """One model's numbers.

    Attributes
    ----------
    name : str
        The run's name.
    scores : Mapping of str to Interval
        ``auc`` (mean over classes where there are more than two), ``accuracy``, ``log_loss``.
    letters : str
        Models that share a letter cannot be told apart by their AUC.
    training_ms, weights_mb : float or None
        Cost of an image in an epoch of training, and size of the weights, where the run says so.
    """

    name: str
    scores: Mapping[str, Interval]
    letters: str
    training_ms: float | None
    weights_mb: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """The first model minus the second; p-values are Holm's, over all pairs of the comparison.

    Attributes
    ----------
    first, second : str
        Names.
    auc : AucDifference
        DeLong's test for two classes; otherwise resampled by woman.
    auc_adjusted : float
        Its p-value after Holm.
    accuracy : float
        Difference of the accuracies.
    accuracy_p, accuracy_adjusted : float
        McNemar's p-value before and after Holm.
    """

    first: str
    second: str
    auc: AucDifference
    auc_adjusted: float
    accuracy: float
    accuracy_p: float
    accuracy_adjusted: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What can be said about several models.

    Attributes
    ----------
    task, level, split_sha256 : str
        What was compared.
    cases, women : int
        On how much.
    baseline : float
        Accuracy of always answering the most frequent class.
    competitors : tuple of Competitor
        The highest AUC first.
    pairs : tuple of Pair
        Every two of them.
    warnings : tuple of str
        Why the numbers may not be believed.
    """

    task: str
    level: str
    split_sha256: str
    cases: int
    women: int
    baseline: float
    competitors: tuple[Competitor, ...]
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]


def compare(runs: Sequence[EvaluatedRun], *, level: str | None = None, seed: int = 0) -> Comparison:
    """Compare runs on the same test cases.

    Parameters
    ----------
    runs : sequence of EvaluatedRun
        Two or more, each with a name of its own.
    level : str or None
        ``"image"``, ``"breast"`` or ``"woman"``; by default the woman, or the image for patches of slides
        and for tasks with more than two classes.
    seed : int
        Of the resampling.

    Raises
    ------
    EvaluationError
        If the runs have different splits or tested different images, or the level cannot be measured.
    """
    aligned = _aligned(runs)
    counted = [_cases(answers, level) for answers in aligned]
    first = counted[0]
    if np.unique(first.labels).size < 2:
        raise EvaluationError(f"All cases of level {first.level} are of one class: compare another level.")
    resampling = Resampling(first.groups, seed=seed)
    ranked = sorted(
        (_Measured.of(run, cases, resampling) for run, cases in zip(runs, counted, strict=True)),
        key=lambda model: -model.scores["auc"].value,
    )
    pairs = _pairs(ranked)
    told_apart = [(pair.first, pair.second) for pair in pairs if pair.auc_adjusted < SIGNIFICANCE]
    letters = letter_display([model.run.name for model in ranked], told_apart)
    split = runs[0].split
    return Comparison(
        task=aligned[0].task,
        level=first.level,
        split_sha256="" if split is None else split.sha256,
        cases=len(first.labels),
        women=resampling.women,
        baseline=float(np.bincount(first.labels).max() / len(first.labels)),
        competitors=tuple(
            Competitor(model.run.name, model.scores, shared, model.run.training_ms, model.run.weights_mb)
            for model, shared in zip(ranked, letters, strict=True)
        ),
        pairs=pairs,
        warnings=runs[0].warnings,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that one false finding among all has at most the stated probability."""
    order = np.argsort(p_values)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def letter_display(order: Sequence[Hashable], told_apart: Sequence[tuple[Hashable, Hashable]]) -> list[str]:
    """Give models letters so that two share one exactly where they cannot be told apart.

    Parameters
    ----------
    order : sequence of hashable
        Models by name or number, the best first.
    told_apart : sequence of (hashable, hashable)
        Pairs that differ.

    Returns
    -------
    list of str
        Letters of each model in `order`.
    """
    columns = [frozenset(order)]
    for first, second in told_apart:
        split: list[frozenset[Hashable]] = []
        for column in columns:
            split += [column - {first}, column - {second}] if {first, second} <= column else [column]
        distinct = list(dict.fromkeys(split))
        columns = [column for column in distinct if not any(column < other for other in distinct)]
    ranked = sorted(columns, key=lambda column: sorted(order.index(model) for model in column))
    return [
        "".join(_letter(number) for number, column in enumerate(ranked) if model in column) for model in order
    ]


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"({number + 1})"


def _aligned(runs: Sequence[EvaluatedRun]) -> list[Predictions]:
    """Bring all predictions into the order of the first run's images."""
    if len(runs) < 2 or len({run.name for run in runs}) != len(runs):
        raise EvaluationError("Name two or more runs, each folder with a name of its own.")
    if len({None if run.split is None else run.split.sha256 for run in runs}) != 1:
        raise EvaluationError(
            "The runs have different splits: a difference could come from the images. Train them with the "
            "same data, folds, seed, protocol and validation_share."
        )
    reference = runs[0].predictions
    found = []
    for run in runs:
        answers = run.predictions
        place = {image: row for row, image in enumerate(answers.images)}
        if place.keys() != set(reference.images):
            raise EvaluationError(
                f"{run.name} tested other images than {runs[0].name}: finish the same folds."
            )
        rows = np.asarray([place[image] for image in reference.images])
        same = (answers.task, answers.classes) == (reference.task, reference.classes)
        if not same or not np.array_equal(answers.labels[rows], reference.labels):
            raise EvaluationError(
                f"{run.name} has other labels than {runs[0].name}: use the same data and task."
            )
        found.append(
            replace(
                reference,
                logits=answers.logits[rows],
                probabilities=answers.probabilities[rows],
                folds=answers.folds[rows],
            )
        )
    return found


def _cases(answers: Predictions, level: str | None) -> Cases:
    are_patches = levels.are_patches(answers)
    default = levels.WOMAN if len(answers.classes) == 2 and not are_patches else levels.IMAGE
    wanted = level or default
    if wanted not in LEVELS:
        raise EvaluationError(f"There is no level {wanted!r}: choose {', '.join(LEVELS)}.")
    if are_patches and wanted != levels.IMAGE:
        raise EvaluationError("All patches of a patient are no breast with views: compare images.")
    counting = {levels.IMAGE: levels.images, levels.BREAST: levels.breasts, levels.WOMAN: levels.women}
    counted = counting[wanted](answers)
    if counted is None:
        raise EvaluationError("A task with several classes has no level woman: compare images or breasts.")
    return counted


@dataclass(frozen=True, slots=True)
class _Measured:
    """One model's cases and scores; all models of a comparison have the same cases and the same draws.

    Attributes
    ----------
    run : EvaluatedRun
        Where they come from.
    cases : Cases
        What is counted.
    scores : Mapping of str to Interval
        Those of a :class:`Competitor`.
    drawn_auc : numpy.ndarray or None
        ``(r,)`` mean area of each resample; None for two classes, where DeLong's test needs none.
    """

    run: EvaluatedRun
    cases: Cases
    scores: Mapping[str, Interval]
    drawn_auc: NDArray[np.float64] | None

    @classmethod
    def of(cls, run: EvaluatedRun, cases: Cases, resampling: Resampling) -> _Measured:
        return cls(
            run,
            cases,
            {name: CASE_SCORES[name](cases, resampling) for name in SCORES},
            None if cases.is_binary else resampling.values(partial(mean_auc, cases)),
        )


def _pairs(ranked: Sequence[_Measured]) -> tuple[Pair, ...]:
    """Compare every two models, the better one first; Holm needs the p-values of all."""
    couples = list(combinations(ranked, 2))
    areas = [_auc_difference(first, second) for first, second in couples]
    mcnemars = [
        mcnemar(first.cases.are_right, second.cases.are_right, first.cases.groups)
        for first, second in couples
    ]
    adjusted = zip(holm([area.p_value for area in areas]), holm(mcnemars), strict=True)
    return tuple(
        Pair(
            first=first.run.name,
            second=second.run.name,
            auc=area,
            auc_adjusted=auc_adjusted,
            accuracy=first.scores["accuracy"].value - second.scores["accuracy"].value,
            accuracy_p=accuracy_p,
            accuracy_adjusted=accuracy_adjusted,
        )
        for (first, second), area, accuracy_p, (auc_adjusted, accuracy_adjusted) in zip(
            couples, areas, mcnemars, adjusted, strict=True
        )
    )


def _auc_difference(first: _Measured, second: _Measured) -> AucDifference:
    if first.drawn_auc is None or second.drawn_auc is None:
        of_first, of_second = first.cases.probabilities[:, 1], second.cases.probabilities[:, 1]
        return paired_difference(of_first, of_second, first.cases.labels == 1, first.cases.groups)
    drawn = first.drawn_auc - second.drawn_auc
    value, spread = first.scores["auc"].value - second.scores["auc"].value, float(np.nanstd(drawn))
    if spread == 0.0:
        return AucDifference(value, value, value, 1.0 if value == 0.0 else 0.0)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return AucDifference(value, float(low), float(high), 2.0 * float(stats.norm.sf(abs(value) / spread)))
