"""May a challenger replace the champion? Promote, reject, or not enough evidence, with the reasons.

Both bundles scored the same cases. Each criterion asks whether the challenger is no worse than the champion
by more than a margin, with one-sided confidence of 95 %:

* the area under the ROC curve (DeLong, paired),
* sensitivity and specificity, each bundle at its own frozen threshold (paired; McNemar tells of harm),
* calibration (Brier score, paired),
* the area in each subgroup that is large enough to be judged.

Studies of one woman resemble each other: in every bound and test she counts once, by all of them together.

Promoted is only what holds everywhere, so a challenger that is worse by a margin anywhere is promoted in at
most 5 % of all comparisons. Rejected is what was shown to be worse somewhere, at a level that is shared by
the criteria, so that an equal challenger is rejected in at most 5 %. Everything else is not enough evidence,
which is the honest answer for a few hundred images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from training.delong import difference
from training.errors import EvaluationError
from training.mcnemar import chance_of, gains_of_women

CONFIDENCE = 0.95
"""One-sided, of each bound."""

AUC_MARGIN = 0.02
SENSITIVITY_MARGIN = 0.05
SPECIFICITY_MARGIN = 0.02
BRIER_MARGIN = 0.01
SUBGROUP_AUC_MARGIN = 0.10

MINIMUM_CASES = 150
"""Of each kind, and women: with fewer, and 15 % of the cases answered differently, no margin of sensitivity
can hold."""

MINIMUM_SUBGROUP = 30
"""Women with cases of each kind in a subgroup that is judged."""


class Finding(StrEnum):
    """What was found about one criterion."""

    HOLDS = "holds"
    OPEN = "open"
    WORSE = "worse"


class Decision(StrEnum):
    """The verdict."""

    PROMOTE = "promote"
    REJECT = "reject"
    NOT_ENOUGH_EVIDENCE = "not enough evidence"


@dataclass(frozen=True, slots=True)
class PairedCases:
    """What two bundles said about the same ``n`` labelled cases.

    Attributes
    ----------
    labels : numpy.ndarray
        ``(n,)`` bool.
    champion, challenger : numpy.ndarray
        ``(n,)`` float64 calibrated probabilities, 0..1.
    champion_threshold, challenger_threshold : float
        Each bundle's own operating point, 0..1.
    groups : tuple of str or None
        Woman of each case; None where every case is another woman's.
    subgroups : Mapping of str to tuple of str
        Name of a subgroup to the ``n`` values; ``""`` where unknown.
    """

    labels: NDArray[np.bool_]
    champion: NDArray[np.float64]
    challenger: NDArray[np.float64]
    champion_threshold: float
    challenger_threshold: float
    groups: tuple[str, ...] | None = None
    subgroups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {self.labels.size, self.champion.size, self.challenger.size}
        if len(sizes) != 1 or not np.isfinite([self.champion, self.challenger]).all():
            raise EvaluationError("A comparison needs one finite score of each bundle for each label.")

    @property
    def women_of_each_kind(self) -> tuple[int, int]:
        """Different women with positive cases, and with negative ones."""
        if self.groups is None:
            return int(self.labels.sum()), int((~self.labels).sum())
        kinds = (self.labels, ~self.labels)
        positive, negative = (
            len({g for g, is_one in zip(self.groups, kind, strict=True) if is_one}) for kind in kinds
        )
        return positive, negative

    def part(self, chosen: NDArray[np.bool_]) -> PairedCases:
        """Return some of the cases, without subgroups."""
        groups = self.groups and tuple(g for g, c in zip(self.groups, chosen, strict=True) if c)
        return PairedCases(
            self.labels[chosen],
            self.champion[chosen],
            self.challenger[chosen],
            self.champion_threshold,
            self.challenger_threshold,
            groups,
        )


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question and its answer.

    Attributes
    ----------
    name : str
        Such as ``"AUC"``.
    difference : float
        Challenger minus champion, positive where the challenger is better.
    low, high : float
        One-sided bounds of the difference.
    margin : float
        How much worse the challenger may be, positive.
    finding : Finding
        The answer.
    """

    name: str
    difference: float
    low: float
    high: float
    margin: float
    finding: Finding

    @property
    def sentence(self) -> str:
        """The answer in words."""
        words = {
            Finding.HOLDS: f"no worse than {self.margin:.2f} below the champion",
            Finding.OPEN: f"may be more than {self.margin:.2f} below the champion",
            Finding.WORSE: "worse than the champion",
        }
        bounds = f"{self.low:+.3f} to {self.high:+.3f}"
        return f"{self.name}: {self.difference:+.3f} ({bounds}), {words[self.finding]}."


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger may answer, and why.

    Attributes
    ----------
    decision : Decision
        The verdict.
    criteria : tuple of Criterion
        Everything that was asked.
    reasons : tuple of str
        What decided, one sentence each.
    positives, negatives : int
        Cases of each kind.
    """

    decision: Decision
    criteria: tuple[Criterion, ...]
    reasons: tuple[str, ...]
    positives: int
    negatives: int


def judge(cases: PairedCases) -> Verdict:
    """Judge a challenger.

    Raises
    ------
    EvaluationError
        If a kind of case is missing.
    """
    positives, negatives = int(cases.labels.sum()), int((~cases.labels).sum())
    if not positives or not negatives:
        raise EvaluationError("A comparison needs positive and negative cases; add labels of both kinds.")
    criteria = tuple(_criteria(cases))
    worse = [c.sentence for c in criteria if c.finding is Finding.WORSE]
    unclear = [c.sentence for c in criteria if c.finding is Finding.OPEN]
    women = cases.women_of_each_kind
    if min(women) < MINIMUM_CASES:
        found = f"{positives} positive and {negatives} negative cases"
        if women != (positives, negatives):
            found += f" of {women[0]} and {women[1]} women"
        unclear.insert(0, f"{found}: {MINIMUM_CASES} of each are needed.")
    if worse:
        decision, reasons = Decision.REJECT, worse
    elif unclear:
        decision, reasons = Decision.NOT_ENOUGH_EVIDENCE, unclear
    else:
        decision, reasons = Decision.PROMOTE, [c.sentence for c in criteria]
    return Verdict(decision, criteria, tuple(reasons), positives, negatives)


def _criteria(cases: PairedCases) -> Iterator[Criterion]:
    parts = list(_judged_parts(cases))
    level = (1.0 - CONFIDENCE) / (4 + len(parts))
    yield _auc(cases, "AUC", AUC_MARGIN, level)
    champion = cases.champion >= cases.champion_threshold
    challenger = cases.challenger >= cases.challenger_threshold
    truth = cases.labels
    ill, healthy = cases.part(truth).groups, cases.part(~truth).groups
    yield _share("Sensitivity", champion[truth], challenger[truth], ill, SENSITIVITY_MARGIN, level)
    yield _share("Specificity", ~champion[~truth], ~challenger[~truth], healthy, SPECIFICITY_MARGIN, level)
    yield _brier(cases, level)
    for name, part in parts:
        yield _auc(part, f"AUC of {name}", SUBGROUP_AUC_MARGIN, level)


def _judged_parts(cases: PairedCases) -> Iterator[tuple[str, PairedCases]]:
    """Give the subgroups that are large enough to be judged."""
    for name, values in sorted(cases.subgroups.items()):
        for value in sorted(set(values) - {""}):
            part = cases.part(np.asarray([entry == value for entry in values]))
            if min(part.women_of_each_kind) >= MINIMUM_SUBGROUP:
                yield f"{name} {value}", part


def _auc(cases: PairedCases, name: str, margin: float, level: float) -> Criterion:
    found, error = difference(cases.challenger, cases.champion, cases.labels, cases.groups)
    return _answer(name, found, error, margin, is_worse=_is_below_zero(found, error, level))


def _share(
    name: str,
    champion: NDArray[np.bool_],
    challenger: NDArray[np.bool_],
    groups: tuple[str, ...] | None,
    margin: float,
    level: float,
) -> Criterion:
    """Compare two shares of right answers on the same cases (Agresti and Min 2005; McNemar's exact test).

    Half a case is added to each cell of the table: one that was gained, one that was lost. A woman's cases
    are taken together, in the bounds and in the test.
    """
    gains, sizes = gains_of_women(challenger, champion, groups), _cases_of_women(champion.size, groups)
    count = champion.size + 2
    found = float(gains.sum()) / count
    spread = float(((gains - found * sizes) ** 2).sum()) + 1.0 + 2.0 * found**2
    p_value = chance_of(-gains) if gains.sum() < 0 else 1.0
    return _answer(name, found, float(np.sqrt(spread)) / count, margin, is_worse=p_value < level)


def _brier(cases: PairedCases, level: float) -> Criterion:
    truth = cases.labels.astype(np.float64)
    gains = (cases.champion - truth) ** 2 - (cases.challenger - truth) ** 2
    found = float(gains.mean())
    sums = np.bincount(_member(gains.size, cases.groups), weights=gains)
    off = sums - found * _cases_of_women(gains.size, cases.groups)
    error = float(np.sqrt((off**2).sum() * off.size / max(off.size - 1, 1))) / gains.size
    is_worse = _is_below_zero(found, error, level)
    return _answer("Brier score", found, error, BRIER_MARGIN, is_worse=is_worse)


def _member(count: int, groups: tuple[str, ...] | None) -> NDArray[np.int64]:
    if groups is None:
        return np.arange(count)
    return np.asarray(np.unique(np.asarray(groups), return_inverse=True)[1], dtype=np.int64)


def _cases_of_women(count: int, groups: tuple[str, ...] | None) -> NDArray[np.int64]:
    return np.asarray(np.bincount(_member(count, groups)), dtype=np.int64)


def _is_below_zero(difference: float, error: float, level: float) -> bool:
    return difference + float(stats.norm.isf(level)) * error < 0.0


def _answer(name: str, difference: float, error: float, margin: float, *, is_worse: bool) -> Criterion:
    half = float(stats.norm.ppf(CONFIDENCE)) * error
    low, high = difference - half, difference + half
    finding = Finding.WORSE if is_worse else Finding.OPEN
    if low > -margin:
        finding = Finding.HOLDS
    return Criterion(name, difference, low, high, margin, finding)
