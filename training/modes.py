"""Which parts of a network learn: everything, its head alone, its upper blocks, or its batch norm.

What does not learn stays the same to the bit, the running statistics of batch norm included: a frozen base in
training mode would still drift with each batch that it sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from models.networks import ImageNetwork
from training.errors import TrainingConfigError

_FINETUNE = re.compile(r"finetune:([1-9]\d?)")
_EXPLANATION = "use scratch, features, finetune:K with the number K of upper blocks, or adapt-bn"


@dataclass(frozen=True, slots=True)
class TrainingMode:
    """Which parts learn.

    Attributes
    ----------
    kind : str
        ``"scratch"``: everything. ``"features"``: the head, on a frozen base. ``"finetune"``: the head and
        the upper blocks. ``"adapt-bn"``: the head, and of the base the scale, shift and statistics of its
        batch norms; where a base has none, the head alone.
    upper_blocks : int
        How many blocks below the head learn, with ``"finetune"``; otherwise 0.
    """

    kind: Literal["scratch", "features", "finetune", "adapt-bn"]
    upper_blocks: int = 0

    def __str__(self) -> str:
        return f"finetune:{self.upper_blocks}" if self.kind == "finetune" else self.kind

    def apply(self, network: ImageNetwork) -> None:
        """Mark what learns with ``requires_grad``, and nothing else.

        Raises
        ------
        TrainingConfigError
            If the network has fewer blocks than shall learn.
        """
        learning = {id(parameter) for part in self._learning(network) for parameter in part.parameters()}
        for parameter in network.parameters():
            parameter.requires_grad_(id(parameter) in learning)

    def set_training(self, network: ImageNetwork) -> None:
        """Put what learns into training mode and the rest into evaluation mode.

        Call it wherever ``network.train()`` would stand: before each epoch, after each validation.

        Raises
        ------
        TrainingConfigError
            If the network has fewer blocks than shall learn.
        """
        network.eval()
        for part in self._learning(network):
            part.train()

    def _learning(self, network: ImageNetwork) -> list[nn.Module]:
        if self.kind == "scratch":
            return [network]
        parts = [network.get_submodule(name) for name in network.head_modules]
        if self.kind == "adapt-bn":
            base = [network.get_submodule(name) for block in network.blocks for name in block]
            return parts + [
                layer for part in base for layer in part.modules() if isinstance(layer, BatchNorm)
            ]
        if self.upper_blocks > len(network.blocks):
            raise TrainingConfigError(
                f"The network has {len(network.blocks)} blocks, so {self} cannot be: "
                f"use finetune:1 to finetune:{len(network.blocks)}."
            )
        upper = network.blocks[len(network.blocks) - self.upper_blocks :]
        return parts + [network.get_submodule(name) for block in upper for name in block]


def parse_mode(text: str) -> TrainingMode:
    """Read a mode as it is written: ``scratch``, ``features``, ``finetune:2`` or ``adapt-bn``.

    Raises
    ------
    TrainingConfigError
        If there is no such mode.
    """
    match text:
        case "scratch" | "features" | "adapt-bn":
            return TrainingMode(text)
    if found := _FINETUNE.fullmatch(text):
        return TrainingMode("finetune", int(found[1]))
    raise TrainingConfigError(f"There is no mode {text!r}: {_EXPLANATION}.")
