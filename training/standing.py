"""Where the training of one fold stands: all that an epoch leaves to the next, to a checkpoint and back."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass

import torch

from models.networks import ImageNetwork
from training.checkpoint import Checkpoint
from training.errors import CheckpointError, TrainingError
from training.run_config import TrainingConfig
from training.validation import Validated


@dataclass(slots=True)
class Progress:
    """How far a fold is.

    Attributes
    ----------
    epoch : int
        Epochs that are done.
    best_epoch : int
        The epoch with the best validation score, 0-based; -1 before the first is done.
    best_log_loss : float
        Its log-loss.
    best_auc : float or None
        Its AUC; None where the validation part lacks a class.
    """

    epoch: int = 0
    best_epoch: int = -1
    best_log_loss: float = math.inf
    best_auc: float | None = None


class Standing:
    """One fold's network, the moving average of its weights, the best average so far, and its optimiser.

    Parameters
    ----------
    network : ImageNetwork
        With its first weights; it is moved to `device`.
    config : TrainingConfig
        The run's options.
    device : torch.device
        Where it is trained.

    Raises
    ------
    TrainingError
        If no parameter requires gradients.
    """

    def __init__(self, network: ImageNetwork, config: TrainingConfig, device: torch.device) -> None:
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.network = network
        self.average = copy.deepcopy(self.network).eval()
        self.best = self._average_now()
        trained = [p for p in self.network.parameters() if p.requires_grad]
        if not trained:
            raise TrainingError("Nothing of the network is trained in this mode: choose another one.")
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
        )
        self.progress = Progress()

    def is_finished(self, config: TrainingConfig) -> bool:
        """Whether all epochs are done, or the validation score has not become better for too long."""
        done, best = self.progress.epoch, self.progress.best_epoch
        return done >= config.epochs or (best >= 0 and done - 1 - best >= config.patience)

    def end_epoch(self, validated: Validated, config: TrainingConfig) -> None:
        """Count an epoch; keep the average of the weights where its validation score is the best so far.

        Raises
        ------
        TrainingError
            If the AUC decides and the validation part lacks a class.
        """
        progress = self.progress
        if self._is_better(validated, config) or progress.best_epoch < 0:
            progress.best_epoch = progress.epoch
            progress.best_log_loss, progress.best_auc = validated.log_loss, validated.auc
            self.best = self._average_now()
        progress.epoch += 1

    def _is_better(self, validated: Validated, config: TrainingConfig) -> bool:
        if config.stop_on == "log_loss":
            return validated.log_loss < self.progress.best_log_loss
        if validated.auc is None:
            raise TrainingError("The validation part lacks a class, so it has no AUC: stop on log_loss.")
        return self.progress.best_auc is None or validated.auc > self.progress.best_auc

    def _average_now(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.average.state_dict().items()}

    def to_checkpoint(self, fold: int) -> Checkpoint:
        """Return everything that the rest of the fold depends on."""
        moments = {
            f"{number}/{name}": value
            for number, state in self.optimiser.state_dict()["state"].items()
            for name, value in state.items()
        }
        tensors = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "moments": moments,
        }
        return Checkpoint({"fold": fold, **asdict(self.progress)}, tensors)

    def go_on_from(self, saved: Checkpoint) -> None:
        """Stand where a checkpoint was written.

        Raises
        ------
        CheckpointError
            If it is not one of such a network.
        """
        facts, tensors = saved.facts, saved.tensors
        try:
            self.network.load_state_dict(tensors["network"])
            self.average.load_state_dict(tensors["average"])
            self.best = {name: tensors["best"][name].to(value.device) for name, value in self.best.items()}
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in tensors.get("moments", {}).items():
                number, _, name = key.partition("/")
                state.setdefault(int(number), {})[name] = value
            groups = self.optimiser.state_dict()["param_groups"]
            self.optimiser.load_state_dict({"state": state, "param_groups": groups})
            self.progress = Progress(
                facts["epoch"], facts["best_epoch"], facts["best_log_loss"], facts["best_auc"]
            )
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                "The checkpoint is not one of this network: train into a fresh folder."
            ) from error
