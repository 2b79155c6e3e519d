"""A released model: a folder in MONAI Bundle form, read without trusting it.

Decides whether a folder is a bundle of this program. Every byte is compared with its digest before anything
is parsed, nothing in a bundle is ever executed (MONAI's ``$`` expressions stay text), and torch is not
needed to read one.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from models.architectures import architecture_names
from models.contract import BundleIdentity
from models.errors import (
    BundleDigestError,
    BundleFormatError,
    BundleIncompleteError,
    UnsafeBundleError,
    UnsupportedBundleError,
    WeightsError,
)
from models.manifest import Manifest, parse, strict_json
from models.tasks import all_tasks

MANIFEST = "manifest.json"
METADATA = "configs/metadata.json"
WEIGHTS = "weights.safetensors"
GOLDEN = "golden.safetensors"
CARD = "model_card.md"
REQUIRED_FILES = (METADATA, WEIGHTS, GOLDEN, CARD)

_ALLOWED_SUFFIXES = frozenset({".json", ".safetensors", ".md", ".txt"})
_MANIFEST_MAX_BYTES = 1 << 20
_CHANNELS = (1, 3)
_IDENTITY_MAX_LENGTH = 64  # DICOM LO, PS3.5 6.2


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs with the answers that the network gave when it was released.

    Attributes
    ----------
    inputs : numpy.ndarray
        ``(n, channels, rows, columns)`` float32 prepared images; one channel or three.
    logits : numpy.ndarray
        ``(n, outputs)`` float32.
    activations : numpy.ndarray or None
        ``(n, outputs, h, w)`` float32 class activation maps; None for a network without one.
    """

    inputs: NDArray[np.float32]
    logits: NDArray[np.float32]
    activations: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose content is what its manifest says.

    Attributes
    ----------
    path : Path
        Its folder.
    manifest : Manifest
        Its claims.
    metadata : Mapping
        ``configs/metadata.json``, uninterpreted.
    weights : Mapping of str to numpy.ndarray
        The network's state, finite.
    golden : Golden
        What the network must answer.
    card : str
        The model card, Markdown.
    """

    path: Path
    manifest: Manifest
    metadata: Mapping[str, Any]
    weights: Mapping[str, NDArray[Any]]
    golden: Golden
    card: str

    @property
    def digest(self) -> str:
        """``sha256`` hex digest of the canonical manifest."""
        return self.manifest.digest

    @property
    def threshold(self) -> float:
        """The operating point in use, a calibrated probability 0..1."""
        return self.manifest.operating_points[0].threshold

    @property
    def channels(self) -> int:
        """Channels of the images that the network takes, 1 or 3."""
        return int(self.golden.inputs.shape[1])

    @property
    def identity(self) -> BundleIdentity:
        """Who answers, as reports name it."""
        return BundleIdentity(
            name=self.metadata["name"],
            version=self.metadata["version"],
            digest=self.digest,
            task=self.manifest.task,
            manufacturer=self.manifest.manufacturer,
            demonstration=self.manifest.demonstration,
            configuration_digest=self.manifest.configuration_digest,
            localises=self.manifest.localises,
        )


def read(path: Path, *, digest: str | None = None) -> Bundle:
    """Read and verify a bundle.

    Parameters
    ----------
    path : Path
        The bundle's folder.
    digest : str, optional
        The digest that it must have; by default whatever its manifest amounts to.

    Raises
    ------
    BundleIncompleteError
        If a file or field is missing or a file is not in the manifest.
    BundleDigestError
        If a file or the manifest is not what its digest says.
    UnsafeBundleError
        If there is a symbolic link, a special file or a kind of file that a bundle never holds.
    BundleFormatError
        If a file does not parse.
    UnsupportedBundleError
        If task, architecture or preprocessing are not known here.
    WeightsError
        If a weight is not finite.
    """
    names = _names_in(path)
    if MANIFEST not in names:
        raise BundleIncompleteError(f"{path.name} has no {MANIFEST}: it is not a bundle of this program.")
    manifest = parse(_content(path / MANIFEST, _MANIFEST_MAX_BYTES))
    if digest is not None and manifest.digest != digest:
        raise BundleDigestError(f"The bundle's digest is {manifest.digest}, not {digest}.")
    contents = _verified_contents(path, names, manifest)
    _require_known(manifest)
    weights = _tensors(contents[WEIGHTS], WEIGHTS)
    if bad := [name for name, values in weights.items() if not np.isfinite(values).all()]:
        raise WeightsError(f"{WEIGHTS} holds values that are not finite, in {bad[0]}.")
    return Bundle(
        path=path,
        manifest=manifest,
        metadata=_metadata(contents[METADATA]),
        weights=weights,
        golden=_golden(contents[GOLDEN], manifest),
        card=contents[CARD].decode("utf-8", errors="replace"),
    )


def _names_in(folder: Path) -> frozenset[str]:
    """Return the relative paths of all files, after refusing what may not be there at all."""
    if not folder.is_dir():
        raise BundleIncompleteError(
            f"{folder.name} is no folder: give a bundle's folder, or its .tar, .tar.gz, .tgz or .zip archive."
        )
    names = []
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            entry = Path(parent, name)
            relative = entry.relative_to(folder).as_posix()
            mode = entry.lstat().st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise UnsafeBundleError(
                    f"{relative} is a link or a special file; a bundle holds plain files."
                )
            if mode & stat.S_IWOTH:
                raise UnsafeBundleError(
                    f"Anyone on this machine may change {relative}: take that away (chmod o-w) and compare "
                    "the bundle's digest with the one that was released."
                )
            if stat.S_ISREG(mode):
                if entry.suffix not in _ALLOWED_SUFFIXES:
                    raise UnsafeBundleError(
                        f"{relative} is no kind of file that a bundle holds: weights are .safetensors only."
                    )
                names.append(relative)
    return frozenset(names)


def _content(path: Path, max_bytes: int | None = None) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read() if max_bytes is None else file.read(max_bytes + 1)
    if max_bytes is not None and len(content) > max_bytes:
        raise BundleFormatError(f"{path.name} is larger than {max_bytes} bytes.")
    return content


def _verified_contents(path: Path, names: frozenset[str], manifest: Manifest) -> dict[str, bytes]:
    listed = set(manifest.files)
    if absent := sorted(({*REQUIRED_FILES} | listed) - names):
        raise BundleIncompleteError(f"The bundle lacks {', '.join(absent)}.")
    if extra := sorted(names - listed - {MANIFEST}):
        raise BundleIncompleteError(
            f"The manifest does not name {', '.join(extra)}: remove it or ask who released it."
        )
    contents = {name: _content(path / name) for name in sorted(listed)}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != manifest.files[name]:
            raise BundleDigestError(f"{name} is not the file that was released; copy the bundle again.")
    return contents


def _require_known(manifest: Manifest) -> None:
    known = {
        "architecture": (manifest.architecture, architecture_names()),
        "task": (manifest.task, all_tasks()),
    }
    for what, (wanted, offered) in known.items():
        if wanted not in offered:
            raise UnsupportedBundleError(
                f"The bundle needs the {what} {wanted!r}, this program has: {', '.join(offered)}; update it."
            )
    task = all_tasks()[manifest.task]
    if manifest.labels != task.labels or manifest.classes not in ((), task.classes):
        raise UnsupportedBundleError(
            f"The bundle's labels are not those of the task {manifest.task!r}, in its order: ask who "
            "released it, or use the version of this program that it was made with."
        )


def _metadata(content: bytes) -> dict[str, Any]:
    metadata = strict_json(content, METADATA)
    if "network_data_format" not in metadata:
        raise BundleIncompleteError(f"{METADATA} lacks network_data_format.")
    for field in ("name", "version"):
        if (problem := identity_problem(metadata.get(field))) is not None:
            raise BundleFormatError(f"{METADATA}: {field} {problem}.")
    return metadata


def identity_problem(value: object) -> str | None:
    """Say why a value cannot be a bundle's name or version; None where it can."""
    if not (isinstance(value, str) and value and value.isascii() and value.isprintable()):
        return "must be printable ASCII text"
    if len(value) > _IDENTITY_MAX_LENGTH:
        return f"is longer than {_IDENTITY_MAX_LENGTH} characters"
    return None


def _golden(content: bytes, manifest: Manifest) -> Golden:
    tensors = _tensors(content, GOLDEN)
    if missing := sorted({"inputs", "logits"} - set(tensors)):
        raise BundleIncompleteError(f"{GOLDEN} lacks {', '.join(missing)}: package the run again.")
    if manifest.evidence_enabled and "activations" not in tensors:
        raise BundleIncompleteError(
            f"{GOLDEN} has no activations, yet the manifest shows a map: release it with evidence_enabled "
            "false."
        )
    inputs, logits = tensors["inputs"].astype(np.float32), tensors["logits"].astype(np.float32)
    grid = manifest.preprocessing
    count, outputs = inputs.shape[0] if inputs.ndim else 0, len(manifest.labels)
    if inputs.ndim != 4 or count == 0 or inputs.shape[2:] != (grid.rows, grid.columns):
        raise BundleFormatError(f"{GOLDEN}: inputs are not images of {grid.rows} x {grid.columns}.")
    if inputs.shape[1] not in _CHANNELS:
        raise BundleFormatError(f"{GOLDEN}: images have one channel or three, not {inputs.shape[1]}.")
    if logits.shape != (count, outputs):
        raise BundleFormatError(f"{GOLDEN}: logits are not {outputs} for each of {count} images.")
    if not all(np.isfinite(values).all() for values in tensors.values()):
        raise BundleFormatError(f"{GOLDEN} holds values that are not finite: package the run again.")
    activations = tensors.get("activations")
    return Golden(inputs, logits, None if activations is None else activations.astype(np.float32))


def _tensors(content: bytes, name: str) -> dict[str, NDArray[Any]]:
    try:
        tensors: dict[str, NDArray[Any]] = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise BundleFormatError(f"{name} is not a safetensors file.") from error
    return tensors
