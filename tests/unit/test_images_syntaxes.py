"""Compressed objects show the pixels that went into them, bit for bit where the compression is lossless."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node.errors import ImageError
from dicom_node.images.reader import ImageReader
from tests.unit.image_files import SOP_INSTANCE_UID, breast, image, written

# The full range is 0..65535 here, so that a P-value is the stored value itself.
EXACT = {"WindowCenter": "32768", "WindowWidth": "65536"}


@pytest.fixture(scope="module")
def reader() -> Iterator[ImageReader]:
    with ImageReader() as opened:
        yield opened


def compressed(path: Path, pixels: NDArray[Any], syntax: UID, bits: int, **elements: Any) -> Path:
    data_set = image(pixels, bits_stored=bits, **(EXACT | elements))
    data_set.compress(syntax, generate_instance_uid=False)
    return written(path, data_set)


def compressed_by_gdcm(path: Path, pixels: NDArray[Any], syntax: UID, bits: int) -> Path:
    source = written(path.with_suffix(".native"), image(pixels, bits_stored=bits, **EXACT))
    reading = gdcm.ImageReader()
    reading.SetFileName(str(source))
    assert reading.Read()
    if syntax == JPEGExtended12Bit:
        # GDCM makes a codestream of as many bits as a cell has.
        reading.GetImage().SetPixelFormat(gdcm.PixelFormat(1, bits, bits, bits - 1, 0))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reading.GetImage())
    assert change.Change()
    writing = gdcm.ImageWriter()
    writing.SetFileName(str(path))
    writing.SetFile(reading.GetFile())
    writing.SetImage(change.GetOutput())
    assert writing.Write()
    changed = dcmread(path)
    changed.BitsAllocated = pixels.dtype.itemsize * 8
    changed.save_as(path)
    return path


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_lossless_syntaxes_are_bit_exact(syntax: UID, bits: int, reader: ImageReader, tmp_path: Path) -> None:
    pixels = breast(bits=bits)
    path = compressed(tmp_path / "image.dcm", pixels, syntax, bits)

    assert np.array_equal(reader.read(path, SOP_INSTANCE_UID).view.pixels, pixels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_lossless_syntaxes_are_bit_exact_in_cells_of_8_bits(
    syntax: UID, reader: ImageReader, tmp_path: Path
) -> None:
    pixels = breast(bits=8).astype(np.uint8)
    path = compressed(tmp_path / "image.dcm", pixels, syntax, 8)

    assert np.array_equal(reader.read(path, SOP_INSTANCE_UID).view.pixels, pixels)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("bits", [12, 16])
def test_signed_pixels_survive_compression(
    syntax: UID, bits: int, reader: ImageReader, tmp_path: Path
) -> None:
    pixels = (breast(bits=bits).astype(np.int32) - (1 << (bits - 1))).astype(np.int16)
    path = compressed(
        tmp_path / "image.dcm", pixels, syntax, bits, RescaleSlope="1", RescaleIntercept="32768"
    )

    assert np.array_equal(reader.read(path, SOP_INSTANCE_UID).view.pixels, pixels.astype(np.int32) + 32768)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1], ids=lambda uid: uid.name)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_is_bit_exact(syntax: UID, bits: int, reader: ImageReader, tmp_path: Path) -> None:
    pixels = breast(bits=bits)
    path = compressed_by_gdcm(tmp_path / "image.dcm", pixels, syntax, bits)
    assert dcmread(path).file_meta.TransferSyntaxUID.is_compressed

    assert np.array_equal(reader.read(path, SOP_INSTANCE_UID).view.pixels, pixels)


@pytest.mark.parametrize(
    ("syntax", "bits", "cells"), [(JPEGBaseline8Bit, 8, np.uint8), (JPEGExtended12Bit, 12, np.uint16)]
)
def test_lossy_jpeg_is_close(
    syntax: UID, bits: int, cells: type[np.generic], reader: ImageReader, tmp_path: Path
) -> None:
    pixels = breast(bits=bits).astype(cells)
    path = compressed_by_gdcm(tmp_path / "image.dcm", pixels, syntax, bits)
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    difference = np.abs(reader.read(path, SOP_INSTANCE_UID).view.pixels.astype(int) - pixels)

    assert difference.max() < (1 << bits) / 50
    assert difference.mean() < (1 << bits) / 200


def test_near_lossless_jpeg_ls_stays_within_its_error(reader: ImageReader, tmp_path: Path) -> None:
    pixels = breast()
    data_set = image(pixels, **EXACT)
    data_set.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
    path = written(tmp_path / "image.dcm", data_set)
    difference = np.abs(reader.read(path, SOP_INSTANCE_UID).view.pixels.astype(int) - pixels)

    assert 0 < difference.max() <= 3


def test_a_frame_in_many_fragments_is_joined(reader: ImageReader, tmp_path: Path) -> None:
    pixels = breast()
    data_set = image(pixels, **EXACT)
    data_set.compress(JPEG2000Lossless, generate_instance_uid=False)
    (frame,) = list(generate_fragments(data_set.PixelData))[1:]
    data_set.PixelData = encapsulate([frame], fragments_per_frame=5, has_bot=False)

    view = reader.read(written(tmp_path / "image.dcm", data_set), SOP_INSTANCE_UID).view

    assert np.array_equal(view.pixels, pixels)


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.112", "1.2.3"])
def test_a_syntax_without_decoder_is_refused_by_its_code(
    uid: str, reader: ImageReader, tmp_path: Path
) -> None:
    data_set = image(breast())
    data_set.compress(JPEG2000Lossless, generate_instance_uid=False)
    data_set.file_meta.TransferSyntaxUID = HTJ2KLossless
    path = written(tmp_path / "image.dcm", data_set)
    path.write_bytes(path.read_bytes().replace(HTJ2KLossless.encode(), uid.ljust(23, "\0").encode()))

    with pytest.raises(ImageError) as refused:
        reader.read(path, SOP_INSTANCE_UID)

    assert refused.value.code == "TRANSFER_SYNTAX"
