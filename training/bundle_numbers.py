"""The numbers that a bundle states: its threshold, and what its network was worth on images it never saw.

Numbers of other folds are other networks': they are in the run's report, not in the bundle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

import numpy as np

from models.calibration import OperatingPoint
from models.class_scores import target_logits
from models.errors import CalibrationError
from models.manifest import Metric, SubgroupMetric
from models.network_inputs import AnyParameters
from models.networks import ImageNetwork
from models.preprocessing import Parameters
from models.tasks import Task
from training import levels
from training.cache import PreparedImages
from training.errors import PackagingError
from training.evaluation import Evaluation, Targets, evaluate
from training.finished_fold import FinishedFold
from training.intervals import Resampling
from training.levels import Cases
from training.localisation import LocalisationQuality
from training.material import Advance
from training.network_maps import localisation_of
from training.networks import untrained_network
from training.predictions import Predictions
from training.run_config import TrainingConfig

_TOLD = ("auc", "accuracy", "balanced_accuracy", "macro_f1", "average_precision", "brier", "log_loss")


@dataclass(frozen=True, slots=True)
class BundleNumbers:
    """What was measured on exactly one network.

    Attributes
    ----------
    point : OperatingPoint
        The threshold, chosen on the fold's validation part.
    evaluation : Evaluation
        Of the fold's test part, with subgroups and notes.
    metrics : tuple of Metric
        Those of them that the manifest states, sensitivity and specificity at the threshold, and in how many
        women the map points at every image's lesion.
    localisation : LocalisationQuality or None
        Whether the map points at lesions; None where no lesions were drawn.
    """

    point: OperatingPoint
    evaluation: Evaluation
    metrics: tuple[Metric, ...]
    localisation: LocalisationQuality | None

    @property
    def subgroups(self) -> tuple[SubgroupMetric, ...]:
        """The metrics of each subgroup that are numbers."""
        return tuple(
            SubgroupMetric(
                part.name, part.value, name, levels.IMAGE, found.value, found.low, found.high, found.cases
            )
            for part in self.evaluation.subgroups
            for name, found in part.scores.items()
            if all(map(isfinite, (found.value, found.low, found.high)))
        )

    @property
    def map_is_shown(self) -> bool:
        """Whether readers see the map: only one that points at lesions better than chance."""
        return self.localisation is not None and self.localisation.is_better_than_random


def measure(fold: FinishedFold, network: ImageNetwork, advance: Advance) -> BundleNumbers:
    """Choose the threshold, and measure the network on its fold's test part.

    Parameters
    ----------
    fold : FinishedFold
        With its answers.
    network : ImageNetwork
        The fold's, in evaluation mode.
    advance : callable
        Told how far it is.

    Raises
    ------
    PackagingError
        If there are too few validation cases for an operating point.
    """
    point = operating_point_of(fold.validated, fold.task, fold.parameters, fold.config)
    localisation = _localisation(fold, network, advance)
    evaluation = evaluate(fold.tested, seed=fold.config.seed)
    cases = scored_cases(target_predictions(fold.tested, fold.task), fold.parameters)
    metrics = (
        *_metrics_of_levels(evaluation),
        *_metrics_at(point, cases, fold.config.seed),
        *_metrics_of_map(localisation),
    )
    return BundleNumbers(point, evaluation, metrics, localisation)


def operating_point_of(
    validated: Predictions, task: Task, parameters: AnyParameters, config: TrainingConfig
) -> OperatingPoint:
    """Choose the threshold on validation cases: women for whole breasts, images for regions and patches.

    Parameters
    ----------
    validated : Predictions
        Answers for validation images.
    task : Task
        Decides which classes are positive.
    parameters : AnyParameters
        Their kind decides what a case is.
    config : TrainingConfig
        Holds the wanted specificity and sensitivity.

    Raises
    ------
    PackagingError
        If there are too few of them.
    """
    cases = scored_cases(target_predictions(validated, task), parameters)
    try:
        return Targets(config.specificity, config.sensitivity).point_on(cases)
    except CalibrationError as error:
        raise PackagingError(
            f"No operating point: {error} Train with a larger --set validation_share=, a lower "
            "--set specificity=, or more data."
        ) from error


def target_predictions(given: Predictions, task: Task) -> Predictions:
    """Return predictions of two classes: the task's target against nothing.

    Those of a task with one output are returned as they are. With several, everything but the negative class
    is the target, as in scoring.
    """
    if task.outputs == 1:
        return given
    negative = task.classes.index(str(task.negative_class))
    nothing = given.probabilities[:, negative]
    return Predictions(
        task=given.task,
        classes=(str(task.negative_class), f"not {task.negative_class}"),
        images=given.images,
        groups=given.groups,
        breasts=given.breasts,
        labels=(given.labels != negative).astype(np.int64),
        logits=target_logits(given.logits, task)[:, np.newaxis],
        probabilities=np.column_stack([nothing, 1.0 - nothing]),
        folds=given.folds,
        subgroups=given.subgroups,
    )


def scored_cases(of_target: Predictions, parameters: AnyParameters) -> Cases:
    """Return the cases that a threshold decides about: what scoring calls a study, or an image."""
    counted = levels.women(of_target) if isinstance(parameters, Parameters) else levels.images(of_target)
    return counted if counted is not None else levels.images(of_target)


def _localisation(fold: FinishedFold, network: ImageNetwork, advance: Advance) -> LocalisationQuality | None:
    """Hold the network's map against the drawn lesions of its test images, where any are known."""
    dataset, config = fold.dataset, fold.config
    if not any(record.lesions for record in dataset.records):
        return None
    images = PreparedImages(
        dataset,
        fold.parameters,
        fold.folder.prepared(config.cache),
        advance=lambda done, total: advance("preparing", done, total),
    )
    untrained = untrained_network(config, fold.arguments, fold.parameters, fold=fold.number)
    positions = dataset.positions(fold.tested.images)
    return localisation_of(network, untrained, fold.task, images, positions)


def _metrics_of_levels(evaluation: Evaluation) -> Iterable[Metric]:
    for level in evaluation.levels:
        for name in _TOLD:
            found = level.scores.get(name)
            if found is not None and all(map(isfinite, (found.value, found.low, found.high))):
                yield Metric(name, level.name, found.value, found.low, found.high, found.cases)


def _metrics_at(point: OperatingPoint, cases: Cases, seed: int) -> Iterable[Metric]:
    called, truth = cases.probabilities[:, 1] >= point.threshold, cases.labels == 1
    # Patches and regions of one woman resemble each other: she is what is drawn again, not they.
    resampling = Resampling(cases.groups, seed=seed)
    for name, hits, among in (("sensitivity", called, truth), ("specificity", ~called, ~truth)):
        if among.any():
            share = resampling.share(hits, among)
            yield Metric(name, cases.level, share.value, share.low, share.high, share.cases)


def _metrics_of_map(localisation: LocalisationQuality | None) -> Iterable[Metric]:
    """Tell of women what the manifest's verdict tells of images."""
    if localisation is not None:
        found = localisation.found.women
        yield Metric("pointing_game", levels.WOMAN, found.value, found.low, found.high, found.cases)
