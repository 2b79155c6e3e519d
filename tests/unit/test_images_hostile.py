"""Objects that lie: each ends in one coded refusal, and the next image is read as if nothing had happened."""

from __future__ import annotations

import os
import resource
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.errors import ImageError
from dicom_node.images.decoder_process import DecodeLimits
from dicom_node.images.reader import ImageReader
from models.contract import RefusalCode
from tests.unit.image_files import PATIENT, SOP_INSTANCE_UID, breast, image, written


@pytest.fixture(scope="module")
def reader() -> Iterator[ImageReader]:
    with ImageReader(DecodeLimits(wall_s=30.0)) as opened:
        yield opened


def refusal(reader: ImageReader, path: Path) -> ImageError:
    """The refusal of this file, once it is certain that a good one still reads and no patient is named."""
    with pytest.raises(ImageError) as refused:
        reader.read(path, SOP_INSTANCE_UID)
    good = breast()
    after = written(path.with_suffix(".good"), image(good, WindowCenter="32768", WindowWidth="65536"))
    assert np.array_equal(reader.read(after, SOP_INSTANCE_UID).view.pixels, good)
    assert "ZZCANARY" in PATIENT
    assert "ZZCANARY" not in str(refused.value)
    assert refused.value.code in set(RefusalCode)
    return refused.value


def compressed(syntax: str) -> Dataset:
    data_set = image(breast())
    data_set.compress(syntax, generate_instance_uid=False)
    return data_set


def frame_of(data_set: Dataset) -> bytes:
    return b"".join(list(generate_fragments(data_set.PixelData))[1:])


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"Rows": 65535, "Columns": 65535}, "IMAGE_TOO_LARGE"),
        ({"Rows": 95}, "PIXEL_DATA"),
        ({"Rows": 97}, "PIXEL_DATA"),
        ({"Columns": 40}, "PIXEL_DATA"),
        ({"Rows": 0}, "PIXEL_DATA"),
        ({"Rows": None}, "UNREADABLE"),
        ({"BitsAllocated": 32}, "PIXEL_DATA"),
        ({"BitsAllocated": 8}, "PIXEL_DATA"),
        ({"BitsStored": 0}, "PIXEL_DATA"),
        ({"BitsStored": 17}, "PIXEL_DATA"),
        ({"HighBit": 3}, "PIXEL_DATA"),
        ({"PixelData": None}, "PIXEL_DATA"),
        ({"PixelData": b""}, "PIXEL_DATA"),
        ({"PixelData": bytes(100)}, "PIXEL_DATA"),
        ({"PhotometricInterpretation": None}, "UNREADABLE"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "UNSUPPORTED_SOP_CLASS"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "UNSUPPORTED_SOP_CLASS"),
        ({"NumberOfFrames": "60"}, "TOMOSYNTHESIS"),
        ({"SOPClassUID": BreastTomosynthesisImageStorage}, "TOMOSYNTHESIS"),
        ({"SharedFunctionalGroupsSequence": [Dataset()]}, "UNSUPPORTED_SOP_CLASS"),
        ({"SOPInstanceUID": "1.2.3"}, "UNREADABLE"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_header_that_contradicts_its_pixels_is_refused(
    elements: dict[str, Any], code: str, reader: ImageReader, tmp_path: Path
) -> None:
    process = reader.decoder_pid

    assert refusal(reader, written(tmp_path / "image.dcm", image(breast(), **elements))).code == code
    assert reader.decoder_pid == process, "an honest refusal does not cost the process"


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_a_compressed_image_of_another_size_than_its_header_says_is_refused(
    syntax: str, reader: ImageReader, tmp_path: Path
) -> None:
    data_set = compressed(syntax)
    data_set.Rows, data_set.Columns = 200, 300

    assert refusal(reader, written(tmp_path / "image.dcm", data_set)).code == "PIXEL_DATA"


@pytest.mark.parametrize("agreeing_header", [False, True])
def test_a_jpeg_2000_bomb_is_refused_before_memory_is_given_to_it(
    agreeing_header: bool, reader: ImageReader, tmp_path: Path
) -> None:
    data_set = compressed(JPEG2000Lossless)
    frame = bytearray(frame_of(data_set))
    size_marker = frame.find(b"\xff\x51")
    struct.pack_into(">2I", frame, size_marker + 6, 65535, 65535)
    data_set.PixelData = encapsulate([bytes(frame)])
    if agreeing_header:
        data_set.Rows = data_set.Columns = 65535
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert refusal(reader, written(tmp_path / "image.dcm", data_set)).code == "IMAGE_TOO_LARGE"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_decoder_has_four_gigabytes_and_a_minute_and_leaves_no_core(tmp_path: Path) -> None:
    with ImageReader() as reader:
        reader.read(written(tmp_path / "image.dcm", image(breast())), SOP_INSTANCE_UID)
        process = psutil.Process(reader.decoder_pid)
        assert process.rlimit(psutil.RLIMIT_AS) == (4 << 30, 4 << 30)
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        soft, _ = process.rlimit(psutil.RLIMIT_CPU)
        used_s = sum(process.cpu_times()[:2])
        assert used_s < soft <= used_s + 61, "each image has its own minute"


def test_a_bomb_within_the_pixel_limit_stays_within_the_memory_limit(tmp_path: Path) -> None:
    data_set = compressed(JPEG2000Lossless)
    frame = bytearray(frame_of(data_set))
    struct.pack_into(">2I", frame, frame.find(b"\xff\x51") + 6, 30_000, 30_000)
    data_set.PixelData = encapsulate([bytes(frame)])
    data_set.Rows = data_set.Columns = 30_000
    with ImageReader(DecodeLimits(memory_bytes=2**30, max_pixels=10**9)) as reader:
        assert refusal(reader, written(tmp_path / "image.dcm", data_set)).code == "PIXEL_DATA"


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless, JPEGLosslessSV1])
@pytest.mark.parametrize(
    "pixel_data",
    [
        encapsulate([b"garbage that is no codestream at all"]),
        encapsulate([b"\xff\xd8"]),
        encapsulate([b"\xff\xd8\xff\xff\xff\xff"]),
        encapsulate([b"\xff\xd8\xff\xc3\x00"]),
        encapsulate([b"\xff\x4f\xff\x51\x00\x29"]),
        b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00",
    ],
    ids=["garbage", "SOI alone", "fill bytes", "cut SOF", "cut SIZ", "no fragments"],
)
def test_garbage_instead_of_a_codestream_is_refused(
    syntax: str, pixel_data: bytes, reader: ImageReader, tmp_path: Path
) -> None:
    data_set = compressed(JPEG2000Lossless)
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.PixelData = pixel_data

    assert refusal(reader, written(tmp_path / "image.dcm", data_set)).code in {"PIXEL_DATA", "UNREADABLE"}


def test_pixel_data_without_items_is_refused(reader: ImageReader, tmp_path: Path) -> None:
    path = written(tmp_path / "image.dcm", compressed(JPEG2000Lossless))
    content = path.read_bytes()
    items = content.index(b"\xfe\xff\x00\xe0", content.index(b"\xe0\x7f\x10\x00"))
    path.write_bytes(content[:items] + b"no items whatever")

    assert refusal(reader, path).code in {"PIXEL_DATA", "UNREADABLE"}


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_a_damaged_codestream_is_refused_or_read_but_never_breaks_the_reader(
    syntax: str, reader: ImageReader, tmp_path: Path
) -> None:
    whole = compressed(syntax)
    frame = frame_of(whole)
    random = np.random.default_rng(0)
    outcomes = set()
    for number in range(12):
        damaged = bytearray(frame)
        for at in random.integers(60, len(frame), 40):
            damaged[at] = random.integers(0, 256)
        whole.PixelData = encapsulate([bytes(damaged)])
        path = written(tmp_path / f"{number}.dcm", whole)
        try:
            outcomes.add(reader.read(path, SOP_INSTANCE_UID).view.pixels.shape)
        except ImageError as refused:
            outcomes.add(refused.code)

    assert outcomes <= {(96, 80), "PIXEL_DATA", "UNREADABLE"}


def test_a_compressed_image_of_zeros_alone_is_refused(reader: ImageReader, tmp_path: Path) -> None:
    data_set = image(np.zeros((64, 64), np.uint16))
    data_set.compress(RLELossless, generate_instance_uid=False)

    assert refusal(reader, written(tmp_path / "image.dcm", data_set)).code == "PIXEL_DATA"


@pytest.mark.parametrize("part", [0.0, 0.02, 0.2, 0.6, 0.999])
def test_a_truncated_file_is_refused(part: float, reader: ImageReader, tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.dcm", image(breast())).read_bytes()
    path = tmp_path / "image.dcm"
    path.write_bytes(whole[: int(len(whole) * part)])

    assert refusal(reader, path).code in {"PIXEL_DATA", "UNREADABLE", "TRANSFER_SYNTAX"}


def test_a_file_that_is_no_dicom_is_refused(reader: ImageReader, tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(b"MZ" + bytes(5000))

    assert refusal(reader, path).code == "UNREADABLE"


def test_a_deflated_object_is_refused_without_inflating_it(reader: ImageReader, tmp_path: Path) -> None:
    data_set = image(breast())
    data_set.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "image.dcm"
    data_set.save_as(path, enforce_file_format=True)

    assert refusal(reader, path).code == "TRANSFER_SYNTAX"


def test_a_missing_file_says_nothing_about_the_object(reader: ImageReader, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        reader.read(tmp_path / "missing.dcm", SOP_INSTANCE_UID)


def test_sequences_nested_beyond_reason_are_refused(reader: ImageReader, tmp_path: Path) -> None:
    good = written(tmp_path / "good.dcm", image(breast())).read_bytes()
    # Undefined-length (0040,0555) within item within sequence ..., never closed, before the pixel data.
    opening = b"\x40\x00\x55\x05SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    pixels = good.find(b"\xe0\x7f\x10\x00")
    path = tmp_path / "image.dcm"
    path.write_bytes(good[:pixels] + opening * 5000 + good[pixels:])

    assert refusal(reader, path).code == "UNREADABLE"


def large(path: Path) -> Path:
    """An image that takes long enough to decode for its process to be killed meanwhile."""
    noise = np.random.default_rng(0).integers(0, 4096, (1500, 1500), np.uint16)
    data_set = image(noise)
    data_set.compress(JPEG2000Lossless, generate_instance_uid=False)
    return written(path, data_set)


@contextmanager
def killing_decoders(reader: ImageReader, times: int) -> Iterator[list[int]]:
    """Kill a reader's decoder process when it works on the next image, and its successors at once."""
    killed: list[int] = []
    over = threading.Event()
    first = reader.decoder_pid
    assert first is not None
    # What it still does for the image before is less than two ticks of the clock that counts its time.
    idle_until = processor_seconds(first) + 2.5 / os.sysconf("SC_CLK_TCK")

    def kill_when_busy() -> None:
        while len(killed) < times and not over.is_set():
            process = reader.decoder_pid
            is_due = process not in (None, *killed) and (
                process != first or processor_seconds(first) > idle_until
            )
            if is_due and process is not None:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
            over.wait(0.002)

    killer = threading.Thread(target=kill_when_busy)
    killer.start()
    try:
        yield killed
    finally:
        over.set()
        killer.join()


def test_a_decoder_killed_in_the_middle_gets_one_more_try(reader: ImageReader, tmp_path: Path) -> None:
    path = large(tmp_path / "image.dcm")
    reader.read(path, SOP_INSTANCE_UID)  # its process has started
    with killing_decoders(reader, 1) as killed:
        read = reader.read(path, SOP_INSTANCE_UID)
    assert read.view.rows == 1500
    assert len(killed) == 1
    assert reader.decoder_pid not in killed


def test_an_image_whose_decoder_is_killed_twice_is_refused(reader: ImageReader, tmp_path: Path) -> None:
    path = large(tmp_path / "image.dcm")
    reader.read(path, SOP_INSTANCE_UID)  # its process has started
    with killing_decoders(reader, 2) as killed, pytest.raises(ImageError, match="killed twice") as refused:
        reader.read(path, SOP_INSTANCE_UID)
    assert refused.value.code == "PIXEL_DATA"
    assert len(set(killed)) == 2
    good = written(tmp_path / "good.dcm", image(breast()))
    assert reader.read(good, SOP_INSTANCE_UID).view.rows == 96, "the next image is read"


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_decoder_that_died_between_images_is_replaced_unnoticed(
    reader: ImageReader, tmp_path: Path
) -> None:
    path = written(tmp_path / "image.dcm", image(breast()))
    reader.read(path, SOP_INSTANCE_UID)
    process = reader.decoder_pid
    assert process is not None
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)

    assert reader.read(path, SOP_INSTANCE_UID).view.rows == 96
    assert reader.decoder_pid != process


def test_a_decoder_that_takes_too_long_is_replaced(tmp_path: Path) -> None:
    path = written(tmp_path / "image.dcm", image(breast()))
    with ImageReader(DecodeLimits(wall_s=2.0)) as reader:
        process = reader.decoder_pid
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        with pytest.raises(ImageError, match="took longer") as refused:
            reader.read(path, SOP_INSTANCE_UID)

        assert refused.value.code == "PIXEL_DATA"
        assert not Path(f"/proc/{process}").exists()


def test_a_decoder_that_computes_too_long_is_stopped_by_the_kernel(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (5000, 5000), np.uint16)
    data_set = image(noise)
    data_set.compress(JPEGLSLossless, generate_instance_uid=False)
    path = written(tmp_path / "image.dcm", data_set)
    with (
        ImageReader(DecodeLimits(cpu_s=0)) as reader,
        pytest.raises(ImageError, match="processor time") as refused,
    ):
        for _ in range(40):
            reader.read(path, SOP_INSTANCE_UID)

    assert refused.value.code == "PIXEL_DATA"
