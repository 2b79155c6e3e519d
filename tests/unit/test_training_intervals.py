"""Intervals hold the truth as often as they promise; DeLong's variance is that of a published example."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from training import metrics
from training.delong import auc, auc_interval, covariance, paired_difference
from training.errors import EvaluationError
from training.intervals import Interval, Resampling, exact, percentile_interval, ratio, wilson

SIMULATIONS = 2000
PROMISED = (0.93, 0.97)
# Resampling takes seconds for each hundred simulations: few in every run of the tests, all in the proof.
RESAMPLED = [
    pytest.param(150, (0.90, 0.99), id="few"),
    pytest.param(SIMULATIONS, PROMISED, id="all", marks=pytest.mark.slow_proof),
]


def coverage(
    truth: float, simulate: Callable[[np.random.Generator], Interval], seed: int, times: int = SIMULATIONS
) -> float:
    """Share of simulations whose interval holds the truth."""
    random = np.random.default_rng(seed)
    held = 0
    for _ in range(times):
        interval = simulate(random)
        held += interval.low <= truth <= interval.high
    return held / times


# -- DeLong -------------------------------------------------------------------------------------------------


def ct_ratings() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """109 CT images, rated 1..5 for abnormality: Hanley and McNeil, Radiology 143 (1982) 29-36, table I."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    ratings = np.repeat(np.tile(np.arange(1.0, 6.0), 2), normal + abnormal)
    return ratings, np.arange(ratings.size) >= sum(normal)


def test_the_published_example_has_its_published_area_and_error() -> None:
    # Area 0.8932 with DeLong's standard error 0.0307 and interval .83295 - .95339 (symmetric), as in the
    # Stata Base Reference Manual, roctab, which works these data of Hanley and McNeil.
    ratings, labels = ct_ratings()
    found = covariance(ratings, labels)
    error = float(np.sqrt(found.covariance[0, 0]))
    assert round(float(found.values[0]), 4) == 0.8932
    assert round(error, 4) == 0.0307
    low, high = found.values[0] + stats.norm.ppf([0.025, 0.975]) * error
    assert (low, high) == (pytest.approx(0.83295, abs=5e-6), pytest.approx(0.95339, abs=5e-6))
    assert (found.positives, found.negatives) == (51, 58)


def by_definition(
    scores: NDArray[np.float64], labels: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """DeLong's estimate from all pairs, as the article writes it."""
    v10, v01 = [], []
    for row in scores:
        x, y = row[labels], row[~labels]
        psi = (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)
        v10.append(psi.mean(axis=1))
        v01.append(psi.mean(axis=0))
    areas = np.asarray([part.mean() for part in v10])
    found = np.cov(v10) / int(labels.sum()) + np.cov(v01) / int((~labels).sum())
    return areas, found


@pytest.mark.parametrize("seed", range(5))
def test_areas_and_covariance_are_delongs_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.random(60) < 0.4
    scores = np.round(random.normal(labels, 1.0, (3, 60)), seed % 2)
    areas, expected = by_definition(scores, labels)
    found = covariance(scores, labels)
    np.testing.assert_allclose(found.values, areas, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.covariance, expected, rtol=0, atol=1e-12)


def test_cases_that_are_copies_of_one_another_count_once() -> None:
    random = np.random.default_rng(7)
    labels = random.random(80) < 0.5
    scores = random.normal(labels, 1.0)
    single = covariance(scores, labels)
    groups = [str(i) for i in range(80)] * 3
    tripled = covariance(np.tile(scores, 3), np.tile(labels, 3), groups)
    assert tripled.values[0] == pytest.approx(single.values[0], abs=1e-12)
    assert tripled.covariance[0, 0] == pytest.approx(single.covariance[0, 0], rel=1e-9)
    naive = covariance(np.tile(scores, 3), np.tile(labels, 3))
    assert naive.covariance[0, 0] < 0.4 * single.covariance[0, 0]


def test_a_model_does_not_differ_from_itself_and_the_order_gives_the_sign() -> None:
    random = np.random.default_rng(8)
    labels = random.random(100) < 0.5
    good, poor = random.normal(labels * 2, 1.0), random.normal(labels * 0.2, 1.0)
    same = paired_difference(good, good * 2 + 1, labels)
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    there, back = paired_difference(good, poor, labels), paired_difference(poor, good, labels)
    assert there.value == pytest.approx(auc(good, labels) - auc(poor, labels))
    assert there.low > 0.0
    assert there.p_value < 0.001
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert back.p_value == pytest.approx(there.p_value)


def test_classes_without_overlap_get_an_interval_that_is_not_a_point() -> None:
    found = auc_interval([1.0, 2.0, 3.0, 8.0, 9.0], [False] * 3 + [True] * 2)
    assert (found.value, found.high, found.cases) == (1.0, 1.0, 5)
    assert found.low < 0.5
    groups = ["a", "b", "c", "d", "d"]
    assert auc_interval([1.0, 2.0, 3.0, 8.0, 9.0], [False] * 3 + [True] * 2, groups).low < found.low


def test_a_perfect_model_and_one_that_knows_nothing_are_told_apart_by_enough_women_alone() -> None:
    for women, is_told_apart in ((2, False), (30, True)):
        labels = np.repeat([False, True], women)
        perfect, flat = labels.astype(np.float64), np.zeros(labels.size)
        found = paired_difference(perfect, flat, labels)
        assert found.value == 0.5
        assert (found.low > 0.0) == is_told_apart
        assert (found.p_value < 0.05) == is_told_apart
        back = paired_difference(flat, perfect, labels)
        assert (back.value, back.p_value) == (-0.5, found.p_value)
        alike = paired_difference(perfect, flat, labels, ["a"] * women + ["b"] * women)
        assert alike.p_value > 0.05, "two women, whatever they have of images"


@pytest.mark.parametrize(
    ("scores", "labels"), [([1.0, 2.0], [1, 1]), ([1.0, np.nan], [0, 1]), ([1.0], [0, 1])]
)
def test_scores_that_make_no_curve_are_refused(scores: list[float], labels: list[int]) -> None:
    with pytest.raises(EvaluationError):
        covariance(scores, labels)


# -- coverage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "cases"), [(0.6, 60), (0.8, 100), (0.9, 200), (0.95, 322)])
def test_wilsons_interval_covers_as_promised(share: float, cases: int) -> None:
    found = coverage(share, lambda random: wilson(int(random.binomial(cases, share)), cases), seed=cases)
    assert PROMISED[0] <= found <= PROMISED[1]


def scored(random: np.random.Generator, positives: int, negatives: int, shift: float) -> NDArray[np.float64]:
    return np.append(random.normal(shift, 1.0, positives), random.normal(0.0, 1.0, negatives))


@pytest.mark.parametrize(
    ("area", "positives", "negatives"), [(0.75, 50, 100), (0.85, 52, 270), (0.92, 60, 60)]
)
def test_delongs_interval_covers_as_promised(area: float, positives: int, negatives: int) -> None:
    shift = float(np.sqrt(2.0) * stats.norm.ppf(area))
    labels = np.arange(positives + negatives) < positives
    found = coverage(
        area, lambda random: auc_interval(scored(random, positives, negatives, shift), labels), seed=1
    )
    assert PROMISED[0] <= found <= PROMISED[1]


def test_the_interval_of_an_area_covers_where_women_have_several_images() -> None:
    # Two images a woman that share most of what varies; the area is that of single images.
    women, area = 120, 0.8
    shift = float(np.sqrt(2.0) * stats.norm.ppf(area))
    labels = np.repeat(np.arange(women) < 50, 2)
    groups = [str(i // 2) for i in range(2 * women)]

    def simulate(random: np.random.Generator) -> Interval:
        shared = np.repeat(random.normal(0.0, np.sqrt(0.8), women), 2)
        return auc_interval(
            labels * shift + shared + random.normal(0.0, np.sqrt(0.2), 2 * women), labels, groups
        )

    assert PROMISED[0] <= coverage(area, simulate, seed=2) <= PROMISED[1]


def test_the_interval_of_a_difference_covers_as_promised() -> None:
    areas = (0.85, 0.78)
    shifts = np.sqrt(2.0) * stats.norm.ppf(areas)
    labels = np.arange(160) < 60

    def simulate(random: np.random.Generator) -> Interval:
        shared = random.normal(0.0, np.sqrt(0.6), 160)
        first, second = (labels * s + shared + random.normal(0.0, np.sqrt(0.4), 160) for s in shifts)
        found = paired_difference(first, second, labels)
        return Interval(found.value, found.low, found.high, 160)

    assert PROMISED[0] <= coverage(areas[0] - areas[1], simulate, seed=3) <= PROMISED[1]


def clustered(random: np.random.Generator, women: int) -> tuple[NDArray[np.bool_], list[str]]:
    """Hits of one to three images of each woman, alike within her; four in five on average."""
    images = random.integers(1, 4, women)
    easiness = random.beta(4.0, 1.0, women)
    return random.random(images.sum()) < np.repeat(easiness, images), [
        str(woman) for woman in np.repeat(np.arange(women), images)
    ]


@pytest.mark.parametrize(("times", "promised"), RESAMPLED)
def test_a_share_of_images_covers_as_promised_when_women_are_resampled(
    times: int, promised: tuple[float, float]
) -> None:
    def simulate(random: np.random.Generator) -> Interval:
        hits, groups = clustered(random, 150)
        seed = int(random.integers(1 << 30))
        return Resampling(groups, seed=seed, resamples=500).share(hits)

    assert promised[0] <= coverage(0.8, simulate, 4, times) <= promised[1]


@pytest.mark.parametrize(("times", "promised"), RESAMPLED)
def test_resampled_f1_area_and_precision_cover_as_promised(times: int, promised: tuple[float, float]) -> None:
    women, prevalence, shift, cut = 200, 0.3, 1.5, 0.75
    tp = prevalence * stats.norm.sf(cut - shift)
    fp = (1 - prevalence) * stats.norm.sf(cut)
    true_f1 = 2 * tp / (tp + fp + prevalence)
    true_area = float(stats.norm.cdf(shift / np.sqrt(2.0)))
    steps = np.linspace(-6.0, 8.0, 20001)
    found, false = prevalence * stats.norm.sf(steps - shift), (1 - prevalence) * stats.norm.sf(steps)
    density = stats.norm.pdf(steps - shift)
    true_precision = float(np.trapezoid(found / (found + false) * density, steps))
    random = np.random.default_rng(5)
    held = np.zeros(3)
    for seed in range(times):
        labels = random.random(women) < prevalence
        scores = random.normal(labels * shift, 1.0)
        drawn = Resampling([str(i) for i in range(women)], seed=seed, resamples=400)
        called = scores >= cut
        parts = np.column_stack([2 * (labels & called), labels.astype(int) + called]).astype(np.float64)
        intervals = (
            drawn.of_sums(parts, ratio),
            drawn.interval(lambda w, s=scores, t=labels: metrics.weighted_auc(s, t, w)),
            drawn.interval(lambda w, s=scores, t=labels: metrics.weighted_average_precision(s, t, w)),
        )
        truths = (true_f1, true_area, true_precision)
        held += [i.low <= truth <= i.high for i, truth in zip(intervals, truths, strict=True)]
    assert np.all(held / times >= promised[0]), held
    assert np.all(held / times <= promised[1]), held


def test_errors_of_the_calibration_line_cover_as_promised() -> None:
    groups = np.repeat(np.arange(200), 2)

    def simulate(random: np.random.Generator) -> Interval:
        odds = random.normal(-0.5, 1.5, 400)
        labels = random.random(400) < special.expit(0.8 * odds)
        line = metrics.calibration_line(special.expit(odds), labels, groups)
        half = 1.96 * line.slope_error
        return Interval(line.slope, line.slope - half, line.slope + half, 400)

    assert PROMISED[0] <= coverage(0.8, simulate, seed=6) <= PROMISED[1]


# -- edges --------------------------------------------------------------------------------------------------


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    # Newcombe, Stat Med 17 (1998) 857-872, table I, method 3.
    for hits, cases, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        found = wilson(hits, cases)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert np.isnan(wilson(0, 0).value)


@pytest.mark.parametrize(
    ("hits", "cases", "low", "high"),
    [(0, 20, 0.0, 0.1684), (20, 20, 0.8316, 1.0), (9, 10, 0.5550, 0.9975), (81, 263, 0.2527, 0.3676)],
)
def test_the_exact_interval_is_that_of_the_textbook(hits: int, cases: int, low: float, high: float) -> None:
    found = exact(hits, cases)
    assert (found.value, found.cases) == (hits / cases, cases)
    # 81 of 263: Newcombe 1998, method 5.
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_one_case_a_woman_gives_wilsons_interval_and_several_a_wider_one() -> None:
    hits = np.arange(100) % 5 > 0
    single = Resampling([str(i) for i in range(100)], seed=1).share(hits)
    assert single == wilson(80, 100)
    grouped = Resampling([str(i // 10) for i in range(100)], seed=1).share(np.sort(hits))
    assert grouped.high - grouped.low > 1.5 * (single.high - single.low)


def test_a_share_without_a_miss_counts_women_not_images() -> None:
    found = Resampling(["a", "a", "a", "b", "b", "b"], seed=1).share([True] * 6)
    assert (found.value, found.high, found.cases) == (1.0, 1.0, 6)
    assert found.low == wilson(2, 2).low


def test_a_mean_is_resampled_by_woman() -> None:
    values = np.random.default_rng(4).normal(size=50)
    once = Resampling([f"w{i}" for i in range(50)]).mean(values)
    twice = Resampling([f"w{i}" for i in range(50) for _ in "LR"]).mean(np.repeat(values, 2))
    assert once.value == pytest.approx(values.mean())
    assert once.low < once.value < once.high
    found = (twice.value, twice.low, twice.high)
    assert found == pytest.approx((once.value, once.low, once.high)), "copies of a woman say nothing new"
    assert (once.cases, twice.cases) == (50, 100)


def test_only_the_cases_that_count_are_counted() -> None:
    hits, among = [True, False, True, True], [True, True, False, False]
    found = Resampling(["a", "b", "c", "d"], seed=1).share(hits, among)
    assert found == wilson(1, 2)


def test_the_same_seed_gives_the_same_interval() -> None:
    groups, hits = ["a", "a", "b", "b", "c", "c"], [True, False, True, True, False, False]
    assert Resampling(groups, seed=1).share(hits) == Resampling(groups, seed=1).share(hits)


def test_what_is_not_defined_has_no_interval() -> None:
    assert np.isnan(percentile_interval(0.5, np.asarray([np.nan, np.nan, 0.5]), 3).low)
    assert np.isnan(percentile_interval(float("nan"), np.zeros(9), 3).high)
