"""The model card of a run's bundle: what it is, what it saw, what it is worth, in words and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from models.calibration import OperatingPoint
from models.manifest import Metric
from training.bundle_numbers import BundleNumbers
from training.evaluation import Evaluation
from training.finished_fold import FinishedFold
from training.fold import FoldResult
from training.localisation import RANDOM_WEIGHTS, LocalisationQuality


def model_card(
    name: str,
    version: str,
    fold: FinishedFold,
    numbers: BundleNumbers,
    *,
    licence: str,
    intended_use: str,
) -> str:
    """Write the card in Markdown.

    Parameters
    ----------
    name, version : str
        Of the bundle.
    fold : FinishedFold
        Whose network it is.
    numbers : BundleNumbers
        What was measured on it.
    licence, intended_use : str
        As in the manifest.
    """
    parts = [
        f"# {name} {version}",
        "**Demonstration, trained on made-up images. Not for clinical use.**"
        if fold.is_made_up
        else f"**{intended_use}**",
        _what(fold),
        _data(fold),
        _calibration(fold.result, numbers.point),
        _measured(numbers.metrics),
        _subgroups(numbers.evaluation),
        _map(numbers.localisation),
        _made(fold, licence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(fold: FinishedFold) -> str:
    config, task, parameters = fold.config, fold.task, fold.parameters
    given = ", ".join(f"{key} {value}" for key, value in sorted(config.architecture_arguments.items()))
    start = ", these from ".join(
        f"weights with the digest `{one.weights_sha256}`" for one in fold.started_from
    )
    sees = ", ".join(f"{key} {value}" for key, value in asdict(parameters).items() if key != "version")
    return (
        "## What it is\n"
        f"{task.title}: a network `{config.architecture}`{f' ({given})' if given else ''}, mode "
        f"{config.mode}. Started from {start or 'random weights'}. Its input is made by "
        f"`{parameters.version}` ({sees}). Classes: {', '.join(task.classes)}; a case is positive for "
        f"{task.target}."
    )


def _data(fold: FinishedFold) -> str:
    classes, plan = fold.task.classes, fold.plan
    labels = {record.image: record.labels[fold.task.name] for record in fold.dataset.records}
    rows = []
    for part, images in plan.folds[fold.number].parts().items():
        counts = Counter(labels[image] for image in images)
        groups = len({plan.groups[image] for image in images})
        rows.append(f"| {part} | {groups} | {len(images)} | " + " | ".join(str(counts[c]) for c in classes))
    notes = "\n".join(f"* {note}" for note in fold.dataset.notes)
    return (
        f"## Data\nData set `{fold.config.data_set}`, split by woman or patient; fold {fold.number} of "
        f"{fold.config.folds}. Images by part:\n\n"
        f"| part | women or patients | images | {' | '.join(classes)} |\n"
        f"|---|---|---|{'---|' * len(classes)}\n"
        + " |\n".join(rows)
        + " |"
        + (f"\n\n{notes}" if notes else "")
    )


def _calibration(result: FoldResult, point: OperatingPoint) -> str:
    met = "also met" if point.sensitivity_is_met else "not assured"
    return (
        f"## Calibration\nTemperature {result.temperature:.4f}, fitted on the validation part. Positive from "
        f"{point.threshold:.4f} on: specificity {point.target_specificity:.2f} or more with "
        f"{point.confidence:.0%} confidence for cases like the validation cases, chosen by order "
        f"statistics. Sensitivity {point.target_sensitivity:.2f} with the same confidence is {met}. The "
        "threshold belongs to this bundle alone."
    )


def _measured(metrics: Sequence[Metric]) -> str:
    rows = "\n".join(
        f"| {m.name} | {m.level} | {m.value:.3f} | {m.low:.3f} to {m.high:.3f} | {m.cases} |" for m in metrics
    )
    return (
        "## Measured on the test part (95 % intervals)\n| metric | level | value | interval | cases |\n"
        f"|---|---|---|---|---|\n{rows}"
    )


def _subgroups(evaluation: Evaluation) -> str:
    if not evaluation.subgroups:
        return ""
    rows = []
    for part in evaluation.subgroups:
        accuracy = part.scores.get("accuracy")
        told = (
            "too few to say"
            if part.is_suppressed or accuracy is None
            else f"{accuracy.value:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f})"
        )
        rows.append(f"| {part.name} | {part.value} | {part.cases} | {told} |")
    return "## Subgroups\n| subgroup | value | images | accuracy |\n|---|---|---|---|\n" + "\n".join(rows)


def _map(localisation: LocalisationQuality | None) -> str:
    if localisation is None:
        return "## Map\nNo map is shown: it was not held against drawn lesions."
    found, untrained = localisation.found, localisation.baselines[RANDOM_WEIGHTS]
    game, women = found.pointing_game, found.women
    shown = "It is shown." if localisation.is_better_than_random else "It is not shown."
    return (
        f"## Map\nThe map's peak lies in {game.value:.3f} ({game.low:.3f} to {game.high:.3f}) of "
        f"{localisation.images} images with lesions; with random weights in "
        f"{untrained.pointing_game.value:.3f}. It lies in a lesion in every such image of {women.value:.3f} "
        f"({women.low:.3f} to {women.high:.3f}) of {localisation.women} women; with random weights of "
        f"{untrained.women.value:.3f}. {shown}"
    )


def _made(fold: FinishedFold, licence: str) -> str:
    config, result = fold.config, fold.result
    return (
        f"## How it was made\nSeed {config.seed}, {result.epochs} epochs of at most {config.epochs}, epoch "
        f"{result.best_epoch} kept; imbalance: {config.imbalance}; augmentation "
        f"{config.augmentation}. Data digest `{fold.dataset.sha256}`, split "
        f"digest `{fold.plan.sha256}`; `split.json` names images by digest alone. "
        f"Golden inputs are noise: no image of a person is in the bundle. Licence: {licence}."
    )
