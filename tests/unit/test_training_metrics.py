"""Every metric is the one that scikit-learn computes, to 1e-12; what is not defined is not a number."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression

from training import metrics
from training.delong import auc
from training.errors import EvaluationError

SEEDS = range(8)
EXACT = {"rtol": 0.0, "atol": 1e-12}


def binary(seed: int, count: int = 300) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores with many ties, as of a bundle that stores few digits, every second time."""
    random = np.random.default_rng(seed)
    labels = random.random(count) < 0.3
    scores = special.expit(random.normal(labels * 1.2 - 1.0, 1.5))
    return (np.round(scores, 1) * 0.98 + 0.01 if seed % 2 else scores), labels


def several(seed: int, classes: int = 7) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = np.append(random.integers(0, classes, 200), np.arange(classes))
    logits = random.normal(0.0, 1.0, (labels.size, classes))
    logits[np.arange(labels.size), labels] += 1.0
    return special.softmax(logits, axis=1), labels


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_of_classes_agree_with_scikit_learn(seed: int) -> None:
    probabilities, labels = several(seed)
    predicted = probabilities.argmax(axis=1)
    matrix = metrics.confusion(labels, predicted, 7)
    assert np.array_equal(matrix, reference.confusion_matrix(labels, predicted))
    expected = reference.precision_recall_fscore_support(labels, predicted, zero_division=np.nan)
    for ours, theirs in zip((metrics.precision, metrics.sensitivity, metrics.f1, metrics.support), expected):  # noqa: B905
        np.testing.assert_allclose(ours(matrix), theirs, **EXACT)
    per_class = reference.multilabel_confusion_matrix(labels, predicted)
    negatives = per_class[:, 0].sum(axis=1)
    np.testing.assert_allclose(metrics.specificity(matrix), per_class[:, 0, 0] / negatives, **EXACT)
    assert metrics.accuracy(matrix) == pytest.approx(reference.accuracy_score(labels, predicted), abs=1e-12)
    for ours, average in (
        (metrics.f1, reference.f1_score),
        (metrics.precision, reference.precision_score),
        (metrics.sensitivity, reference.recall_score),
    ):
        theirs = average(labels, predicted, average="macro", zero_division=np.nan)
        assert metrics.macro(ours(matrix)) == pytest.approx(theirs, abs=1e-12)
    balanced = reference.balanced_accuracy_score(labels, predicted)
    assert metrics.macro(metrics.sensitivity(matrix)) == pytest.approx(balanced, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_curves_and_areas_agree_with_scikit_learn(seed: int) -> None:
    scores, labels = binary(seed)
    once = np.ones((1, scores.size))
    area = reference.roc_auc_score(labels, scores)
    assert auc(scores, labels) == pytest.approx(area, abs=1e-12)
    assert metrics.weighted_auc(scores, labels, once)[0] == pytest.approx(area, abs=1e-12)
    expected = reference.average_precision_score(labels, scores)
    found = metrics.weighted_average_precision(scores, labels, once)[0]
    assert found == pytest.approx(expected, abs=1e-12)
    curve = metrics.roc(scores, labels)
    for ours, theirs in zip(
        (curve.x, curve.y, curve.thresholds),
        reference.roc_curve(labels, scores, drop_intermediate=False),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, **EXACT)
    recall = metrics.precision_recall(scores, labels)
    precision_, recall_, thresholds = reference.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(recall.y[::-1], precision_, **EXACT)
    np.testing.assert_allclose(recall.x[::-1], recall_, **EXACT)
    np.testing.assert_allclose(recall.thresholds[:0:-1], thresholds, **EXACT)


@pytest.mark.parametrize("seed", SEEDS)
def test_weighted_areas_agree_with_scikit_learn(seed: int) -> None:
    scores, labels = binary(seed)
    weights = np.random.default_rng(seed + 100).integers(0, 4, (3, scores.size)).astype(np.float64)
    areas = metrics.weighted_auc(scores, labels, weights)
    means = metrics.weighted_average_precision(scores, labels, weights)
    for row, area, mean in zip(weights, areas, means, strict=True):
        assert area == pytest.approx(reference.roc_auc_score(labels, scores, sample_weight=row), abs=1e-12)
        kept = row > 0
        expected = reference.average_precision_score(labels[kept], scores[kept], sample_weight=row[kept])
        assert mean == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_losses_agree_with_scikit_learn(seed: int) -> None:
    scores, labels = binary(seed)
    both = np.column_stack([1 - scores, scores])
    brier = metrics.brier_parts(both, labels).mean()
    assert brier == pytest.approx(reference.brier_score_loss(labels, scores), abs=1e-12)
    assert metrics.log_loss_parts(both, labels).mean() == pytest.approx(
        reference.log_loss(labels, both), abs=1e-12
    )
    probabilities, index = several(seed)
    assert metrics.log_loss_parts(probabilities, index).mean() == pytest.approx(
        reference.log_loss(index, probabilities), abs=1e-12
    )
    assert metrics.brier_parts(probabilities, index).mean() == pytest.approx(
        reference.brier_score_loss(index, probabilities, labels=np.arange(7), scale_by_half=False), abs=1e-12
    )


def test_a_certain_answer_that_is_wrong_costs_much_but_not_infinitely() -> None:
    certain = np.asarray([[1.0, 0.0]])
    loss = metrics.log_loss_parts(certain, [1])[0]
    assert loss == pytest.approx(reference.log_loss([1], certain, labels=[0, 1]), abs=1e-12)
    assert np.isfinite(loss)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_calibration_line_is_the_fitted_logistic_regression(seed: int) -> None:
    scores, labels = binary(seed)
    line = metrics.calibration_line(scores, labels, np.arange(scores.size))
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(special.logit(scores)[:, None], labels)
    assert line.slope == pytest.approx(model.coef_[0, 0], rel=1e-5)
    assert line.intercept == pytest.approx(model.intercept_[0], rel=1e-4, abs=1e-6)
    odds = line.intercept + line.slope * special.logit(scores)
    residual = labels - special.expit(odds)
    assert abs(residual.sum()) < 1e-9  # the score equations, which the fit must solve
    assert abs((residual * special.logit(scores)).sum()) < 1e-9


def test_probabilities_that_mean_what_they_say_have_slope_one_and_intercept_zero() -> None:
    random = np.random.default_rng(4)
    honest = special.expit(random.normal(-1.0, 2.0, 40_000))
    labels = random.random(honest.size) < honest
    line = metrics.calibration_line(honest, labels, np.arange(honest.size))
    assert line.slope == pytest.approx(1.0, abs=4 * line.slope_error)
    assert line.intercept == pytest.approx(0.0, abs=4 * line.intercept_error)
    too_sure = metrics.calibration_line(special.expit(3 * special.logit(honest)), labels, np.arange(40_000))
    assert too_sure.slope == pytest.approx(line.slope / 3, rel=1e-6)


def test_a_line_through_separated_classes_is_refused() -> None:
    with pytest.raises(EvaluationError, match="separate"):
        metrics.calibration_line([0.1, 0.2, 0.8], [False, False, True], [0, 1, 2])


def test_bins_of_the_adaptive_error_hold_equally_many_cases() -> None:
    random = np.random.default_rng(2)
    skewed = random.random(1003) ** 6
    came = random.random(1003) < skewed / 2
    said, seen, sizes = metrics.adaptive_bins(skewed, came)
    assert sizes.max() - sizes.min() <= 1
    assert np.all(np.diff(said) > 0)
    assert metrics.adaptive_ece(skewed, came) == pytest.approx((np.abs(said - seen) * sizes).sum() / 1003)
    assert metrics.adaptive_ece(skewed, came) > metrics.ece_by_chance(skewed)
    assert metrics.adaptive_ece([0.25] * 8, [True, True] + [False] * 6, bins=1) == 0.0


def test_the_error_of_right_probabilities_stays_below_what_chance_explains() -> None:
    random = np.random.default_rng(3)
    right = 0
    for _ in range(100):
        honest = random.random(200)
        found = metrics.adaptive_ece(honest, random.random(200) < honest)
        right += found <= metrics.ece_by_chance(honest, draws=100)
    assert stats.binom.sf(100 - right - 1, 100, 0.05) > 0.001


def test_a_class_never_predicted_has_no_precision_and_one_never_seen_no_sensitivity() -> None:
    matrix = metrics.confusion([0, 0, 1], [0, 0, 0], 3)
    assert metrics.precision(matrix)[0] == pytest.approx(2 / 3)
    assert np.isnan(metrics.precision(matrix)[1])
    assert np.isnan(metrics.sensitivity(matrix)[2])
    assert np.isnan(metrics.f1(matrix)[2])
    assert metrics.macro(metrics.sensitivity(matrix)) == 0.5


def test_never_naming_a_class_does_not_raise_the_mean_precision() -> None:
    never_called = metrics.confusion([0, 0, 1], [0, 0, 0], 3)
    each_called = metrics.confusion([0, 0, 1], [0, 1, 1], 3)
    assert np.isnan(metrics.macro_precision(never_called)), "class 1 has a case and no call"
    assert metrics.macro_precision(each_called) == 0.75, "class 2 has neither and is not asked for"
    assert np.array_equal(
        metrics.macro_precision(np.stack([each_called, never_called])), [0.75, np.nan], equal_nan=True
    )


def test_curves_of_one_class_alone_are_refused() -> None:
    with pytest.raises(EvaluationError, match="both classes"):
        metrics.roc([0.1, 0.2], [True, True])
    with pytest.raises(EvaluationError, match="both classes"):
        auc([0.1, 0.2], [False, False])
    assert np.isnan(metrics.weighted_auc([0.1, 0.2], [True, True], np.ones((1, 2)))[0])
