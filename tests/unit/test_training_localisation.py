"""A map is trusted only where it beats answers that know nothing; areas lie where they were drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.resampling import Geometry
from training import localisation
from training.errors import EvaluationError
from training.froc import FALSE_MARKS
from training.lesion_areas import LocatedMap, lesion_area, on_grid, touched
from training.localisation import OTHER_WOMAN, RANDOM_PEAK, RANDOM_WEIGHTS, measure
from training.map_pictures import overlay_png
from training.records import Lesion

GRID, CELLS = (48, 32), (12, 8)
PLAIN = Geometry(96, 64, 0.0, 0.0, 2.0, 2.0, is_flipped=False)


def circle(x: float, y: float, radius: float = 5.0) -> Lesion:
    return Lesion((x, y), radius, "CIRC")


def bump(row: float, column: float, height: float = 1.0, width: float = 1.2) -> NDArray[np.float64]:
    rows, columns = np.indices(CELLS)
    return height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))


def images(
    kind: str, *, seed: int = 0, women: int = 40, usual_place: bool = False, normal: int = 0
) -> list[LocatedMap]:
    """One image of each woman with one lesion; the map sees it, sees nothing, or shows one place always."""
    places, noise = np.random.default_rng(1), np.random.default_rng(seed)
    inside = np.zeros(GRID, np.bool_)
    inside[4:44, :28] = True
    found = []
    for woman in range(women + normal):
        if usual_place:
            x, y = places.normal([28.0, 48.0], 1.0)
        else:
            x, y = places.uniform([8.0, 16.0], [48.0, 80.0])
        area = lesion_area(circle(x, y), PLAIN, GRID)
        assert area is not None
        activation = noise.random(CELLS) * 0.3
        if kind == "seeing" and woman < women:
            activation += bump(y / 8.0 - 0.5, x / 8.0 - 0.5)
        elif kind == "one place":
            activation += bump(5.5, 3.0)
        found.append(LocatedMap(f"w{woman}", activation, (area,) if woman < women else (), inside))
    return found


def test_a_map_that_sees_beats_everything_that_does_not() -> None:
    found = measure(images("seeing", normal=20), images("blind", seed=5, normal=20))
    assert found.is_better_than_random
    assert found.found.pointing_game.value > 0.9
    assert set(found.baselines) == {RANDOM_PEAK, OTHER_WOMAN, RANDOM_WEIGHTS}
    for name, baseline in found.baselines.items():
        assert baseline.pointing_game.value < 0.25, name
        assert found.advantage[name].low > 0.5
        assert found.found.iou.low > baseline.iou.high
        assert found.found.mean_froc.low > baseline.mean_froc.high
    assert (found.images, found.women, found.lesions) == (40, 40, 40)
    assert list(found.found.froc) == sorted(found.found.froc)
    assert len(found.found.froc) == len(FALSE_MARKS)
    verdict = found.verdict
    assert verdict.is_better_than_random
    assert verdict.pointing_game == found.found.pointing_game.value
    assert verdict.random_weights == found.baselines[RANDOM_WEIGHTS].pointing_game.value


def test_a_woman_counts_once_and_only_where_every_image_of_hers_is_hit() -> None:
    inside = np.ones(GRID, np.bool_)
    area = np.zeros(GRID, np.bool_)
    area[0:4, 0:4] = True

    def located(woman: str, is_hit: bool) -> LocatedMap:
        activation = np.zeros(CELLS)
        activation[(0, 0) if is_hit else (6, 6)] = 1.0
        return LocatedMap(woman, activation, (area,), inside)

    # Both of a's images, one of b's two, c's one, none of d's.
    answers = [("a", True), ("b", True), ("a", True), ("b", False), ("c", True), ("d", False)]
    maps = [located(woman, is_hit) for woman, is_hit in answers]
    found = measure(maps, maps).found
    assert (found.pointing_game.value, found.pointing_game.cases) == (4 / 6, 6)
    assert (found.women.value, found.women.cases) == (0.5, 4)
    # Clopper and Pearson's bounds of 2 of 4.
    assert (found.women.low, found.women.high) == (
        pytest.approx(0.0676, abs=1e-4),
        pytest.approx(0.9324, abs=1e-4),
    )


def test_answers_that_know_nothing_hit_all_images_of_a_woman_in_the_same_draw_or_not_at_all() -> None:
    maps = [one for one in images("blind", women=30) for _ in range(2)]
    found = measure(maps, maps)
    # Two equal images are hit by the same others' lesions: her share is that of either.
    others = found.baselines[OTHER_WOMAN]
    assert others.women.value == pytest.approx(others.pointing_game.value)
    # Random places are other ones in each of her images.
    random = found.baselines[RANDOM_PEAK]
    assert 0.0 <= random.women.value < random.pointing_game.value / 2


def test_a_map_that_knows_nothing_is_hardly_ever_believed() -> None:
    believed = [
        measure(images("blind", seed=seed), images("blind", seed=100 + seed)).is_better_than_random
        for seed in range(6)
    ]
    assert sum(believed) == 0


def test_a_map_that_always_shows_the_usual_place_is_not_believed() -> None:
    found = measure(images("one place", usual_place=True), images("blind", seed=3, usual_place=True))
    assert found.found.pointing_game.value > 0.8
    assert found.advantage[RANDOM_PEAK].low > 0.5
    assert found.advantage[RANDOM_WEIGHTS].low > 0.5
    assert found.advantage[OTHER_WOMAN].low <= 0.0
    assert not found.is_better_than_random


def test_a_map_no_better_than_random_weights_is_not_believed() -> None:
    found = measure(images("seeing"), images("seeing", seed=9))
    assert found.advantage[RANDOM_PEAK].low > 0.5
    assert not found.is_better_than_random


def test_a_dozen_women_are_too_few_to_believe_a_map() -> None:
    found = measure(images("seeing", women=12), images("blind", seed=5, women=12))
    assert found.found.pointing_game.value > 0.9
    assert not found.is_better_than_random


def test_the_random_peak_hits_as_often_as_lesions_cover_the_breast() -> None:
    maps = images("blind", women=60)
    shares = []
    for one in maps:
        breast = touched(one.inside, CELLS)
        shares.append((touched(one.union, CELLS) & breast).sum() / breast.sum())
    found = measure(maps, maps).baselines[RANDOM_PEAK].pointing_game
    assert found.value == pytest.approx(np.mean(shares), abs=0.03)


def test_a_flat_map_marks_nothing() -> None:
    maps = [LocatedMap(one.group, np.zeros(CELLS), one.areas, one.inside) for one in images("blind")]
    found = measure(maps, maps)
    assert found.found.froc == (0.0,) * len(FALSE_MARKS)
    assert found.found.iou.value == 0.0
    assert not found.is_better_than_random


def test_the_froc_curve_counts_each_lesion_once_and_each_false_mark() -> None:
    inside = np.ones(GRID, np.bool_)
    area = np.zeros(GRID, np.bool_)
    area[0:4, 0:4] = True
    # Woman a: the lesion is the second highest peak. Woman b: the highest peak is the lesion.
    first, second = np.zeros(CELLS), np.zeros(CELLS)
    first[6, 6], first[0, 0] = 0.9, 0.5
    second[0, 0], second[8, 2] = 0.8, 0.1
    maps = [LocatedMap("a", first, (area,), inside), LocatedMap("b", second, (area,), inside)]
    # In falling order: false (.9), lesion (.8), lesion (.5), false (.1); two images.
    assert measure(maps, maps).found.froc == (0.0, 1.0, 1.0, 1.0, 1.0)


def test_overlap_is_that_of_the_shown_half_with_the_lesion() -> None:
    inside = np.ones((4, 4), np.bool_)
    area = np.zeros((4, 4), np.bool_)
    area[0, :] = True
    activation = np.zeros((4, 4))
    activation[:2, :] = [[1.0], [0.6]]
    maps = [LocatedMap(name, activation, (area,), inside) for name in "ab"]
    assert measure(maps, maps).found.iou.value == pytest.approx(0.5)


def test_maps_of_other_images_or_of_one_woman_are_refused() -> None:
    maps = images("seeing")
    with pytest.raises(EvaluationError, match="same images"):
        measure(maps, maps[1:])
    with pytest.raises(EvaluationError, match="same images"):
        measure(maps, maps[::-1])
    with pytest.raises(EvaluationError, match="two women"):
        measure(maps[:1], maps[:1])
    inside = np.ones((4, 4), np.bool_)
    for activation in (np.zeros((9, 4)), np.zeros((2, 9)), np.full((2, 2), np.nan), np.zeros(4)):
        with pytest.raises(EvaluationError):
            LocatedMap("a", activation, (), inside)
    with pytest.raises(EvaluationError):
        LocatedMap("a", np.zeros((2, 2)), (np.zeros((4, 4), np.bool_),), inside)


def test_what_was_measured_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = measure(images("seeing"), images("blind", seed=5))
    localisation.write(found, tmp_path / "localisation.json")
    assert localisation.read(tmp_path / "localisation.json") == found
    for content in ("{}", "[]", '{"format": 1}', '{"format": 2, "images": 1}'):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(EvaluationError, match=r"other\.json"):
            localisation.read(tmp_path / "other.json")


def test_a_picture_shows_the_map_in_red_and_the_lesion_in_yellow() -> None:
    (located,) = images("seeing", women=1)
    tensor = np.where(located.inside, 1.0 + np.random.default_rng(0).random(GRID), 0.0).astype(np.float32)
    with Image.open(io.BytesIO(overlay_png(tensor[np.newaxis], located))) as picture:
        colours = np.asarray(picture.convert("RGB")).astype(np.int64)
        assert picture.info == {}
    scale = colours.shape[0] / GRID[0]
    row, column = (int((place.mean() + 0.5) * scale) for place in np.nonzero(located.union))
    red, green, blue = colours[row, column]
    assert red > green + 20
    assert red > blue + 20
    yellow = (colours == (255, 220, 60)).all(axis=2)
    assert yellow.any()
    rows, columns = np.nonzero(yellow)
    assert rows.mean() == pytest.approx(row, abs=scale)
    assert columns.mean() == pytest.approx(column, abs=scale)
    assert (colours[:8, :] == 0).all()


@pytest.mark.parametrize("is_flipped", [False, True])
def test_a_circle_lies_on_the_grid_where_it_was_drawn(is_flipped: bool) -> None:
    geometry = Geometry(2000, 1000, 900.0 if is_flipped else 100.0, 50.0, 20.0, 20.0, is_flipped)
    area = lesion_area(circle(420.0, 610.0, 100.0), geometry, (80, 40))
    assert area is not None
    rows, columns = np.nonzero(area)
    x = (900.0 - 420.0) / 20.0 if is_flipped else (420.0 - 100.0) / 20.0
    assert (columns + 0.5).mean() == pytest.approx(x, abs=0.01)
    assert (rows + 0.5).mean() == pytest.approx((610.0 - 50.0) / 20.0, abs=0.01)
    assert area.sum() == pytest.approx(np.pi * 5.0**2, rel=0.05)


def test_a_mask_counts_instead_of_the_circle() -> None:
    mask = np.zeros((96, 64), np.bool_)
    mask[20:40, 10:30] = True
    area = lesion_area(Lesion((20.0, 30.0), 30.0, "SPIC", mask=Path("mask.png")), PLAIN, GRID, mask)
    assert area is not None
    expected = np.zeros(GRID, np.bool_)
    expected[10:20, 5:15] = True
    assert np.array_equal(area, expected)


def test_a_lesion_smaller_than_a_cell_is_a_cell_and_one_off_the_grid_is_none() -> None:
    area = lesion_area(circle(21.9, 30.1, 0.2), PLAIN, GRID)
    assert area is not None
    assert np.argwhere(area).tolist() == [[15, 10]]
    assert lesion_area(circle(500.0, 30.0), PLAIN, GRID) is None


def test_a_map_is_spread_over_the_grid_without_moving() -> None:
    activation = bump(4.0, 3.0)
    spread = on_grid(activation, GRID)
    row, column = np.unravel_index(spread.argmax(), GRID)
    assert (row + 0.5) / 4 == pytest.approx(4.5, abs=0.2)
    assert (column + 0.5) / 4 == pytest.approx(3.5, abs=0.2)
