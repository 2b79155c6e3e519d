"""What preprocessing promises: the breast found, the same scale, exact geometry, the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from models.contract import EVIDENCE_BANDS, ImageView, Laterality, Region
from models.errors import NoBreastError
from models.evidence import band_image
from models.preprocessing import Parameters, Prepared, find_breast, prepare

SMALL = Parameters(rows=96, columns=64, pixel_mm=2.0)


def half_ellipse(rows: int, columns: int, side: Laterality) -> NDArray[np.uint16]:
    """A breast-shaped area, slightly brighter below, on black."""
    y, x = np.mgrid[0:rows, 0:columns]
    inside = ((y - rows / 2) / (0.40 * rows)) ** 2 + (x / (0.70 * columns)) ** 2 < 1.0
    pixels = np.where(inside, 20000 + 10000 * y / rows, 0).astype(np.uint16)
    return pixels if side is Laterality.LEFT else pixels[:, ::-1].copy()


def view(
    side: Laterality = Laterality.LEFT,
    rows: int = 700,
    columns: int = 500,
    spacing_mm: tuple[float, float] | None = (0.25, 0.25),
) -> ImageView:
    return ImageView(
        "1.2.3",
        "1.2.840.10008.5.1.4.1.1.1.2",
        half_ellipse(rows, columns, side),
        None,
        side,
        "CC",
        spacing_mm,
    )


def full_size_mask(prepared: Prepared) -> NDArray[np.bool_]:
    step = prepared.breast.step
    return prepared.breast.mask.repeat(step, 0).repeat(step, 1)[:700, :500]


def source_point_of_cell(prepared: Prepared, row: int, column: int) -> tuple[float, float]:
    x, y = prepared.geometry.to_source(np.asarray([column + 0.5]), np.asarray([row + 0.5]))
    return float(x[0]), float(y[0])


@pytest.mark.parametrize("side", list(Laterality))
def test_the_breast_is_found_with_its_chest_wall_side(side: Laterality) -> None:
    breast = find_breast(view(side).pixels)
    left, top, right, bottom = breast.box
    expected = (0, 70, 350, 630) if side is Laterality.LEFT else (150, 70, 500, 630)
    assert np.abs(np.subtract((left, top, right, bottom), expected)).max() <= 2 * breast.step
    assert breast.chest_wall_side is side


def test_a_bright_marker_beside_the_breast_is_not_part_of_it() -> None:
    image = view()
    marked = image.pixels.copy()
    marked[20:60, 440:490] = 65535
    assert find_breast(marked).box == find_breast(image.pixels).box


def test_padding_is_no_part_of_the_breast_however_bright() -> None:
    image = view()
    padding = np.zeros(image.pixels.shape, dtype=np.bool_)
    padding[:, 400:] = True
    pixels = image.pixels.copy()
    pixels[padding] = 65535
    padded = prepare(replace(image, pixels=pixels, padding=padding), SMALL)
    assert np.array_equal(padded.tensor, prepare(image, SMALL).tensor)


@pytest.mark.parametrize("value", [0, 40000])
def test_a_constant_image_has_no_breast(value: int) -> None:
    with pytest.raises(NoBreastError):
        find_breast(np.full((512, 512), value, dtype=np.uint16))


def test_a_breast_that_fills_no_cell_of_the_grid_is_told() -> None:
    with pytest.raises(NoBreastError, match="smaller than a cell"):
        prepare(view(spacing_mm=(0.001, 0.001)), SMALL)


def test_a_small_bright_spot_is_no_breast() -> None:
    pixels = np.zeros((512, 512), dtype=np.uint16)
    pixels[200:240, 200:240] = 50000
    with pytest.raises(NoBreastError):
        find_breast(pixels)


def test_the_tensor_is_standardised_in_the_breast_and_zero_outside() -> None:
    tensor = prepare(view(), SMALL).tensor
    assert tensor.shape == (1, 96, 64)
    assert tensor.dtype == np.float32
    inside = tensor[tensor != 0.0]
    assert float(inside.mean()) == pytest.approx(0.0, abs=0.02)
    # Cells on the skin line average in some air and are cut at the lowest value.
    assert float(inside.std()) == pytest.approx(1.0, abs=0.05)


def test_both_sides_look_the_same_to_the_network() -> None:
    left, right = prepare(view(Laterality.LEFT), SMALL), prepare(view(Laterality.RIGHT), SMALL)
    # The subsampled mask may start a sample earlier from the other side.
    assert np.abs(left.tensor - right.tensor)[left.tensor * right.tensor != 0.0].max() < 0.05
    assert not left.geometry.is_flipped
    assert right.geometry.is_flipped


def test_the_same_breast_at_twice_the_resolution_keeps_its_size_on_the_grid() -> None:
    coarse = prepare(view(), SMALL)
    fine = prepare(view(rows=1400, columns=1000, spacing_mm=(0.125, 0.125)), SMALL)
    coarse_cells, fine_cells = (int((p.tensor != 0.0).sum()) for p in (coarse, fine))
    assert abs(coarse_cells - fine_cells) < 0.02 * coarse_cells


@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.0)])
def test_a_breast_of_unknown_or_too_large_size_is_scaled_to_fit(
    spacing_mm: tuple[float, float] | None,
) -> None:
    prepared = prepare(view(spacing_mm=spacing_mm), SMALL)
    rows = np.flatnonzero((prepared.tensor[0] != 0.0).any(axis=1))
    assert rows[-1] - rows[0] >= 90
    assert prepared.region == Region(*map(float, prepared.breast.box))


def test_anisotropic_pixels_are_made_square() -> None:
    square = prepare(view(), SMALL)
    stretched = prepare(view(rows=1400, spacing_mm=(0.125, 0.25)), SMALL)
    assert abs(int((square.tensor != 0).sum()) - int((stretched.tensor != 0).sum())) < 0.02 * (96 * 64)


@pytest.mark.parametrize("side", list(Laterality))
def test_resizing_averages_areas_exactly(side: Laterality) -> None:
    image = view(side)
    pixels = np.where(
        image.pixels > 0, np.random.default_rng(7).integers(20000, 60000, image.pixels.shape), 0
    )
    prepared = prepare(replace(image, pixels=pixels.astype(np.uint16)), SMALL)
    cells = [(48, 10), (40, 22), (55, 5)]
    means = []
    for row, column in cells:
        x, y = source_point_of_cell(prepared, row, column)
        half = prepared.geometry.scale_x / 2
        assert half == 4.0
        weights_x, weights_y = (
            np.clip(np.minimum(np.arange(n) + 1, c + half) - np.maximum(np.arange(n), c - half), 0, 1)
            for n, c in ((500, x), (700, y))
        )
        means.append(float(weights_y @ pixels @ weights_x) / (2 * half) ** 2)
    seen = [float(prepared.tensor[0, row, column]) for row, column in cells]
    # Standardisation is linear: three cells fix it.
    slope = (seen[1] - seen[0]) / (means[1] - means[0])
    assert seen[2] == pytest.approx(seen[0] + slope * (means[2] - means[0]), abs=1e-4)


@pytest.mark.parametrize("side", list(Laterality))
def test_grid_and_source_points_are_inverse(side: Laterality) -> None:
    geometry = prepare(view(side), SMALL).geometry
    x, y = np.asarray([0.0, 3.25, 64.0]), np.asarray([0.0, 50.5, 96.0])
    back = geometry.to_grid(*geometry.to_source(x, y))
    np.testing.assert_allclose(back, (x, y), atol=1e-9)


def test_the_same_pixels_give_the_same_bytes() -> None:
    assert prepare(view(), SMALL).tensor.tobytes() == prepare(view(), SMALL).tensor.tobytes()


def test_a_breast_that_was_found_before_gives_the_same_bytes() -> None:
    found = find_breast(view().pixels)
    again = prepare(view(), SMALL, found)
    assert again.tensor.tobytes() == prepare(view(), SMALL).tensor.tobytes()
    assert again.breast is found


@pytest.mark.parametrize("side", list(Laterality))
@pytest.mark.parametrize(("row", "column"), [(4, 2), (7, 3), (6, 1)])
def test_a_peak_of_the_map_is_marked_where_it_came_from(side: Laterality, row: int, column: int) -> None:
    prepared = prepare(view(side), SMALL)
    activation = np.zeros((12, 8), dtype=np.float32)
    activation[row, column] = 2.0
    bands = band_image(activation, prepared)
    assert bands.shape == (700, 500)
    assert bands.dtype == np.uint8
    ys, xs = np.nonzero(bands == 3)
    # A map cell is 8 grid cells; its centre, half-pixel convention, in source pixels.
    x, y = prepared.geometry.to_source(np.asarray([(column + 0.5) * 8]), np.asarray([(row + 0.5) * 8]))
    assert (xs + 0.5).mean() == pytest.approx(float(x[0]), abs=1.0)
    assert (ys + 0.5).mean() == pytest.approx(float(y[0]), abs=1.0)


@pytest.mark.parametrize("side", list(Laterality))
def test_bands_are_the_interpolated_map_cut_at_fractions_of_its_maximum(side: Laterality) -> None:
    prepared = prepare(view(side), SMALL)
    activation = np.random.default_rng(3).normal(size=(12, 8)).astype(np.float32)
    ys, xs = np.nonzero(full_size_mask(prepared))
    grid_x, grid_y = prepared.geometry.to_grid(xs + 0.5, ys + 0.5)
    values = ndimage.map_coordinates(
        np.maximum(activation, 0.0), (grid_y / 8 - 0.5, grid_x / 8 - 0.5), order=1, mode="nearest"
    )
    expected = sum((values >= low * values.max()).astype(int) for low, _ in EVIDENCE_BANDS)
    # A rounding of float32 may decide on the border of a band.
    assert (band_image(activation, prepared)[ys, xs] == expected).mean() > 0.9999


def test_nothing_is_marked_outside_the_breast_or_without_evidence() -> None:
    prepared = prepare(view(), SMALL)
    everywhere = band_image(np.ones((12, 8), dtype=np.float32), prepared)
    mask = full_size_mask(prepared)
    assert (everywhere[mask] == 3).all()
    assert not everywhere[~mask].any()
    assert not band_image(np.full((12, 8), -1.0, dtype=np.float32), prepared).any()
