"""The demonstration bundle, from nothing: draw phantoms, train, calibrate, measure, pack.

``python -m training.demonstration --out FOLDER`` writes the same bytes again on the same kind of processor.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress, TimeElapsedColumn
from torch import nn

from models import bundle
from models.calibration import OperatingPoint, fit_temperature, operating_point, probabilities
from models.manifest import FORMAT, Manifest, Metric
from models.tasks import task_named
from training.datasets.phantoms import LesionKind
from training.demonstration import evaluation
from training.demonstration.cohort import Cohort, Example, draw_cohort, kinds_of_women
from training.demonstration.config import DemonstrationConfig
from training.demonstration.loop import train
from training.demonstration.split import Split, split_by_woman
from training.determinism import deterministic
from training.packaging import Release, require_empty, require_identity, write_bundle

DEFAULT_SEED = DemonstrationConfig().seed
NAME = "mammography-phantom-demonstration"
VERSION = "1.0.0"
_GOLDEN_EXAMPLES = 3
_POINTING_ENOUGH = 0.5  # lower bound; a random peak hits a lesion in 2..5 % of images
_INTENDED_USE = (
    "Demonstration of the node on made-up phantoms. Trained on synthetic images alone. Not for clinical use."
)

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was found out about the trained network."""

    temperature: float
    point: OperatingPoint
    metrics: tuple[Metric, ...]

    def named(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)


def steps(config: DemonstrationConfig) -> dict[str, int]:
    """Stages of :func:`build` with the number of times that each calls back."""
    return {
        "phantoms": 2 * config.training_women
        + 4 * (config.validation_women + config.test_women + config.benign_women),
        "training": config.localising_epochs + config.scoring_epochs,
        "evaluation": 3,
    }


def version_of(seed: int) -> str:
    """Return the version of a bundle whose version nobody states: another seed is not the released bundle."""
    return VERSION if seed == DEFAULT_SEED else f"{VERSION}+seed.{seed}"


def build(
    folder: Path, config: DemonstrationConfig, *, version: str = VERSION, advance: Advance
) -> bundle.Bundle:
    """Train the demonstration network and write its bundle.

    Parameters
    ----------
    folder : Path
        Where to; must not exist or be empty.
    config : DemonstrationConfig
        The options.
    version : str, optional
        The bundle's; ASCII, at most 64 characters.
    advance : callable
        Called with the stage's name after each step, see :func:`steps`.

    Raises
    ------
    PackagingError
        If the folder is not empty, or no bundle can have that version.
    CalibrationError
        If there are too few validation women for an operating point.
    """
    require_identity(NAME, version)
    require_empty(folder)
    count = config.training_women + config.validation_women + config.test_women
    kinds = kinds_of_women(count)
    split = split_by_woman(
        kinds, validation=config.validation_women, test=config.test_women, seed=config.seed
    )
    with deterministic():
        training = _draw(split.training, kinds, config, advance, both_breasts=False)
        validation = _draw(split.validation, kinds, config, advance)
        test = _draw(split.test, kinds, config, advance)
        benign = _draw_benign(count, config, advance)
        network = train(training.examples, config, advance=lambda: advance("training"))
        measured = _measure(network, validation, test, benign, config, advance)
        return _pack(folder, network, config, split, (training, validation, test, benign), measured, version)


def _draw(
    women: Sequence[int],
    kinds: tuple[LesionKind, ...],
    config: DemonstrationConfig,
    advance: Advance,
    *,
    both_breasts: bool = True,
) -> Cohort:
    return draw_cohort(women, kinds, config, both_breasts=both_breasts, advance=lambda: advance("phantoms"))


def _draw_benign(first: int, config: DemonstrationConfig, advance: Advance) -> Cohort:
    """Women beyond the others with benign lesions: seen in the evaluation alone."""
    lesions = [kind for kind in LesionKind if kind is not LesionKind.NORM]
    kinds = (LesionKind.NORM,) * first + tuple(lesions[i % len(lesions)] for i in range(config.benign_women))
    women = range(first, first + config.benign_women)
    return draw_cohort(
        women, kinds, config, both_breasts=True, malignant=False, advance=lambda: advance("phantoms")
    )


def _measure(
    network: nn.Module,
    validation: Cohort,
    test: Cohort,
    benign: Cohort,
    config: DemonstrationConfig,
    advance: Advance,
) -> _Measured:
    """Calibrate on the validation women; measure on the test women at the threshold found."""
    logits, _ = evaluation.run_network(network, validation.examples)
    temperature = fit_temperature(logits, [example.is_malignant for example in validation.examples])
    scores, labels = evaluation.study_scores(validation.examples, probabilities(logits, temperature))
    point = operating_point(scores, labels, specificity=config.specificity)
    advance("evaluation")

    of_images, maps = evaluation.run_network(network, test.examples)
    scores, labels = evaluation.study_scores(test.examples, probabilities(of_images, temperature))
    images = np.asarray([example.is_malignant for example in test.examples], dtype=np.bool_)
    women = np.asarray([example.woman for example in test.examples])
    is_positive = scores >= point.threshold
    advance("evaluation")

    logits, _ = evaluation.run_network(network, benign.examples)
    of_benign, _ = evaluation.study_scores(benign.examples, probabilities(logits, temperature))
    advance("evaluation")
    metrics = (
        evaluation.auc_metric(scores, labels, np.unique(women), level="study", seed=config.seed),
        evaluation.share_metric("sensitivity", "study", is_positive[labels]),
        evaluation.share_metric("specificity", "study", ~is_positive[~labels]),
        evaluation.auc_metric(of_images, images, women, level="image", seed=config.seed),
        evaluation.share_metric("pointing_game", "image", evaluation.pointing_hits(test.examples, maps)),
        evaluation.share_metric("benign_called_positive", "study", of_benign >= point.threshold),
    )
    return _Measured(temperature, point, metrics)


def _pack(
    folder: Path,
    network: nn.Module,
    config: DemonstrationConfig,
    split: Split,
    cohorts: Sequence[Cohort],
    measured: _Measured,
    version: str,
) -> bundle.Bundle:
    data = hashlib.sha256("".join(cohort.sha256 for cohort in cohorts).encode("ascii")).hexdigest()
    task = task_named("mammography_malignancy")

    def manifest(files: dict[str, str]) -> Manifest:
        return Manifest(
            format=FORMAT,
            task=task.name,
            labels=task.labels,
            manufacturer="dicom-node",
            licence="Apache-2.0",
            intended_use=_INTENDED_USE,
            demonstration=True,
            architecture="compact",
            architecture_arguments={"channels": list(config.channels)},
            preprocessing=config.preprocessing,
            temperature=measured.temperature,
            operating_points=(measured.point,),
            evidence_enabled=measured.named("pointing_game").low >= _POINTING_ENOUGH,
            training_data_sha256=data,
            split_sha256=split.sha256,
            metrics=measured.metrics,
            files=files,
        )

    golden = _golden_examples(cohorts[2].examples)
    card = _card(config, measured, data, version)
    return write_bundle(folder, network, golden, _release(version), card, manifest)


def _golden_examples(examples: Sequence[Example]) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Malignant and normal images in turn."""
    malignant = [example.tensor for example in examples if example.is_malignant]
    normal = [example.tensor for example in examples if not example.is_malignant]
    return [tensor for pair in zip(malignant, normal, strict=False) for tensor in pair][:_GOLDEN_EXAMPLES]


def _release(version: str) -> Release:
    return Release(
        name=NAME,
        version=version,
        description=_INTENDED_USE,
        authors="The dicom-node authors",
        copyright_notice="The dicom-node authors, Apache-2.0",
        changelog={version: "First release"},
    )


def _card(config: DemonstrationConfig, measured: _Measured, data: str, version: str) -> str:
    rows = "\n".join(
        f"| {m.name} | {m.level} | {m.value:.3f} | {m.low:.3f} to {m.high:.3f} | {m.cases} |"
        for m in measured.metrics
    )
    point = measured.point
    return f"""# {NAME} {version}

**Demonstration, trained on synthetic phantoms. Not for clinical use.** It has never seen an image of a
person, and says nothing about one.

## What it is
A convolutional network (`compact`, channels {", ".join(map(str, config.channels))}) that scores the four
standard mammography views one by one. A breast's score is the mean of its views, a study's the maximum of
its breasts. Its attention map is the class activation map; the image's logit is the mean of the map's highest
1 % of cells. The map marks what the network looked at, not the outline of a lesion.

## Data
Drawn by `training/datasets/phantoms.py`: {config.training_women} women for training (two views of one
breast), {config.validation_women} for calibration and {config.test_women} for the numbers below (four views).
Half of the women have a malignant lesion of one of the six kinds CALC, CIRC, SPIC, MISC, ARCH, ASYM in one
breast, the others none. The {config.benign_women} women with benign lesions were used for the last line
alone: the network was not taught to tell benign from malignant. Split by woman. Data digest `{data}`.

## Calibration
Temperature {measured.temperature:.4f}. A study is positive from {point.threshold:.4f} on: specificity
{point.target_specificity:.2f} or more with {point.confidence:.0%} confidence, chosen by order statistics on
the validation women. Sensitivity {point.target_sensitivity:.2f} with the same confidence is
{"also met" if point.sensitivity_is_met else "not assured"}.

## Measured on test women (95 % intervals)
| metric | level | value | interval | cases |
|---|---|---|---|---|
{rows}

These numbers hold for phantoms. They are no evidence for real mammograms.

## How it was made
`python -m training.demonstration`, seed {config.seed}, one CPU thread; the same kind of processor gives the
same bytes. Licence Apache-2.0.
"""


def run(folder: Path, *, seed: int = DEFAULT_SEED, version: str | None = None) -> None:
    """Build the demonstration bundle with a progress bar, and print what was measured.

    Parameters
    ----------
    folder : Path
        Where to; must not exist or be empty.
    seed : int
        Of everything random; the released bundle has the default.
    version : str, optional
        The bundle's; by default :func:`version_of` the seed.
    """
    config = DemonstrationConfig(seed=seed)
    version = version_of(seed) if version is None else version
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress:
        bars = {stage: progress.add_task(stage, total=total) for stage, total in steps(config).items()}
        built = build(folder, config, version=version, advance=lambda stage: progress.advance(bars[stage]))
        for metric in built.manifest.metrics:
            progress.console.print(
                f"{metric.name} ({metric.level}): {metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]",
                markup=False,
            )
        progress.console.print(f"{folder}: {built.digest}", markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m training.demonstration", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="new folder for the bundle")
    run(parser.parse_args(arguments).out)
