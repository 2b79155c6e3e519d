"""From a trained network to a bundle's folder. The manifest comes last: where it is, the bundle is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
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
    modality : str
        Modality (0008,0060) of the images.
    channels : tuple of str
        What each channel of an input holds.
    outputs : tuple of str
        What each logit is the logit of.
    """

    name: str
    version: str
    description: str
    authors: str
    copyright_notice: str
    changelog: dict[str, str]
    modality: str = "MG"
    channels: tuple[str, ...] = ("standardised P-values",)
    outputs: tuple[str, ...] = ("malignancy",)


def write_bundle(
    folder: Path,
    network: nn.Module,
    golden_inputs: Sequence[NDArray[np.float32]],
    release: Release,
    card: str,
    manifest: Callable[[dict[str, str]], Manifest],
    *,
    more_files: Mapping[str, bytes] = MappingProxyType({}),
) -> bundle.Bundle:
    """Write a bundle and read it back as a stranger would.

    Parameters
    ----------
    folder : Path
        Where to; must not exist or be empty.
    network : torch.nn.Module
        In evaluation mode.
    golden_inputs : sequence of numpy.ndarray
        Prepared images ``(channels, rows, columns)`` float32; kept with 16 bits.
    release : Release
        Name, version and words.
    card : str
        The model card, Markdown.
    manifest : callable
        Gives the manifest, once the digests of the files are known.
    more_files : Mapping of str to bytes
        Further files of the bundle by their names.

    Raises
    ------
    PackagingError
        If the bundle cannot have its name or version, or the folder is not empty.
    """
    require_identity(release.name, release.version)
    require_empty(folder)
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
        **more_files,
    }
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    (folder / bundle.MANIFEST).write_bytes(write(manifest(digests)))
    return bundle.read(folder)


def require_identity(name: str, version: str) -> None:
    """Refuse a name or a version that no bundle can have, before anything is done for it.

    Raises
    ------
    PackagingError
        If either is not ASCII, or too long for a report.
    """
    for option, value in (("--name", name), ("--version", version)):
        if (problem := bundle.identity_problem(value)) is not None:
            raise PackagingError(f"The bundle's {option} {problem}: give another one.")


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds something already.

    Raises
    ------
    PackagingError
        If it does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PackagingError(f"{folder} is not empty: name another folder or remove it.")


def _golden(
    network: nn.Module, inputs: Sequence[NDArray[np.float32]]
) -> tuple[dict[str, NDArray[Any]], tuple[int, int] | None]:
    kept = np.stack(inputs).astype(np.float16)
    logits, activations = [], []
    with torch.inference_mode():
        for image in kept.astype(np.float32):
            logit, activation = network(torch.from_numpy(image[np.newaxis]))
            logits.append(logit.numpy())
            if activation is not None:
                activations.append(activation.numpy())
    tensors: dict[str, NDArray[Any]] = {"inputs": kept, "logits": np.concatenate(logits)}
    if not activations:
        return tensors, None
    tensors["activations"] = np.concatenate(activations)
    return tensors, tensors["activations"].shape[2:]


def _metadata(
    release: Release, input_shape: tuple[int, ...], map_shape: tuple[int, int] | None
) -> dict[str, Any]:
    """Return MONAI's metadata; it describes the network, the manifest decides."""
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
        "network_data_format": _data_format(release, input_shape, map_shape),
    }


def _data_format(
    release: Release, input_shape: tuple[int, ...], map_shape: tuple[int, int] | None
) -> dict[str, Any]:
    """Return what goes into the network and what comes out of it."""
    known, modality = len(release.outputs), {"modality": release.modality}
    image = _tensor("image", "magnitude", input_shape, release.channels) | modality
    logits = [f"logit of {what}" for what in release.outputs]
    outputs = {"logit": _tensor("probabilities", "classes", (known, 1), logits)}
    if map_shape is not None:
        maps = ["activation"] if known == 1 else [f"activation of {what}" for what in release.outputs]
        outputs["activation"] = _tensor("image", "other", (known, *map_shape), maps) | modality
    return {"inputs": {"image": image}, "outputs": outputs}


def _tensor(kind: str, form: str, shape: tuple[int, ...], channels: Sequence[str]) -> dict[str, Any]:
    """Describe a float32 tensor of that shape, channels first, by what each channel holds."""
    return {
        "type": kind,
        "format": form,
        "num_channels": shape[0],
        "spatial_shape": list(shape[1:]),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(number): what for number, what in enumerate(channels)},
    }


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode("ascii")
