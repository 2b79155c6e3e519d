"""The training script: split by woman, the same bytes again, numbers that mean what they say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from models.classifier import Classifier
from models.contract import Laterality
from models.preprocessing import Parameters
from training.datasets.phantoms import LesionKind
from training.demonstration import evaluation
from training.demonstration.build import DEFAULT_SEED, build, steps, version_of
from training.demonstration.cohort import Example, draw_cohort, kinds_of_women
from training.demonstration.config import DemonstrationConfig
from training.demonstration.split import Split, split_by_woman
from training.errors import LeakError, PackagingError, TrainingError

TINY = DemonstrationConfig(
    training_women=8,
    validation_women=12,
    test_women=6,
    benign_women=2,
    rows=160,
    columns=130,
    channels=(4, 4, 4),
    localising_epochs=1,
    scoring_epochs=1,
    specificity=0.5,
    preprocessing=Parameters(rows=96, columns=64, pixel_mm=2.4),
)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    called: Counter[str] = Counter()
    build(tmp_path / "one", TINY, advance=lambda stage: called.update([stage]))
    build(tmp_path / "two", TINY, advance=lambda stage: None)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert called == steps(TINY)
    released = Classifier.load(tmp_path / "one").bundle
    assert released.manifest.demonstration
    assert "Not for clinical use" in released.card


def test_a_bundle_that_could_not_be_written_is_refused_before_a_phantom_is_drawn(tmp_path: Path) -> None:
    called: list[str] = []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(PackagingError, match="full is not empty: name another folder"):
        build(tmp_path / "full", TINY, advance=called.append)
    with pytest.raises(PackagingError, match="--version must be printable ASCII text: give another"):
        build(tmp_path / "new", TINY, version="1.0\n", advance=called.append)
    assert called == []
    assert files_of(tmp_path) == {"full/notes.txt": b"mine"}


def test_a_stated_version_is_the_bundles_and_another_seed_has_a_version_of_its_own(tmp_path: Path) -> None:
    assert (
        build(tmp_path / "bundle", TINY, version="2.1.0", advance=lambda stage: None).identity.version
        == "2.1.0"
    )
    assert (tmp_path / "bundle" / "model_card.md").read_text().splitlines()[0].endswith(" 2.1.0")
    assert version_of(DEFAULT_SEED) == "1.0.0", "the bundle that ships"
    assert version_of(7) == "1.0.0+seed.7"


def test_a_split_keeps_each_woman_in_one_part_and_spreads_what_they_have() -> None:
    kinds = kinds_of_women(240)
    split = split_by_woman(kinds, validation=60, test=60, seed=3)
    parts = (split.training, split.validation, split.test)
    assert sorted(woman for part in parts for woman in part) == list(range(240))
    for part, size in zip(parts, (120, 60, 60), strict=True):
        counts = Counter(kinds[woman] for woman in part)
        assert abs(counts[LesionKind.NORM] - size / 2) <= 2
        assert all(abs(counts[kind] - size / 12) <= 2 for kind in LesionKind if kind is not LesionKind.NORM)
    assert split.sha256 == split_by_woman(kinds, validation=60, test=60, seed=3).sha256
    assert split.sha256 != split_by_woman(kinds, validation=60, test=60, seed=4).sha256


def test_a_woman_in_two_parts_is_refused() -> None:
    with pytest.raises(LeakError):
        Split((1, 2), (3,), (2,))


def test_a_split_without_training_women_is_refused() -> None:
    with pytest.raises(TrainingError, match="too few"):
        split_by_woman(["NORM"] * 4, validation=2, test=2, seed=0)


def test_a_woman_has_her_lesion_in_both_views_of_one_breast() -> None:
    kinds = (LesionKind.CIRC, LesionKind.NORM)
    cohort = draw_cohort([0, 1], kinds, TINY, both_breasts=True, advance=lambda: None)
    malignant = [e for e in cohort.examples if e.is_malignant]
    assert len(cohort.examples) == 8
    assert len(malignant) == 2
    assert {e.woman for e in malignant} == {0}
    assert len({e.laterality for e in malignant}) == 1
    for example in malignant:
        assert example.lesion is not None
        column, row, _ = example.lesion
        assert example.tensor[0, int(row), int(column)] != 0.0


def test_the_auc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(5)
    scores, labels = np.round(random.random(50), 1), random.random(50) < 0.4
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    metric = evaluation.auc_metric(scores, labels, np.arange(50), level="study", seed=1)
    assert metric.value == pytest.approx(np.mean(pairs))
    assert metric.low < metric.value < metric.high


def test_a_proportion_has_wilsons_interval() -> None:
    metric = evaluation.share_metric("sensitivity", "study", np.repeat([True, False], [9, 1]))
    # Newcombe 1998, method 3.
    assert (metric.value, metric.cases) == (0.9, 10)
    assert (metric.low, metric.high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))


def test_a_study_is_the_maximum_of_its_breasts_means() -> None:
    def example(woman: int, side: Laterality, malignant: bool) -> Example:
        return Example(woman, side, LesionKind.NORM, malignant, np.zeros((1, 8, 8), np.float32), None)

    left, right = Laterality.LEFT, Laterality.RIGHT
    examples = [
        example(7, right, False),
        example(7, right, False),
        example(7, left, True),
        example(3, left, False),
    ]
    scores, labels = evaluation.study_scores(examples, [0.2, 0.4, 0.9, 0.1])
    assert scores.tolist() == pytest.approx([0.1, 0.9])
    assert labels.tolist() == [False, True]


def test_the_pointing_game_counts_peaks_inside_the_lesion() -> None:
    activation = np.zeros((8, 8), np.float32)
    activation[2, 5] = 1.0
    tensor = np.zeros((1, 64, 64), np.float32)
    hit = Example(0, Laterality.LEFT, LesionKind.CIRC, True, tensor, (44.0, 20.0, 9.0))
    miss = Example(0, Laterality.LEFT, LesionKind.CIRC, True, tensor, (20.0, 44.0, 9.0))
    normal = Example(0, Laterality.LEFT, LesionKind.NORM, False, tensor, None)
    hits = evaluation.pointing_hits([hit, miss, normal], [activation] * 3)
    assert hits.tolist() == [True, False]
