"""Pictures to look at: an image as displayed, with the overlay that belongs to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from dicom_node.results import wording
from dicom_node.results.overlay_picture import shade

HEIGHT = 900
_FONT_SIZE = 17  # the caption of a mammogram, which is higher than wide, fits into one line


def caption(place: str, probability: float, threshold: float) -> str:
    """Say above a picture what the model said of it.

    Parameters
    ----------
    place : str
        Side and view, such as ``"L MLO"``.
    probability, threshold : float
        0..1.
    """
    return f"{place}: probability of cancer {wording.compared(probability, threshold)}. AI, not verified"


def draw_overlay(grey: NDArray[np.uint8], bands: NDArray[np.uint8] | None, caption: str, path: Path) -> None:
    """Write one image with its overlay and caption as PNG.

    Parameters
    ----------
    grey : numpy.ndarray
        ``(rows, columns)`` uint8, the image as displayed.
    bands : numpy.ndarray or None
        ``(rows, columns)`` uint8 of :func:`dicom_node.results.reading.evidence_bands`; None where there is
        no overlay.
    caption : str
        A line above the picture.
    path : pathlib.Path
        Where to write.
    """
    picture = np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if bands is not None:
        shade(picture, bands)
    width = round(HEIGHT * picture.shape[1] / picture.shape[0])
    scaled = Image.fromarray(picture).resize((width, HEIGHT), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (width, HEIGHT + 40), "black")
    sheet.paste(scaled, (0, 40))
    font = ImageFont.load_default(size=_FONT_SIZE)
    ImageDraw.Draw(sheet).text((10, 8), caption, fill="white", font=font)
    sheet.save(path)


def phantom_as_displayed(phantom: Dataset) -> NDArray[np.uint8]:
    """Give a phantom's pixels as a display shows them: MONOCHROME2, one linear window.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns)`` uint8.
    """
    low = float(phantom.WindowCenter) - float(phantom.WindowWidth) / 2
    grey = np.clip((phantom.pixel_array - low) / float(phantom.WindowWidth), 0, 1) * 255
    return np.asarray(grey, np.uint8)
