"""The folder of a training run: where each file lies, who may write it, and what it says that it holds."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from models.errors import BundleFormatError
from models.manifest import strict_json
from training.atomic_file import write_atomically
from training.errors import CheckpointError, RunInUseError, TrainingError
from training.run_config import TrainingConfig, checked

FORMAT = 1
_LOCK = ".lock"
_LIBRARIES = ("torch", "monai", "numpy", "scipy")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where everything of a run lies.

    Attributes
    ----------
    path : Path
        The folder.
    """

    path: Path

    @property
    def run(self) -> Path:
        """All options, versions and digests."""
        return self.path / "run.json"

    @property
    def data(self) -> Path:
        """Every image with its labels and digest."""
        return self.path / "data.json"

    @property
    def split(self) -> Path:
        """Who is in which part."""
        return self.path / "split.json"

    @property
    def guard(self) -> Path:
        """What the leak guard found."""
        return self.path / "guard.json"

    @property
    def started_from(self) -> Path:
        """What its starting weights know; absent where it used none."""
        return self.path / "started-from.json"

    @property
    def log(self) -> Path:
        """What happened, a JSON object in a line."""
        return self.path / "log.jsonl"

    @property
    def cache(self) -> Path:
        """Prepared images: a folder, or a link to one that runs share."""
        return self.path / "prepared"

    def prepared(self, shared: Path | None) -> Path:
        """Return the folder of prepared images; a shared one is remembered by a link.

        What comes after the training, on the same images, is not told of the shared folder.
        """
        if shared is not None:
            if not (self.cache.is_symlink() or self.cache.exists()):
                self.cache.symlink_to(shared.absolute())
            return shared
        if self.cache.is_symlink() and not self.cache.exists():
            self.cache.unlink()
        return self.cache

    @property
    def predictions(self) -> Path:
        """Answers for the test images of all folds."""
        return self.path / "predictions.csv"

    @property
    def report(self) -> Path:
        """The report page and its numbers."""
        return self.path / "report"

    @property
    def bundle(self) -> Path:
        """The bundle, where the run was packaged."""
        return self.path / "bundle"

    def fold(self, number: int) -> FoldFolder:
        """Return where a fold's files lie."""
        return FoldFolder(self.path / f"fold-{number}")

    @property
    def is_begun(self) -> bool:
        """Whether anything lies there beyond what a run leaves that ended before its first fold."""
        found = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        before = (self.log, self.cache, self.run, self.data, self.split, self.guard, self.started_from)
        return bool(found) and (_LOCK not in found or bool(found - {_LOCK, *(path.name for path in before)}))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Make the folder and keep every other process out of it.

        Raises
        ------
        RunInUseError
            If another process is at work in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunInUseError(
                    f"Another process is training in {self.path}: wait for its end."
                ) from error
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class FoldFolder:
    """Where the files of one fold lie.

    Attributes
    ----------
    path : Path
        The folder.
    """

    path: Path

    @property
    def weights(self) -> Path:
        """The network's state."""
        return self.path / "weights.safetensors"

    @property
    def predictions(self) -> Path:
        """Answers for the fold's test images."""
        return self.path / "predictions.csv"

    @property
    def validation(self) -> Path:
        """Answers for the fold's validation images."""
        return self.path / "validation.csv"

    @property
    def checkpoint(self) -> Path:
        """Where the fold stands while it is trained."""
        return self.path / "checkpoint.safetensors"

    @property
    def result(self) -> Path:
        """Numbers of the fold; written last, so where it is the fold is whole."""
        return self.path / "fold.json"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What a run is: equal identities give equal bytes on one kind of processor.

    Attributes
    ----------
    config : TrainingConfig
        The options.
    architecture_arguments : Mapping
        All arguments of the network.
    parameters : Mapping
        Of the preprocessing.
    data_sha256, split_sha256 : str
        Digests of the data set and of the split.
    """

    config: TrainingConfig
    architecture_arguments: Mapping[str, Any]
    parameters: Mapping[str, Any]
    data_sha256: str
    split_sha256: str

    def content(self) -> dict[str, Any]:
        """Return it as ``run.json`` holds it."""
        return {
            "format": FORMAT,
            "options": self.config.result_options,
            "architecture_arguments": dict(self.architecture_arguments),
            "preprocessing": dict(self.parameters),
            "data_sha256": self.data_sha256,
            "split_sha256": self.split_sha256,
            "versions": {name: version(name) for name in ("dicom-node", *_LIBRARIES)},
            "processor": torch.backends.cpu.get_cpu_capability(),
        }


def require_options(folder: RunFolder, config: TrainingConfig) -> None:
    """Refuse other options than those of the run that began there, before its images are read.

    Raises
    ------
    CheckpointError
        If they differ.
    """
    if folder.is_begun and folder.run.exists():
        before, now = ({"options": options} for options in (read(folder)["options"], config.result_options))
        _require_none(_differences(before, now), folder)


def start(folder: RunFolder, identity: RunIdentity) -> None:
    """Write ``run.json``, or make sure that the run that began there is this one.

    Raises
    ------
    CheckpointError
        If another run lies there.
    """
    content = identity.content()
    if folder.run.exists() and folder.is_begun:
        _require_none(_differences(read(folder), content), folder)
        return
    write_atomically(folder.run, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode("utf-8"))


def read(folder: RunFolder) -> dict[str, Any]:
    """Return ``run.json``.

    Raises
    ------
    TrainingError
        If the folder holds no run.
    """
    try:
        content = strict_json(folder.run.read_bytes(), folder.run.name)
    except (OSError, BundleFormatError) as error:
        raise TrainingError(f"{folder.path} holds no training run: name the --out of one.") from error
    if content.get("format") != FORMAT:
        raise TrainingError(f"{folder.run} has a form that this program does not read.")
    return content


def config_of(content: Mapping[str, Any]) -> TrainingConfig:
    """Return the options in ``run.json``."""
    return checked(content["options"])


def _require_none(differing: Sequence[str], folder: RunFolder) -> None:
    if differing:
        raise CheckpointError(
            f"{folder.path} holds another run; it differs in {', '.join(differing)}. Give the same "
            "options as before, or another --out."
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    flat_before, flat_now = _flat(before), _flat(json.loads(json.dumps(now)))
    return sorted(
        name for name in flat_before.keys() | flat_now.keys() if flat_before.get(name) != flat_now.get(name)
    )


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in content["options"].items() if name != "data_folder"}
    return {**{name: value for name, value in content.items() if name != "options"}, **options}
