"""Pictures for eyes alone: an image with its attention in colour, its marks as lines, and words above it.

Words never lie on the image, where they could hide something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicom_node.errors import ResultError
from dicom_node.results import wording
from dicom_node.results.context import ResultContext
from dicom_node.results.lesions import Lesion
from dicom_node.results.outlines import Points, outlines_of
from models.contract import ImageScore

Picture = NDArray[np.uint8]

BAND_COLOURS = ((255, 214, 10), (255, 140, 0), (230, 30, 30))
"""Red, green and blue of the evidence bands 1, 2, 3."""

_OPACITY = 0.4
_LINE_COLOUR = (64, 224, 255)
_TEXT_COLOUR = (255, 255, 255)
_WARNING_COLOUR = (255, 214, 10)
_LEAST_FONT_SIZE = 11
_CHARACTERS_ACROSS, _LABELS_ACROSS = 88, 52


def has_overlay(context: ResultContext, score: ImageScore) -> bool:
    """Tell whether the model shows anything on an image: marks, if it localises, or attention."""
    has_attention = score.evidence is not None and bool(score.evidence.any())
    return has_attention or (context.bundle.localises and bool(score.marks))


def overlay_picture(context: ResultContext, score: ImageScore, reduction: int) -> Picture:
    """Draw one image with what the model showed on it.

    Parameters
    ----------
    context : ResultContext
        Has the image as a display shows it.
    score : models.contract.ImageScore
        What the model said of it.
    reduction : int
        How many pixels of the image, down and across, make one of the picture, which shows their mean.

    Returns
    -------
    numpy.ndarray
        ``(rows, columns, 3)`` uint8, red, green and blue. A point at ``column\\row`` of the image lies at
        ``column / reduction\\row / reduction`` of the picture.

    Raises
    ------
    ResultError
        When the context has no rendering of the image, or one of another size.
    """
    source = context.source(score.sop_instance_uid)
    p_values = context.renderings.get(score.sop_instance_uid)
    if p_values is None or p_values.shape != (source.Rows, source.Columns):
        raise ResultError("an image to be drawn has no fitting rendering; pass ResultContext.renderings")
    grey = Image.fromarray((p_values >> 8).astype(np.uint8)).reduce(reduction)
    picture = np.repeat(np.asarray(grey)[:, :, np.newaxis], 3, axis=2)
    if score.evidence is not None:
        shade(picture, score.evidence[reduction // 2 :: reduction, reduction // 2 :: reduction])
    sheet = Image.fromarray(picture)
    for outline in outlines_of(context, score):
        if outline.lesion is not None:
            _draw(sheet, outline.points / reduction, outline.lesion, context.prediction.threshold)
    return np.asarray(sheet)


def captioned(picture: Picture, warning: str, sentences: Iterable[str]) -> Picture:
    """Put words on black above a picture, broken to its width.

    Parameters
    ----------
    picture : numpy.ndarray
        ``(rows, columns, 3)`` uint8.
    warning : str
        First line, in a colour of its own.
    sentences : iterable of str
        Each begins a line.

    Returns
    -------
    numpy.ndarray
        The picture with rows added above it.
    """
    columns = picture.shape[1]
    font = _font(columns, _CHARACTERS_ACROSS)
    ascent, descent = font.getmetrics()
    height, margin = round((ascent + descent) * 1.15), ascent // 2
    lines = [(line, _WARNING_COLOUR) for line in _broken(warning, font, columns - 2 * margin)]
    for sentence in sentences:
        lines += [(line, _TEXT_COLOUR) for line in _broken(sentence, font, columns - 2 * margin)]
    strip = Image.new("RGB", (columns, height * len(lines) + 2 * margin))
    draw = ImageDraw.Draw(strip)
    for number, (line, colour) in enumerate(lines):
        draw.text((margin, margin + number * height), line, fill=colour, font=font)
    return np.vstack([np.asarray(strip), picture])


def shade(picture: Picture, bands: NDArray[np.uint8]) -> None:
    """Lay the colours of the bands over a picture, in place.

    Parameters
    ----------
    picture : numpy.ndarray
        ``(rows, columns, 3)`` uint8; changed.
    bands : numpy.ndarray
        ``(rows, columns)`` uint8, 0 for no colour; may be a row or a column smaller.
    """
    # An odd last row or column of the image has a pixel of its own in the picture, and no sample.
    shown = picture[: bands.shape[0], : bands.shape[1]]
    for band, colour in enumerate(BAND_COLOURS, start=1):
        inside = bands == band
        shown[inside] = (shown[inside] * (1 - _OPACITY) + np.array(colour) * _OPACITY).astype(np.uint8)


def _draw(sheet: Image.Image, outline: Points, lesion: Lesion, threshold: float) -> None:
    # Pillow counts from the centre of the first pixel, DICOM from its outer corner.
    points = [(float(x), float(y)) for x, y in outline - 0.5]
    draw = ImageDraw.Draw(sheet)
    draw.line(points, fill=_LINE_COLOUR, width=1 + sheet.width // 600)
    font = _font(sheet.width, _LABELS_ACROSS)
    label = f"{lesion.number}: {wording.percent(lesion.mark.probability, threshold)}"
    left, top = max(points)[0] + font.size / 2, min(y for _, y in points)
    place = max(0.0, min(left, sheet.width - font.getlength(label))), top
    draw.text(place, label, fill=_LINE_COLOUR, font=font, stroke_width=1, stroke_fill=(0, 0, 0))


def _font(columns: int, characters_across: int) -> ImageFont.FreeTypeFont:
    # A character is about half as wide as the size of its font.
    font = ImageFont.load_default(size=max(_LEAST_FONT_SIZE, columns * 2 // characters_across))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ResultError("this Pillow has no FreeType to draw words with; install the released wheel")
    return font


def _broken(text: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """Break a sentence between words into lines of at most a width, as far as single words allow."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            yield line
            line = word
        else:
            line = longer
    yield line
