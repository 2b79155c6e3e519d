"""A challenger is promoted where it is shown to be no worse, and not on a few hundred images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.simulated_comparisons import decisions, simulated_cases
from training.errors import EvaluationError
from training.promotion import Decision, Finding, PairedCases, judge

QUICK, FULL = 150, 2000
REPETITIONS = pytest.mark.parametrize(
    "repetitions", [QUICK, pytest.param(FULL, marks=pytest.mark.slow_proof)]
)
# Of 150 draws with a true share of 5 %, more than 13 come up once in 100 tests.
ALLOWED_FALSE = {QUICK: 0.09, FULL: 0.06}


def shares(repetitions: int, **settings: float) -> dict[Decision, float]:
    rng = np.random.default_rng(20261102)
    return decisions([simulated_cases(rng, **settings) for _ in range(repetitions)])  # type: ignore[arg-type]


@REPETITIONS
@pytest.mark.parametrize(("positives", "negatives"), [(500, 5000), (200, 1000)])
def test_a_challenger_that_is_worse_by_the_margin_is_hardly_ever_promoted(
    repetitions: int, positives: int, negatives: int
) -> None:
    found = shares(repetitions, positives=positives, negatives=negatives, champion_auc=0.85, difference=-0.02)
    assert found[Decision.PROMOTE] <= 0.05


@REPETITIONS
def test_false_promotions_by_the_area_alone_keep_their_level(repetitions: int) -> None:
    """The other criteria only make promotion rarer; each has to hold its own level."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(repetitions):
        cases = simulated_cases(rng, positives=500, negatives=5000, champion_auc=0.85, difference=-0.02)
        held += judge(cases).criteria[0].finding is Finding.HOLDS
    assert held / repetitions <= ALLOWED_FALSE[repetitions]


@REPETITIONS
def test_a_better_challenger_is_promoted_on_500_and_5000_cases(repetitions: int) -> None:
    found = shares(repetitions, positives=500, negatives=5000, champion_auc=0.82, difference=0.03)
    assert found[Decision.PROMOTE] >= 0.80


@REPETITIONS
@pytest.mark.parametrize(("difference", "least"), [(-0.02, 0.75), (0.0, 0.9), (0.03, 0.9)])
def test_322_images_are_not_enough_evidence(repetitions: int, difference: float, least: float) -> None:
    found = shares(repetitions, positives=52, negatives=270, champion_auc=0.80, difference=difference)
    assert found[Decision.PROMOTE] == 0.0
    assert found[Decision.NOT_ENOUGH_EVIDENCE] >= least


@REPETITIONS
def test_an_equal_challenger_is_hardly_ever_rejected(repetitions: int) -> None:
    found = shares(repetitions, positives=300, negatives=1500, champion_auc=0.85, difference=0.0)
    assert found[Decision.REJECT] <= ALLOWED_FALSE[repetitions]


@REPETITIONS
def test_a_much_worse_challenger_is_rejected(repetitions: int) -> None:
    found = shares(repetitions, positives=500, negatives=5000, champion_auc=0.85, difference=-0.08)
    assert found[Decision.REJECT] >= 0.95


@pytest.fixture
def equal() -> PairedCases:
    return simulated_cases(
        np.random.default_rng(1), positives=600, negatives=6000, champion_auc=0.85, difference=0.0
    )


def test_a_bundle_compared_with_itself_holds_everywhere(equal: PairedCases) -> None:
    same = replace(equal, challenger=equal.champion, challenger_threshold=equal.champion_threshold)
    verdict = judge(same)
    assert verdict.decision is Decision.PROMOTE
    assert [c.name for c in verdict.criteria] == ["AUC", "Sensitivity", "Specificity", "Brier score"]
    assert all(c.difference == 0.0 for c in verdict.criteria)
    assert (verdict.positives, verdict.negatives) == (600, 6000)


def twice(cases: PairedCases) -> PairedCases:
    """Every woman comes twice and looks the same."""
    names = tuple(str(number) for number in range(cases.labels.size)) * 2
    both = {name: np.tile(getattr(cases, name), 2) for name in ("labels", "champion", "challenger")}
    return replace(cases, **both, groups=names)


def test_studies_of_the_same_women_are_no_further_evidence(equal: PairedCases) -> None:
    once, again = judge(equal), judge(twice(equal))
    assert again.decision is once.decision
    for before, after in zip(once.criteria, again.criteria, strict=True):
        assert (after.low, after.high) == pytest.approx((before.low, before.high), abs=4e-4), before.name
    counted_apart = judge(replace(twice(equal), groups=None))
    for before, after in zip(once.criteria, counted_apart.criteria, strict=True):
        assert after.high - after.low < 0.75 * (before.high - before.low), before.name


def test_a_hundred_women_with_several_studies_are_too_few() -> None:
    random = np.random.default_rng(1)
    few = simulated_cases(random, positives=100, negatives=1000, champion_auc=0.85, difference=0.0)
    same = replace(few, challenger=few.champion, challenger_threshold=few.champion_threshold)
    verdict = judge(twice(same))
    assert verdict.decision is Decision.NOT_ENOUGH_EVIDENCE
    assert verdict.reasons == (
        "200 positive and 2000 negative cases of 100 and 1000 women: 150 of each are needed.",
    )
    small = replace(
        twice(same), subgroups={"scanner": tuple("NEW" if i % 100 < 20 else "" for i in range(2200))}
    )
    assert len(judge(small).criteria) == 4, "40 studies of 20 women are no subgroup"


def raise_threshold(cases: PairedCases) -> PairedCases:
    return replace(cases, challenger_threshold=0.9)


def lower_threshold(cases: PairedCases) -> PairedCases:
    return replace(cases, challenger_threshold=0.01)


def overconfident(cases: PairedCases) -> PairedCases:
    odds = cases.challenger / (1.0 - cases.challenger)
    threshold = cases.challenger_threshold
    stretched = 6.0 * odds / (1.0 + 6.0 * odds)
    limit = 6.0 * threshold / (1.0 - threshold)
    return replace(cases, challenger=stretched, challenger_threshold=limit / (1.0 + limit))


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (raise_threshold, "Sensitivity"),
        (lower_threshold, "Specificity"),
        (overconfident, "Brier score"),
    ],
)
def test_what_a_good_area_hides_is_found_and_named(
    equal: PairedCases, spoil: Callable[[PairedCases], PairedCases], name: str
) -> None:
    verdict = judge(spoil(equal))
    assert verdict.decision is Decision.REJECT
    assert [c.name for c in verdict.criteria if c.finding is Finding.WORSE] == [name]
    assert verdict.reasons[0].startswith(f"{name}: -")
    assert verdict.criteria[0].finding is Finding.HOLDS


def test_one_spoilt_subgroup_is_enough_to_reject(equal: PairedCases) -> None:
    rng = np.random.default_rng(2)
    scanner = np.where(np.arange(equal.labels.size) % 8 == 0, "NEW", "OLD")
    spoilt = np.where(scanner == "NEW", rng.permutation(equal.challenger), equal.challenger)
    cases = replace(equal, challenger=spoilt, subgroups={"scanner": tuple(scanner.tolist())})
    verdict = judge(cases)
    assert verdict.decision is Decision.REJECT
    assert any(c.name == "AUC of scanner NEW" and c.finding is Finding.WORSE for c in verdict.criteria)
    assert any(c.name == "AUC of scanner OLD" and c.finding is Finding.HOLDS for c in verdict.criteria)


def test_a_subgroup_with_few_cases_is_not_judged(equal: PairedCases) -> None:
    names = ["RARE"] * 20 + [""] * (equal.labels.size - 20)
    verdict = judge(replace(equal, subgroups={"scanner": tuple(names)}))
    assert len(verdict.criteria) == 4


@pytest.mark.parametrize("label", [True, False])
def test_cases_of_one_kind_cannot_be_compared(equal: PairedCases, label: bool) -> None:
    with pytest.raises(EvaluationError, match="both kinds"):
        judge(equal.part(equal.labels == label))


def test_scores_that_are_no_numbers_are_refused(equal: PairedCases) -> None:
    with pytest.raises(EvaluationError, match="finite"):
        replace(equal, challenger=np.full(equal.labels.size, np.nan))
