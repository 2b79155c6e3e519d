"""One fold of a finished run, read back from the run's folder: what was asked, seen, answered and trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models import architectures
from models.network_inputs import AnyParameters, parameters_class
from models.networks import ImageNetwork
from models.tasks import Task, task_named
from training import data_manifest, predictions, run_folder, splits, starting_weights
from training.errors import PackagingError
from training.fold import FoldResult, read_result, read_weights
from training.predictions import Predictions
from training.records import DataSet
from training.run_config import TrainingConfig
from training.run_folder import RunFolder
from training.splits import SplitPlan
from training.starting_weights import Seen

MADE_UP = frozenset({"phantoms"})
"""Data sets of no real person: their bundles are demonstrations."""


@dataclass(frozen=True, slots=True)
class FinishedFold:
    """What a bundle is made of.

    Attributes
    ----------
    folder : RunFolder
        The run's.
    number : int
        Which fold, 0-based.
    config : TrainingConfig
        What the run was asked for.
    task : Task
        What the network answers.
    parameters : AnyParameters
        How images reach the network.
    arguments : Mapping
        All arguments of the architecture.
    dataset : DataSet
        What the run saw.
    plan : SplitPlan
        Who was in which part.
    result : FoldResult
        Numbers of the fold.
    tested, validated : Predictions
        Answers for the fold's test and validation images.
    started_from : tuple of Seen
        What the weights know that the run started from, nearest first; empty where it used none.
    """

    folder: RunFolder
    number: int
    config: TrainingConfig
    task: Task
    parameters: AnyParameters
    arguments: Mapping[str, Any]
    dataset: DataSet
    plan: SplitPlan
    result: FoldResult
    tested: Predictions
    validated: Predictions
    started_from: tuple[Seen, ...]

    @property
    def is_made_up(self) -> bool:
        """Whether the network was trained on images of no real person."""
        return self.config.data_set in MADE_UP

    def network(self) -> ImageNetwork:
        """Return the trained network, in evaluation mode.

        Raises
        ------
        CheckpointError
            If the weights are not those that the fold gave.
        PackagingError
            If the network is of another kind.
        """
        weights = read_weights(self.folder.fold(self.number))
        network = architectures.build(self.config.architecture, self.arguments)
        network.load_state_dict(weights)
        if not isinstance(network, ImageNetwork):
            raise PackagingError(f"{self.config.architecture} is no network that can be packed.")
        return network.eval()


def read(folder: RunFolder, number: int) -> FinishedFold:
    """Read a fold back.

    Parameters
    ----------
    folder : RunFolder
        Of a finished run.
    number : int
        Which fold, 0-based.

    Raises
    ------
    PackagingError
        If the run has no fold of that number.
    TrainingError
        If the fold is not finished, or a file of it is damaged.
    """
    content = run_folder.read(folder)
    config, files = run_folder.config_of(content), folder.fold(number)
    if number not in config.trained_folds:
        raise PackagingError(f"The run has no fold {number}: its folds are 0 to {config.trained_folds[-1]}.")
    preprocessing = content["preprocessing"]
    return FinishedFold(
        folder=folder,
        number=number,
        config=config,
        task=task_named(config.task),
        parameters=parameters_class(preprocessing["version"])(**preprocessing),
        arguments=content["architecture_arguments"],
        result=read_result(files),
        dataset=data_manifest.read_manifest(folder.data),
        plan=splits.read(folder.split),
        tested=predictions.read(files.predictions),
        validated=predictions.read(files.validation),
        started_from=starting_weights.of_run(folder),
    )
