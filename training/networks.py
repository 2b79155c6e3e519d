"""The network of a run: built for its task and images, and at the end answering with the natural prior."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from models import architectures
from models.errors import PublishedWeightsError, RegistryError
from models.network_inputs import AnyParameters
from models.networks import ImageNetwork
from models.published_weights import load_published
from models.tasks import Task
from training.determinism import seed_torch
from training.errors import TrainingError
from training.run_config import TrainingConfig

_EXACT = 1e-4  # float32 sums in another order differ by less


def full_arguments(
    architecture: str, arguments: Mapping[str, Any], task: Task, parameters: AnyParameters
) -> dict[str, Any]:
    """Return the arguments of an architecture, completed with what follows from the task and the images.

    Parameters
    ----------
    architecture : str
        Its name.
    arguments : Mapping
        Those that were asked for, JSON values.
    task : Task
        Decides the number of outputs.
    parameters : AnyParameters
        Decide channels, rows and columns.

    Raises
    ------
    TrainingError
        If the architecture has one output and the task several, or it takes grey images alone.
    """
    builder = importlib.import_module(f"{architectures.__name__}.{architecture}").build
    known = inspect.signature(builder).parameters
    channels, rows, columns = parameters.shape
    if "outputs" not in known:
        if task.outputs > 1 or channels > 1:
            raise TrainingError(
                f"{architecture} takes grey images and has one output: choose another architecture for "
                f"{task.name}."
            )
        return dict(arguments)
    follows = {"outputs": task.outputs, "channels": channels, "rows": rows, "columns": columns}
    if clashing := [name for name, value in follows.items() if arguments.get(name, value) != value]:
        raise TrainingError(f"{', '.join(clashing)} follow from task and data: leave them out.")
    return {**arguments, **{name: value for name, value in follows.items() if name in known}}


def build_network(
    architecture: str, arguments: Mapping[str, Any], parameters: AnyParameters, *, seed: tuple[int, ...]
) -> ImageNetwork:
    """Build a network with first weights that `seed` decides; see :func:`fitting_network`."""
    seed_torch(seed)
    return fitting_network(architecture, arguments, parameters)


def fitting_network(
    architecture: str, arguments: Mapping[str, Any], parameters: AnyParameters
) -> ImageNetwork:
    """Build a network in evaluation mode, on torch's default device, and make sure that it takes the images.

    Raises
    ------
    TrainingError
        If the arguments do not fit the architecture, or the images do not fit the network.
    """
    try:
        network = architectures.build(architecture, arguments)
    except RegistryError as error:
        raise TrainingError(str(error)) from error
    if not isinstance(network, ImageNetwork):
        raise TrainingError(f"{architecture} is no network that can be trained: choose another one.")
    try:
        with torch.no_grad():
            network.eval()(torch.zeros((1, *parameters.shape)))
    except (ValueError, RuntimeError) as error:
        raise TrainingError(f"{architecture} does not take the run's images: {error}.") from error
    return network


def untrained_network(
    config: TrainingConfig, arguments: Mapping[str, Any], parameters: AnyParameters, *, fold: int
) -> ImageNetwork:
    """Build the network of a fold as the run's seed makes it, before it starts from any other weights."""
    return build_network(config.architecture, arguments, parameters, seed=(config.seed, fold))


def load_starting_weights(network: ImageNetwork, config: TrainingConfig) -> None:
    """Load what a run starts from: weights of another run or bundle of the same network, or published ones.

    Parameters
    ----------
    network : ImageNetwork
        Gets them; left as it is where the run starts from none.
    config : TrainingConfig
        Names the file, ``.safetensors`` of a run or bundle or one of published weights, and its digest.

    Raises
    ------
    TrainingError
        If the file is not the one of that digest, or does not fit the network.
    """
    path, sha256 = config.weights, config.weights_sha256
    if path is None or sha256 is None:
        return
    try:
        if not (path.suffix == ".safetensors" and _load_own(network, path, sha256)):
            load_published(network, config.architecture, path, sha256)
    except (PublishedWeightsError, OSError) as error:
        raise TrainingError(f"The weights cannot be used: {error}") from error


def _load_own(network: ImageNetwork, path: Path, sha256: str) -> bool:
    """Load a state whose names are all of the network's own; False where they are not."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise TrainingError(f"{path} has another SHA-256 than --sha256: fetch it again.")
    try:
        state = load(content)
    except SafetensorError as error:
        raise TrainingError(f"{path} is not a safetensors file: fetch it again.") from error
    own = network.state_dict()
    for name in own.keys() & state.keys():
        if own[name].ndim == 0 and state[name].shape == (1,):  # bundles keep a counter as a list of one
            state[name] = state[name][0]
    if {name: value.shape for name, value in state.items()} != {n: v.shape for n, v in own.items()}:
        return False
    network.load_state_dict(state)
    return True


def shift_outputs(network: ImageNetwork, shift: Sequence[float], example: torch.Tensor) -> None:
    """Add `shift` to the network's outputs for good, by the bias of its last layer.

    Parameters
    ----------
    network : ImageNetwork
        In evaluation mode, on the CPU; changed in place.
    shift : sequence of float
        One number for each output.
    example : torch.Tensor
        ``(1, channels, rows, columns)``; the change is checked on it.

    Raises
    ------
    TrainingError
        If the network's outputs do not end in a layer with a bias.
    """
    if not any(shift):
        return
    added = torch.tensor(shift, dtype=torch.float32)
    with torch.no_grad():
        wanted = network(example)[0][0] + added
        for bias in reversed(_biases(network, len(shift))):
            bias.add_(added)
            if torch.allclose(network(example)[0][0], wanted, rtol=_EXACT, atol=_EXACT):
                return
            bias.sub_(added)
    raise TrainingError("The network's outputs have no bias of their own: use --imbalance none.")


def _biases(network: nn.Module, outputs: int) -> list[torch.Tensor]:
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [layer.bias for layer in layers if layer.bias is not None and len(layer.bias) == outputs]
