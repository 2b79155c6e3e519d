"""Prepared images on disk: made once, whole or made again, and true to the place they came from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.contract import Laterality, Region
from models.lesion_regions import RegionParameters
from models.network_inputs import AnyParameters
from models.patches import PatchParameters, prepare_patch
from models.preprocessing import Parameters, prepare
from training import datasets
from training.cache import PreparedImages
from training.datasets.phantom_folder import write_phantoms
from training.errors import DataSetError, ResourcesError
from training.image_files import PixelSource, colours
from training.records import DataSet, Record
from training.source_folder import sha256_of

GRID = Parameters(rows=48, columns=32, pixel_mm=4.0)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, women=2, rows=128, columns=104)
    return datasets.read("phantoms", folder)


def entries(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_an_image_is_prepared_as_scoring_prepares_it(phantoms: DataSet, tmp_path: Path) -> None:
    images = PreparedImages(phantoms, GRID, tmp_path)
    assert len(images) == len(phantoms.records) == 8
    with PixelSource() as source:
        for index, record in enumerate(phantoms.records):
            expected = prepare(source.view(record), GRID)
            np.testing.assert_array_equal(images[index], expected.tensor)
            assert images[index].dtype == np.float32
            assert images.geometry(index) == expected.geometry


def test_nothing_is_decoded_twice(phantoms: DataSet, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    copies = []
    for index, record in enumerate(phantoms.records):
        copies.append(replace(record, path=moved / f"{index}.dcm"))
        shutil.copy(record.path, copies[-1].path)
    data = DataSet("phantoms", tuple(copies))
    steps: list[tuple[int, int]] = []
    first = PreparedImages(
        data, GRID, tmp_path / "cache", advance=lambda done, total: steps.append((done, total))
    )
    kept = entries(tmp_path / "cache")
    shutil.rmtree(moved)
    again = PreparedImages(
        data, GRID, tmp_path / "cache", advance=lambda done, total: steps.append((done, total))
    )
    assert steps == [(8, 8)]
    assert entries(tmp_path / "cache") == kept
    np.testing.assert_array_equal(again[5], first[5])


def test_another_grid_side_spacing_region_or_file_is_another_entry(phantoms: DataSet, tmp_path: Path) -> None:
    record = phantoms.records[0]
    variants: list[tuple[Record, AnyParameters]] = [
        (record, GRID),
        (record, replace(GRID, pixel_mm=3.9)),
        (replace(record, laterality=None), GRID),
        (replace(record, spacing_mm=(9.0, 9.0)), GRID),
        (phantoms.records[1], GRID),
        (record, RegionParameters(48, 32)),
        (replace(record, region=Region(10, 10, 40, 40)), RegionParameters(48, 32)),
    ]
    for number, (variant, parameters) in enumerate(variants, start=1):
        PreparedImages(DataSet("phantoms", (variant,)), parameters, tmp_path)
        assert len(entries(tmp_path)) == number


def test_several_processes_write_the_same_bytes_as_one(phantoms: DataSet, tmp_path: Path) -> None:
    for processes in (1, 2):
        PreparedImages(phantoms, GRID, tmp_path / str(processes), processes=processes)
    one, two = (
        {p.relative_to(tmp_path / name): content for p, (_, content) in entries(tmp_path / name).items()}
        for name in ("1", "2")
    )
    assert one == two


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "removed"])
def test_a_damaged_entry_is_made_again(phantoms: DataSet, tmp_path: Path, damage: str) -> None:
    images = PreparedImages(phantoms, GRID, tmp_path)
    whole = entries(tmp_path)
    expected = images[3]
    for path, (_, content) in whole.items():
        if damage == "removed":
            path.unlink()
        else:
            flipped = bytearray(content)
            flipped[-9] ^= 4
            path.write_bytes({"cut": content[:-4], "flipped": bytes(flipped), "emptied": b""}[damage])
    np.testing.assert_array_equal(images[3], expected)
    after = entries(tmp_path)
    assert sum(after.get(path, (0, b""))[1] == content for path, (_, content) in whole.items()) == 1


def test_the_disk_is_looked_at_before_the_first_image(
    phantoms: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(ResourcesError, match="choose a smaller grid or another folder"):
        PreparedImages(phantoms, GRID, tmp_path)
    assert entries(tmp_path) == {}


def plain_record(path: Path, values: np.ndarray[Any, Any], **changes: Any) -> Record:
    Image.fromarray(values).save(path)
    return Record(image=path.name, path=path, group=path.stem, labels={}, sha256=sha256_of(path), **changes)


def test_images_that_cannot_be_prepared_are_all_told_or_left_out(phantoms: DataSet, tmp_path: Path) -> None:
    blank = plain_record(tmp_path / "Miller.png", np.full((300, 200), 9, np.uint8))
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n")
    rubbish = Record("damaged", damaged, "P1", {}, sha256=sha256_of(damaged))
    data = DataSet("mixed", (phantoms.records[0], blank, rubbish, phantoms.records[1]), ("As found.",))
    with pytest.raises(DataSetError) as caught:
        PreparedImages(data, GRID, tmp_path / "cache")
    assert "mixed: 2 problems" in str(caught.value)
    assert "record 2: Nothing in the image stands out" in str(caught.value)
    assert "record 3: The file is not a readable image" in str(caught.value)
    assert "Miller" not in str(caught.value)
    images = PreparedImages(data, GRID, tmp_path / "cache", leave_out_unusable=True)
    assert images.data_set.records == (phantoms.records[0], phantoms.records[1])
    assert images.data_set.notes == ("As found.", "2 images could not be prepared and are left out.")
    np.testing.assert_array_equal(images[1], PreparedImages(phantoms, GRID, tmp_path / "other")[1])


def test_a_data_set_without_one_usable_image_is_refused_in_any_case(tmp_path: Path) -> None:
    blank = plain_record(tmp_path / "1.png", np.full((300, 200), 9, np.uint8))
    with pytest.raises(DataSetError, match="1 problem;"):
        PreparedImages(DataSet("blank", (blank,)), GRID, tmp_path / "cache", leave_out_unusable=True)


def test_a_region_is_not_taken_for_a_whole_breast(phantoms: DataSet, tmp_path: Path) -> None:
    region = replace(phantoms.records[0], region=Region(10, 10, 40, 40))
    with pytest.raises(DataSetError, match="prepare it as one"):
        PreparedImages(DataSet("regions", (region,)), GRID, tmp_path)


def film(side: Laterality, deep: bool, centre: tuple[float, float], radius: float) -> np.ndarray[Any, Any]:
    """A half-round breast with its chest wall where `side` has it, and a bright disc in it."""
    y, x = np.mgrid[:600, :440] + 0.5
    from_wall = x if side is Laterality.LEFT else 440 - x
    values = np.where((from_wall / 380) ** 2 + ((y - 300) / 270) ** 2 < 1, 120, 2)
    values[np.hypot(x - centre[0], y - centre[1]) <= radius] = 230
    return (values * 257).astype(np.uint16) if deep else values.astype(np.uint8)


@pytest.mark.parametrize("stated", [Laterality.LEFT, Laterality.RIGHT, None])
@pytest.mark.parametrize("hung", [Laterality.LEFT, Laterality.RIGHT])
@pytest.mark.parametrize(("suffix", "deep"), [("png", True), ("pgm", False)])
@pytest.mark.parametrize("kind", ["breast", "stretched breast", "region"])
def test_a_disc_comes_back_to_its_place_through_crop_flip_and_resize(
    tmp_path: Path, stated: Laterality | None, hung: Laterality, suffix: str, deep: bool, kind: str
) -> None:
    centre, radius = (171.3 if hung is Laterality.LEFT else 440 - 171.3, 322.7), 41.5
    path = tmp_path / f"film.{suffix}"
    parameters: AnyParameters = Parameters(rows=384, columns=288, pixel_mm=0.3)
    record = plain_record(path, film(hung, deep, centre, radius), laterality=stated, spacing_mm=(0.2, 0.2))
    if kind == "stretched breast":
        record = replace(record, spacing_mm=(0.2, 0.15))
    if kind == "region":
        parameters = RegionParameters(rows=96, columns=80)
        left, top = centre[0] - 66.0, centre[1] - 48.5
        record = replace(record, region=Region(left, top, left + 120, top + 130))
    images = PreparedImages(DataSet("films", (record,)), parameters, tmp_path / "cache")
    geometry = images.geometry(0)
    if kind != "region":
        assert geometry.is_flipped == (hung is Laterality.RIGHT)

    tensor = images[0][0]
    is_disc = tensor > (tensor.max() + np.median(tensor[tensor != 0])) / 2
    rows, columns = np.nonzero(is_disc)
    x, y = geometry.to_source(columns + 0.5, rows + 0.5)
    assert np.hypot(x.mean() - centre[0], y.mean() - centre[1]) <= 1.0

    source_y, source_x = np.mgrid[:600, :440] + 0.5
    on_grid_x, on_grid_y = geometry.to_grid(source_x, source_y)
    column, row = np.floor(on_grid_x).astype(int), np.floor(on_grid_y).astype(int)
    is_shown = (column >= 0) & (column < tensor.shape[1]) & (row >= 0) & (row < tensor.shape[0])
    back = np.zeros((600, 440), dtype=bool)
    back[is_shown] = is_disc[row[is_shown], column[is_shown]]
    truth = np.hypot(source_x - centre[0], source_y - centre[1]) <= radius
    assert (back & truth).sum() / (back | truth).sum() >= 0.95


def test_patches_are_prepared_in_colour(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for x in (1, 51):
        path = tmp_path / f"81/81_idx5_x{x}_y1_class0.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(path)
    data = datasets.read("idc_patches", tmp_path)
    images = PreparedImages(data, PatchParameters(), tmp_path / "cache")
    for index, record in enumerate(data.records):
        np.testing.assert_array_equal(images[index], prepare_patch(colours(record.path), PatchParameters()))
    assert images.geometry(0).scale_x == 1.0
