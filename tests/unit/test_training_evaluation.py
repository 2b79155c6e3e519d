"""What is measured on predictions: levels as scoring counts them, baselines, small groups left alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as reference

from models.calibration import fit_temperature, operating_point
from training import levels
from training.answers import joined
from training.errors import EvaluationError
from training.evaluation import Evaluation, Targets, best_level, evaluate, level_named
from training.predictions import Predictions

TASK = "mammography_malignancy"


def predicted(
    women: int = 120, *, seed: int = 0, shift: float = 1.5, share: float = 0.4, known: int = 2
) -> Predictions:
    """Four images of each woman, two of each breast; illness is of one breast."""
    random = np.random.default_rng(seed)
    images, groups, breasts, labels, density = [], [], [], [], []
    for woman in range(women):
        label = int(random.integers(1, known)) if random.random() < share else 0
        side = int(random.integers(2))
        dense = "D" if random.random() < 0.1 else "F"
        for number in range(4):
            images.append(f"s{seed}w{woman}i{number}")
            groups.append(f"s{seed}w{woman}")
            breasts.append(f"s{seed}w{woman}/{number // 2}")
            labels.append(label if number // 2 == side else 0)
            density.append(dense)
    truth = np.asarray(labels, dtype=np.int64)
    logits = random.normal(0.0, 1.0, (truth.size, 1 if known == 2 else known)) - (1.0 if known == 2 else 0.0)
    if known == 2:
        logits[:, 0] += shift * truth
        score = special.expit(logits[:, 0])
        probabilities = np.column_stack([1 - score, score])
    else:
        logits[np.arange(truth.size), truth] += shift
        probabilities = special.softmax(logits, axis=1)
    return Predictions(
        task=TASK,
        classes=tuple("abcdefg"[:known]),
        images=tuple(images),
        groups=tuple(groups),
        breasts=tuple(breasts),
        labels=truth,
        logits=logits,
        probabilities=probabilities,
        folds=np.zeros(truth.size, dtype=np.int64),
        subgroups={"density": tuple(density)},
    )


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluate(predicted(), {0: predicted(seed=1)})


def test_a_breast_is_the_mean_of_its_views_and_a_woman_her_higher_breast() -> None:
    base = predicted(2)
    score = np.asarray([0.2, 0.4, 0.9, 0.7, 0.1, 0.1, 0.3, 0.2])
    given = replace(
        base,
        probabilities=np.column_stack([1 - score, score]),
        labels=np.asarray([0, 0, 1, 0, 0, 0, 0, 0]),
    )
    of_breasts, of_women = levels.breasts(given), levels.women(given)
    assert of_women is not None
    np.testing.assert_allclose(of_breasts.probabilities[:, 1], [0.3, 0.8, 0.1, 0.25])
    assert of_breasts.labels.tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(of_women.probabilities[:, 1], [0.8, 0.25])
    assert of_women.labels.tolist() == [1, 0]
    assert of_women.groups == ("s0w0", "s0w1")
    np.testing.assert_allclose(of_women.probabilities.sum(axis=1), 1.0)


def test_breasts_of_a_task_with_several_classes_have_one_only_where_their_images_agree() -> None:
    given = replace(predicted(2, known=3), labels=np.asarray([1, 1, 0, 2, 0, 0, 2, 2]))
    of_breasts = levels.breasts(given)
    assert of_breasts.labels.tolist() == [1, 0, 2]
    assert of_breasts.left_out == 1
    assert levels.women(given) is None


def test_numbers_of_each_level_are_those_of_scikit_learn(found: Evaluation) -> None:
    assert [level.name for level in found.levels] == ["image", "breast", "woman"]
    assert [len(level.cases.labels) for level in found.levels] == [480, 240, 120]
    for level in found.levels:
        truth, score = level.cases.labels, level.cases.probabilities[:, 1]
        called = score >= 0.5
        expected = {
            "accuracy": reference.accuracy_score(truth, called),
            "balanced_accuracy": reference.balanced_accuracy_score(truth, called),
            "macro_f1": reference.f1_score(truth, called, average="macro"),
            "auc": reference.roc_auc_score(truth, score),
            "average_precision": reference.average_precision_score(truth, score),
            "brier": reference.brier_score_loss(truth, score),
            "log_loss": reference.log_loss(truth, score),
        }
        for name, value in expected.items():
            assert level.scores[name].value == pytest.approx(value, abs=1e-12), name
        for name, interval in level.scores.items():
            if name != "adaptive_ece":
                assert interval.low < interval.value < interval.high, name
        (positive,) = level.classes
        assert (positive.name, positive.support) == ("b", int(truth.sum()))
        assert positive.scores["sensitivity"].value == pytest.approx(reference.recall_score(truth, called))
        assert positive.scores["precision"].value == pytest.approx(reference.precision_score(truth, called))
        assert np.array_equal(level.confusion, reference.confusion_matrix(truth, called))
        assert level.baseline == pytest.approx(max(truth.mean(), 1 - truth.mean()))
        assert level.women == 120


def test_several_classes_are_each_held_against_the_others() -> None:
    given = predicted(200, known=4)
    found = evaluate(given)
    image = found.levels[0]
    assert [scores.name for scores in image.classes] == list("abcd")
    assert image.scores["auc"].value == pytest.approx(
        reference.roc_auc_score(given.labels, given.probabilities, multi_class="ovr"), abs=1e-12
    )
    assert "calibration_slope" not in image.scores
    assert image.point is None
    assert level_named(found, "woman") is None
    assert any("several classes" in note for note in found.notes)
    assert image.baseline_class == "a"


def test_the_operating_point_comes_from_validation_cases_alone(found: Evaluation) -> None:
    level = best_level(found)
    assert level.point is not None
    validation = levels.women(predicted(seed=1))
    assert validation is not None
    expected = operating_point(validation.probabilities[:, 1], validation.labels)
    assert level.point.points == {0: expected}
    called = level.cases.probabilities[:, 1] >= expected.threshold
    negatives = level.cases.labels == 0
    assert level.point.scores["specificity"].value == pytest.approx((~called)[negatives].mean())
    assert all(level.point is None for level in evaluate(predicted()).levels)


def in_fold(given: Predictions, fold: int) -> Predictions:
    return replace(given, folds=np.full_like(given.folds, fold))


def test_each_fold_is_called_at_the_threshold_of_its_own_network() -> None:
    tested = [in_fold(predicted(seed=fold), fold) for fold in (0, 1)]
    # The second network says everything with more confidence: its own threshold lies higher.
    validated = {0: predicted(seed=2), 1: in_fold(predicted(seed=3, shift=6.0), 1)}
    level = best_level(evaluate(joined(tested), validated))
    assert level.point is not None
    assert level.point.points[0].threshold != level.point.points[1].threshold
    called, truth = [], []
    for fold, given in enumerate(tested):
        alone = best_level(evaluate(given, {fold: validated[fold]}))
        assert alone.point is not None
        assert alone.point.points[fold] == level.point.points[fold]
        called.append(alone.cases.probabilities[:, 1] >= alone.point.points[fold].threshold)
        truth.append(alone.cases.labels == 1)
    positive, is_called = np.concatenate(truth), np.concatenate(called)
    assert level.point.scores["sensitivity"].value == pytest.approx(is_called[positive].mean())
    assert level.point.scores["specificity"].value == pytest.approx((~is_called)[~positive].mean())


def test_a_fold_without_validation_cases_gives_no_point_and_says_so() -> None:
    tested = joined([in_fold(predicted(seed=fold), fold) for fold in (0, 1)])
    found = evaluate(tested, {0: predicted(seed=2)})
    assert all(level.point is None for level in found.levels)
    assert any("Fold 1 has no validation cases" in note for note in found.notes)


def test_breasts_that_networks_of_several_folds_answered_for_have_no_threshold() -> None:
    mixed = replace(predicted(), folds=np.arange(480) % 2)
    found = evaluate(mixed, {0: predicted(seed=1), 1: in_fold(predicted(seed=2), 1)})
    image, breast, woman = found.levels
    assert image.point is not None
    assert breast.point is None
    assert woman.point is None
    assert "Level breast: no operating point. Several folds answered for one case." in found.notes


def test_operating_points_aim_where_the_run_aims(found: Evaluation) -> None:
    stricter = best_level(found)
    found = evaluate(predicted(), {0: predicted(seed=1)}, targets=Targets(specificity=0.7, sensitivity=0.6))
    level = best_level(found)
    assert level.point is not None
    assert level.point.points[0].target_specificity == 0.7
    assert level.point.points[0].target_sensitivity == 0.6
    assert stricter.point is not None
    assert level.point.points[0].threshold < stricter.point.points[0].threshold


def test_too_few_validation_women_give_no_point_and_say_so() -> None:
    found = evaluate(predicted(), {0: predicted(12, seed=1)})
    assert best_level(found).point is None
    assert any("no operating point" in note and "at least" in note for note in found.notes)


def test_validation_of_another_task_or_of_the_tested_images_is_refused() -> None:
    with pytest.raises(EvaluationError, match="validates and tests"):
        evaluate(predicted(), {0: predicted()})
    with pytest.raises(EvaluationError, match="different tasks"):
        evaluate(predicted(), {0: replace(predicted(seed=1), task="idc")})
    with pytest.raises(EvaluationError, match="another fold"):
        evaluate(predicted(), {1: predicted(seed=1)})


def test_levels_that_repeat_or_cannot_tell_are_named_not_measured() -> None:
    single = predicted()
    alone = replace(single, groups=single.images, breasts=single.images)
    found = evaluate(alone)
    assert [level.name for level in found.levels] == ["image"]
    assert sum("the same as level image" in note for note in found.notes) == 2
    ill = replace(single, labels=np.ones(len(single), dtype=np.int64))
    with pytest.raises(EvaluationError, match="one class"):
        best_level(evaluate(ill))


def test_patches_of_slides_are_counted_one_by_one_and_never_as_views_of_a_breast() -> None:
    found = evaluate(replace(predicted(), task="idc"), {0: replace(predicted(seed=1), task="idc")})
    assert [level.name for level in found.levels] == ["image"]
    assert any("no breast" in note for note in found.notes)
    assert len(best_level(found).cases.labels) == 480


def test_groups_of_fewer_than_thirty_are_counted_but_not_measured(found: Evaluation) -> None:
    by_value = {group.value: group for group in found.subgroups}
    small, large = by_value["D"], by_value["F"]
    assert small.women < 30 < small.cases
    assert small.is_suppressed
    assert small.scores == {}
    assert not large.is_suppressed
    assert set(large.scores) == {"accuracy", "balanced_accuracy", "auc"}
    assert large.cases + small.cases == 480


def test_unknown_values_make_no_subgroup() -> None:
    given = replace(predicted(), subgroups={"scanner": ("",) * 480})
    assert evaluate(given).subgroups == ()


def test_a_model_without_knowledge_stays_at_the_baseline() -> None:
    level = best_level(evaluate(predicted(400, shift=0.0, seed=3)))
    assert level.scores["auc"].low < 0.5 < level.scores["auc"].high
    assert level.scores["accuracy"].low <= level.baseline
    assert level.scores["calibration_slope"].low < 0.5


def test_the_band_of_the_curve_holds_the_curve(found: Evaluation) -> None:
    for level in found.levels:
        assert level.band is not None
        low, high = level.band
        assert np.all(low <= high)
        assert low[0] >= 0.0
        assert (low[-1], high[-1]) == (1.0, 1.0)
        assert np.mean(high - low) > 0.02


def test_the_same_predictions_give_the_same_numbers(found: Evaluation) -> None:
    again = evaluate(predicted(), {0: predicted(seed=1)})
    assert json.dumps([str(level.scores) for level in again.levels]) == json.dumps(
        [str(level.scores) for level in found.levels]
    )


# -- the promises of calibration ----------------------------------------------------------------------------


def test_a_planted_temperature_is_found_within_five_percent_at_two_thousand_cases() -> None:
    for planted in (0.5, 1.0, 2.0, 4.0):
        errors = []
        for seed in range(20):
            random = np.random.default_rng([seed, int(planted * 10)])
            honest = random.normal(0.0, 3.0, 2000)
            labels = random.random(2000) < special.expit(honest)
            errors.append(fit_temperature(honest * planted, labels) / planted - 1.0)
        assert abs(np.mean(errors)) < 0.02
        assert np.quantile(np.abs(errors), 0.5) < 0.05


@pytest.mark.parametrize("negatives", [100, 300, 1000, 2000])
def test_the_true_specificity_holds_in_95_percent_of_two_thousand_simulations(negatives: int) -> None:
    random = np.random.default_rng(negatives)
    positives = 20
    labels = np.arange(negatives + positives) >= negatives
    kept = 0
    for _ in range(2000):
        # The true specificity of a threshold on uniform scores is the threshold itself.
        scores = np.append(random.random(negatives), 0.5 + random.random(positives) / 2)
        kept += operating_point(scores, labels, specificity=0.9).threshold >= 0.9
    assert kept / 2000 >= 0.95 - 1.645 * np.sqrt(0.95 * 0.05 / 2000)
