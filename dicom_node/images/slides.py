"""A stored VL Whole Slide Microscopy object becomes a slide that is read band by band.

The header says where each tile lies (PS3.3 C.8.12.4, C.7.6.17.3); the tiles themselves are decoded in the
decoder process, a few at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import ImageError
from dicom_node.header_values import integer, items, numbers, text, texts
from dicom_node.images.reader import TILES_AT_ONCE, ImageReader, read_header
from models.contract import RefusalCode, SlideView

_GLASS = 255
_MOST_SIDE = 1 << 20  # pixels of a total pixel matrix; no scanner comes near
_MOST_BAND_PIXELS = 1 << 28  # of one row of tiles, which is held in memory
_PIXELS_AT_ONCE = 1 << 24  # of one request to the decoder process
_ROUNDING = 0.01  # relative; pixels of a slide scanner are square
_NEEDED = ("FrameOfReferenceUID", "ImageOrientationSlide", "TotalPixelMatrixOriginSequence")


@dataclass(frozen=True, slots=True)
class SourceSlide:
    """One level of a slide and the header it came with."""

    header: Dataset
    view: SlideView


def read_slide(reader: ImageReader, path: Path, sop_instance_uid: str) -> SourceSlide:
    """Read the header of one stored slide level; its tiles are read when the view is asked for them.

    Parameters
    ----------
    reader : ImageReader
        Whose decoder process reads the tiles.
    path : pathlib.Path
        A Part 10 file.
    sop_instance_uid : str
        The object that it is expected to hold.

    Returns
    -------
    SourceSlide
        The view's ``read`` raises the errors of this function, too.

    Raises
    ------
    ImageError
        The object is no level of a slide that can be read; its code is a
        :class:`models.contract.RefusalCode`.
    OSError
        The file is missing, or the machine fails.
    """
    header = read_header(path, sop_instance_uid)
    _require_tissue(header)
    spacing_mm = _spacing_mm(header)
    tiling = _tiling(header)
    view = SlideView(
        sop_instance_uid=sop_instance_uid,
        slide_uid=str(header.FrameOfReferenceUID),
        rows=tiling.rows,
        columns=tiling.columns,
        spacing_mm=spacing_mm,
        read=_Bands(tiling, partial(reader.tiles, path)),
    )
    return SourceSlide(header, view)


@dataclass(frozen=True, slots=True)
class _Tiling:
    """Where the tiles of a level are; ``frames[i, j]`` is a frame's number from 0, or -1 for none."""

    rows: int
    columns: int
    tile: tuple[int, int]
    frames: NDArray[np.int64]


class _Bands:
    """Reads rows of a level, and keeps the row of tiles that was read last."""

    def __init__(self, tiling: _Tiling, decode: partial[NDArray[np.uint8]]) -> None:
        self._tiling = tiling
        self._decode = decode
        self._kept: tuple[int, NDArray[np.uint8]] | None = None

    def __call__(self, top: int, bottom: int) -> NDArray[np.uint8]:
        height = self._tiling.tile[0]
        parts = []
        for number in range(top // height, -(-bottom // height)):
            first = number * height
            parts.append(self._row_of_tiles(number)[max(top - first, 0) : bottom - first])
        return np.concatenate(parts)[:, : self._tiling.columns]

    def _row_of_tiles(self, number: int) -> NDArray[np.uint8]:
        if self._kept is None or self._kept[0] != number:
            self._kept = None  # before the next one takes as much memory again
            self._kept = (number, self._decoded_row(self._tiling.frames[number]))
        return self._kept[1]

    def _decoded_row(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        height, width = self._tiling.tile
        if height * width * frames.size > _MOST_BAND_PIXELS:
            raise ImageError(RefusalCode.IMAGE_TOO_LARGE, "a row of the slide's tiles is too large")
        row = np.full((height, frames.size * width, 3), _GLASS, np.uint8)
        there = np.flatnonzero(frames >= 0)
        there = there[np.argsort(frames[there])]
        at_once = min(TILES_AT_ONCE, max(1, _PIXELS_AT_ONCE // (height * width)))
        for start in range(0, there.size, at_once):
            columns = there[start : start + at_once]
            tiles = self._decode(frames[columns].tolist(), (height, width))
            for column, tile in zip(columns, tiles, strict=True):
                row[:, column * width : (column + 1) * width] = tile
        return row


def _require_tissue(header: Dataset) -> None:
    """Refuse what belongs to a slide but is not its stained tissue in colour and focus."""
    if "VOLUME" not in texts(header, "ImageType")[2:3]:
        raise ImageError(RefusalCode.NOT_SLIDE_TISSUE, "Image Type says that this is not the tissue")
    if text(header, "ConcatenationUID"):
        raise ImageError(RefusalCode.UNSUPPORTED_SOP_CLASS, "the slide is split over several objects")
    several = ("NumberOfOpticalPaths", "TotalPixelMatrixFocalPlanes")
    in_colour = integer(header, "SamplesPerPixel", default=1) == 3
    if not in_colour or any(integer(header, keyword, default=1) != 1 for keyword in several):
        raise ImageError(RefusalCode.SLIDE_OPTICS, "not one focal plane and one optical path in colour")


def _spacing_mm(header: Dataset) -> float:
    if not all(header.get(keyword) for keyword in _NEEDED):
        raise ImageError(RefusalCode.SLIDE_PLACEMENT, "the header does not place the slide")
    groups = items(header, "SharedFunctionalGroupsSequence")
    measures = items(groups[0], "PixelMeasuresSequence") if groups else []
    spacing = numbers(measures[0], "PixelSpacing") if measures else []
    if len(spacing) != 2 or min(spacing) <= 0 or abs(spacing[0] / spacing[1] - 1) > _ROUNDING:
        raise ImageError(RefusalCode.SLIDE_PLACEMENT, "the slide states no spacing of square pixels")
    return spacing[0]


def _tiling(header: Dataset) -> _Tiling:
    rows, columns = (integer(header, f"TotalPixelMatrix{side}") for side in ("Rows", "Columns"))
    height, width = integer(header, "Rows"), integer(header, "Columns")
    if not (0 < height <= _MOST_SIDE and 0 < width <= _MOST_SIDE):
        raise ImageError(RefusalCode.PIXEL_DATA, "Rows or Columns is not positive")
    if not (0 < rows <= _MOST_SIDE and 0 < columns <= _MOST_SIDE):
        raise ImageError(RefusalCode.IMAGE_TOO_LARGE, "the total pixel matrix has no size that can be")
    grid = (-(-rows // height), -(-columns // width))
    count = integer(header, "NumberOfFrames", default=1)
    if text(header, "DimensionOrganizationType") == "TILED_FULL":
        if count != grid[0] * grid[1]:
            raise ImageError(RefusalCode.PIXEL_DATA, "the slide has not the tiles that its matrix needs")
        frames = np.arange(count, dtype=np.int64).reshape(grid)
    else:
        frames = _placed(items(header, "PerFrameFunctionalGroupsSequence"), (height, width), grid, count)
    return _Tiling(rows, columns, (height, width), frames)


def _placed(
    groups: Sequence[Dataset], tile: tuple[int, int], grid: tuple[int, int], count: int
) -> NDArray[np.int64]:
    """Put each frame where its functional groups say (PS3.3 C.8.12.6.1)."""
    if len(groups) != count or count > grid[0] * grid[1]:
        raise ImageError(RefusalCode.SLIDE_PLACEMENT, "the functional groups do not place each tile")
    frames = np.full(grid, -1, np.int64)
    for number, group in enumerate(groups):
        (position,) = items(group, "PlanePositionSlideSequence")[:1] or [Dataset()]
        down = integer(position, "RowPositionInTotalImagePixelMatrix", default=0) - 1
        across = integer(position, "ColumnPositionInTotalImagePixelMatrix", default=0) - 1
        place = (down // tile[0], across // tile[1])
        is_aligned = down % tile[0] == 0 and across % tile[1] == 0
        is_inside = 0 <= place[0] < grid[0] and 0 <= place[1] < grid[1]
        if not (is_aligned and is_inside) or frames[place] >= 0:
            raise ImageError(RefusalCode.SLIDE_PLACEMENT, "a tile lies beside the grid of tiles")
        frames[place] = number
    return frames
