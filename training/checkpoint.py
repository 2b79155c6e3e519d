"""Where a training run stood: one file, whole at every moment: of this epoch's end or of the one before.

Safetensors, so that nothing in it can be executed; what is no tensor stands as JSON in its header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from training.atomic_file import written_beside
from training.errors import CheckpointError, ResourcesError

_FACTS = "facts"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that the rest of a run depends on.

    Attributes
    ----------
    facts : Mapping
        JSON values: fold, epoch, scores.
    tensors : Mapping of str to dict
        Group, such as ``"network"``, to its tensors by name.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, torch.Tensor]]

    def write(self, path: Path) -> None:
        """Replace the checkpoint at `path`; whoever is killed meanwhile leaves the one before.

        Tensors that are contiguous in the processor's memory are written from where they lie: a checkpoint
        is five times as large as its network, and must not stand in memory once more.

        Raises
        ------
        ResourcesError
            If the disk does not take it.
        """
        flat = {
            f"{group}/{name}": value.detach().cpu().contiguous()
            for group, tensors in self.tensors.items()
            for name, value in tensors.items()
        }
        facts = json.dumps(self.facts, allow_nan=False)
        with written_beside(path) as beside:
            try:
                save_file(flat, beside, metadata={_FACTS: facts})
            except SafetensorError as error:  # what the system said stands in its text alone
                raise ResourcesError(
                    f"The checkpoint cannot be written into {path.parent} ({error}): free some room and "
                    "go on with the run by --resume."
                ) from error


def read(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None where there is none yet.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    if not path.exists():
        return None
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            for key in file.keys():  # noqa: SIM118 - not a mapping
                group, _, name = key.partition("/")
                tensors.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}): remove it to start its fold anew."
        ) from error
    return Checkpoint(facts, tensors)
