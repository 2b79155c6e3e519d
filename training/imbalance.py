"""What to do where one class is rare: nothing, weights, a balanced sampler, focal loss, logit adjustment.

Each method changes what the network learns; most change the prior that its answers assume, too. Where that
change is known, :attr:`ClassBalance.natural_shift` takes it back, so that probabilities are those of the
population that was trained on. Nothing is the default: the others seldom gain AUC and often cost calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from training.errors import TrainingError

_FOCUS = 2.0  # focal loss: how much less an easy case counts


class Imbalance(StrEnum):
    """A method against imbalance."""

    NONE = "none"
    WEIGHTED = "weighted"
    SAMPLER = "sampler"
    FOCAL = "focal"
    LOGIT_ADJUSTMENT = "logit_adjustment"


def class_logits(outputs: torch.Tensor) -> torch.Tensor:
    """Return ``(n, classes)`` logits of raw outputs: one output becomes two classes, the first of logit 0.

    Their softmax is then the sigmoid of the output, so that all that follows is written once.
    """
    if outputs.shape[1] > 1:
        return outputs
    return torch.cat([torch.zeros_like(outputs), outputs], dim=1)


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """A method, fitted to the training part's classes.

    Attributes
    ----------
    method : Imbalance
        What is done.
    priors : tuple of float
        Share of each class in the training part, above 0, adding up to 1.
    """

    method: Imbalance
    priors: tuple[float, ...]

    @classmethod
    def of(cls, method: Imbalance, labels: NDArray[np.int64], classes: int) -> ClassBalance:
        """Fit a method to labels ``(n,)``, each an index below `classes`.

        Raises
        ------
        TrainingError
            If a class has no case.
        """
        counts = np.bincount(labels, minlength=classes)
        if missing := [str(index) for index in np.flatnonzero(counts == 0)]:
            raise TrainingError(
                f"The training part has no case of class {', '.join(missing)}: use fewer folds or more data."
            )
        return cls(method, tuple(float(share) for share in counts / counts.sum()))

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of raw outputs ``(n, k)`` against labels ``(n,)`` int64."""
        logits = class_logits(outputs.float())
        if self.method is Imbalance.WEIGHTED:
            return functional.cross_entropy(logits, labels, weight=self._weights(logits))
        if self.method is Imbalance.FOCAL:
            wrong = functional.cross_entropy(logits, labels, reduction="none")
            return ((1.0 - torch.exp(-wrong)) ** _FOCUS * wrong).mean()
        if self.method is Imbalance.LOGIT_ADJUSTMENT:
            logits = logits + torch.tensor(self.priors, device=logits.device).log()
        return functional.cross_entropy(logits, labels)

    def _weights(self, like: torch.Tensor) -> torch.Tensor:
        """Weight of a case of each class: inverse to the class's share, 1 on average over the cases."""
        return 1.0 / (len(self.priors) * torch.tensor(self.priors, device=like.device))

    def order(self, labels: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """Return the positions of an epoch's cases ``(n,)`` in the order in which they are shown."""
        if self.method is not Imbalance.SAMPLER:
            return random.permutation(len(labels))
        chance = 1.0 / np.asarray(self.priors)[labels]
        return random.choice(len(labels), size=len(labels), p=chance / chance.sum())

    @property
    def natural_shift(self) -> tuple[float, ...]:
        """What each raw output needs added, so that its probabilities have the training part's own prior.

        Bayes' rule: a sampler shows every class equally often, and logit adjustment makes the network answer
        as if it did, so the log of the class's share is missing. Weights and focal loss are left as they are,
        which is how they are used; the report shows what that costs.
        """
        if self.method in (Imbalance.SAMPLER, Imbalance.LOGIT_ADJUSTMENT):
            missing: Sequence[float] = np.log(self.priors).tolist()
        else:
            missing = [0.0] * len(self.priors)
        if len(missing) == 2:
            return (missing[1] - missing[0],)
        return tuple(missing)
