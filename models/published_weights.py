"""Weights that others published for a known architecture, taken as they are, or not at all.

Reads the state dictionaries that torchvision publishes. The layer that told ImageNet's classes apart is left
out, by name; every other name that is missing or too many is an error, because a network that lost a layer on
the way still answers. Nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Collection, Mapping, Set
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from models.errors import PublishedWeightsError
from models.networks import ImageNetwork

_MOST_NAMED = 3
_COUNTER = ".num_batches_tracked"  # older files have none; nothing is computed from it

# Layers above the base, as published. Those that a network has, too, say its own `published_head_layers`.
_AUXILIARY = tuple(f"AuxLogits.{part}.{kind}" for part in ("conv0", "conv1") for kind in ("conv", "bn"))
_HEAD_LAYERS: Mapping[str, tuple[str, ...]] = {
    "alexnet": ("classifier.1", "classifier.4", "classifier.6"),
    "vgg16": ("classifier.0", "classifier.3", "classifier.6"),
    "vgg19": ("classifier.0", "classifier.3", "classifier.6"),
    "resnet50": ("fc",),
    "resnet101": ("fc",),
    "densenet121": ("classifier",),
    "densenet201": ("classifier",),
    "inception_v3": ("fc", *_AUXILIARY, "AuxLogits.fc"),
}
_TENSORS = ("weight", "bias", "running_mean", "running_var")
# DenseNet's layers are called norm1 in newer files and norm.1 in older ones; MONAI nests them once more.
_DENSE_LAYER = re.compile(r"(\.denselayer\d+)\.(norm|conv)\.?([12])\.")


def architectures_with_weights() -> tuple[str, ...]:
    """Names of the architectures that :func:`load_published` knows weights of."""
    return tuple(_HEAD_LAYERS)


def load_published(network: ImageNetwork, architecture: str, path: Path, sha256: str) -> tuple[str, ...]:
    """Give a network the weights of a published state dictionary; its head keeps its own last layer.

    For a network of one channel the first layer's weights are summed over the colours, so that a grey image
    is answered as it would be with the same values in all three channels.

    Parameters
    ----------
    network : ImageNetwork
        Changed in place, and only if everything fits.
    architecture : str
        Its name in the registry.
    path : Path
        A ``.pth`` or ``.safetensors`` file.
    sha256 : str
        Hex digest that the file must have; looked at before anything in it is.

    Returns
    -------
    tuple of str
        Names of the file that the network has no use for: those of its last layer, and of a head that it has
        not.

    Raises
    ------
    PublishedWeightsError
        If there are no such weights, the digest is another, the file is no state dictionary, or a name, a
        shape or a value does not fit. The network is as it was.
    """
    if architecture not in _HEAD_LAYERS:
        raise PublishedWeightsError(
            f"There are no published weights for {architecture!r}, only for: {', '.join(_HEAD_LAYERS)}."
        )
    published = {_name_here(name): values for name, values in _read(path, sha256).items()}
    left_out = _left_out(network, architecture) & published.keys()
    offered = {name: values for name, values in published.items() if name not in left_out}
    state = network.state_dict()
    fresh = {
        name
        for name in state
        if _is_of(name, network.head_modules) and not _is_of(name, network.published_head_layers)
    }
    _require_same_names(state.keys() - fresh, offered.keys(), architecture)
    if network.channels == 1:
        first = f"{network.first_layer}.weight"
        offered[first] = offered[first].sum(dim=1, keepdim=True)
    _require_same_values({name: state[name] for name in offered}, offered)
    network.load_state_dict({**state, **offered}, strict=True)
    return tuple(sorted(left_out))


def _read(path: Path, sha256: str) -> Mapping[str, torch.Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PublishedWeightsError(f"{path.name} cannot be read: {error.strerror}.") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256.strip().lower():
        raise PublishedWeightsError(
            f"{path.name} has the SHA-256 digest {digest}, not {sha256}: fetch the file again."
        )
    values = _parsed(path, content)
    if not isinstance(values, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in values.items()
    ):
        raise PublishedWeightsError(f"{path.name} is no state dictionary: it holds more than named tensors.")
    return values


def _parsed(path: Path, content: bytes) -> object:
    if path.suffix not in (".pth", ".safetensors"):
        raise PublishedWeightsError(f"{path.name} is neither a .pth nor a .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(content)
        values: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise PublishedWeightsError(
            f"{path.name} cannot be read as tensors alone; fetch the file again, or its .safetensors form."
        ) from error
    return values


def _name_here(name: str) -> str:
    return _DENSE_LAYER.sub(r"\1.layers.\2\3.", name)


def _left_out(network: ImageNetwork, architecture: str) -> set[str]:
    """Return every name that a file may have for a layer that the network has not."""
    return {
        name
        for layer in _HEAD_LAYERS[architecture]
        for name in (*(f"{layer}.{tensor}" for tensor in _TENSORS), f"{layer}{_COUNTER}")
        if not _is_of(name, network.published_head_layers)
    }


def _is_of(name: str, modules: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{module}." for module in modules))


def _require_same_names(wanted: Set[str], offered: Set[str], architecture: str) -> None:
    faults = []
    if missing := [name for name in wanted - offered if not name.endswith(_COUNTER)]:
        faults.append(f"it lacks {_some(missing)}")
    if extra := offered - wanted:
        faults.append(f"it also has {_some(extra)}")
    if faults:
        raise PublishedWeightsError(
            f"The file does not hold the weights of {architecture}: {'; '.join(faults)}."
        )


def _some(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:_MOST_NAMED])
    return first if len(names) <= _MOST_NAMED else f"{first} and {len(names) - _MOST_NAMED} more"


def _require_same_values(here: Mapping[str, torch.Tensor], offered: Mapping[str, torch.Tensor]) -> None:
    for name, values in offered.items():
        if values.shape != here[name].shape:
            raise PublishedWeightsError(
                f"{name} is {list(values.shape)} in the file and {list(here[name].shape)} in the network: "
                "use the weights of this architecture."
            )
        if not torch.isfinite(values).all():
            raise PublishedWeightsError(f"{name} holds values that are not finite: fetch the file again.")
