"""No woman in two parts, each class in its own proportion, the same plan from the same seed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.errors import LeakError, SplitError
from training.records import DataSet, Record
from training.splits import AS_WRITTEN, BY_GROUP, Fold, SplitPlan, plan, read

TASK = "mammography_malignancy"


def women(count: int, *, share: float = 0.3, seed: int = 0, part: str | None = None) -> DataSet:
    """Women with one to six images; a share of them has a malignant one among these."""
    random = np.random.default_rng(seed)
    records = []
    for woman in range(count):
        is_ill = random.random() < share
        for number in range(int(random.integers(1, 7))):
            name = f"w{woman:04d}-{number}"
            label = "malignant" if is_ill and number % 2 == 0 else "not_malignant"
            records.append(Record(name, Path(name), f"w{woman:04d}", {TASK: label}, part=part))
    return DataSet("made_up", tuple(records))


def share_of_malignant(dataset: DataSet, images: tuple[str, ...]) -> float:
    label = {record.image: record.labels[TASK] for record in dataset.records}
    return Counter(label[image] for image in images)["malignant"] / len(images)


@pytest.mark.parametrize("seed", range(5))
def test_each_fold_keeps_every_woman_whole_and_holds_each_class_in_its_proportion(seed: int) -> None:
    dataset = women(200, seed=seed)
    split = plan(dataset, TASK, folds=5, validation_share=0.2, seed=seed)
    every = {record.image for record in dataset.records}
    assert sorted(split.test_images) == sorted(every)
    overall = share_of_malignant(dataset, tuple(every))
    for fold in split.folds:
        assert split.groups_crossing(fold) == frozenset()
        assert {image for part in fold.parts().values() for image in part} == every
        assert len(fold.test) == pytest.approx(len(every) / 5, rel=0.05)
        assert len(fold.validation) == pytest.approx(0.2 * 0.8 * len(every), rel=0.05)
        for part in fold.parts().values():
            assert share_of_malignant(dataset, part) == pytest.approx(overall, abs=0.02)


def test_rare_classes_reach_every_fold() -> None:
    rows = [(f"w{i}", "CALC" if i < 5 else "ARCH" if i < 10 else "NORM") for i in range(60)]
    dataset = DataSet("rare", tuple(Record(w, Path(w), w, {"mias7": label}) for w, label in rows))
    label = dict(rows)
    for seed in range(10):
        for fold in plan(dataset, "mias7", folds=5, seed=seed).folds:
            assert Counter(label[image] for image in fold.test) == {"CALC": 1, "ARCH": 1, "NORM": 10}


def test_the_same_seed_gives_the_same_plan_and_another_gives_another() -> None:
    dataset = women(60)
    assert plan(dataset, TASK, seed=3).sha256 == plan(dataset, TASK, seed=3).sha256
    assert plan(dataset, TASK, seed=3).sha256 != plan(dataset, TASK, seed=4).sha256
    assert plan(dataset, TASK).sha256 != plan(dataset, TASK, protocol=AS_WRITTEN).sha256


def test_as_written_splits_image_by_image() -> None:
    split = plan(women(60), TASK, protocol=AS_WRITTEN)
    assert all(len(split.groups_crossing(fold)) > 20 for fold in split.folds)


def test_one_fold_tests_a_fifth() -> None:
    dataset = women(300)
    split = plan(dataset, TASK, folds=1, validation_share=0.0)
    assert len(split.folds) == 1
    assert split.folds[0].validation == ()
    assert len(split.test_images) == pytest.approx(len(dataset.records) / 5, rel=0.05)


def test_the_official_parts_are_kept_where_they_are_asked_for() -> None:
    train, test = women(50, part="training"), women(10, seed=9, part="test")
    others = tuple(replace(r, image="t" + r.image, group="t" + r.group) for r in test.records)
    dataset = DataSet("official", train.records + others)
    split = plan(dataset, TASK, folds=1, official=True, seed=5)
    assert sorted(split.test_images) == sorted(record.image for record in others)
    assert split.folds[0].validation
    with pytest.raises(SplitError, match="official"):
        plan(dataset, TASK, folds=5, official=True)
    with pytest.raises(SplitError, match="0 images"):
        plan(train, TASK, folds=1, official=True)


def test_an_official_validation_part_validates_and_nothing_else_does() -> None:
    parts = ("training", "validation", "test")
    records = [
        replace(record, image=part + record.image, group=part + record.group)
        for seed, part in enumerate(parts)
        for record in women(30, seed=seed, part=part).records
    ]
    (fold,) = plan(DataSet("official", tuple(records)), TASK, folds=1, official=True).folds
    for part, images in fold.parts().items():
        assert images == tuple(record.image for record in records if record.part == part)


def test_official_parts_that_share_a_woman_are_refused() -> None:
    dataset = women(30)
    halves = tuple(
        replace(record, part="test" if number % 2 else "training")
        for number, record in enumerate(dataset.records)
    )
    with pytest.raises(LeakError, match="two parts"):
        plan(DataSet("official", halves), TASK, folds=1, official=True)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    split = plan(women(40), TASK)
    split.write(tmp_path / "split.json")
    again = read(tmp_path / "split.json")
    assert again == split
    assert again.sha256 == split.sha256


def test_a_plan_that_was_edited_to_leak_is_refused(tmp_path: Path) -> None:
    split = plan(women(40), TASK)
    split.write(tmp_path / "split.json")
    raw = json.loads((tmp_path / "split.json").read_text())
    fold = raw["folds"][0]
    woman = raw["groups"][fold["test"][0]]
    mates = [image for image in fold["test"] if raw["groups"][image] == woman]
    fold["training"].append(fold["test"].pop(0) if len(mates) > 1 else fold["test"][0])
    (tmp_path / "split.json").write_text(json.dumps(raw))
    with pytest.raises(LeakError):
        read(tmp_path / "split.json")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": 1, "groups": [], "seed": 0}', '{"format": 9}']
)
def test_a_file_that_is_no_plan_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(SplitError, match=r"split\.json"):
        read(tmp_path / "split.json")
    with pytest.raises(SplitError, match="other"):
        read(tmp_path / "other.json")


def test_a_plan_cannot_be_made_of_parts_that_leak() -> None:
    groups = {"a": "1", "b": "1", "c": "2", "d": "2"}
    with pytest.raises(LeakError, match="two parts of a fold"):
        Fold(("a",), (), ("a",))
    with pytest.raises(LeakError, match="1 women or patients"):
        SplitPlan(TASK, BY_GROUP, "", 0, groups, (Fold(("a",), (), ("b",)),))
    with pytest.raises(LeakError, match="two folds"):
        SplitPlan(TASK, BY_GROUP, "", 0, groups, (Fold(("a", "b"), (), ("c",)),) * 2)
    with pytest.raises(SplitError, match="no group"):
        SplitPlan(TASK, BY_GROUP, "", 0, {}, (Fold(("a",), (), ("c",)),))


@pytest.mark.parametrize(
    "options",
    [{"folds": 0}, {"folds": 99}, {"validation_share": 0.9}, {"protocol": "by_luck"}],
    ids=str,
)
def test_a_split_that_cannot_be_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(SplitError):
        plan(women(40), TASK, **options)  # type: ignore[arg-type]
