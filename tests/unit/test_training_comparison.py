"""Models are told apart only where the cases allow it; equals share a letter."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import special, stats

from training.comparison import compare, holm, letter_display
from training.errors import EvaluationError
from training.evaluated_run import EvaluatedRun
from training.evaluation import evaluate, level_named
from training.predictions import Predictions


def model(
    name: str, shift: float, *, seed: int, women: int = 200, known: int = 2, shared: float = 0.7
) -> EvaluatedRun:
    """One image of each woman; what the models see of it is partly the same."""
    cases, own = np.random.default_rng(99), np.random.default_rng(seed)
    outputs = 1 if known == 2 else known
    labels = cases.integers(0, known, women)
    common = cases.normal(0.0, 1.0, (women, outputs))
    logits = shared * common + np.sqrt(1 - shared**2) * own.normal(0.0, 1.0, (women, outputs))
    if known == 2:
        logits[:, 0] += shift * (labels - 0.5)
        score = special.expit(logits[:, 0])
        probabilities = np.column_stack([1 - score, score])
    else:
        logits[np.arange(women), labels] += shift
        probabilities = special.softmax(logits, axis=1)
    names = tuple(f"w{i}" for i in range(women))
    return EvaluatedRun(
        name,
        Predictions(
            task="mammography_malignancy",
            classes=tuple("abcdefg"[:known]),
            images=names,
            groups=names,
            breasts=names,
            labels=labels.astype(np.int64),
            logits=logits,
            probabilities=probabilities,
            folds=np.zeros(women, dtype=np.int64),
            subgroups={},
        ),
    )


def shuffled(run: EvaluatedRun, seed: int) -> EvaluatedRun:
    """Return the same run with its rows in another order."""
    answers = run.predictions
    rows = np.random.default_rng(seed).permutation(len(answers))
    names = tuple(answers.images[row] for row in rows)
    return replace(
        run,
        predictions=replace(
            answers,
            images=names,
            groups=names,
            breasts=names,
            labels=answers.labels[rows],
            logits=answers.logits[rows],
            probabilities=answers.probabilities[rows],
        ),
    )


def test_models_that_differ_get_different_letters_and_equals_share_one() -> None:
    found = compare([model("poor", 0.3, seed=1), model("good", 2.5, seed=2), model("fine", 2.4, seed=3)])
    letters = {one.name: one.letters for one in found.competitors}
    assert found.competitors[-1].name == "poor"
    assert letters == {"good": "a", "fine": "a", "poor": "b"}
    assert found.level == "woman"
    assert (found.cases, found.women) == (200, 200)
    by_name = {(pair.first, pair.second): pair for pair in found.pairs}
    assert len(by_name) == 3
    for (first, second), pair in by_name.items():
        if "poor" in (first, second):
            assert pair.auc.low > 0.0
            assert pair.auc_adjusted < 0.001
        else:
            assert pair.auc_adjusted > 0.05


@pytest.mark.parametrize("known", [2, 5])
def test_the_order_of_rows_and_of_runs_changes_nothing(known: int) -> None:
    runs = [
        model(name, shift, seed=seed, known=known)
        for seed, (name, shift) in enumerate([("a", 1.0), ("b", 1.3)])
    ]
    expected = compare(runs)
    assert compare([runs[1], shuffled(runs[0], 4)]) == expected


def test_several_classes_are_compared_by_their_mean_area() -> None:
    found = compare([model("poor", 0.2, seed=1, known=4), model("good", 1.5, seed=2, known=4)])
    assert found.level == "image"
    assert [one.letters for one in found.competitors] == ["a", "b"]
    assert found.pairs[0].auc.low > 0.0
    with pytest.raises(EvaluationError, match="no level woman"):
        compare([model("a", 1.0, seed=1, known=4), model("b", 1.0, seed=2, known=4)], level="woman")


@pytest.mark.parametrize("known", [2, 4])
def test_a_comparison_and_an_evaluation_show_the_same_numbers(known: int) -> None:
    runs = [model("a", 1.0, seed=1, known=known), model("b", 1.5, seed=2, known=known)]
    shown = {one.name: one.scores for one in compare(runs, level="image", seed=3).competitors}
    for run in runs:
        image = level_named(evaluate(run.predictions, seed=3), "image")
        assert image is not None
        assert shown[run.name] == {name: image.scores[name] for name in ("auc", "accuracy", "log_loss")}


def test_patches_of_slides_are_compared_one_by_one_for_they_are_no_views_of_a_breast() -> None:
    runs = [model(name, shift, seed=seed) for seed, (name, shift) in enumerate((("a", 1.0), ("b", 2.0)))]
    patches = [
        replace(run, predictions=replace(run.predictions, task="idc", groups=("p", "q") * 100))
        for run in runs
    ]
    found = compare(patches)
    assert (found.level, found.cases, found.women) == ("image", 200, 2)
    for level in ("breast", "woman"):
        with pytest.raises(EvaluationError, match="compare images"):
            compare(patches, level=level)


def test_equal_models_are_told_apart_in_one_of_twenty_comparisons_at_most() -> None:
    false = 0
    for seed in range(60):
        runs = [model(str(k), 1.2, seed=100 * seed + k, women=80) for k in range(4)]
        false += any(one.letters != "a" for one in compare(runs, seed=seed).competitors)
    assert stats.binomtest(false, 60, 0.05, alternative="greater").pvalue > 0.01


def test_runs_that_cannot_be_compared_are_refused() -> None:
    one, other = model("one", 1.0, seed=1), model("other", 1.0, seed=2)
    cases = {
        "two or more": [one],
        "name of its own": [one, one],
        "tested other images": [one, model("other", 1.0, seed=2, women=199)],
        "other labels": [
            one,
            replace(other, predictions=replace(other.predictions, labels=1 - other.predictions.labels)),
        ],
    }
    for said, runs in cases.items():
        with pytest.raises(EvaluationError, match=said):
            compare(runs)
    with pytest.raises(EvaluationError, match="no level"):
        compare([one, other], level="patient")


def test_holms_adjustment_is_that_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@st.composite
def findings(draw: st.DrawFn) -> tuple[int, set[tuple[int, int]]]:
    count = draw(st.integers(2, 7))
    return count, draw(st.sets(st.sampled_from([*combinations(range(count), 2)])))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(findings())
def test_two_models_share_a_letter_exactly_where_they_cannot_be_told_apart(
    drawn: tuple[int, set[tuple[int, int]]],
) -> None:
    count, told_apart = drawn
    letters = letter_display(list(range(count)), sorted(told_apart))
    assert all(letters)
    assert letters[0].startswith("a")
    for first, second in combinations(range(count), 2):
        assert bool(set(letters[first]) & set(letters[second])) == ((first, second) not in told_apart)
