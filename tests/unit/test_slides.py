"""A stored whole-slide object is read band by band, or refused with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from dicom_node.errors import ImageError
from dicom_node.images.decoder_process import DecodeLimits
from dicom_node.images.reader import ImageReader
from dicom_node.images.slides import read_slide
from models.contract import RefusalCode
from tests.slide_phantoms import slide_object, slide_pixels

ROWS, COLUMNS = 330, 520
PIXELS = slide_pixels(5, rows=ROWS, columns=COLUMNS, tumour=(160, 260, 60))


@pytest.fixture(scope="module")
def reader() -> Iterator[ImageReader]:
    with ImageReader(DecodeLimits()) as reader:
        yield reader


def written(image: Dataset, folder: Path) -> Path:
    path = folder / "slide.dcm"
    image.save_as(path, enforce_file_format=True)
    return path


def made(**changes: Any) -> Dataset:
    return slide_object(PIXELS, seed=5, tile=128, **changes)


def refusal(reader: ImageReader, image: Dataset, folder: Path) -> str:
    with pytest.raises(ImageError) as caught:
        slide = read_slide(reader, written(image, folder), image.SOPInstanceUID)
        slide.view.read(0, ROWS)
    return caught.value.code


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_the_bands_of_a_slide_are_its_pixels(syntax: str, reader: ImageReader, tmp_path: Path) -> None:
    image = made(transfer_syntax_uid=syntax)
    view = read_slide(reader, written(image, tmp_path), image.SOPInstanceUID).view
    assert (view.rows, view.columns, view.spacing_mm) == (ROWS, COLUMNS, 0.004)
    assert view.slide_uid == image.FrameOfReferenceUID
    bands = [view.read(top, min(top + 50, ROWS)) for top in range(0, ROWS, 50)]
    assert np.array_equal(np.concatenate(bands), PIXELS)


def test_tiles_that_the_scanner_left_out_are_white(reader: ImageReader, tmp_path: Path) -> None:
    image = made(sparse=True)
    assert 0 < image.NumberOfFrames < 15
    view = read_slide(reader, written(image, tmp_path), image.SOPInstanceUID).view
    read = view.read(0, ROWS)
    there = np.zeros((384, 640), np.bool_)
    for group in image.PerFrameFunctionalGroupsSequence:
        (position,) = group.PlanePositionSlideSequence
        top = position.RowPositionInTotalImagePixelMatrix - 1
        left = position.ColumnPositionInTotalImagePixelMatrix - 1
        there[top : top + 128, left : left + 128] = True
    there = there[:ROWS, :COLUMNS]
    assert np.array_equal(read[there], PIXELS[there])
    assert (read[~there] == 255).all()


def test_a_slide_is_decoded_a_row_of_tiles_at_a_time(
    reader: ImageReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = made()
    asked: list[list[int]] = []
    tiles = ImageReader.tiles

    def noting(self: ImageReader, path: Path, frames: list[int], size: tuple[int, int]) -> Any:
        asked.append(frames)
        return tiles(self, path, frames, size)

    monkeypatch.setattr(ImageReader, "tiles", noting)
    view = read_slide(reader, written(image, tmp_path), image.SOPInstanceUID).view
    assert asked == []
    for top in range(0, 300, 50):
        view.read(top, top + 50)
    assert asked == [list(range(5)), list(range(5, 10)), list(range(10, 15))]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}, RefusalCode.NOT_SLIDE_TISSUE),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"]}, RefusalCode.NOT_SLIDE_TISSUE),
        ({"ImageType": None}, RefusalCode.NOT_SLIDE_TISSUE),
        ({"ConcatenationUID": "2.25.9"}, RefusalCode.UNSUPPORTED_SOP_CLASS),
        ({"NumberOfOpticalPaths": 2}, RefusalCode.SLIDE_OPTICS),
        ({"TotalPixelMatrixFocalPlanes": 3}, RefusalCode.SLIDE_OPTICS),
        ({"SamplesPerPixel": 1}, RefusalCode.SLIDE_OPTICS),
        ({"FrameOfReferenceUID": None}, RefusalCode.SLIDE_PLACEMENT),
        ({"ImageOrientationSlide": None}, RefusalCode.SLIDE_PLACEMENT),
        ({"SharedFunctionalGroupsSequence": []}, RefusalCode.SLIDE_PLACEMENT),
        ({"DimensionOrganizationType": "TILED_SPARSE"}, RefusalCode.SLIDE_PLACEMENT),
        ({"TotalPixelMatrixRows": 5000}, RefusalCode.PIXEL_DATA),
        ({"TotalPixelMatrixRows": 0}, RefusalCode.IMAGE_TOO_LARGE),
        ({"TotalPixelMatrixColumns": 4_000_000_000}, RefusalCode.IMAGE_TOO_LARGE),
        ({"TotalPixelMatrixRows": None}, RefusalCode.UNREADABLE),
        ({"Rows": 0}, RefusalCode.PIXEL_DATA),
    ],
)
def test_what_cannot_be_read_as_a_slide_is_refused_with_its_reason(
    changes: dict[str, Any], code: RefusalCode, reader: ImageReader, tmp_path: Path
) -> None:
    assert refusal(reader, made(**changes), tmp_path) == code


def test_tiles_beside_their_grid_are_refused(reader: ImageReader, tmp_path: Path) -> None:
    image = made(sparse=True)
    position = image.PerFrameFunctionalGroupsSequence[0].PlanePositionSlideSequence[0]
    position.RowPositionInTotalImagePixelMatrix += 1
    assert refusal(reader, image, tmp_path) == RefusalCode.SLIDE_PLACEMENT


def test_two_tiles_at_one_place_are_refused(reader: ImageReader, tmp_path: Path) -> None:
    image = made(sparse=True)
    groups = image.PerFrameFunctionalGroupsSequence
    groups[1] = groups[0]
    assert refusal(reader, image, tmp_path) == RefusalCode.SLIDE_PLACEMENT


@pytest.mark.parametrize("keep", [0.2, 0.9])
def test_a_slide_whose_tiles_are_cut_off_is_refused(keep: float, reader: ImageReader, tmp_path: Path) -> None:
    image = made()
    image.PixelData = image.PixelData[: int(len(image.PixelData) * keep) // 2 * 2]
    assert refusal(reader, image, tmp_path) == RefusalCode.PIXEL_DATA


def test_garbage_instead_of_tiles_costs_one_slide(reader: ImageReader, tmp_path: Path) -> None:
    image = made(transfer_syntax_uid=JPEG2000Lossless)
    content = bytearray(image.PixelData)
    content[200:] = bytes(len(content) - 200)
    image.PixelData = bytes(content)
    assert refusal(reader, image, tmp_path) == RefusalCode.PIXEL_DATA
    good = made()
    view = read_slide(reader, written(good, tmp_path), good.SOPInstanceUID).view
    assert np.array_equal(view.read(0, 50), PIXELS[:50])


def test_a_missing_file_says_nothing_about_the_slide(reader: ImageReader, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_slide(reader, tmp_path / "gone.dcm", "2.25.1")
