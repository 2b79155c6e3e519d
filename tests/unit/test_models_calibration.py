"""Temperature and operating point hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration import fit_temperature, operating_point, probabilities
from models.errors import CalibrationError


def test_the_temperature_that_spoilt_the_logits_is_found() -> None:
    random = np.random.default_rng(0)
    honest = random.normal(0.0, 2.0, 20000)
    labels = random.random(20000) < probabilities(honest, 1.0)
    assert fit_temperature(honest * 3.0, labels) == pytest.approx(3.0, rel=0.05)


def test_classes_that_do_not_overlap_still_get_a_finite_temperature() -> None:
    logits = np.concatenate([np.full(20, -9.0), np.full(20, 9.0)])
    labels = np.repeat([0, 1], 20)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(9.0 / np.log(21.0), rel=1e-3)


def test_specificity_holds_for_new_cases_as_often_as_promised() -> None:
    random = np.random.default_rng(1)
    kept = 0
    for _ in range(400):
        scores = np.concatenate([random.random(60), 0.5 + random.random(30) / 2])
        threshold = operating_point(scores, np.repeat([0, 1], [60, 30]), specificity=0.9).threshold
        kept += threshold >= 0.9  # the true specificity of uniform scores is the threshold itself
    assert kept / 400 >= 0.93


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


@pytest.mark.parametrize(
    ("values", "labels"), [([1.0, 2.0], [1, 1]), ([np.nan, 1.0], [0, 1]), ([1.0], [0, 1])]
)
def test_unusable_scores_are_refused(values: list[float], labels: list[int]) -> None:
    with pytest.raises(CalibrationError):
        fit_temperature(values, labels)
