"""What evaluation and comparison take from the folder of a training run, after the leak guard's word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training import leak_guard, localisation, predictions, splits
from training.errors import EvaluationError, LeakError
from training.evaluation import DEFAULT_TARGETS, Targets
from training.leak_guard import GuardVerdict
from training.localisation import LocalisationQuality
from training.predictions import Predictions
from training.splits import AS_WRITTEN, SplitPlan

PREDICTIONS, SPLIT, GUARD = "predictions.csv", "split.json", "guard.json"
OVERLAYS, LOCALISATION = "overlays", "localisation.json"
_RUN, _VALIDATION = "run.json", "fold-{}/validation.csv"
_MOST_OVERLAYS, _LARGEST_OVERLAY_BYTES = 12, 4_000_000


@dataclass(frozen=True, slots=True)
class EvaluatedRun:
    """Answers whose origin is known.

    Attributes
    ----------
    name : str
        What to call it: the folder's or file's name.
    predictions : Predictions
        Of test images.
    validation : Mapping of int to Predictions
        Fold to what its network said of its validation images.
    split : SplitPlan or None
        Who was where; None for a bare table.
    verdict : GuardVerdict or None
        What the leak guard found; None for a bare table.
    overlays : tuple of Path
        Example pictures, PNG.
    localisation : LocalisationQuality or None
        What its maps are worth, where that was measured.
    training_ms : float or None
        Milliseconds that an image took in an epoch of training.
    weights_mb : float or None
        Size of a network's weights in 10^6 bytes.
    options : Mapping
        What the run was asked for; empty where nobody knows.
    """

    name: str
    predictions: Predictions
    validation: Mapping[int, Predictions] = field(default_factory=dict)
    split: SplitPlan | None = None
    verdict: GuardVerdict | None = None
    overlays: tuple[Path, ...] = ()
    localisation: LocalisationQuality | None = None
    training_ms: float | None = None
    weights_mb: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The protocol, as a column is headed."""
        if self.split is None:
            return "unknown split"
        return "as the source wrote it" if self.split.protocol == AS_WRITTEN else "split by woman"

    @property
    def targets(self) -> Targets:
        """What the run's operating points aim at."""
        return Targets(**{key: self.options[key] for key in asdict(DEFAULT_TARGETS) if key in self.options})

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the numbers may not be believed; empty where the guard let them pass."""
        if self.verdict is None:
            return ("Not guarded: nobody checked that these images were not trained on.",)
        return tuple(f"Leaks, as the source wrote it: {finding}." for finding in self.verdict.findings())


def of_table(path: Path) -> EvaluatedRun:
    """Take a bare table of predictions, whose origin nobody knows.

    Raises
    ------
    PredictionsError
        If it is no such table.
    """
    return EvaluatedRun(path.stem, predictions.read(path))


def of_folder(folder: Path) -> EvaluatedRun:
    """Take a run folder, if its leak guard lets its numbers be shown.

    Raises
    ------
    EvaluationError
        If it is no finished run, or its predictions are not those of its split.
    LeakError
        If the guard's verdict is missing, is about another split, or names leaks in a split by group.
    PredictionsError, SplitError
        If a file is damaged.
    """
    if not (folder / PREDICTIONS).is_file():
        raise EvaluationError(
            f"{folder.name or folder} holds no {PREDICTIONS}: name the folder of a finished training run, or "
            "give --predictions."
        )
    split, verdict = splits.read(folder / SPLIT), leak_guard.read(folder / GUARD)
    if (verdict.split_sha256, verdict.data_sha256) != (split.sha256, split.data_sha256):
        raise LeakError(f"{GUARD} is about another split than {SPLIT}: run the training again.")
    if split.protocol != AS_WRITTEN:
        verdict.require_clean()
    answers = predictions.read(folder / PREDICTIONS)
    _check_part(answers, split, "test")
    validation = {
        number: predictions.read(path)
        for number in sorted(set(answers.folds.tolist()))
        if (path := folder / _VALIDATION.format(number)).is_file()
    }
    for validated in validation.values():
        _check_part(validated, split, "validation")
    return EvaluatedRun(
        name=folder.resolve().name,
        predictions=answers,
        validation=validation,
        split=split,
        verdict=verdict,
        overlays=_overlays(folder / OVERLAYS),
        localisation=localisation.read(path) if (path := folder / LOCALISATION).is_file() else None,
        training_ms=_training_ms(folder),
        weights_mb=_weights_mb(folder),
        options=_options(folder / _RUN),
    )


def _check_part(answers: Predictions, split: SplitPlan, part: str) -> None:
    """Hold predictions against the split: each image in that part of its fold, with its own group."""
    if answers.task != split.task:
        raise EvaluationError(f"The {part} predictions are for {answers.task}, the split for {split.task}.")
    members = [frozenset(fold.parts()[part]) for fold in split.folds]
    for image, group, fold in zip(answers.images, answers.groups, answers.folds.tolist(), strict=True):
        if fold >= len(members) or image not in members[fold]:
            raise LeakError(f"A {part} prediction is of an image that its fold does not {_VERBS[part]}.")
        if split.groups[image] != group:
            raise LeakError(f"A {part} prediction names another woman than the split does.")


_VERBS: Mapping[str, str] = {"test": "test", "validation": "validate on"}


def _overlays(folder: Path) -> tuple[Path, ...]:
    found = [path for path in sorted(folder.glob("*.png")) if path.stat().st_size <= _LARGEST_OVERLAY_BYTES]
    return tuple(found[:_MOST_OVERLAYS])


def _training_ms(folder: Path) -> float | None:
    """Mean over the folds, from what each wrote when it was whole."""
    found = []
    for path in sorted(folder.glob("fold-*/fold.json")):
        try:
            fold = json.loads(path.read_bytes())
            found.append(1000.0 * float(fold["seconds_per_epoch"]) / float(fold["training_images"]))
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            return None
    return float(np.mean(found)) if found else None


def _options(path: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["options"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _weights_mb(folder: Path) -> float | None:
    sizes = [path.stat().st_size for path in folder.glob("fold-*/weights.safetensors")]
    return float(np.mean(sizes)) / 1e6 if sizes else None
