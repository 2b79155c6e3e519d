"""Bundles with an untrained network of any task: several outputs, with or without a map, grey or colour."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from models import architectures, bundle, manifest
from models.calibration import OperatingPoint
from models.preprocessing import Parameters
from models.tasks import task_named

GRID = Parameters(rows=96, columns=64, pixel_mm=2.4)


def write_answering_bundle(
    folder: Path,
    *,
    task: str = "mias7",
    architecture: str = "cnn3",
    head: str = "gap",
    channels: int = 1,
    seed: int = 1,
    version: str = "1.0.0",
    **changes: Any,
) -> bundle.Bundle:
    """Write a bundle into `folder` and read it back; `changes` replace fields of its manifest."""
    asked = task_named(task)
    arguments = {"outputs": asked.outputs, "channels": channels, "head": head}
    torch.manual_seed(seed)
    network = architectures.build(architecture, arguments).eval()
    grid = changes.get("preprocessing", GRID)
    drawn = np.random.default_rng(seed).normal(size=(2, channels, grid.rows, grid.columns))
    inputs = drawn.astype(np.float32)
    with torch.inference_mode():
        answers = [network(torch.from_numpy(image[np.newaxis])) for image in inputs]
    golden = {"inputs": inputs, "logits": np.concatenate([logits.numpy() for logits, _ in answers])}
    if head == "gap":
        golden["activations"] = np.concatenate([activation.numpy() for _, activation in answers])
    (folder / "configs").mkdir(parents=True)
    state = {name: np.ascontiguousarray(value.numpy()) for name, value in network.state_dict().items()}
    save_file(state, folder / bundle.WEIGHTS)
    save_file(golden, folder / bundle.GOLDEN)
    (folder / bundle.CARD).write_text("# Card\n")
    metadata = {"name": "answering", "version": version, "network_data_format": {}}
    (folder / bundle.METADATA).write_text(json.dumps(metadata))
    names = (bundle.METADATA, bundle.WEIGHTS, bundle.GOLDEN, bundle.CARD)
    claims = manifest.Manifest(
        format=manifest.FORMAT,
        task=task,
        labels=asked.labels,
        manufacturer="test",
        licence="Apache-2.0",
        intended_use="Tests. Not for clinical use.",
        demonstration=True,
        architecture=architecture,
        architecture_arguments=arguments,
        preprocessing=GRID,
        temperature=1.5,
        operating_points=(OperatingPoint("default", 0.0, 0.9, 0.8, 0.95, False),),
        evidence_enabled=head == "gap",
        training_data_sha256="0" * 64,
        split_sha256="0" * 64,
        metrics=(),
        files={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names},
        classes=asked.classes,
    )
    (folder / bundle.MANIFEST).write_bytes(manifest.write(replace(claims, **changes)))
    return bundle.read(folder)
