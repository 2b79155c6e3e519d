"""One fold of a run: train its network, calibrate it on the validation part, predict the test part."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from models.preprocessing import Parameters
from training import predictions
from training.answers import predictions_of, temperature_of
from training.atomic_file import write_atomically
from training.errors import CheckpointError, TrainingError
from training.examples import Examples
from training.imbalance import ClassBalance
from training.loop import Trained, predict, train
from training.material import Advance, Material
from training.modes import parse_mode
from training.networks import load_starting_weights, shift_outputs, untrained_network
from training.run_config import TrainingConfig
from training.run_folder import FoldFolder
from training.run_log import RunLog

_TRAIN_AGAIN = "remove {} and go on with the run by --resume."


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Numbers of one fold.

    Attributes
    ----------
    temperature : float
        Fitted on the validation part.
    best_epoch, epochs : int
        The epoch that was kept, 0-based, and the number of epochs that were run.
    validation_log_loss : float
        Of the epoch that was kept, before calibration.
    validation_auc : float or None
        Of the epoch that was kept; None where the validation part lacks a class.
    seconds_per_epoch : float
        Mean time of an epoch, validation included.
    training_images : int
        Size of the training part.
    weights_sha256 : str
        Hex digest of ``weights.safetensors``.
    """

    temperature: float
    best_epoch: int
    epochs: int
    validation_log_loss: float
    validation_auc: float | None
    seconds_per_epoch: float
    training_images: int
    weights_sha256: str

    @classmethod
    def of(cls, trained: Trained, temperature: float, training_images: int, weights: bytes) -> FoldResult:
        """Return the numbers of a trained network whose state is `weights`."""
        return cls(
            temperature=temperature,
            best_epoch=trained.best_epoch,
            epochs=trained.epochs,
            validation_log_loss=trained.validated.log_loss,
            validation_auc=trained.validated.auc,
            seconds_per_epoch=trained.seconds_per_epoch,
            training_images=training_images,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
        )


def run_fold(
    files: FoldFolder,
    config: TrainingConfig,
    material: Material,
    arguments: dict[str, Any],
    number: int,
    log: RunLog,
    advance: Advance,
) -> None:
    """Train the network of one fold, calibrate it on the validation part and predict the test part.

    Parameters
    ----------
    files : FoldFolder
        Where the fold's results lie; its checkpoint is gone on from.
    config : TrainingConfig
        The run's options.
    material : Material
        What the folds are made of.
    arguments : dict
        All arguments of the architecture.
    number : int
        The fold, 0-based.
    log : RunLog
        Gets an event after each epoch and one at the end.
    advance : callable
        Told of every epoch.

    Raises
    ------
    TrainingError
        If a part lacks a class, the weights do not fit, or training diverges.
    """
    examples = _examples(material, number)
    balance = ClassBalance.of(
        config.imbalance, material.labels[examples.training], len(material.task.classes)
    )
    network = untrained_network(config, arguments, material.parameters, fold=number)
    load_starting_weights(network, config)
    mode = parse_mode(config.mode)
    mode.apply(network)
    trained = train(
        network,
        examples,
        balance,
        config,
        fold=number,
        dihedral=not isinstance(material.parameters, Parameters),
        set_training=mode.set_training,
        checkpoint_file=files.checkpoint,
        log=log,
        advance=lambda epochs: advance(f"fold {number}", epochs, config.epochs),
    )
    _finish(files, material, trained, balance, examples, number)
    files.checkpoint.unlink(missing_ok=True)
    log.write("fold", fold=number, best_epoch=trained.best_epoch, epochs=trained.epochs)
    advance(f"fold {number}", config.epochs, config.epochs)


def _examples(material: Material, number: int) -> Examples:
    fold = material.plan.folds[number]
    examples = Examples(
        images=material.images,
        labels=material.labels,
        training=material.dataset.positions(fold.training),
        validation=material.dataset.positions(fold.validation),
    )
    if not len(examples.validation):
        raise TrainingError(
            "The validation part is empty: give a larger --set validation_share=, or more data."
        )
    return examples


def _finish(
    files: FoldFolder,
    material: Material,
    trained: Trained,
    balance: ClassBalance,
    examples: Examples,
    number: int,
) -> None:
    """Write what the fold gave; ``fold.json`` comes last and makes it whole."""
    network, images = trained.network, material.images
    first = torch.from_numpy(images[int(examples.training[0])][np.newaxis])
    shift_outputs(network, balance.natural_shift, first)
    validated = predict(network, images, examples.validation)
    temperature = temperature_of(validated, material.labels[examples.validation])
    test = material.dataset.positions(material.plan.folds[number].test)
    tested = predict(network, images, test)
    weights = save({name: value.contiguous() for name, value in network.state_dict().items()})
    write_atomically(files.weights, weights)
    for path, positions, outputs in (
        (files.validation, examples.validation, validated),
        (files.predictions, test, tested),
    ):
        chosen = [material.dataset.records[position] for position in positions]
        labels = material.labels[positions]
        answers = predictions_of(material.task, chosen, labels, outputs, temperature, fold=number)
        predictions.write(answers, path)
    result = FoldResult.of(trained, temperature, len(examples.training), weights)
    write_atomically(files.result, (json.dumps(asdict(result), indent=1) + "\n").encode("ascii"))


def read_weights(files: FoldFolder) -> dict[str, torch.Tensor]:
    """Return the network's state of a fold that is whole, held against the digest that the fold gave.

    Raises
    ------
    TrainingError
        If the fold is not whole.
    CheckpointError
        If the weights are gone or are others.
    """
    expected = read_result(files).weights_sha256
    try:
        content = files.weights.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{files.weights} cannot be read: {_TRAIN_AGAIN.format(files.path)}") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise CheckpointError(f"{files.weights} is not what the fold gave: {_TRAIN_AGAIN.format(files.path)}")
    return load(content)


def read_result(files: FoldFolder) -> FoldResult:
    """Return the numbers of a fold that is whole.

    Raises
    ------
    TrainingError
        If it is not.
    """
    try:
        return FoldResult(**json.loads(files.result.read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(
            f"{files.path} holds no finished fold: go on with the run by --resume."
        ) from error
