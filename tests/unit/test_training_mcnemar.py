"""One model is right more often only where women, not their images, say so."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from training.mcnemar import chance_of, mcnemar


def test_it_is_exact_where_each_woman_has_one_case() -> None:
    # 10 and 2 discordant cases: the two-sided binomial probability is 2 * (1 + 12 + 66) / 4096.
    first = np.asarray([True] * 10 + [False] * 2 + [True] * 30)
    second = np.asarray([False] * 10 + [True] * 2 + [True] * 30)
    names = [str(i) for i in range(42)]
    assert mcnemar(first, second, names) == pytest.approx(158 / 4096)
    assert mcnemar(first, second, None) == mcnemar(second, first, names)
    assert mcnemar(first, first, names) == 1.0


def test_a_womans_cases_together_count_less_than_cases_of_different_women() -> None:
    first, second = np.asarray([True] * 12), np.asarray([False] * 12)
    alone = mcnemar(first, second, [str(i) for i in range(12)])
    together = mcnemar(first, second, [str(i // 6) for i in range(12)])
    assert alone < 0.001
    assert together == 0.5, "two women are two coins, whatever they have of images"
    assert mcnemar(first, first, ["a"] * 12) == 1.0


@pytest.mark.parametrize("gains", [[3, 1, -1], [2, 2, -5, 1], [4, -1, -1, -1, 2, 0], [-3, -2]])
def test_every_throw_of_the_coins_is_counted(gains: list[int]) -> None:
    sums = [
        sum(sign * size for sign, size in zip(signs, gains, strict=True))
        for signs in product((-1, 1), repeat=len(gains))
    ]
    expected = np.mean([found >= sum(gains) for found in sums])
    assert chance_of(np.asarray(gains)) == pytest.approx(expected)


def test_with_very_many_women_the_normal_distribution_gives_the_same() -> None:
    random = np.random.default_rng(4)
    few = random.choice([-2, -1, 1, 2], 1000, p=[0.2, 0.28, 0.3, 0.22])
    one_more = np.append(few, 0)
    assert chance_of(one_more) == chance_of(few), "who gained nothing is no coin"
    # The last woman of 1,001 is one too many for the exact way.
    exact, normal = chance_of(few), chance_of(np.append(few, 1))
    assert exact == pytest.approx(normal, rel=0.1)
    assert exact == pytest.approx(float(stats.norm.sf((few.sum() - 1) / np.sqrt((few**2).sum()))), rel=0.02)


def test_networks_that_are_equally_good_are_told_apart_in_one_of_twenty_draws_at_most() -> None:
    # Eight women with five images each, alike within her: the normal distribution would say it in 9 %.
    random, groups = np.random.default_rng(6), [str(i // 5) for i in range(40)]
    false = 0
    for _ in range(1000):
        which = np.repeat(random.random(8) < 0.5, 5) ^ (random.random(40) < 0.1)
        false += mcnemar(which, ~which, groups) < 0.05
    assert stats.binomtest(false, 1000, 0.05, alternative="greater").pvalue > 0.01
