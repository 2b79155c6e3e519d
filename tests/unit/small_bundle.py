"""A bundle with an untrained small network, whole and valid, made in a moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import architectures
from models.bundle import Bundle
from models.calibration import OperatingPoint
from models.manifest import FORMAT, Manifest
from models.preprocessing import Parameters
from models.tasks import task_named
from training.packaging import Release, write_bundle

GRID = Parameters(rows=96, columns=64, pixel_mm=2.4)
CHANNELS = [4, 4, 4]


def write_small_bundle(folder: Path, *, seed: int = 1, release_name: str = "small", **changes: Any) -> Bundle:
    """Write a bundle into `folder`; `changes` replace fields of its manifest."""
    torch.manual_seed(seed)
    network = architectures.build("compact", {"channels": CHANNELS}).eval()
    task = task_named("mammography_malignancy")

    def manifest(files: dict[str, str]) -> Manifest:
        whole = Manifest(
            format=FORMAT,
            task=task.name,
            labels=task.labels,
            manufacturer="test",
            licence="Apache-2.0",
            intended_use="Tests. Not for clinical use.",
            demonstration=True,
            architecture="compact",
            architecture_arguments={"channels": CHANNELS},
            preprocessing=GRID,
            temperature=1.5,
            operating_points=(OperatingPoint("default", 0.5, 0.9, 0.8, 0.95, False),),
            evidence_enabled=True,
            training_data_sha256="0" * 64,
            split_sha256="0" * 64,
            metrics=(),
            files=files,
        )
        return replace(whole, **changes)

    images = np.random.default_rng(seed).normal(size=(2, 1, GRID.rows, GRID.columns)).astype(np.float32)
    release = Release(release_name, "1.0.0", "A test.", "test", "test", {"1.0.0": "first"})
    return write_bundle(folder, network, list(images), release, "# Card\n", manifest)
