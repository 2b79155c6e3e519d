"""From a trained network to a bundle's folder. The manifest comes last: where it is, the bundle is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from models import bundle
from models.manifest import Manifest, write
from training.errors import PackagingError


@dataclass(frozen=True, slots=True)
class Release:
    """What people call a bundle and read about it.

    Attributes
    ----------
    name, version : str
        ASCII, at most 64 characters.
    description, authors, copyright_notice : str
        For MONAI's metadata.
    changelog : dict
        Version to what changed.
    """

    name: str
    version: str
    description: str
    authors: str
    copyright_notice: str
    changelog: dict[str, str]


def write_bundle(
    folder: Path,
    network: nn.Module,
    golden_inputs: Sequence[NDArray[np.float32]],
    release: Release,
    card: str,
    manifest: Callable[[dict[str, str]], Manifest],
) -> bundle.Bundle:
    """Write a bundle and read it back as a stranger would.

    Parameters
    ----------
    folder : Path
        Where to; must not exist or be empty.
    network : torch.nn.Module
        In evaluation mode.
    golden_inputs : sequence of numpy.ndarray
        Prepared images ``(1, rows, columns)`` float32; kept with 16 bits.
    release : Release
        Name, version and words.
    card : str
        The model card, Markdown.
    manifest : callable
        Gives the manifest, once the digests of the files are known.

    Raises
    ------
    PackagingError
        If the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise PackagingError(f"{folder} is not empty: name another folder or remove it.")
    state = {
        name: np.ascontiguousarray(value.detach().cpu().numpy())
        for name, value in network.state_dict().items()
    }
    golden, map_shape = _golden(network, golden_inputs)
    contents = {
        bundle.WEIGHTS: save(state),
        bundle.GOLDEN: save(golden),
        bundle.CARD: card.encode("utf-8"),
        bundle.METADATA: _json(_metadata(release, golden_inputs[0].shape, map_shape)),
    }
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    (folder / bundle.MANIFEST).write_bytes(write(manifest(digests)))
    return bundle.read(folder)


def _golden(
    network: nn.Module, inputs: Sequence[NDArray[np.float32]]
) -> tuple[dict[str, NDArray[Any]], tuple[int, int]]:
    kept = np.stack(inputs).astype(np.float16)
    logits, activations = [], []
    with torch.inference_mode():
        for image in kept.astype(np.float32):
            logit, activation = network(torch.from_numpy(image[np.newaxis]))
            logits.append(logit.numpy())
            activations.append(activation.numpy())
    tensors = {
        "inputs": kept,
        "logits": np.concatenate(logits),
        "activations": np.concatenate(activations),
    }
    return tensors, tensors["activations"].shape[2:]


def _metadata(release: Release, input_shape: tuple[int, ...], map_shape: tuple[int, int]) -> dict[str, Any]:
    """Return MONAI's metadata; it describes the network, the manifest decides."""
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "MG",
        "num_channels": 1,
        "spatial_shape": list(input_shape[1:]),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": "standardised P-values"},
    }
    logit = {
        "type": "probabilities",
        "format": "classes",
        "num_channels": 1,
        "spatial_shape": [1],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": "logit of malignancy"},
    }
    activation = {
        **image,
        "format": "other",
        "spatial_shape": list(map_shape),
        "channel_def": {"0": "activation"},
    }
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "name": release.name,
        "version": release.version,
        "changelog": release.changelog,
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"safetensors": version("safetensors"), "scipy": version("scipy")},
        "task": "classification",
        "description": release.description,
        "authors": release.authors,
        "copyright": release.copyright_notice,
        "network_data_format": {
            "inputs": {"image": image},
            "outputs": {"logit": logit, "activation": activation},
        },
    }


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode("ascii")
