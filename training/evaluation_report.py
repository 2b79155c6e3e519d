"""An evaluation as rows of a table for people and as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.evaluated_run import EvaluatedRun
from training.evaluation import Evaluation, LevelScores, PointScores, evaluate, level_named
from training.froc import FALSE_MARKS
from training.intervals import CONFIDENCE, Interval
from training.localisation import (
    OTHER_WOMAN,
    RANDOM_PEAK,
    RANDOM_WEIGHTS,
    SMALLEST,
    LocalisationQuality,
)

FORMAT = 2

TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "precision, mean of classes",
    "macro_f1": "F1, mean of classes",
    "auc": "AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "log_loss": "log-loss",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "adaptive_ece": "adaptive ECE",
    "sensitivity": "sensitivity (recall)",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
}
"""What people call each number."""


OPTIONS = (
    "data_set",
    "architecture",
    "architecture_arguments",
    "mode",
    "weights_sha256",
    "rows",
    "columns",
    "folds",
    "run_folds",
    "validation_share",
    "epochs",
    "batch_size",
    "learning_rate",
    "imbalance",
    "augmentation",
    "copies",
    "seed",
)
"""Options of a run that its report shows; no place on a disk among them."""

NETWORK = "network"
LOCALISATION_HEADS = (
    "map",
    "pointing game",
    "women, in every image",
    "IoU",
    "lesions marked (mean of FROC)",
    "pointing game: network minus this",
)
MAP_TITLES = {
    NETWORK: "network",
    RANDOM_PEAK: "its values at random places",
    OTHER_WOMAN: "lesions of other women",
    RANDOM_WEIGHTS: "random weights",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One protocol of a report: a run and what was measured on it."""

    run: EvaluatedRun
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what, and a text for each column."""

    section: str
    title: str
    cells: tuple[str, ...]


def columns_of(runs: Sequence[EvaluatedRun], *, seed: int = 0) -> tuple[Column, ...]:
    """Evaluate each run.

    Raises
    ------
    EvaluationError
        If validation predictions do not belong to the test predictions.
    """
    return tuple(
        Column(run, evaluate(run.predictions, run.validation, targets=run.targets, seed=seed)) for run in runs
    )


def written(interval: Interval | None) -> str:
    """Spell a number with its interval, such as ``0.812 (0.741 to 0.870)``; undefined is a dash."""
    if interval is None or math.isnan(interval.value):
        return "–"
    if math.isnan(interval.low) or math.isnan(interval.high):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def rows(columns: Sequence[Column]) -> tuple[Row, ...]:
    """Return the table: level by level, what every column may have."""
    found: list[Row] = []
    for name in ("image", "breast", "woman"):
        levels = [level_named(column.evaluation, name) for column in columns]
        if any(level is not None for level in levels):
            found += _level_rows(name, levels)
    return tuple(found)


def _level_rows(name: str, levels: Sequence[LevelScores | None]) -> list[Row]:
    def row(title: str, cells: Sequence[str]) -> Row:
        return Row(name, title, tuple(cells))

    def of_all(key: str) -> list[str]:
        return [written(None if level is None else level.scores.get(key)) for level in levels]

    found = [
        row("cases (women)", ["–" if v is None else f"{len(v.cases.labels)} ({v.women})" for v in levels]),
        row(
            "accuracy of always answering the most frequent class",
            ["–" if v is None else f"{v.baseline:.3f} ({v.baseline_class})" for v in levels],
        ),
    ]
    present = {key for level in levels if level is not None for key in level.scores}
    found += [row(title, of_all(key)) for key, title in TITLES.items() if key in present]
    if any(level is not None and level.ece_by_chance is not None for level in levels):
        limits = [None if level is None else level.ece_by_chance for level in levels]
        found.append(
            row("adaptive ECE that chance explains", ["–" if v is None else f"up to {v:.3f}" for v in limits])
        )
    return found + _class_rows(row, levels) + _point_rows(row, levels)


def _class_rows(row: Any, levels: Sequence[LevelScores | None]) -> list[Row]:
    found = []
    names = next(tuple(c.name for c in level.classes) for level in levels if level is not None)
    for number, name in enumerate(names):
        of_class = [level.classes[number] if level is not None else None for level in levels]
        found.append(row(f"{name}: support", ["–" if c is None else str(c.support) for c in of_class]))
        of_curves = ("auc", "average_precision") if len(names) > 1 else ()
        for key in ("sensitivity", "specificity", "precision", "f1", *of_curves):
            cells = [written(None if c is None else c.scores.get(key)) for c in of_class]
            found.append(row(f"{name}: {TITLES[key]}", cells))
    return found


def _point_rows(row: Any, levels: Sequence[LevelScores | None]) -> list[Row]:
    points = [None if level is None else level.point for level in levels]
    if not any(points):
        return []
    found = [
        row(
            "operating point: threshold",
            ["–" if p is None else _thresholds(p) for p in points],
        )
    ]
    for key in ("sensitivity", "specificity", "precision", "f1"):
        cells = [written(None if p is None else p.scores.get(key)) for p in points]
        found.append(row(f"operating point: {TITLES[key]}", cells))
    return found


def _thresholds(scores: PointScores) -> str:
    values = [point.threshold for point in scores.points.values()]
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{min(values):.4f} to {max(values):.4f}, one for each fold"


def option_rows(columns: Sequence[Column]) -> list[list[str]]:
    """Return a line for each option of the runs: its name, and a text for each column."""
    found = []
    for name in OPTIONS:
        values = [column.run.options.get(name) for column in columns]
        if any(value not in (None, {}) for value in values):
            found.append([name.replace("_", " "), *(_option(value) for value in values)])
    return found


def _option(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in sorted(value.items())) or "–"
    return "–" if value is None else str(value)


def as_json(columns: Sequence[Column]) -> dict[str, Any]:
    """Return everything measured as plain JSON values; what is not defined is null."""
    return {"format": FORMAT, "confidence": CONFIDENCE, "columns": [_column_json(c) for c in columns]}


def _column_json(column: Column) -> dict[str, Any]:
    run, evaluation = column.run, column.evaluation
    return {
        "run": run.name,
        "task": evaluation.task,
        "protocol": None if run.split is None else run.split.protocol,
        "split_sha256": None if run.split is None else run.split.sha256,
        "options": {name: run.options[name] for name in OPTIONS if name in run.options},
        "warnings": list(run.warnings),
        "null_label_auc": _null_json(run),
        "localisation": None if run.localisation is None else _localisation_json(run.localisation),
        "levels": {level.name: _level_json(level) for level in evaluation.levels},
        "subgroups": [
            {
                "name": group.name,
                "value": group.value,
                "cases": group.cases,
                "women": group.women,
                "suppressed": group.is_suppressed,
                "scores": {key: _interval_json(value) for key, value in group.scores.items()},
            }
            for group in evaluation.subgroups
        ],
        "notes": list(evaluation.notes),
    }


def _null_json(run: EvaluatedRun) -> dict[str, Any] | None:
    if run.verdict is None or run.verdict.null is None:
        return None
    null = run.verdict.null
    return {"value": null.auc, "low": null.low, "high": null.high, "runs": null.runs}


def _localisation_json(quality: LocalisationQuality) -> dict[str, Any]:
    return {
        "images": quality.images,
        "women": quality.women,
        "lesions": quality.lesions,
        "is_better_than_random": quality.is_better_than_random,
        "false_marks_per_image": list(FALSE_MARKS),
        "maps": {
            name: {
                "pointing_game": _interval_json(pointing.pointing_game),
                "women": _interval_json(pointing.women),
                "iou": _interval_json(pointing.iou),
                "froc": list(pointing.froc),
                "mean_froc": _interval_json(pointing.mean_froc),
            }
            for name, pointing in ((NETWORK, quality.found), *quality.baselines.items())
        },
        "advantage": {name: _interval_json(value) for name, value in quality.advantage.items()},
    }


def localisation_rows(quality: LocalisationQuality) -> list[list[str]]:
    """Return a line for the map and one for each answer that knows nothing: :data:`LOCALISATION_HEADS`."""
    pointings = {NETWORK: quality.found, **quality.baselines}
    return [
        [
            title,
            written(pointings[name].pointing_game),
            written(pointings[name].women),
            written(pointings[name].iou),
            written(pointings[name].mean_froc),
            written(quality.advantage.get(name)),
        ]
        for name, title in MAP_TITLES.items()
    ]


def localisation_sentence(quality: LocalisationQuality) -> str:
    """Say whether the map may be shown."""
    measured = f"{quality.lesions} lesions on {quality.images} images of {quality.women} women."
    if quality.is_better_than_random:
        return f"The map points at lesions better than answers that know nothing: {measured}"
    if quality.women < SMALLEST:
        return f"The map is not to be trusted: {measured} {SMALLEST} women are the fewest."
    return f"The map is not to be trusted, it does not beat answers that know nothing: {measured}"


def _level_json(level: LevelScores) -> dict[str, Any]:
    point = level.point
    return {
        "cases": len(level.cases.labels),
        "women": level.women,
        "classes": list(level.cases.classes),
        "baseline": {"class": level.baseline_class, "accuracy": level.baseline},
        "scores": {key: _interval_json(value) for key, value in level.scores.items()},
        "ece_by_chance": level.ece_by_chance,
        "by_class": [
            {
                "class": scores.name,
                "support": scores.support,
                "scores": {key: _interval_json(value) for key, value in scores.scores.items()},
            }
            for scores in level.classes
        ],
        "confusion": [list(row) for row in level.confusion],
        "operating_point": None
        if point is None
        else {
            "folds": {
                str(fold): {
                    "threshold": of_fold.threshold,
                    "target_specificity": of_fold.target_specificity,
                    "target_sensitivity": of_fold.target_sensitivity,
                    "sensitivity_is_met": of_fold.sensitivity_is_met,
                }
                for fold, of_fold in point.points.items()
            },
            "scores": {key: _interval_json(value) for key, value in point.scores.items()},
        },
    }


def _interval_json(interval: Interval) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        "value": number(interval.value),
        "low": number(interval.low),
        "high": number(interval.high),
        "cases": interval.cases,
    }
