"""Temperature and operating point hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from models.calibration import fit_temperature, operating_point, probabilities
from models.errors import CalibrationError


def test_the_temperature_that_spoilt_the_logits_is_found() -> None:
    random = np.random.default_rng(0)
    honest = random.normal(0.0, 2.0, 20000)
    labels = random.random(20000) < probabilities(honest, 1.0)
    assert fit_temperature(honest * 3.0, labels) == pytest.approx(3.0, rel=0.05)


def test_two_thousand_cases_give_the_temperature_to_five_percent() -> None:
    random = np.random.default_rng(14)
    errors = []
    for _ in range(100):
        honest = random.normal(0.0, 2.0, 2000)
        labels = random.random(2000) < probabilities(honest, 1.0)
        errors.append(fit_temperature(honest * 3.0, labels) / 3.0 - 1.0)
    assert np.sqrt(np.mean(np.square(errors))) < 0.05
    assert abs(np.mean(errors)) < 0.015, "it errs to both sides"


def test_classes_that_do_not_overlap_still_get_a_finite_temperature() -> None:
    logits = np.concatenate([np.full(20, -9.0), np.full(20, 9.0)])
    labels = np.repeat([0, 1], 20)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(9.0 / np.log(21.0), rel=1e-3)


@pytest.mark.parametrize(
    "negatives", [100, 300, *(pytest.param(n, marks=pytest.mark.slow_proof) for n in (1000, 2000))]
)
def test_specificity_holds_for_new_cases_as_often_as_promised(negatives: int) -> None:
    random = np.random.default_rng(15)
    labels = np.repeat([0, 1], [negatives, negatives // 2])
    kept = 0
    for _ in range(2000):
        scores = np.where(labels == 0, random.random(labels.size), 0.5 + random.random(labels.size) / 2)
        threshold = operating_point(scores, labels, specificity=0.9).threshold
        kept += threshold >= 0.9  # the true specificity of uniform scores is the threshold itself
    # Of 2,000 draws with a true share of 95 %, fewer than 1,880 come up once in 50 tests.
    assert kept >= 1880


@pytest.mark.parametrize("negatives", [100, 300, 1000, 2000])
def test_the_threshold_is_the_lowest_score_that_keeps_the_promise(negatives: int) -> None:
    scores = np.concatenate([(np.arange(negatives) + 1.0) / (negatives + 1.0), np.full(50, 0.5)])
    labels = np.repeat([0, 1], [negatives, 50])
    threshold = operating_point(scores, labels, specificity=0.9).threshold
    rank = int((scores[labels == 0] < threshold).sum())

    def kept(rank: int) -> float:
        """How often this order statistic of uniform scores, a beta variable, reaches the specificity."""
        return float(stats.beta.sf(0.9, rank, negatives - rank + 1))

    assert kept(rank) >= 0.95 > kept(rank - 1)


def test_between_separate_classes_the_threshold_lies_in_the_gap() -> None:
    scores = np.concatenate([np.linspace(0.01, 0.05, 40), np.linspace(0.95, 0.99, 40)])
    point = operating_point(scores, np.repeat([0, 1], 40))
    assert 0.2 < point.threshold < 0.8
    assert point.sensitivity_is_met


def test_where_classes_overlap_specificity_is_kept() -> None:
    random = np.random.default_rng(2)
    scores, labels = random.random(200), np.repeat([0, 1], 100)
    point = operating_point(scores, labels)
    assert (scores[labels == 0] < point.threshold).mean() >= 0.9
    assert not point.sensitivity_is_met


def test_too_few_negatives_are_refused_with_the_number_needed() -> None:
    scores, labels = np.linspace(0, 1, 40), np.repeat([0, 1], [28, 12])
    with pytest.raises(CalibrationError, match="at least 29"):
        operating_point(scores, labels, specificity=0.9)
    scores, labels = np.linspace(0, 1, 41), np.repeat([0, 1], [29, 12])
    assert operating_point(scores, labels, specificity=0.9).threshold > scores[28]


def scores_of_patients(
    random: np.random.Generator, patients: int, each: int, alike: float
) -> tuple[np.ndarray, list[str]]:
    """Draw the uniform scores of patients with so many patches each, which correlate by `alike`."""
    shared = np.repeat(random.normal(0.0, np.sqrt(alike), patients), each)
    own = random.normal(0.0, np.sqrt(1.0 - alike), patients * each)
    return stats.norm.cdf(shared + own), [str(patient) for patient in np.repeat(np.arange(patients), each)]


def test_one_case_a_woman_gives_the_same_threshold_as_cases_without_women() -> None:
    random = np.random.default_rng(3)
    scores, labels = random.random(200), np.repeat([0, 1], 100)
    names = [str(i) for i in range(200)]
    assert operating_point(scores, labels, groups=names) == operating_point(scores, labels)


@pytest.mark.parametrize("alike", [0.0, 0.2, 0.5])
def test_specificity_holds_for_new_patients_although_patches_of_one_resemble_each_other(alike: float) -> None:
    random = np.random.default_rng(16)
    kept = blind = 0
    for _ in range(200):
        negatives, patients = scores_of_patients(random, 60, 20, alike)
        scores, labels = np.append(negatives, [0.5] * 5), np.repeat([0, 1], [1200, 5])
        groups = [*patients, *"abcde"]
        kept += operating_point(scores, labels, groups=groups).threshold >= 0.9
        blind += operating_point(scores, labels).threshold >= 0.9
    # Of 200 draws with a true share of 93 %, fewer than 179 come up once in 30 tests.
    assert kept >= 179
    if alike == 0.5:
        assert blind < 165, "patches counted one by one promise too much"


def test_too_few_women_are_refused_whatever_they_have_of_images() -> None:
    scores, labels = np.linspace(0, 1, 400), np.repeat([0, 1], [280, 120])
    groups = [str(i // 10) for i in range(400)]
    with pytest.raises(
        CalibrationError, match=r"280 negative .* of 28 women or patients .* at least 29 women"
    ):
        operating_point(scores, labels, groups=groups)
    # Sorted negatives: a woman's are as alike as can be, so that nearly all must lie below.
    scores = np.append(np.linspace(0, 1, 290), np.full(120, 0.5))
    labels, names = np.repeat([0, 1], [290, 120]), [str(i // 10) for i in range(410)]
    assert operating_point(scores, labels, groups=names).threshold > 0.98
    assert operating_point(scores, labels).threshold < 0.94
    with pytest.raises(CalibrationError, match="for each label"):
        operating_point(scores, labels, groups=groups)


@pytest.mark.parametrize("shift", [-30.0, 0.0, 30.0])
def test_a_gap_among_scores_that_round_to_none_or_all_is_found(shift: float) -> None:
    scores = probabilities(np.repeat([-2.0, 2.0], 40) + shift, 1.0)
    labels = np.repeat([0, 1], 40)
    point = operating_point(scores, labels)
    assert point.sensitivity_is_met
    assert np.array_equal(scores >= point.threshold, labels == 1)


@pytest.mark.parametrize(
    ("values", "labels"), [([1.0, 2.0], [1, 1]), ([np.nan, 1.0], [0, 1]), ([1.0], [0, 1])]
)
def test_unusable_scores_are_refused(values: list[float], labels: list[int]) -> None:
    with pytest.raises(CalibrationError):
        fit_temperature(values, labels)
