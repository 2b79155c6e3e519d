"""A stored object becomes what a reader would see, with side, view and spacing; its process is disposable."""

from __future__ import annotations

import gc
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_node.errors import ImageError
from dicom_node.images.decoder_process import DecodeLimits
from dicom_node.images.reader import ImageReader, read_header
from models.contract import ImageTrait, Laterality
from tests.unit.image_files import SOP_INSTANCE_UID, breast, image, written
from training.datasets.phantom_objects import study


@pytest.fixture(scope="module")
def reader() -> Iterator[ImageReader]:
    with ImageReader() as opened:
        yield opened


def test_every_view_of_a_study_is_read_with_its_place(reader: ImageReader, tmp_path: Path) -> None:
    places = set()
    for data_set in study(seed=1, rows=256, columns=208):
        path = tmp_path / "image.dcm"
        data_set.save_as(path, enforce_file_format=True)
        view = reader.read(path, data_set.SOPInstanceUID).view
        places.add((view.laterality, view.view))

        assert view.sop_instance_uid == data_set.SOPInstanceUID
        assert view.sop_class_uid == data_set.SOPClassUID
        assert view.spacing_mm == pytest.approx((0.8, 0.8))
        assert view.traits == frozenset()
        assert np.array_equal(view.pixels, np.rint(data_set.pixel_array / 4095 * 65535))

    assert places == {(side, view) for side in Laterality for view in ("CC", "MLO")}


def test_the_header_comes_along_without_its_pixels(reader: ImageReader, tmp_path: Path) -> None:
    path = written(tmp_path / "image.dcm", image(breast(), StudyID="7"))
    header = reader.read(path, SOP_INSTANCE_UID).header

    assert "PixelData" not in header
    assert (header.StudyID, header.Rows) == ("7", 96)
    assert header.file_meta.TransferSyntaxUID.is_little_endian
    assert header == read_header(path, SOP_INSTANCE_UID)


def test_the_header_of_an_image_without_readable_pixels_can_be_read(
    reader: ImageReader, tmp_path: Path
) -> None:
    path = written(tmp_path / "image.dcm", image(breast(), PixelData=bytes(10)))

    with pytest.raises(ImageError):
        reader.read(path, SOP_INSTANCE_UID)
    assert read_header(path, SOP_INSTANCE_UID).Rows == 96


@pytest.mark.parametrize(
    ("elements", "spacing_mm"),
    [
        ({"ImagerPixelSpacing": ["0.07", "0.08"], "PixelSpacing": ["1", "1"]}, (0.07, 0.08)),
        ({"ImagerPixelSpacing": None, "PixelSpacing": ["0.5", "0.6"]}, (0.5, 0.6)),
        ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": ["0.05", "0.05"]}, (0.05, 0.05)),
        ({"ImagerPixelSpacing": ["0", "0"]}, None),
        ({"ImagerPixelSpacing": None}, None),
    ],
)
def test_spacing_is_that_of_the_detector_first(
    elements: dict[str, Any], spacing_mm: tuple[float, float] | None, reader: ImageReader, tmp_path: Path
) -> None:
    path = written(tmp_path / "image.dcm", image(breast(), **elements))

    assert reader.read(path, SOP_INSTANCE_UID).view.spacing_mm == spacing_mm


def test_traits_of_the_header_reach_the_view(reader: ImageReader, tmp_path: Path) -> None:
    path = written(
        tmp_path / "image.dcm",
        image(breast(), PresentationIntentType="FOR PROCESSING", BreastImplantPresent="YES"),
    )

    assert reader.read(path, SOP_INSTANCE_UID).view.traits == {
        ImageTrait.FOR_PROCESSING,
        ImageTrait.IMPLANT,
    }


def test_pixels_outlive_their_reader_and_belong_to_the_caller(tmp_path: Path) -> None:
    pixels = breast()
    path = written(tmp_path / "image.dcm", image(pixels, WindowCenter="32768", WindowWidth="65536"))
    with ImageReader() as reader:
        first = reader.read(path, SOP_INSTANCE_UID).view
        second = reader.read(path, SOP_INSTANCE_UID).view
    first.pixels[:] = 0

    assert np.array_equal(second.pixels, pixels)


def test_one_process_serves_many_images_and_is_replaced_after_its_number(tmp_path: Path) -> None:
    path = written(tmp_path / "image.dcm", image(breast()))
    served = []
    with ImageReader(DecodeLimits(images_per_process=2)) as reader:
        for _ in range(4):
            reader.read(path, SOP_INSTANCE_UID)
            served.append(reader.decoder_pid)

    assert served[0] == served[1] != served[2] == served[3]
    assert not any(Path(f"/proc/{process}").exists() for process in served)


def test_descriptors_do_not_pile_up(reader: ImageReader, tmp_path: Path) -> None:
    path = written(tmp_path / "image.dcm", image(breast()))
    reader.read(path, SOP_INSTANCE_UID)
    gc.collect()  # what other tests left is closed now, not in between
    before = descriptors("self")
    for _ in range(20):
        reader.read(path, SOP_INSTANCE_UID)

    assert len(descriptors("self")) < len(before) + 10, "one or more for each image"
    # Standard streams, its socket, and what it may be about to close.
    assert len(descriptors(reader.decoder_pid)) < 10


def descriptors(process: int | str | None) -> list[str]:
    return sorted(entry.name for entry in Path(f"/proc/{process}/fd").iterdir())


def test_the_process_dies_with_its_parent(tmp_path: Path) -> None:
    path = written(tmp_path / "image.dcm", image(breast()))
    program = (
        "import os, pathlib, signal, sys\n"
        "from dicom_node.images.reader import ImageReader\n"
        "reader = ImageReader()\n"
        f"reader.read(pathlib.Path(sys.argv[1]), '{SOP_INSTANCE_UID}')\n"
        "os.kill(reader.decoder_pid, signal.SIGSTOP)\n"  # it cannot see its socket close
        "print(reader.decoder_pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    process = int(ended.stdout)
    try:
        waiting = os.pidfd_open(process)
    except ProcessLookupError:
        return
    with os.fdopen(waiting):
        readable, _, _ = select.select([waiting], [], [], 60)
    assert readable, "the decoder process outlived its parent"


def test_where_the_node_may_have_less_memory_than_its_decoder_asks_for_images_are_read_with_that(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "image.dcm", image(breast()))
    may_have = 3 * 2**30
    assert may_have < DecodeLimits().memory_bytes
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dicom_node.images.reader import ImageReader\n"
        "with ImageReader() as reader:\n"
        "    print(reader.read(Path(sys.argv[1]), sys.argv[2]).view.rows)\n"
    )
    ended = subprocess.run(
        ["prlimit", f"--as={may_have}:{may_have}", sys.executable, "-c", program, path, SOP_INSTANCE_UID],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == ("96\n", 0), ended.stderr


def test_the_process_is_limited_and_knows_no_secret(
    reader: ImageReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DICOM_NODE_SECRET", "canary")
    with ImageReader(DecodeLimits(memory_bytes=3 * 2**30)) as limited:
        limited.read(written(tmp_path / "image.dcm", image(breast())), SOP_INSTANCE_UID)
        process = Path(f"/proc/{limited.decoder_pid}")
        limits = process.joinpath("limits").read_text()
        environment = process.joinpath("environ").read_bytes()

    assert f"Max address space         {3 * 2**30}" in limits
    assert "Max core file size        0 " in limits
    assert b"canary" not in environment
