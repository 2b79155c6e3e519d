"""Tiles of a whole-slide image, decoded a few at a time: a slide is larger than memory.

Runs in the decoder process (:mod:`dicom_node.images.decoding`) and reads from the file the frames that were
asked for, never the whole pixel data.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from dicom_node.errors import ImageError
from dicom_node.header_values import MALFORMED, integer, text
from dicom_node.images.sealed_memory import new_memory, seal

_COLOURS = 3
_HEADER = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "Rows",
    "Columns",
    "NumberOfFrames",
)


def tile_pixels(stored: BinaryIO, frames: Sequence[int], max_pixels: int) -> tuple[int, dict[str, int]]:
    """Decode some frames of a colour object.

    Parameters
    ----------
    stored : file
        A Part 10 file, at its start.
    frames : sequence of int
        Numbers of the frames from 0, in rising order.
    max_pixels : int
        Pixels of all of them together that are decoded at most.

    Returns
    -------
    tuple
        Descriptor of sealed memory with ``(frames, rows, columns, 3)`` uint8 RGB; and ``{"rows", "columns",
        "frames"}``.

    Raises
    ------
    ImageError
        With the refusal's code.
    """
    image = dcmread(stored, stop_before_pixels=True, specific_tags=list(_HEADER))
    rows, columns = _checked_size(image, frames, max_pixels)
    stored.seek(0)
    cells = rows * columns * _COLOURS
    memory = new_memory("tiles", cells * len(frames))
    try:
        with mmap.mmap(memory, cells * len(frames)) as target:
            _decode_into(target, stored, frames, (rows, columns, _COLOURS))
        seal(memory)
    except BaseException:
        os.close(memory)
        raise
    return memory, {"rows": rows, "columns": columns, "frames": len(frames)}


def _decode_into(
    target: mmap.mmap, stored: BinaryIO, frames: Sequence[int], shape: tuple[int, int, int]
) -> None:
    try:
        for tile in iter_pixels(stored, indices=frames):
            if tile.shape != shape or tile.dtype != np.uint8:
                raise ImageError("PIXEL_DATA", "a decoded tile is not what the header says")
            target.write(tile.tobytes())
    except (RuntimeError, IndexError, *MALFORMED) as error:
        raise ImageError("PIXEL_DATA", "a tile cannot be decoded") from error
    if target.tell() != target.size():
        raise ImageError("PIXEL_DATA", "the pixel data holds fewer tiles than its header says")


def _checked_size(image: Dataset, frames: Sequence[int], max_pixels: int) -> tuple[int, int]:
    is_colour = integer(image, "SamplesPerPixel", default=1) == _COLOURS
    if not is_colour or integer(image, "BitsAllocated", default=0) != 8:
        raise ImageError("SLIDE_OPTICS", "the tiles are not in colours of 8 bits")
    if not text(image, "PhotometricInterpretation"):
        raise ImageError("UNREADABLE", "PhotometricInterpretation is missing")
    rows, columns = integer(image, "Rows"), integer(image, "Columns")
    if rows < 1 or columns < 1 or not frames:
        raise ImageError("PIXEL_DATA", "Rows or Columns is not positive")
    if rows * columns * len(frames) > max_pixels:
        raise ImageError("IMAGE_TOO_LARGE", f"the tiles have more than {max_pixels} pixels")
    if frames[0] < 0 or frames[-1] >= integer(image, "NumberOfFrames", default=1):
        raise ImageError("PIXEL_DATA", "the slide has fewer tiles than its matrix needs")
    return rows, columns
