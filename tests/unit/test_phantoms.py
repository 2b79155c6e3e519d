"""Phantoms: the made-up mammograms that the demonstration and most tests run on."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from models.contract import Laterality
from training.datasets.phantom_objects import data_set, study
from training.datasets.phantoms import LesionKind, Phantom, draw

LESIONS = [kind for kind in LesionKind if kind is not LesionKind.NORM]
VIEWS = [("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO")]


def small(
    laterality: str = "L",
    view: str = "CC",
    kind: LesionKind = LesionKind.NORM,
    malignant: bool = False,
    seed: int = 0,
) -> Phantom:
    return draw(
        laterality=laterality, view=view, kind=kind, malignant=malignant, rows=512, columns=416, seed=seed
    )


def test_the_same_seed_gives_the_same_pixels_and_another_seed_another_woman() -> None:
    once, again, other = small(seed=3), small(seed=3), small(seed=4)

    assert np.array_equal(once.pixels, again.pixels)
    assert not np.array_equal(once.pixels, other.pixels)


@pytest.mark.parametrize(("laterality", "view"), VIEWS)
def test_the_chest_wall_lies_at_the_edge_of_the_image_and_air_is_black(laterality: str, view: str) -> None:
    phantom = small(laterality, view)
    wall, front = (-1, 0) if laterality == "R" else (0, -1)

    assert phantom.pixels.dtype == np.uint16
    assert phantom.pixels.max() <= 4095
    assert (phantom.pixels[:, wall] > 0).mean() > 0.5
    assert not phantom.pixels[:, front].any()


def test_only_the_oblique_view_shows_the_pectoral_muscle() -> None:
    corner = (slice(0, 40), slice(0, 40))

    assert small("L", "MLO").pixels[corner].mean() > 1500
    assert small("L", "CC").pixels[corner].mean() < 200


@pytest.mark.parametrize("kind", LESIONS)
@pytest.mark.parametrize("seed", range(3))
def test_a_lesion_lies_inside_the_breast(kind: LesionKind, seed: int) -> None:
    for laterality, view in VIEWS:
        phantom = small(laterality, view, kind, malignant=True, seed=seed)
        assert phantom.lesion is not None
        column, row = phantom.lesion.centre
        rows, columns = np.indices(phantom.pixels.shape) + 0.5
        disc = np.hypot(rows - row, columns - column) <= phantom.lesion.radius

        assert disc.sum() == pytest.approx(np.pi * phantom.lesion.radius**2, rel=0.05), "cut by the image"
        assert (phantom.pixels[disc] > 0).all()


@pytest.mark.parametrize("kind", LESIONS)
def test_a_lesion_changes_its_own_place_and_nothing_else(kind: LesionKind) -> None:
    normal, ill = small(seed=2), small(kind=kind, malignant=True, seed=2)
    assert ill.lesion is not None
    column, row = ill.lesion.centre
    rows, columns = np.indices(normal.pixels.shape) + 0.5
    distance = np.hypot(rows - row, columns - column) / ill.lesion.radius
    difference = ill.pixels.astype(int) - normal.pixels

    assert difference[distance < 0.8].mean() > 60
    assert not difference[distance > 2.8].any()
    assert np.abs(difference[distance > 1.4]).mean() < 2


@pytest.mark.parametrize("kind", LESIONS)
def test_malignant_lesions_stand_out_more_than_benign_ones(kind: LesionKind) -> None:
    def added(malignant: bool) -> float:
        changes = [
            small(kind=kind, malignant=malignant, seed=seed).pixels.astype(int) - small(seed=seed).pixels
            for seed in range(5)
        ]
        return float(np.mean([change.sum() for change in changes]))

    assert added(malignant=True) > 1.3 * added(malignant=False) > 0


def test_every_kind_looks_different() -> None:
    images = [small(kind=kind, malignant=kind is not LesionKind.NORM, seed=1).pixels for kind in LesionKind]

    assert len({image.tobytes() for image in images}) == len(LesionKind)


@pytest.mark.parametrize("kind", LesionKind)
def test_another_resolution_shows_the_same_anatomy(kind: LesionKind) -> None:
    malignant = kind is not LesionKind.NORM
    coarse = small(kind=kind, malignant=malignant, seed=5)
    fine = draw(laterality="L", view="CC", kind=kind, malignant=malignant, rows=1024, columns=832, seed=5)
    averaged = fine.pixels.reshape(512, 2, 416, 2).mean(axis=(1, 3))
    difference = np.abs(averaged - coarse.pixels)

    assert coarse.spacing_mm == pytest.approx(2 * fine.spacing_mm)
    assert difference.mean() < 12
    if coarse.lesion is not None and fine.lesion is not None:
        assert np.allclose(np.array(fine.lesion.centre) / 2, coarse.lesion.centre)
        assert fine.lesion.radius / 2 == pytest.approx(coarse.lesion.radius)


def test_a_lesion_asked_for_in_both_views_has_one_size_and_one_distance_from_the_chest_wall() -> None:
    cc = small("R", "CC", LesionKind.SPIC, malignant=True, seed=7)
    mlo = small("R", "MLO", LesionKind.SPIC, malignant=True, seed=7)
    assert cc.lesion is not None
    assert mlo.lesion is not None

    assert cc.lesion.radius == pytest.approx(mlo.lesion.radius)
    assert cc.lesion.centre[0] == pytest.approx(mlo.lesion.centre[0])


def test_the_lesion_is_mirrored_with_a_right_breast() -> None:
    phantom = small("R", "CC", LesionKind.CIRC, malignant=True, seed=9)
    assert phantom.lesion is not None
    difference = phantom.pixels.astype(int) - small("R", "CC", seed=9).pixels
    rows, columns = np.nonzero(difference > 200)

    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(phantom.lesion.centre, abs=4)


def test_a_normal_breast_has_no_lesion_and_cannot_be_malignant() -> None:
    assert small().lesion is None
    with pytest.raises(ValueError, match="NORM"):
        small(malignant=True)


def test_a_view_without_a_drawing_is_refused() -> None:
    with pytest.raises(ValueError, match="CC or MLO"):
        small(view="ML")


def test_a_study_holds_the_four_standard_views_with_uids_made_from_its_seed() -> None:
    images = study(seed=11, kinds={("L", "MLO"): (LesionKind.CIRC, False)}, rows=256, columns=208)
    again = study(seed=11, kinds={("L", "MLO"): (LesionKind.CIRC, False)}, rows=256, columns=208)
    other = study(seed=12, rows=256, columns=208)

    assert {(i.ImageLaterality, i.ViewPosition) for i in images} == set(VIEWS)
    assert [i.SOPInstanceUID for i in images] == [i.SOPInstanceUID for i in again]
    assert len({i.SOPInstanceUID for i in images + other}) == 8
    assert len({i.StudyInstanceUID for i in images}) == 1
    assert images[0].StudyInstanceUID != other[0].StudyInstanceUID
    assert all(pydicom.uid.UID(i.SOPInstanceUID).is_valid for i in images)


def test_a_file_read_back_shows_the_drawn_pixels(tmp_path: Path) -> None:
    phantom = small("R", "MLO")
    image = data_set(
        phantom, study_instance_uid="1.2.3", series_instance_uid="1.2.3.4", sop_instance_uid="1.2.3.4.5"
    )
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    read = pydicom.dcmread(buffer)

    assert np.array_equal(read.pixel_array, phantom.pixels)
    assert read.ImageLaterality == Laterality.RIGHT
    assert [float(s) for s in read.ImagerPixelSpacing] == pytest.approx([phantom.spacing_mm] * 2)


def test_an_override_replaces_an_element_and_none_removes_it() -> None:
    image = data_set(
        small(),
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        sop_instance_uid="1.2.3.4.5",
        BreastImplantPresent="YES",
        ViewCodeSequence=None,
    )

    assert image.BreastImplantPresent == "YES"
    assert "ViewCodeSequence" not in image


@pytest.mark.parametrize("index", range(4))
def test_headers_satisfy_the_validator(index: int, tmp_path: Path, dciodvfy: str) -> None:
    path = tmp_path / "phantom.dcm"
    study(rows=256, columns=208)[index].save_as(path, enforce_file_format=True)
    report = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)

    assert "MammographyImageForPresentation" in report.stdout + report.stderr
    assert "Error" not in report.stdout + report.stderr


@pytest.fixture
def dciodvfy() -> str:
    found = shutil.which("dciodvfy")
    if found is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    return found
