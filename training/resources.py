"""Whether this machine can hold a run, asked before anything is read: refused now, not after a night."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models.network_inputs import AnyParameters
from training.errors import ResourcesError
from training.examples import EVALUATION_BATCH
from training.networks import fitting_network
from training.run_config import TrainingConfig

_FLOAT = 4
_COPIES_OF_WEIGHTS = 6  # weights, gradients, AdamW's two moments, the moving average, the best epoch
# Convolutions keep channels last and are laid out anew for the checkpoint: all of the above but gradients.
_COPIES_BEING_SAVED = 5
_OF_ACTIVATIONS = 2.0  # kept for the way back, and their gradients
_PROGRAM = 700 << 20  # torch itself, measured
_SPARE_DISK = 256 << 20
_CGROUP = Path("/sys/fs/cgroup")
_MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run takes.

    Attributes
    ----------
    memory : int
        Bytes of the processor's memory: the GPU's where one is used.
    disk : int
        Bytes of disk in the run folder, prepared images included.
    """

    memory: int
    disk: int


def needs_of(
    config: TrainingConfig, arguments: dict[str, object], parameters: AnyParameters, images: int
) -> Needs:
    """Estimate what a run takes from the network's shape alone: nothing is computed.

    Parameters
    ----------
    config : TrainingConfig
        The run's options.
    arguments : dict
        All arguments of the architecture.
    parameters : AnyParameters
        The network's grid.
    images : int
        Number of prepared images on disk.

    Raises
    ------
    TrainingError
        If there is no such network, or it does not take such images.
    """
    sizes: list[int] = []

    def weigh(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and not list(module.children()):
            sizes.append(output.numel())

    with torch.device("meta"):
        network = fitting_network(config.architecture, arguments, parameters)
        for module in network.modules():
            module.register_forward_hook(weigh)
        image = torch.zeros((1, *parameters.shape))
        with torch.no_grad():
            network(image)
    weights = _FLOAT * sum(value.numel() for value in network.state_dict().values())
    activations = _FLOAT * sum(sizes)
    training = config.batch_size * activations * _OF_ACTIVATIONS
    # Without a way back, layers follow each other in the same memory: a tenth is plenty.
    evaluation = EVALUATION_BATCH * activations * 0.1
    batches = _FLOAT * image.numel() * (config.batch_size * (2 + config.workers) + EVALUATION_BATCH)
    # Steps, validation and checkpoint follow each other: the largest of them decides.
    passing = max(training, evaluation, _COPIES_BEING_SAVED * weights)
    return Needs(
        memory=int(_COPIES_OF_WEIGHTS * weights + passing + batches),
        disk=_FLOAT * image.numel() * images + weights * (2 * 4 + len(config.trained_folds) + 1),
    )


def require(needs: Needs, folder: Path, device: torch.device) -> None:
    """Refuse a run that the disk of `folder` or the memory cannot hold.

    Raises
    ------
    ResourcesError
        If either is too small.
    """
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needs.disk + _SPARE_DISK > free:
        raise ResourcesError(
            f"The run needs about {_gib(needs.disk + _SPARE_DISK)} of disk, {_gib(free)} are free: free "
            "some, use a smaller grid, or another --out."
        )
    if device.type == "cuda":
        available, wanted, where = torch.cuda.mem_get_info()[0], needs.memory, "GPU memory"
    else:
        available, wanted, where = available_memory(), needs.memory + _PROGRAM, "memory"
    if wanted > available:
        raise ResourcesError(
            f"The run needs about {_gib(wanted)} of {where}, {_gib(available)} are available: use a smaller "
            "--batch-size, grid or network."
        )


def available_memory() -> int:
    """Bytes that a process can still get: the machine's, or its control group's where that is less."""
    available = _facts(_MEMORY)["MemAvailable:"] * 1024
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        # A group's memory fills with the files that were read in it; the kernel gives that back when asked.
        facts = _facts(_CGROUP / "memory.stat")
        of_files = facts["active_file"] + facts["inactive_file"]
        available = min(available, int(most) - int(used.read_text()) + of_files)
    return available


def _facts(path: Path) -> dict[str, int]:
    """Return the kernel's numbers by their names."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
