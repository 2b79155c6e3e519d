"""The mini-MIAS folder and the traps of its list: a made-up folder, and the real one where it is at hand."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.contract import Laterality
from training import datasets
from training.errors import DataSetError
from training.records import Record

ROWS = (
    "mdb001 G CIRC B 535 425 100",
    "mdb002 G NORM ",
    "mdb003 D NORM ",
    "mdb004 F MISC B 233 694 29",
    "mdb004 F MISC M 713 540 27",
    "mdb005 D CALC M *NOTE 3* ",
    "mdb006 F CIRC B",
    "mdb007 F SPIC M 500 500 20",
    "mdb007 F ARCH B 600 500 20",
)


def mias_folder(folder: Path, *rows: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Info.txt").write_text("\n".join(["NOTES", "1) pairs", "", *rows, ""]), encoding="ascii")
    y, x = np.mgrid[:1024, :1024]
    for number in {int(row[3:6]) for row in rows}:
        left = 900 - x if number % 2 else x - 100
        inside = (left > 0) & (left**2 + ((y - 512) * 0.8) ** 2 < 400**2)
        pixels = np.where(inside, 90 + number, 3).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"mdb{number:03d}.{'pgm' if number == 2 else 'png'}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mias_folder(tmp_path_factory.mktemp("mias") / "set", *ROWS)


def by_image(folder: Path, **options: str) -> dict[str, Record]:
    return {record.image: record for record in datasets.read("mini_mias", folder, **options).records}


def test_odd_and_even_numbers_are_the_right_and_left_breast_of_one_woman(folder: Path) -> None:
    records = by_image(folder)
    assert [records[f"mdb00{n}"].group for n in (1, 2, 3, 4)] == ["woman-001"] * 2 + ["woman-002"] * 2
    assert records["mdb001"].laterality is Laterality.RIGHT
    assert records["mdb002"].laterality is Laterality.LEFT


def test_the_vertical_coordinate_counts_from_the_lower_edge(folder: Path) -> None:
    (lesion,) = by_image(folder)["mdb001"].lesions
    assert lesion.centre == (535.0, 1024.0 - 425.0)
    assert lesion.radius == 100.0


def test_an_image_with_several_rows_is_one_record_and_malignant_if_one_row_is(folder: Path) -> None:
    records = by_image(folder)
    assert len(records) == 7
    assert len(records["mdb004"].lesions) == 2
    assert records["mdb004"].labels == {"mammography_malignancy": "malignant", "mias7": "MISC"}


def test_benign_and_normal_images_are_not_malignant(folder: Path) -> None:
    records = by_image(folder)
    assert {records[f"mdb00{n}"].labels["mammography_malignancy"] for n in (1, 2, 3, 6)} == {"not_malignant"}


def test_abnormalities_without_a_place_are_labelled_and_have_no_lesion(folder: Path) -> None:
    records = by_image(folder)
    for number in (5, 6):
        assert records[f"mdb00{number}"].lesions == ()
    assert records["mdb005"].labels == {"mammography_malignancy": "malignant", "mias7": "CALC"}


def test_the_circle_that_lies_beside_the_breast_is_not_used(tmp_path: Path) -> None:
    records = by_image(mias_folder(tmp_path, "mdb212 G CALC B 687 882 3", "mdb213 G CALC M 547 520 45"))
    assert records["mdb212"].lesions == ()
    assert records["mdb212"].labels["mias7"] == "CALC"
    assert len(records["mdb213"].lesions) == 1


def test_an_image_of_two_classes_has_no_label_among_the_seven(folder: Path) -> None:
    data = datasets.read("mini_mias", folder)
    assert "mias7" not in by_image(folder)["mdb007"].labels
    assert len(data.for_task("mias7").records) == 6
    assert "1 images have abnormalities of several classes" in " ".join(data.notes)


def test_density_and_kind_are_subgroups_and_the_spacing_is_known(folder: Path) -> None:
    record = by_image(folder)["mdb001"]
    assert record.subgroups == {"density": "fatty-glandular", "lesion_kind": "CIRC"}
    assert record.spacing_mm == (0.2, 0.2)


def test_regions_surround_each_marked_lesion_and_normal_ones_lie_in_the_breast(folder: Path) -> None:
    regions = by_image(folder, mode="regions")
    marked = {"mdb001#1", "mdb004#1", "mdb004#2", "mdb007#1", "mdb007#2"}
    assert set(regions) == marked | {"mdb002#normal", "mdb003#normal"}
    assert regions["mdb007#2"].labels == {"mammography_malignancy": "not_malignant", "mias7": "ARCH"}
    region = regions["mdb001#1"].region
    assert region is not None
    assert (region.left, region.top, region.right, region.bottom) == (385.0, 449.0, 685.0, 749.0)
    sides = {
        round(r.region.right - r.region.left, 6) for r in regions.values() if r.region and r.image in marked
    }
    for image in ("mdb002#normal", "mdb003#normal"):
        drawn = regions[image].region
        assert drawn is not None
        assert round(drawn.right - drawn.left, 6) in sides
        pixels = np.asarray(Image.open(regions[image].path))
        rows, columns = slice(int(drawn.top), int(drawn.bottom)), slice(int(drawn.left), int(drawn.right))
        assert (pixels[rows, columns] > 50).mean() > 0.9


def test_the_seed_alone_decides_where_normal_regions_lie(folder: Path) -> None:
    first, again, other = (datasets.read("mini_mias", folder, mode="regions", seed=s) for s in (1, 1, 2))
    assert first.sha256 == again.sha256 != other.sha256


def test_a_mask_goes_to_the_nearest_lesion_and_doubtful_ones_are_left_out(
    folder: Path, tmp_path: Path
) -> None:
    for name, (column, row) in {"mdb004_1": (713, 484), "mdb001": (535, 599)}.items():
        mask = np.zeros((1024, 1024), np.uint8)
        mask[row - 9 : row + 9, column - 9 : column + 9] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}_mask.png")
    data = datasets.read("mini_mias", folder, masks=str(tmp_path))
    records = {record.image: record for record in data.records}
    assert [lesion.mask for lesion in records["mdb004"].lesions] == [None, tmp_path / "mdb004_1_mask.png"]
    assert records["mdb001"].lesions[0].mask is None
    assert data.notes[-1].startswith("1 of 2 masks are used")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("mdb009 X NORM", "density must be one of"),
        ("mdb009 F ROUN B 1 2 3", "the class one of"),
        ("mdb009 F CIRC", "a severity B or M"),
        ("mdb009 F NORM B", "a severity B or M"),
        ("mdb009 F CIRC B 1 2", "x, y and radius"),
        ("mdb009 F CIRC B *NOTE 4*", "x, y and radius"),
        ("mdb009", "is not: image"),
    ],
)
def test_rows_that_say_something_else_are_told_with_their_line(tmp_path: Path, row: str, what: str) -> None:
    folder = mias_folder(tmp_path / "set", ROWS[0])
    with (folder / "Info.txt").open("a") as info:
        info.write(row + "\n")
    with pytest.raises(DataSetError, match=what) as caught:
        datasets.read("mini_mias", folder)
    assert "Info.txt line 5" in str(caught.value)


def test_a_missing_list_a_missing_image_and_contradicting_rows_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"Info\.txt: is missing"):
        datasets.read("mini_mias", tmp_path)
    folder = mias_folder(tmp_path / "set", "mdb001 G NORM", "mdb003 G NORM", "mdb003 F NORM")
    (folder / "mdb001.png").unlink()
    with pytest.raises(DataSetError) as caught:
        datasets.read("mini_mias", folder)
    assert "mdb001: neither .png nor .pgm is there" in str(caught.value)
    assert "mdb003: rows of one image contradict each other" in str(caught.value)


needs_data = pytest.mark.skipif(
    "DICOM_NODE_DATA" not in os.environ,
    reason="DICOM_NODE_DATA names no folder with mini-mias and idc-patches",
)


@needs_data
def test_the_real_folder_has_the_published_counts() -> None:
    root = Path(os.environ["DICOM_NODE_DATA"])
    data = datasets.read("mini_mias", root / "mini-mias", masks=str(root / "mini-mias-lesion-masks"))
    assert (len(data.records), len({record.group for record in data.records})) == (322, 161)
    kinds = Counter(
        "normal" if record.labels["mias7"] == "NORM" else record.labels["mammography_malignancy"]
        for record in data.records
    )
    assert kinds == {"normal": 207, "not_malignant": 63, "malignant": 52}
    assert sum(lesion.mask is not None for record in data.records for lesion in record.lesions) == 53
    placeless = {r.image for r in data.records if not r.lesions and r.labels["mias7"] != "NORM"}
    assert placeless == {"mdb059", "mdb212", "mdb216", "mdb233", "mdb245"}


@needs_data
def test_the_real_patches_have_the_published_counts() -> None:
    folder = Path(os.environ["DICOM_NODE_DATA"]) / "idc-patches"
    data = datasets.read("idc_patches", folder, edge="pad")
    assert (len(data.records), len({record.group for record in data.records})) == (8250, 230)
    assert Counter(record.labels["idc"] for record in data.records) == {"not_idc": 6049, "idc": 2201}
