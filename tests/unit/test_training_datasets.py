"""Reading folders of labelled images: what every reader shares, the plain table, patches and phantoms."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.contract import Laterality
from training import datasets
from training.data_manifest import read_manifest, write_manifest
from training.datasets.phantom_folder import write_phantoms
from training.errors import DataSetError, ImageFileError
from training.image_files import PixelSource, colours, grey_values
from training.records import Record
from training.source_folder import sha256_of


def picture(path: Path, value: int = 7, size: tuple[int, int] = (6, 5), colour: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if colour else size
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


def listed(folder: Path, *rows: str, header: str = "path,patient,label,laterality,view,split") -> Path:
    (folder / "labels.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return folder


def test_an_unknown_reader_or_option_is_answered_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="mini_mias"):
        datasets.read("mias", tmp_path)
    with pytest.raises(DataSetError, match="has no option size; it has: edge"):
        datasets.read("idc_patches", tmp_path, size="50")
    with pytest.raises(DataSetError, match="edge must be one of drop, pad"):
        datasets.read("idc_patches", tmp_path, edge="keep")
    with pytest.raises(DataSetError, match="spacing_mm must be a float"):
        datasets.read("plain_csv", tmp_path, spacing_mm="wide")
    with pytest.raises(DataSetError, match="folder is not there"):
        datasets.read("idc_patches", tmp_path / "nowhere")


def test_a_table_becomes_records_with_digests(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a/1.png"), picture(tmp_path / "2.png", value=9)
    listed(tmp_path, "a/1.png,P1,malignant,L,CC,train", "2.png,P2,0,right,XCCL,", "")
    steps: list[tuple[int, int]] = []
    data = datasets.read("plain_csv", tmp_path, lambda done, total: steps.append((done, total)))
    assert [record.image for record in data.records] == ["a/1.png", "2.png"]
    assert [record.labels["mammography_malignancy"] for record in data.records] == [
        "malignant",
        "not_malignant",
    ]
    assert [record.laterality for record in data.records] == [Laterality.LEFT, Laterality.RIGHT]
    assert [(record.view, record.part) for record in data.records] == [("CC", "training"), (None, None)]
    assert [record.sha256 for record in data.records] == [sha256_of(first), sha256_of(second)]
    assert steps == [(1, 2), (2, 2)]


def test_a_table_may_name_another_task_subgroups_and_a_spacing(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    listed(tmp_path, "1.png,P1,SPIC,Room 3", header="path,patient,label,subgroup:scanner")
    (record,) = datasets.read("plain_csv", tmp_path, task="mias7", spacing_mm="0.07").records
    assert record.labels == {"mias7": "SPIC"}
    assert record.subgroups == {"scanner": "Room 3"}
    assert record.spacing_mm == (0.07, 0.07)
    with pytest.raises(DataSetError, match="use one of"):
        datasets.read("plain_csv", tmp_path, task="mias8")


def test_every_problem_is_told_at_once_with_its_line_and_nothing_of_a_patient(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside.png")
    folder = tmp_path / "set"
    picture(folder / "1.png")
    (folder / "link.png").symlink_to(outside)
    listed(
        folder,
        "1.png,P1,malignant,L,CC,train",
        "Miller.png,P2,malignant,L,CC,train",
        "../outside.png,P3,malignant,L,CC,train",
        f"{outside},P4,malignant,L,CC,train",
        "link.png,P5,malignant,L,CC,train",
        "1.png,,maybe,both,CC,holdout",
        "1.png,P1,malignant",
    )
    with pytest.raises(DataSetError) as caught:
        datasets.read("plain_csv", folder)
    lines = str(caught.value).splitlines()
    assert lines[0] == "plain_csv: 9 problems; correct:"
    assert "labels.csv line 3: names a file that is not there" in lines[1]
    assert all("outside the data set's folder" in line for line in lines[2:5])
    assert [line.split(": ")[0].strip() for line in lines[5:]] == ["labels.csv line 7"] * 4 + [
        "labels.csv line 8"
    ]
    assert "Miller" not in str(caught.value)


def test_only_the_first_twenty_problems_are_shown(tmp_path: Path) -> None:
    listed(tmp_path, *(f"{n}.png,P{n},malignant,L,CC," for n in range(50)))
    with pytest.raises(DataSetError) as caught:
        datasets.read("plain_csv", tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1].strip() == "... and 30 more"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "lacks path, patient, label"),
        (b"path,label\n", "lacks patient"),
        (b"path,patient,label\n\xff\xfe,a,b\n", "cannot be read as a UTF-8 table"),
        (b"path,patient,label\n", "holds no labelled image"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataSetError, match=what):
        datasets.read("plain_csv", tmp_path)


def test_an_image_listed_twice_and_a_patient_in_two_parts_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    picture(tmp_path / "2.png", value=8)
    row = "1.png,P1,malignant,L,CC,train"
    with pytest.raises(DataSetError, match="record 2: is the image of record 1 again"):
        datasets.read("plain_csv", listed(tmp_path, row, row))
    with pytest.raises(DataSetError, match="1 patients have images in two parts"):
        datasets.read("plain_csv", listed(tmp_path, row, "2.png,P1,malignant,R,CC,test"))


def patch_tree(folder: Path) -> Path:
    for patient, x, label, size in ((81, 1, 0, (50, 50)), (81, 51, 1, (50, 50)), (92, 1, 0, (50, 30))):
        name = f"{patient}_idx5_x{x}_y1_class{label}.png"
        picture(folder / str(patient) / name, value=40 + x, size=size, colour=True)
    return folder


def test_patches_carry_patient_and_class_in_their_names_and_cut_ones_are_left_out(tmp_path: Path) -> None:
    data = datasets.read("idc_patches", patch_tree(tmp_path))
    assert [(record.group, record.labels["idc"]) for record in data.records] == [
        ("81", "not_idc"),
        ("81", "idc"),
    ]
    assert data.notes == ("1 patches cut by a slide's edge are left out.",)
    padded = datasets.read("idc_patches", tmp_path, edge="pad")
    assert Counter(record.subgroups["patch"] for record in padded.records) == {"whole": 2, "cut": 1}
    assert data.sha256 != padded.sha256


def test_the_tree_with_folders_of_classes_is_read_as_well(tmp_path: Path) -> None:
    picture(tmp_path / "81/1/81_idx5_x1_y1_class1.png", size=(50, 50), colour=True)
    picture(tmp_path / "81/0/thumbnail.png", size=(50, 50), colour=True)
    data = datasets.read("idc_patches", tmp_path)
    assert [record.labels["idc"] for record in data.records] == ["idc"]
    assert "1 PNG files are not named like patches" in data.notes[1]


def test_patches_in_a_wrong_folder_of_a_wrong_size_or_damaged_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "82/81_idx5_x1_y1_class1.png", size=(50, 50), colour=True)
    picture(tmp_path / "81/0/81_idx5_x1_y1_class1.png", size=(50, 50), colour=True)
    picture(tmp_path / "81/81_idx5_x9_y1_class1.png", size=(50, 51), colour=True)
    (tmp_path / "81/81_idx5_x5_y1_class1.png").write_bytes(b"rubbish")
    with pytest.raises(DataSetError) as caught:
        datasets.read("idc_patches", tmp_path)
    for what in (
        "another class's folder",
        "another patient's folder",
        "50 x 51 pixels",
        "not a readable image",
    ):
        assert what in str(caught.value)


def test_drawn_phantoms_are_read_back_with_their_lesions(tmp_path: Path) -> None:
    write_phantoms(tmp_path, women=4, rows=128, columns=104, seed=3)
    data = datasets.read("phantoms", tmp_path)
    assert len(data.records) == 16
    assert len({record.group for record in data.records}) == 4
    assert Counter(record.labels["mias7"] for record in data.records) == {"NORM": 12, "CALC": 2, "CIRC": 2}
    with PixelSource() as source:
        for record in data.records:
            view = source.view(record)
            assert (view.rows, view.columns) == (128, 104)
            assert (view.laterality, view.view) == (record.laterality, record.view)
            for lesion in record.lesions:
                assert 0 < lesion.centre[0] < 104
                assert 0 < lesion.centre[1] < 128


def test_the_same_phantoms_are_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_phantoms(tmp_path / name, women=2, rows=64, columns=64)
    one, two = (datasets.read("phantoms", tmp_path / name) for name in ("one", "two"))
    assert one.sha256 == two.sha256


def test_a_manifest_gives_the_data_set_back_and_notices_changes(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "images", women=2, rows=64, columns=64)
    data = datasets.read("phantoms", tmp_path / "images")
    path = tmp_path / "data.json"
    write_manifest(data, path)
    again = read_manifest(path)
    assert again == replace(data, records=tuple(again.records))
    assert [replace(record, subgroups={}) for record in again.records] == [
        replace(record, subgroups={}) for record in data.records
    ]
    assert again.sha256 == data.sha256
    changed = json.loads(path.read_text())
    changed["records"][0]["labels"]["mammography_malignancy"] = "malignant"
    path.write_text(json.dumps(changed))
    with pytest.raises(DataSetError, match="was changed"):
        read_manifest(path)


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2}', '{"format": 1, "records": [{}]}', "[]"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(DataSetError, match="make it again"):
        read_manifest(tmp_path / "data.json")


def test_grey_values_are_spread_over_16_bits_whatever_the_format(tmp_path: Path) -> None:
    shallow = np.arange(256, dtype=np.uint8).reshape(16, 16)
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * np.uint16(255)
    for suffix in ("png", "pgm", "tif"):
        Image.fromarray(shallow).save(tmp_path / f"shallow.{suffix}")
        np.testing.assert_array_equal(
            grey_values(tmp_path / f"shallow.{suffix}"), shallow.astype(np.uint16) * 257
        )
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        np.testing.assert_array_equal(grey_values(tmp_path / f"deep.{suffix}"), deep)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"P5\n9 9\n255\n\0"])
def test_damaged_pictures_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(content)
    record = Record("1", path, "P1", {})
    for read in (grey_values, colours):
        with pytest.raises(ImageFileError):
            read(path)
    with PixelSource() as source, pytest.raises(ImageFileError):
        source.view(record)


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for side in (9_800, 60_000):
        path = tmp_path / "1.pgm"
        path.write_bytes(f"P5\n{side} {side}\n255\n".encode())
        with pytest.raises(ImageFileError, match="more pixels than any film"):
            grey_values(path)


def test_a_damaged_dicom_object_is_refused_and_the_next_one_is_read(tmp_path: Path) -> None:
    write_phantoms(tmp_path, women=1, rows=64, columns=64)
    record = datasets.read("phantoms", tmp_path).records[0]
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(record.path.read_bytes()[:1500])
    with PixelSource() as source:
        with pytest.raises(ImageFileError, match="cannot become an image"):
            source.view(replace(record, path=damaged))
        assert source.view(record).rows == 64
