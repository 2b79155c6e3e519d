"""The places that a localising bundle points at, and the outlines drawn round them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models import manifest
from models.calibration import OperatingPoint
from models.classifier import Classifier, predict_study
from models.contract import ImageView, Laterality
from models.evidence import attention_image, band_image, marks_of
from models.outlines import TOLERANCE, outline_of
from models.preprocessing import Parameters, Prepared, prepare
from models.store import released_bundle
from tests.unit.small_bundle import write_small_bundle
from training.datasets.phantoms import LesionKind, draw
from training.demonstration.cohort import display_view

GRID = Parameters(rows=96, columns=64, pixel_mm=2.4)
PLACES = [(side, view) for side in (Laterality.RIGHT, Laterality.LEFT) for view in ("CC", "MLO")]


def shown(side: Laterality = Laterality.LEFT, view: str = "CC") -> ImageView:
    phantom = draw(laterality=side, view=view, rows=640, columns=520, kind=LesionKind.CIRC, seed=3)
    return display_view(phantom, f"1.2.{PLACES.index((side, view)) + 1}")


def map_with_peaks(
    prepared: Prepared, *peaks: tuple[float, float, float], breadth: float = 3.0
) -> NDArray[np.float32]:
    """Draw a map whose values rise towards source points ``(column, row, height)``."""
    cells_y, cells_x = np.mgrid[:48, :32] + 0.5
    values = np.zeros((48, 32), np.float32)
    for column, row, height in peaks:
        x, y = prepared.geometry.to_grid(np.array([column]), np.array([row]))
        values += height * np.exp(-((cells_x - x / 2) ** 2 + (cells_y - y / 2) ** 2) / breadth).astype(
            np.float32
        )
    return values


def filled(outline: tuple[tuple[float, float], ...], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which pixel centres an outline contains, by another program's drawing at eight times the size."""
    canvas = Image.new("1", (shape[1] * 8, shape[0] * 8))
    ImageDraw.Draw(canvas).polygon([(x * 8, y * 8) for x, y in outline], fill=1)
    return np.asarray(canvas)[4::8, 4::8]


@pytest.mark.parametrize(("side", "view"), PLACES)
def test_a_mark_lies_on_the_peak_of_the_map_whatever_the_side(side: Laterality, view: str) -> None:
    prepared = prepare(shown(side, view), GRID)
    left, top, right, bottom = prepared.breast.box
    wanted = (left + 0.4 * (right - left), top + 0.45 * (bottom - top))
    (mark,) = marks_of(map_with_peaks(prepared, (*wanted, 1.0)), prepared, 0.8)
    # The map's own cells are the limit of what it can say.
    assert np.hypot(mark.centre[0] - wanted[0], mark.centre[1] - wanted[1]) <= 2 * prepared.geometry.scale_x
    assert mark.probability == 0.8
    assert mark.finding is None


def test_an_outline_contains_the_two_upper_bands_and_its_centre() -> None:
    prepared = prepare(shown(), GRID)
    left, top, right, bottom = prepared.breast.box
    activation = map_with_peaks(prepared, (left + (right - left) / 3, (top + bottom) / 2, 1.0))
    (mark,) = marks_of(activation, prepared, 0.8)
    bands = band_image(activation, prepared)
    inside = filled(mark.outline, bands.shape)
    assert ((bands >= 2) != inside).sum() <= TOLERANCE * 4 * np.sqrt((bands >= 2).sum())
    assert inside[int(mark.centre[1]), int(mark.centre[0])]
    assert len(mark.outline) < 60


def test_separate_places_become_separate_marks_the_strongest_first() -> None:
    prepared = prepare(shown(), GRID)
    left, top, right, bottom = prepared.breast.box
    across, down = left + (right - left) / 3, bottom - top
    activation = map_with_peaks(
        prepared,
        (across, top + 0.3 * down, 0.8),
        (across, top + 0.6 * down, 1.0),
        (across, top + 0.45 * down, 0.3),
    )
    marks = marks_of(activation, prepared, 0.8)
    assert len(marks) == 2
    assert marks[0].centre[1] > marks[1].centre[1]


def test_no_more_than_three_places_are_marked() -> None:
    prepared = prepare(shown(), GRID)
    left, top, right, bottom = prepared.breast.box
    points = [
        (left + (right - left) * 0.25, top + (bottom - top) * share, 1.0) for share in (0.3, 0.42, 0.54, 0.66)
    ]
    assert len(marks_of(map_with_peaks(prepared, *points, breadth=0.8), prepared, 0.8)) == 3


def test_a_map_without_evidence_marks_nothing() -> None:
    prepared = prepare(shown(), GRID)
    assert marks_of(np.full((48, 32), -1.0, np.float32), prepared, 0.8) == ()
    assert not attention_image(np.full((48, 32), -1.0, np.float32), prepared).any()


def test_the_spread_map_reaches_255_at_the_mark_and_is_0_outside_the_breast() -> None:
    prepared = prepare(shown(), GRID)
    left, top, right, bottom = prepared.breast.box
    activation = map_with_peaks(prepared, (left + (right - left) / 3, (top + bottom) / 2, 0.02))
    spread = attention_image(activation, prepared)
    (mark,) = marks_of(activation, prepared, 0.8)
    assert spread.shape == (640, 520)
    assert spread[int(mark.centre[1]), int(mark.centre[0])] == spread.max() == 255
    assert not spread[:, right:].any()
    assert np.array_equal(spread >= 154, band_image(activation, prepared) >= 2)


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((1, 1), bool),
        np.ones((1, 7), bool),
        np.ones((5, 1), bool),
        np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool),
        np.tri(6, dtype=bool),
        np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool),
    ],
)
def test_an_outline_is_never_farther_from_the_pixel_edges_than_it_may_be(mask: NDArray[np.bool_]) -> None:
    outline = np.array(outline_of(mask, (0, 0)))
    height, width = mask.shape
    assert len(outline) >= 4
    assert outline.min(axis=0).tolist() == [0.0, 0.0]
    assert (outline.max(axis=0) >= np.array([width, height]) - TOLERANCE).all()
    x, y = outline.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert 0 < area <= height * width


def test_an_outline_is_placed_in_the_image() -> None:
    assert outline_of(np.ones((2, 3), bool), (10, 20)) == ((10, 20), (13, 20), (13, 22), (10, 22))


@pytest.fixture
def studied(tmp_path: Path) -> dict[bool, Classifier]:
    point = OperatingPoint("default", 0.0, 0.9, 0.8, 0.95, False)
    classifiers = {}
    for localises in (False, True):
        folder = tmp_path / str(localises)
        write_small_bundle(folder, operating_points=(point,), localises=localises)
        classifiers[localises] = Classifier.load(folder, threads=1)
    return classifiers


def test_only_a_bundle_whose_localisation_was_validated_points_at_places(
    studied: dict[bool, Classifier],
) -> None:
    views = [shown(side, view) for side, view in PLACES]
    silent, pointing = (predict_study(studied[localises], views, ()) for localises in (False, True))
    assert [image.marks for image in silent.images] == [()] * 4
    assert all(
        image.marks for image in pointing.images if image.evidence is not None and image.evidence.any()
    )
    assert any(image.marks for image in pointing.images)
    assert [image.probability for image in silent.images] == [image.probability for image in pointing.images]
    assert not studied[False].identity.localises
    assert studied[True].identity.localises


def test_the_map_is_spread_over_the_image_only_for_who_asks(studied: dict[bool, Classifier]) -> None:
    views = [shown(side, view) for side, view in PLACES]
    unasked = predict_study(studied[False], views, ())
    assert [image.attention for image in unasked.images] == [None] * len(views)
    asked = predict_study(studied[False], views, (), with_attention=True)
    assert all(image.attention is not None for image in asked.images)


def test_a_bundle_released_before_the_field_keeps_its_digest_and_does_not_localise() -> None:
    content = (released_bundle() / "manifest.json").read_bytes()
    read = manifest.parse(content)
    assert b"localises" not in content
    assert not read.localises
    assert manifest.write(read) == content
    pointing = replace(read, localises=True)
    assert manifest.parse(manifest.write(pointing)).localises
    assert pointing.digest != read.digest
    assert pointing.configuration_digest != read.configuration_digest
