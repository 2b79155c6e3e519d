"""The page of a source: numbers under both protocols side by side, and what is needed to get them again."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks.sources.runs import Runs
from benchmarks.sources.variants import Places, Sizes, Source
from training import levels, metrics
from training.comparison import Comparison, compare
from training.evaluated_run import EvaluatedRun
from training.evaluation import LevelScores, evaluate
from training.evaluation_report import TITLES, columns_of, rows, written
from training.intervals import Interval, Resampling, ratio
from training.material import silent
from training.predictions import Predictions
from training.run_maps import measure_maps
from training.splits import AS_WRITTEN, BY_GROUP

Array = NDArray[np.float64]

Measured = dict[str, dict[str, LevelScores]]
"""Protocol to variant to its numbers, image by image."""

_CHANCE = 0.5  # the AUC of an answer that knows nothing
_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "F1, mean of classes",
    "auc": "AUC",
    "log_loss": "log-loss",
}


def page_of(source: Source, runs: Runs, sizes: Sizes, places: Places, *, command: str, seconds: float) -> str:
    """Return the page in Markdown.

    Parameters
    ----------
    source : Source
        What was run.
    runs : Runs
        What it gave.
    sizes, places : Sizes, Places
        How it was run.
    command : str
        The exact command.
    seconds : float
        How long the epochs took.
    """
    measured: Measured = {
        protocol: {name: _images(run) for name, run in of_protocol.items()}
        for protocol, of_protocol in runs.items()
    }
    parts = [
        f"# {source.name.upper()}: {source.title}",
        f"Claimed by the source: {source.claim}.",
        "\n".join(f"* {remark}" for remark in source.remarks),
        "Counted image by image; in brackets 95 % intervals, which keep images of one woman or patient "
        "together.",
        _two_columns(source, measured),
        _learnt(measured[BY_GROUP]),
        _warnings(runs[AS_WRITTEN]),
        "## Class by class",
        _by_class(source, measured),
        "## Which of them can be told apart, split by woman or patient",
        _compared(runs[BY_GROUP]),
    ]
    if source.reference is not None:
        parts += [
            "## Imbalance and network: differences, split by patient",
            _differences(runs[BY_GROUP], measured[BY_GROUP], source.reference),
        ]
    if source.tells_all:
        first = source.variants[0].name
        folder = places.work / source.name / BY_GROUP / first
        parts += [
            f"## Everything measured on {first}",
            _everything([runs[protocol][first] for protocol in (AS_WRITTEN, BY_GROUP)]),
            "## Subgroups, split by woman or patient",
            _subgroups(runs[BY_GROUP][first]),
            "## Maps, split by woman or patient",
            _maps(folder),
        ]
    parts += ["## How it was run", _how(source, sizes, places, command, seconds)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _images(run: EvaluatedRun) -> LevelScores:
    return evaluate(run.predictions, run.validation).levels[0]


def _two_columns(source: Source, measured: Measured) -> str:
    lines = [
        "| network | number | as the source wrote it | split by woman or patient |",
        "| --- | --- | --- | --- |",
    ]
    for variant in source.variants:
        both = [measured[protocol].get(variant.name) for protocol in (AS_WRITTEN, BY_GROUP)]
        for key, title in _TITLES.items():
            cells = [written(None if level is None else level.scores.get(key)) for level in both]
            lines.append(f"| {variant.name} | {title} | {cells[0]} | {cells[1]} |")
    first = source.variants[0].name
    baselines = [measured[protocol][first].baseline for protocol in (AS_WRITTEN, BY_GROUP)]
    counts = [len(measured[protocol][first].cases.labels) for protocol in (AS_WRITTEN, BY_GROUP)]
    majority = measured[BY_GROUP][first].baseline_class
    lines.append(
        f"| always {majority!r} | accuracy | {baselines[0]:.3f} | {baselines[1]:.3f} |\n"
        f"| test images | | {counts[0]} | {counts[1]} |"
    )
    return "\n".join(lines)


def _learnt(measured: Mapping[str, LevelScores]) -> str:
    """Say which networks learnt anything at all: the numbers of the others are numbers of chance."""
    at_chance = [name for name, level in measured.items() if not level.scores["auc"].low > _CHANCE]
    one_sided = [
        name for name, level in measured.items() if np.count_nonzero(np.sum(level.confusion, axis=0)) == 1
    ]
    said = [
        "Split by woman or patient, every network is better than chance: the interval of each AUC lies above "
        "0.5."
    ]
    if at_chance:
        said = [
            "**Split by woman or patient, not shown to be better than chance** (the interval of the AUC "
            f"holds 0.5 or lies below it): {', '.join(at_chance)}. At these sizes their rows show that the "
            "runs end and what their numbers look like, and nothing about what such a network can learn."
        ]
    if one_sided:
        said.append(
            f"Called every image the same: {', '.join(one_sided)}. Their accuracy is the baseline's and "
            "their F1 no measurement; what they know of the order of images stands in the AUC."
        )
    return "\n\n".join(said)


def _by_class(source: Source, measured: Measured) -> str:
    lines = [
        "| network | class | number | as the source wrote it | split by woman or patient |",
        "| --- | --- | --- | --- | --- |",
    ]
    for variant in source.variants:
        both = [measured[protocol].get(variant.name) for protocol in (AS_WRITTEN, BY_GROUP)]
        names = [scores.name for level in both[1:] if level is not None for scores in level.classes]
        for number, name in enumerate(names):
            of_class = [None if level is None else level.classes[number] for level in both]
            supports = ["–" if scores is None else str(scores.support) for scores in of_class]
            lines.append(f"| {variant.name} | {name} | support | {' | '.join(supports)} |")
            for key in ("precision", "sensitivity", "f1"):
                cells = [written(None if scores is None else scores.scores.get(key)) for scores in of_class]
                lines.append(f"| {variant.name} | {name} | {TITLES[key]} | {' | '.join(cells)} |")
        if all(level is None or level.cases.is_binary for level in both):
            lines.append(f"| {variant.name} | both | confusion | {' | '.join(map(_confusion, both))} |")
    return "\n".join(lines)


def _confusion(level: LevelScores | None) -> str:
    """Spell a confusion matrix of two classes in one cell."""
    if level is None:
        return "–"
    return ", ".join(
        f"{row[number]} of {sum(row)} {name} right"
        for number, (name, row) in enumerate(zip(level.cases.classes, level.confusion, strict=True))
    )


def _warnings(runs: Mapping[str, EvaluatedRun]) -> str:
    run = next(iter(runs.values()))
    if not run.warnings:
        return "The leak guard found nothing in the split as the source wrote it."
    found = "\n".join(f"* {warning}" for warning in run.warnings)
    return f"What the leak guard says of the left column:\n\n{found}"


def _compared(runs: Mapping[str, EvaluatedRun]) -> str:
    if len(runs) < 2:
        return ""
    comparison: Comparison = compare(list(runs.values()), level=levels.IMAGE)
    lines = [
        "Networks that share a letter cannot be told apart by their AUC (paired, Holm).",
        "",
        "| network | AUC | letters |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {c.name} | {written(c.scores['auc'])} | {c.letters} |" for c in comparison.competitors]
    return "\n".join(lines)


def _differences(
    runs: Mapping[str, EvaluatedRun], measured: Mapping[str, LevelScores], reference: str
) -> str:
    """Compare every variant with the reference on the same images, paired, resampled by patient."""
    lines = [
        f"The first three are the network minus `{reference}` on the same images: an interval without 0 is a "
        "difference. Slope and intercept are the network's own, after its temperature: 1 and 0 where its "
        "probabilities mean what they say.",
        "",
        "| network | AUC | log-loss | log-loss before the temperature | calibration slope | intercept |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    base = runs[reference].predictions
    for name, run in runs.items():
        differences = [None] * 3 if name == reference else paired_differences(run.predictions, base)
        own = [measured[name].scores.get(f"calibration_{part}") for part in ("slope", "intercept")]
        lines.append(f"| {name} | {' | '.join(map(written, (*differences, *own)))} |")
    return "\n".join(lines)


def paired_differences(one: Predictions, other: Predictions) -> tuple[Interval, Interval, Interval]:
    """Return the difference of AUC, of log-loss, and of log-loss at temperature 1, each `one` minus `other`.

    Parameters
    ----------
    one, other : Predictions
        Of the same images in the same order, for a task with one output.
    """
    if one.images != other.images:
        raise ValueError("the two tables are of different images")
    truth = one.labels == 1
    resampling = Resampling(one.groups)

    def areas(weights: Array) -> Array:
        first, second = (metrics.weighted_auc(p.probabilities[:, 1], truth, weights) for p in (one, other))
        return np.asarray(first - second)

    def log_loss(first: Array, second: Array) -> Interval:
        lost = metrics.log_loss_parts(first, one.labels) - metrics.log_loss_parts(second, one.labels)
        return resampling.of_sums(np.column_stack([lost, np.ones(len(lost))]), ratio)

    return (
        resampling.interval(areas),
        log_loss(one.probabilities, other.probabilities),
        log_loss(_uncalibrated(one), _uncalibrated(other)),
    )


def _everything(runs: Sequence[EvaluatedRun]) -> str:
    lines = [
        "| level | number | as the source wrote it | split by woman or patient |",
        "| --- | --- | --- | --- |",
    ]
    columns = columns_of(runs)
    lines += [f"| {row.section} | {row.title} | {' | '.join(row.cells)} |" for row in rows(columns)]
    lines.append("")
    lines += [f"* {column.run.title}: {note}" for column in columns for note in column.evaluation.notes]
    return "\n".join(lines).rstrip()


def _subgroups(run: EvaluatedRun) -> str:
    lines = ["| subgroup | value | images | AUC |", "| --- | --- | --- | --- |"]
    for part in evaluate(run.predictions, run.validation).subgroups:
        auc = "too few to say" if part.is_suppressed else written(part.scores.get("auc"))
        lines.append(f"| {part.name} | {part.value} | {part.cases} | {auc} |")
    return "\n".join(lines)


def _maps(folder: Path) -> str:
    found = measure_maps(folder, advance=silent)
    verdict = "better than" if found.is_better_than_random else "not shown to be better than"
    lines = [
        f"{found.images} images with malignant lesions of {found.women} women. The map is {verdict} all "
        "three answers that know nothing.",
        "",
        "| map | pointing game | women, in every image | intersection over union |",
        "| --- | --- | --- | --- |",
    ]
    for name, pointing in {"the network's": found.found, **found.baselines}.items():
        title = name.replace("_", " ")
        cells = map(written, (pointing.pointing_game, pointing.women, pointing.iou))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _uncalibrated(predictions: Predictions) -> Array:
    positive = special.expit(predictions.logits[:, 0])
    return np.column_stack([1.0 - positive, positive])


def _how(source: Source, sizes: Sizes, places: Places, command: str, seconds: float) -> str:
    rests = [variant.name for variant in source.variants if variant.rests_on_weights]
    lines = [
        f"`{command}`",
        "",
        f"* Grid {sizes.side} x {sizes.side}, at most {sizes.epochs} epochs, {sizes.run_folds} of "
        f"{sizes.folds} folds, batches of {sizes.batch_size}, seed {sizes.seed}: sizes that end in "
        "minutes on a small machine. Larger ones are flags of the command.",
        f"* {seconds / 60:.0f} minutes of epochs, {sizes.threads} thread(s), device "
        f"{sizes.device}, {platform.machine()}, {_processor()}; written on {date.today().isoformat()}.",
    ]
    first = source.variants[0].name
    honest, other = (f"WORK/{source.name}/{protocol}/{first}" for protocol in (BY_GROUP, AS_WRITTEN))
    lines.append(
        "* Curves and confusion matrices as pictures, here of the first network: "
        f"`dicom-node evaluate {honest} --beside {other} --out REPORT`."
    )
    if rests and not places.weights:
        lines.append(
            f"* No pretrained ImageNet weights were at hand, so {', '.join(rests)} started from random ones: "
            "their numbers say nothing about the pretrained networks that the source used. "
            "`--weights NAME=FILE --sha256 NAME=DIGEST` takes published ones."
        )
    if places.weights:
        lines.append(f"* Published weights: {', '.join(sorted(places.weights))}.")
    return "\n".join(lines)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
