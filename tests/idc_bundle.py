"""A bundle that tells crowded dark nuclei from plain tissue: small, and trained in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models import architectures
from models.bundle import Bundle
from models.calibration import OperatingPoint
from models.manifest import FORMAT, Manifest
from models.patches import PatchParameters, prepare_patch
from models.tasks import task_named
from tests.slide_phantoms import slide_pixels
from training.packaging import Release, write_bundle

SIDE = 50
PARAMETERS = PatchParameters()
ARGUMENTS = {"outputs": 1, "channels": 3, "head": "gap"}
_STEPS = 25


def write_idc_bundle(
    folder: Path, version: str = "1.0.0", *, scanner_models: tuple[str, ...] = (), steps: int = _STEPS
) -> Bundle:
    """Train on drawn patches and write the bundle into `folder`."""
    torch.manual_seed(3)
    network = architectures.build("cnn3", ARGUMENTS)
    patches, labels = drawn_patches()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(steps):
        logits, _ = network(patches)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    task = task_named("idc")

    def manifest(files: dict[str, str]) -> Manifest:
        return Manifest(
            format=FORMAT,
            task=task.name,
            labels=task.labels,
            manufacturer="test",
            licence="Apache-2.0",
            intended_use="Tests. Not for clinical use.",
            demonstration=True,
            architecture="cnn3",
            architecture_arguments=ARGUMENTS,
            preprocessing=PARAMETERS,
            temperature=1.0,
            operating_points=(OperatingPoint("default", 0.5, 0.9, 0.8, 0.95, False),),
            evidence_enabled=False,
            training_data_sha256="0" * 64,
            split_sha256="0" * 64,
            metrics=(),
            files=files,
            scanner_models=scanner_models,
        )

    release = Release("patches", version, "A test.", "test", "test", {version: "first"})
    return write_bundle(folder, network.eval(), list(patches[:2].numpy()), release, "# Card\n", manifest)


def drawn_patches() -> tuple[torch.Tensor, torch.Tensor]:
    """Draw patches of tissue without and with a tumour, half each; give tensors and labels."""
    plain = slide_pixels(1, rows=500, columns=500)
    tumour = slide_pixels(2, rows=500, columns=500, tumour=(250, 250, 400))
    tensors = [prepare_patch(patch, PARAMETERS) for image in (plain, tumour) for patch in _middle(image)]
    labels = np.repeat([0.0, 1.0], len(tensors) // 2).astype(np.float32)
    return torch.from_numpy(np.stack(tensors)), torch.from_numpy(labels)


def _middle(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    places = range(150, 350, SIDE)
    return [image[top : top + SIDE, left : left + SIDE] for top in places for left in places]
