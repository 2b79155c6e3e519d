"""Whether a bundle can be made of a run: asked before an image is opened, answered with what would do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from models.errors import CalibrationError
from models.network_inputs import AnyParameters
from models.tasks import task_named
from training import finished_fold
from training.answers import predictions_of
from training.bundle_numbers import operating_point_of, scored_cases, target_predictions
from training.errors import PackagingError
from training.evaluation import Targets
from training.material import labels_of, plan_of
from training.records import DataSet
from training.run_config import TrainingConfig
from training.run_folder import RunFolder
from training.splits import BY_GROUP

_SHARES = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
_SPECIFICITIES = tuple(hundredths / 100 for hundredths in range(98, 49, -1))


def require_honest_split(config: TrainingConfig) -> None:
    """Refuse to make a bundle of a run that was split image by image.

    Raises
    ------
    PackagingError
        If it was.
    """
    if config.protocol != BY_GROUP:
        raise PackagingError(
            "A run that was split image by image has no honest number: train --protocol by_group."
        )


def require_packable(config: TrainingConfig, dataset: DataSet, parameters: AnyParameters) -> None:
    """Make sure, before anything is trained, that the first fold's network can become a bundle.

    Parameters
    ----------
    config : TrainingConfig
        The options.
    dataset : DataSet
        The records that have a class for the task; no image is opened.
    parameters : AnyParameters
        How images reach the network.

    Raises
    ------
    PackagingError
        If the split is not by woman or patient, or there are too few validation cases for an operating
        point; the message names the options that would do.
    SplitError
        If the images cannot be split as asked.
    """
    require_honest_split(config)
    if (problem := _problem(config, dataset, parameters, (0,))) is None:
        return
    shares = [{"validation_share": share} for share in _SHARES if share > config.validation_share]
    targets = [{"specificity": target} for target in _SPECIFICITIES if target < config.specificity]
    most = shares[-1:]
    ways = (
        _first(config, dataset, parameters, shares)
        or _first(config, dataset, parameters, [share | target for share in most for target in targets]),
        _first(config, dataset, parameters, targets),
        "more data",
    )
    do = ", or ".join(way for way in ways if way)
    raise PackagingError(f"No operating point, so no bundle: {problem} Train with {do}.")


def way_to_bundle(folder: RunFolder) -> str:
    """Say how a bundle is made of a finished run of which none was asked, or why none can be made.

    Raises
    ------
    TrainingError
        If the folder holds no finished run.
    """
    fold = finished_fold.read(folder, 0)
    try:
        require_honest_split(fold.config)
        operating_point_of(fold.validated, fold.task, fold.parameters, fold.config)
    except PackagingError as error:
        return f"No bundle can be made of this run. {error}"
    return f"A bundle of it: dicom-node train package {folder.path} --name NAME"


def _first(
    config: TrainingConfig,
    dataset: DataSet,
    parameters: AnyParameters,
    changes: Sequence[Mapping[str, float]],
) -> str | None:
    """Return the first changes that give every fold an operating point, as flags; None if none does."""
    for change in changes:
        if _problem(config.model_copy(update=change), dataset, parameters, config.trained_folds) is None:
            return " ".join(f"--set {option}={value:g}" for option, value in change.items())
    return None


def _problem(
    config: TrainingConfig, dataset: DataSet, parameters: AnyParameters, folds: Iterable[int]
) -> str | None:
    """Return why the networks of some folds would get no operating point; None where they would."""
    task, plan, labels = task_named(config.task), plan_of(config, dataset), labels_of(config, dataset)
    for number in folds:
        validating = set(plan.folds[number].validation)
        rows = [row for row, record in enumerate(dataset.records) if record.image in validating]
        unanswered = predictions_of(
            task,
            [dataset.records[row] for row in rows],
            labels[rows],
            np.zeros((len(rows), task.outputs)),
            temperature=1.0,
            fold=number,
        )
        cases = scored_cases(target_predictions(unanswered, task), parameters)
        try:
            Targets(config.specificity, config.sensitivity).point_on(cases)
        except CalibrationError as error:
            return str(error)
    return None
