"""Lesion regions and colour patches on the network's grid, and the list of all kinds of preprocessing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.contract import ImageView, Laterality, Region
from models.errors import PreprocessingError, UnsupportedBundleError
from models.lesion_regions import RegionParameters, prepare_region
from models.network_inputs import KNOWN_VERSIONS, AnyParameters, fault_of, parameters_class
from models.patches import PatchParameters, patch_geometry, prepare_patch
from models.preprocessing import Parameters

RANDOM = np.random.default_rng(20260101)


def mammogram(laterality: Laterality | None = Laterality.LEFT, padding: bool = False) -> ImageView:
    pixels = RANDOM.integers(1000, 60000, (300, 240), dtype=np.uint16)
    hidden = np.zeros(pixels.shape, dtype=np.bool_)
    hidden[:, 200:] = True
    return ImageView("1.2", "1.3", pixels, hidden if padding else None, laterality, "CC")


def test_a_region_of_the_grids_size_is_shown_pixel_by_pixel() -> None:
    view = mammogram()
    prepared = prepare_region(view, Region(40, 60, 72, 92), RegionParameters(rows=32, columns=32))
    shown = view.pixels[60:92, 40:72].astype(np.float64)
    assert prepared.tensor.shape == (1, 32, 32)
    assert prepared.tensor.dtype == np.float32
    np.testing.assert_allclose(prepared.tensor[0], (shown - shown.mean()) / shown.std(), atol=1e-3)


def test_a_right_breast_is_mirrored_and_marks_come_back_to_their_place() -> None:
    view = mammogram(Laterality.RIGHT)
    parameters = RegionParameters(rows=32, columns=32)
    prepared = prepare_region(view, Region(40, 60, 72, 92), parameters)
    left = prepare_region(replace(view, laterality=Laterality.LEFT), Region(40, 60, 72, 92), parameters)
    np.testing.assert_array_equal(prepared.tensor, left.tensor[:, :, ::-1])
    x, y = prepared.geometry.to_source(np.array([0.5]), np.array([10.0]))
    assert (float(x[0]), float(y[0])) == (71.5, 70.0)


def test_a_region_keeps_its_shape_on_another_grid() -> None:
    geometry = prepare_region(mammogram(), Region(10, 10, 90, 50), RegionParameters(40, 40)).geometry
    assert geometry.scale_x == geometry.scale_y == 2.0
    assert geometry.origin_y == 10 - 20


def test_what_lies_off_the_image_or_is_padding_stays_zero_and_does_not_count() -> None:
    view = mammogram(padding=True)
    prepared = prepare_region(view, Region(168, -32, 232, 32), RegionParameters(rows=64, columns=64))
    assert (prepared.tensor[0, :32] == 0).all()
    assert (prepared.tensor[0, :, 32:] == 0).all()
    assert abs(float(prepared.tensor[0, 32:, :32].mean())) < 1e-3
    assert prepared.region == Region(168, 0, 232, 32)


@pytest.mark.parametrize("region", [Region(-50, 10, -10, 50), Region(210, 0, 230, 20), Region(5, 5, 5, 9)])
def test_a_region_without_image_is_refused(region: Region) -> None:
    with pytest.raises(PreprocessingError, match="correct its coordinates"):
        prepare_region(mammogram(padding=True), region, RegionParameters())


def test_a_whole_patch_keeps_every_pixel() -> None:
    pixels = RANDOM.integers(0, 256, (50, 50, 3), dtype=np.uint8)
    tensor = prepare_patch(pixels, PatchParameters(mean_red=0.8, deviation_blue=0.1))
    assert tensor.shape == (3, 50, 50)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0], (pixels[..., 0] / 255 - 0.8) / 0.25, atol=1e-5)
    np.testing.assert_allclose(tensor[2], (pixels[..., 2] / 255 - 0.5) / 0.1, atol=1e-5)


def test_a_cut_patch_is_padded_with_glass() -> None:
    pixels = np.zeros((50, 20, 3), dtype=np.uint8)
    tensor = prepare_patch(pixels, PatchParameters())
    assert (tensor[:, :, :20] == -2.0).all()
    assert (tensor[:, :, 20:] == 2.0).all()


def test_a_patch_is_averaged_onto_another_grid() -> None:
    pixels = np.repeat(np.repeat(np.arange(25, dtype=np.uint8), 2)[:, None, None], 50, axis=1).repeat(
        3, axis=2
    )
    parameters = PatchParameters(rows=25, columns=100)
    tensor = prepare_patch(pixels, parameters)
    assert tensor.shape == (3, 25, 100)
    np.testing.assert_allclose(tensor[1, :, 7], (np.arange(25) / 255 - 0.5) / 0.25, atol=1e-5)
    x, y = patch_geometry(parameters).to_source(np.array([100.0]), np.array([1.0]))
    assert (float(x[0]), float(y[0])) == (50.0, 2.0)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((50, 50), np.uint8),
        np.zeros((50, 50, 4), np.uint8),
        np.zeros((50, 50, 3), np.float32),
        np.zeros((51, 50, 3), np.uint8),
        np.zeros((0, 50, 3), np.uint8),
    ],
)
def test_what_is_no_patch_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(PreprocessingError, match="A patch has"):
        prepare_patch(pixels, PatchParameters())


def test_every_kind_of_parameters_is_found_by_its_version() -> None:
    for parameters in (Parameters(), RegionParameters(), PatchParameters()):
        assert parameters_class(parameters.version) is type(parameters)
        assert fault_of(parameters) is None
    assert len(KNOWN_VERSIONS) == 3
    with pytest.raises(UnsupportedBundleError, match="breast-grid-1"):
        parameters_class("breast-grid-0")


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(rows=0),
        Parameters(pixel_mm=0.0),
        Parameters(clip_low=1.0, clip_high=1.0),
        RegionParameters(columns=0),
        RegionParameters(clip_high=-5.0),
        PatchParameters(patch_pixels=0),
        PatchParameters(deviation_green=0.0),
    ],
)
def test_impossible_parameters_are_named(parameters: AnyParameters) -> None:
    assert fault_of(parameters)
