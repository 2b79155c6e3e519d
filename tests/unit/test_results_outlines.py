"""Lines drawn on an image lie on the edge of what they go round, in DICOM pixel coordinates."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_node.results.outlines import outlines_of
from models.contract import LesionMark
from tests import results_contexts as given


def filled(points: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill a closed polygon: the pixels whose centre an odd number of edges lies to the right of."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in pairwise(points):
        crosses = (y0 > rows) != (y1 > rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (columns < (x1 - x0) * (rows - y0) / (y1 - y0) + x0)
    return inside


def test_attention_is_outlined_round_bands_two_and_three_where_they_lie() -> None:
    score = given.prediction(given.POSITIVE).images[0]
    (outline,) = outlines_of(given.positive(), score)
    assert outline.lesion is None
    assert score.evidence is not None
    wrong = filled(outline.points, score.evidence.shape) != (score.evidence >= 2)
    assert wrong.sum() < 0.05 * (score.evidence >= 2).sum()
    assert np.abs((outline.points.min(axis=0) + outline.points.max(axis=0)) / 2 - (100.5, 150.5)).max() <= 1


def test_areas_without_the_strongest_band_are_left_out_and_the_largest_come_first() -> None:
    evidence = np.zeros((given.ROWS, given.COLUMNS), np.uint8)
    evidence[10:20, 10:20], evidence[12:14, 12:14] = 2, 3
    evidence[50:90, 50:90], evidence[52:80, 52:80] = 2, 3
    evidence[150:190, 50:90] = 2
    evidence[200:220, 50:90] = 1
    score = replace(given.prediction(given.POSITIVE).images[0], evidence=evidence)
    assert [o.points.min(axis=0).tolist() for o in outlines_of(given.positive(), score)] == [
        [50, 50],
        [10, 10],
    ]


def test_at_most_four_areas_are_outlined() -> None:
    evidence = np.zeros((given.ROWS, given.COLUMNS), np.uint8)
    evidence[10:300:20, 10:20] = 3
    score = replace(given.prediction(given.POSITIVE).images[0], evidence=evidence)
    assert len(outlines_of(given.positive(), score)) == 4


def test_marks_go_before_attention_and_are_closed_once() -> None:
    triangle = ((60.5, 20.0), (80.25, 20.0), (70.0, 44.5))
    marks = (LesionMark((70.0, 30.0), triangle, 0.9), LesionMark((70.0, 30.0), (*triangle, triangle[0]), 0.8))
    score = replace(given.prediction(given.POSITIVE).images[0], marks=marks)
    localising = given.positive(bundle=replace(given.BUNDLE, localises=True))
    for number, outline in enumerate(outlines_of(localising, score), start=1):
        assert outline.lesion is not None
        assert (outline.lesion.number, outline.lesion.mark) == (number, marks[number - 1])
        assert outline.points.tolist() == [list(point) for point in (*triangle, triangle[0])]
    (attention,) = outlines_of(given.positive(), score)
    assert attention.lesion is None


@pytest.mark.parametrize("evidence", [None, np.zeros((given.ROWS, given.COLUMNS), np.uint8)])
def test_nothing_to_show_gives_no_line(evidence: NDArray[np.uint8] | None) -> None:
    assert (
        outlines_of(given.positive(), replace(given.prediction(given.POSITIVE).images[0], evidence=evidence))
        == ()
    )
