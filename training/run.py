"""A whole training run: read, prepare, split, guard against leaks, train fold by fold, join the answers.

Everything that it leaves lies in one folder. Killed at any moment and started again with the same options, it
goes on and ends with the same bytes: a fold is whole once its ``fold.json`` is there, an epoch once the
checkpoint is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.network_inputs import AnyParameters
from models.tasks import task_named
from training import leak_guard, predictions, run_folder, starting_weights
from training.answers import joined
from training.data_manifest import write_manifest
from training.determinism import deterministic
from training.errors import TrainingError
from training.fold import run_fold
from training.loop import device_of
from training.material import Advance, Material, assemble, parameters_of, read_records
from training.networks import fitting_network, full_arguments, load_starting_weights
from training.packable import require_packable
from training.resources import needs_of, require
from training.run_config import TrainingConfig
from training.run_folder import RunFolder, RunIdentity
from training.run_log import RunLog
from training.starting_weights import Seen


def run(
    config: TrainingConfig, path: Path, *, resume: bool, advance: Advance, to_pack: bool = False
) -> RunFolder:
    """Train what `config` asks for into a folder.

    Parameters
    ----------
    config : TrainingConfig
        The options.
    path : Path
        The run folder; empty or not there, unless `resume`.
    resume : bool
        Whether to go on with what lies in the folder.
    advance : callable
        Told how far the run is.
    to_pack : bool, optional
        Whether a bundle shall be made of it, so that a run of which none can be made does not start.

    Returns
    -------
    RunFolder
        With predictions of all folds; report and bundle are made from it.

    Raises
    ------
    TrainingError
        If the data, the options or this machine do not allow the run, no bundle could be made of it though
        one is asked for, or the split leaks.
    """
    folder = RunFolder(path)
    if not resume and folder.is_begun:
        raise TrainingError(f"{path} is not empty: give --resume to go on with it, or another --out.")
    device = device_of(config)
    with (
        folder.at_work(),
        deterministic(config.threads, strict=device.type == "cpu"),
        RunLog(folder.log, tensorboard=path / "tensorboard" if config.tensorboard else None) as log,
    ):
        # What cannot end well is refused before images are prepared for hours.
        run_folder.require_options(folder, config)
        whole = read_records(config, advance)
        parameters = parameters_of(config, whole)
        if to_pack:
            require_packable(config, whole, parameters)
        arguments = _arguments(config, parameters)
        require(needs_of(config, arguments, parameters, len(whole.records)), path, device)
        chain = _starting_weights(config, arguments, parameters)

        material = assemble(config, folder, whole, parameters, advance)
        if to_pack and config.leave_out_unusable:
            require_packable(config, material.dataset, parameters)
        _begin(folder, config, arguments, material)
        if chain:
            starting_weights.write(chain, folder)
        _guard(folder, config, material, chain, advance)

        log.write("started", options=config.result_options)
        for number in config.trained_folds:
            files = folder.fold(number)
            if not files.result.exists():
                run_fold(files, config, material, arguments, number, log, advance)
            files.checkpoint.unlink(missing_ok=True)
        _join(folder, config)
        log.write("finished")
    return folder


def _arguments(config: TrainingConfig, parameters: AnyParameters) -> dict[str, Any]:
    task = task_named(config.task)
    return full_arguments(config.architecture, config.architecture_arguments, task, parameters)


def _starting_weights(
    config: TrainingConfig, arguments: Mapping[str, Any], parameters: AnyParameters
) -> tuple[Seen, ...]:
    """Try them in a network that is thrown away; return whom they know, see :mod:`training.starting_weights`.

    Each fold loads them into its own network.
    """
    if config.weights is None or config.weights_sha256 is None:
        return ()
    load_starting_weights(fitting_network(config.architecture, arguments, parameters), config)
    return starting_weights.seen_by(config.weights, config.weights_sha256)


def _begin(
    folder: RunFolder, config: TrainingConfig, arguments: Mapping[str, Any], material: Material
) -> None:
    """Write what the run is, of which images and in which parts; refuse the folder of another run."""
    dataset, plan = material.dataset, material.plan
    identity = RunIdentity(config, arguments, asdict(material.parameters), dataset.sha256, plan.sha256)
    run_folder.start(folder, identity)
    write_manifest(dataset, folder.data)
    plan.write(folder.split)


def _guard(
    folder: RunFolder, config: TrainingConfig, material: Material, chain: Sequence[Seen], advance: Advance
) -> None:
    """Let the leak guard look at the split; a split by group that leaks ends the run."""
    total = len(material.images)

    def pixels(row: int) -> NDArray[np.float32]:
        advance("guarding", row + 1, total)
        return material.images[row]

    leak_guard.guard(material.plan, material.dataset, pixels, seen=chain, run_folds=config.run_folds).write(
        folder.guard
    )
    advance("guarding", total, total)


def _join(folder: RunFolder, config: TrainingConfig) -> None:
    """Write the answers for the test images of all folds as one table."""
    folds = [folder.fold(number) for number in config.trained_folds]
    predictions.write(joined([predictions.read(fold.predictions) for fold in folds]), folder.predictions)
