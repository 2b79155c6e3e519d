"""The training loop. It reads top to bottom: an epoch of steps, a look at the validation part, a checkpoint.

What is kept is the moving average of the weights after the epoch with the best validation score. On the CPU
the same options give the same bytes, also where the run was killed and went on from its checkpoint: every
epoch starts from a seed of its own, and a checkpoint holds all that one epoch leaves to the next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.networks import ImageNetwork
from training import checkpoint
from training.augmentation import Augmentation
from training.determinism import seed_torch
from training.errors import TrainingError
from training.examples import Examples, Images, plain_batches, training_batches
from training.imbalance import ClassBalance
from training.run_config import TrainingConfig
from training.run_log import RunLog
from training.standing import Standing
from training.validation import Validated, validate

SetTraining = Callable[[ImageNetwork], object]
"""Puts a network into training mode, parts that are not trained excepted."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network.

    Attributes
    ----------
    network : ImageNetwork
        In evaluation mode, on the CPU.
    best_epoch, epochs : int
        The epoch that was kept and the number of epochs that were run; the first epoch is 0.
    validated : Validated
        Scores of the epoch that was kept.
    seconds_per_epoch : float
        Mean time of an epoch of this process, validation included; 0 where none was left to run.
    """

    network: ImageNetwork
    best_epoch: int
    epochs: int
    validated: Validated
    seconds_per_epoch: float


def train(
    network: ImageNetwork,
    examples: Examples,
    balance: ClassBalance,
    config: TrainingConfig,
    *,
    fold: int,
    dihedral: bool,
    set_training: SetTraining,
    checkpoint_file: Path,
    log: RunLog,
    advance: Callable[[int], None],
) -> Trained:
    """Train a network on one fold, from its checkpoint where there is one.

    Parameters
    ----------
    network : ImageNetwork
        With its first weights; parameters that do not require gradients stay as they are.
    examples : Examples
        The fold's images.
    balance : ClassBalance
        The loss and the order of cases.
    config : TrainingConfig
        The run's options.
    fold : int
        Its number, 0-based.
    dihedral : bool
        Whether augmentation may turn images by right angles, see :class:`Augmentation`.
    set_training : callable
        Puts the network into training mode.
    checkpoint_file : Path
        Where the fold's checkpoint lies; written after each epoch.
    log : RunLog
        Gets an event after each epoch.
    advance : callable
        Told after each epoch how many are done, those before the checkpoint among them.

    Raises
    ------
    TrainingError
        If the loss is no longer finite.
    CheckpointError
        If the checkpoint cannot be gone on from.
    """
    standing = _standing(network, config, checkpoint_file, fold, log)
    epochs = _Epochs(examples, balance, _augmentation(examples, config, dihedral=dihedral), config, fold)
    started, first = time.monotonic(), standing.progress.epoch
    while not standing.is_finished(config):
        set_training(standing.network)
        told = epochs.take(standing)
        standing.to_checkpoint(fold).write(checkpoint_file)
        log.write("epoch", fold=fold, **told)
        advance(standing.progress.epoch)
    seconds = time.monotonic() - started
    return _kept(standing, seconds_per_epoch=seconds / max(1, standing.progress.epoch - first))


def _standing(
    network: ImageNetwork, config: TrainingConfig, checkpoint_file: Path, fold: int, log: RunLog
) -> Standing:
    """Return where the fold stands: at its checkpoint, or at its beginning."""
    standing = Standing(network, config, device_of(config))
    saved = checkpoint.read(checkpoint_file)
    if saved is not None:
        standing.go_on_from(saved)
        log.write("resumed", fold=fold, epoch=standing.progress.epoch)
    return standing


def _augmentation(examples: Examples, config: TrainingConfig, *, dihedral: bool) -> Augmentation:
    _, rows, columns = examples.images[int(examples.training[0])].shape
    return Augmentation(config.augmentation, (rows, columns), dihedral=dihedral)


def _kept(standing: Standing, *, seconds_per_epoch: float) -> Trained:
    """Return the average of the weights as it was after the best epoch."""
    progress = standing.progress
    standing.average.load_state_dict(standing.best)
    return Trained(
        network=standing.average.to("cpu"),
        best_epoch=progress.best_epoch,
        epochs=progress.epoch,
        validated=Validated(progress.best_log_loss, progress.best_auc),
        seconds_per_epoch=seconds_per_epoch,
    )


@dataclass(frozen=True, slots=True)
class _Epochs:
    """The epochs of one fold: what is the same in all of them."""

    examples: Examples
    balance: ClassBalance
    augmentation: Augmentation
    config: TrainingConfig
    fold: int

    def take(self, standing: Standing) -> dict[str, Any]:
        """Train for one more epoch and look at the validation part; return what the log tells of it."""
        epoch = standing.progress.epoch
        loss, rate = self.train(standing)
        validated = self.validate(standing)
        standing.end_epoch(validated, self.config)
        return {
            "epoch": epoch,
            "training_loss": loss,
            "log_loss": validated.log_loss,
            "auc": validated.auc,
            "learning_rate": rate,
            "best_epoch": standing.progress.best_epoch,
        }

    def train(self, standing: Standing) -> tuple[float, float]:
        """Take the steps of the next epoch; return the mean loss and the last learning rate."""
        epoch = standing.progress.epoch
        seed = (self.config.seed, self.fold, epoch)
        # Drop-out draws from torch's own state: an epoch's own seed makes it independent of what came before.
        seed_torch(seed)
        batches = training_batches(
            self.examples,
            self.balance,
            self.augmentation,
            batch_size=self.config.batch_size,
            seed=seed,
            workers=self.config.workers,
        )
        steps, rate, total = len(batches), 0.0, 0.0
        for step, (images, labels) in enumerate(batches, start=epoch * steps):
            rate = learning_rate(step, self.config.epochs * steps, self.config)
            decay = min(self.config.average, (1 + step) / (10 + step))
            total += self._step(standing, images, labels, rate=rate, decay=decay)
        if not math.isfinite(total):
            raise TrainingError(
                f"The loss of fold {self.fold} is no longer finite in epoch {epoch}: train with a lower "
                "--learning-rate."
            )
        return total / steps, rate

    def validate(self, standing: Standing) -> Validated:
        """Hold the average of the weights against the validation part."""
        positions = self.examples.validation
        outputs = predict(standing.average, self.examples.images, positions)
        return validate(outputs, self.examples.labels[positions], self.balance)

    def _step(
        self, standing: Standing, images: torch.Tensor, labels: torch.Tensor, *, rate: float, decay: float
    ) -> float:
        """Learn from one batch, and let the average of the weights follow; return the loss."""
        for group in standing.optimiser.param_groups:
            group["lr"] = rate
        standing.optimiser.zero_grad()
        loss = self._loss(standing, images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        standing.optimiser.step()
        _follow(standing.average, standing.network, decay)
        return float(loss.detach())

    def _loss(self, standing: Standing, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        device = standing.device
        with _precision(self.config, device):
            answers = standing.network.training_answers(images.to(device, memory_format=torch.channels_last))
        return sum(
            (weight * self.balance.loss(outputs, labels.to(device)) for outputs, weight in answers),
            start=torch.zeros((), device=device),
        )


def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """Rise linearly over the warm-up, then fall along half a cosine to 0 at `steps`."""
    rise = config.warm_up * steps
    if step < rise:
        return config.learning_rate * (step + 1) / (rise + 1)
    done = (step - rise) / max(1.0, steps - rise)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average a step towards the network; counters are copied."""
    values = network.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(values[name], 1.0 - decay)
        else:
            value.copy_(values[name])


def predict(network: nn.Module, images: Images, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the raw outputs ``(n, k)`` of a network in evaluation mode for the images at `positions`."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        outputs = [
            network(batch.to(device, memory_format=torch.channels_last))[0].float().cpu().numpy()
            for batch in plain_batches(images, positions)
        ]
    return np.concatenate(outputs).astype(np.float64)


def device_of(config: TrainingConfig) -> torch.device:
    """Return the processor to train on.

    Raises
    ------
    TrainingError
        If a GPU is asked for and none can be used.
    """
    is_there = torch.cuda.is_available()
    if config.device == "cuda" and not is_there:
        raise TrainingError("No GPU can be used here: give --device cpu, or look at the driver.")
    return torch.device("cuda" if is_there and config.device != "cpu" else "cpu")


def _precision(config: TrainingConfig, device: torch.device) -> AbstractContextManager[Any]:
    if config.mixed_precision and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
