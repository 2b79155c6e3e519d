"""Pictures to look at: what stands above them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dicom_node.cli.pictures import HEIGHT, caption, draw_overlay


def test_a_caption_says_probability_and_side_of_the_threshold_alike() -> None:
    assert caption("L MLO", 0.9946, 0.5145) == (
        "L MLO: probability of cancer 99.5 %, at or above the threshold of 51.4 %. AI, not verified"
    )
    assert "0.49996 %, below the threshold of 0.50000 %" in caption("R CC", 0.0049996, 0.005)


def test_the_longest_caption_fits_above_a_mammogram(tmp_path: Path) -> None:
    rows, columns = 2048, 1664
    path = tmp_path / "picture.png"
    longest = caption("R MLO", 1.0, 0.5145)
    draw_overlay(np.zeros((rows, columns), np.uint8), None, longest, path)
    above = np.asarray(Image.open(path).convert("L"))[:-HEIGHT]
    assert above.any()
    assert not above[:, -8:].any()
