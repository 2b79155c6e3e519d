"""Tiny made-up mammograms as PNG files with a table of labels: enough to train on in seconds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

ROWS, COLUMNS = 96, 64


def spot_of(woman: int) -> tuple[int, int]:
    """Row and column of the spot of a woman who has one; its radius is 5."""
    row, column = np.random.default_rng([7, woman]).integers((30, 8), (66, 28))
    return int(row), int(column)


def draw_mammograms(folder: Path, *, women: int, seed: int = 0) -> Path:
    """Draw one image of each of some women, every second one with a bright spot, and ``labels.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    lines = [("path", "patient", "label", "laterality", "view", "subgroup:density")]
    for woman in range(women):
        random = np.random.default_rng([seed, woman])
        breast = ((rows - ROWS / 2) / 40) ** 2 + (columns / random.uniform(40, 55)) ** 2 < 1
        values = np.where(breast, 90 + random.normal(0, 12, breast.shape), 0)
        if woman % 2:
            row, column = spot_of(woman)
            values += 110 * (np.hypot(rows - row, columns - column) < 5) * breast
        name = f"woman-{woman:03d}.png"
        Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(folder / name)
        lines.append((name, f"w{woman:03d}", str(woman % 2), "L", "CC", "AB"[woman // 2 % 2]))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder
