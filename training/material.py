"""What the folds of a run are made of: labelled images on the network's grid, and who is in which part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.lesion_regions import RegionParameters
from models.network_inputs import AnyParameters
from models.patches import PatchParameters
from models.preprocessing import Parameters
from models.tasks import Task, task_named
from training import datasets, run_folder, splits
from training.cache import PreparedImages
from training.errors import CheckpointError, TrainingError
from training.examples import Images, OrientedImages
from training.records import DataSet
from training.run_config import TrainingConfig
from training.run_folder import RunFolder
from training.splits import SplitPlan

Advance = Callable[[str, int, int], None]
"""Called with a stage's name, such as ``"preparing"`` or ``"fold 0"``, the steps done and all steps."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody how far a run is."""


@dataclass(frozen=True, slots=True)
class Material:
    """What folds are made of.

    Attributes
    ----------
    task : Task
        The task.
    dataset : DataSet
        The records that have a class for it; copies among them where the protocol makes some.
    parameters : AnyParameters
        How images reach the network.
    images : Images
        Prepared images, one for each record.
    labels : numpy.ndarray
        ``(n,)`` int64 index of each record's class.
    plan : SplitPlan
        Who is in which part.
    """

    task: Task
    dataset: DataSet
    parameters: AnyParameters
    images: Images
    labels: NDArray[np.int64]
    plan: SplitPlan


def parameters_of(config: TrainingConfig, dataset: DataSet) -> AnyParameters:
    """Return how images reach the network: patches of slides, marked regions, or whole breasts.

    Raises
    ------
    TrainingError
        If some records have a region and some have none.
    """
    if task_named(config.task).slides is not None:
        return PatchParameters(rows=config.rows, columns=config.columns)
    have_regions = {record.region is not None for record in dataset.records}
    if len(have_regions) > 1:
        raise TrainingError("Some images have a marked region and some have none: choose one kind.")
    if have_regions == {True}:
        return RegionParameters(rows=config.rows, columns=config.columns)
    return Parameters(rows=config.rows, columns=config.columns, pixel_mm=config.pixel_mm)


def material_of(folder: RunFolder, advance: Advance) -> tuple[TrainingConfig, Material]:
    """Return options and material of a run that lies in a folder, as they were when it was trained.

    Raises
    ------
    TrainingError
        If the folder holds no run, or the data set has changed since.
    """
    content = run_folder.read(folder)
    config = run_folder.config_of(content)
    whole = read_records(config, advance)
    material = assemble(config, folder, whole, parameters_of(config, whole), advance)
    if material.dataset.sha256 != content["data_sha256"]:
        raise CheckpointError("The data set has changed since the run: train again.")
    return config, material


def read_records(config: TrainingConfig, advance: Advance) -> DataSet:
    """Read the data set's records that have a class for the run's task.

    Raises
    ------
    TrainingError
        If the folder is not as it must be, or nothing in it is labelled with one of the task's classes.
    """
    whole = datasets.read(
        config.data_set,
        config.data_folder,
        lambda done, total: advance("reading", done, total),
        **config.data_options,
    ).for_task(config.task)
    if not whole.records:
        raise TrainingError(f"{config.data_set} has no image with a class for {config.task}.")
    found = {record.labels[config.task] for record in whole.records}
    if missing := [name for name in task_named(config.task).classes if name not in found]:
        raise TrainingError(
            f"No image of {config.data_set} is labelled {', '.join(missing)}: a network for {config.task} "
            "learns from images of every class."
        )
    return whole


def assemble(
    config: TrainingConfig, folder: RunFolder, whole: DataSet, parameters: AnyParameters, advance: Advance
) -> Material:
    """Prepare the images of records on disk, and split them.

    Parameters
    ----------
    config : TrainingConfig
        The run's options.
    folder : RunFolder
        Holds the prepared images, unless the options name a shared cache.
    whole : DataSet
        The records that have a class for the run's task.
    parameters : AnyParameters
        How images reach the network.
    advance : callable
        Told of each image that is prepared.

    Raises
    ------
    TrainingError
        If an image cannot be prepared, or the images cannot be split as asked.
    """
    task = task_named(config.task)
    prepared = PreparedImages(
        whole,
        parameters,
        folder.prepared(config.cache),
        processes=max(1, config.workers),
        advance=lambda done, total: advance("preparing", done, total),
        leave_out_unusable=config.leave_out_unusable,
    )
    dataset = prepared.data_set
    images: Images = prepared
    if config.copies > 1:
        images, dataset = OrientedImages(prepared, config.copies), _copied(dataset, config.copies)
    return Material(task, dataset, parameters, images, labels_of(config, dataset), plan_of(config, dataset))


def plan_of(config: TrainingConfig, dataset: DataSet) -> SplitPlan:
    """Split records as a run asks for it.

    Raises
    ------
    TrainingError
        If they cannot be split so.
    """
    return splits.plan(
        dataset,
        config.task,
        folds=config.folds,
        validation_share=config.validation_share,
        seed=config.seed,
        protocol=config.protocol,
        official=config.official_test,
    )


def labels_of(config: TrainingConfig, dataset: DataSet) -> NDArray[np.int64]:
    """Return the ``(n,)`` index of each record's class for the run's task."""
    index = {name: number for number, name in enumerate(task_named(config.task).classes)}
    return np.asarray([index[record.labels[config.task]] for record in dataset.records], dtype=np.int64)


def _copied(dataset: DataSet, copies: int) -> DataSet:
    records = tuple(
        replace(record, image=f"{record.image}#copy{number}")
        for record in dataset.records
        for number in range(copies)
    )
    return DataSet(dataset.name, records, (*dataset.notes, f"{copies} orientations of each image."))
