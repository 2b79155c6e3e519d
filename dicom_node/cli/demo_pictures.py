"""The demonstration's pictures: each image as sent, with the overlay that came back to the PACS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

HEIGHT = 900
BAND_COLOURS = ((255, 214, 10), (255, 140, 0), (230, 30, 30))
OPACITY = 0.45


def draw_overlay(source: Dataset, bands: NDArray[np.uint8] | None, caption: str, path: Path) -> None:
    """Write one image with its overlay and caption as PNG.

    Parameters
    ----------
    source : pydicom.dataset.Dataset
        A phantom: MONOCHROME2, one linear window.
    bands : numpy.ndarray or None
        ``(rows, columns)`` uint8 of :func:`dicom_node.results.reading.evidence_bands`; None where no
        overlay came back.
    caption : str
        A line above the picture.
    path : pathlib.Path
        Where to write.
    """
    low = float(source.WindowCenter) - float(source.WindowWidth) / 2
    grey = np.clip((source.pixel_array - low) / float(source.WindowWidth), 0, 1) * 255
    picture = np.repeat(grey.astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
    if bands is not None:
        for number, colour in enumerate(BAND_COLOURS, start=1):
            inside = bands == number
            mixed = picture[inside] * (1 - OPACITY) + np.array(colour) * OPACITY
            picture[inside] = mixed.astype(np.uint8)
    width = round(HEIGHT * picture.shape[1] / picture.shape[0])
    scaled = Image.fromarray(picture).resize((width, HEIGHT), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (width, HEIGHT + 40), "black")
    sheet.paste(scaled, (0, 40))
    font = ImageFont.load_default(size=18)
    ImageDraw.Draw(sheet).text((10, 8), caption, fill="white", font=font)
    sheet.save(path)
