"""Nothing that was tested had been seen in training: planted leaks are found, honest splits pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training import leak_guard
from training.errors import LeakError
from training.leak_guard import GuardVerdict, guard, inspect
from training.null_run import null_run, small_features
from training.pixel_keys import orientations, pixel_key
from training.records import DataSet, Record
from training.splits import AS_WRITTEN, BY_GROUP, Fold, SplitPlan, plan
from training.starting_weights import Seen

TASK = "mammography_malignancy"
Picture = NDArray[np.uint8]


def women(count: int, seed: int, *, size: int = 16) -> tuple[DataSet, list[Picture]]:
    """Two pictures of each woman that resemble each other, a third of the women ill."""
    random = np.random.default_rng(seed)
    records, pictures = [], []
    for woman in range(count):
        own = random.normal(120.0, 30.0, (size, size + 4))
        for side in "LR":
            picture = own + random.normal(0.0, 10.0, own.shape)
            name = f"1.2.3.{woman}.{side}"
            label = "malignant" if woman % 3 == 0 else "not_malignant"
            records.append(Record(name, Path(name), f"w{woman}", {TASK: label}, sha256=f"{woman:x}{side}"))
            pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
    return DataSet("made_up", tuple(records)), pictures


def augmented(dataset: DataSet, pictures: list[Picture]) -> tuple[DataSet, list[Picture]]:
    """Add a mirrored and a turned copy of each picture under new names, as published code does first."""
    records, copies = list(dataset.records), list(pictures)
    for record, picture in zip(dataset.records, pictures, strict=True):
        for name, copy in (("mirrored", np.fliplr(picture)), ("turned", np.rot90(picture))):
            records.append(replace(record, image=record.image + name, sha256=record.sha256 + name))
            copies.append(copy)
    return DataSet(dataset.name, tuple(records)), copies


# -- honest splits pass, twenty seeds of each recipe --------------------------------------------------------

RECIPES: dict[str, Callable[[DataSet, int], SplitPlan]] = {
    "five folds": lambda data, seed: plan(data, TASK, folds=5, seed=seed),
    "ten folds": lambda data, seed: plan(data, TASK, folds=10, validation_share=0.0, seed=seed),
    "one split": lambda data, seed: plan(data, TASK, folds=1, seed=seed),
    "official": lambda data, seed: plan(
        DataSet(
            data.name,
            tuple(replace(r, part="test" if int(r.group[1:]) % 4 == 0 else "training") for r in data.records),
        ),
        TASK,
        folds=1,
        official=True,
        seed=seed,
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_honest_split_passes_with_every_seed(recipe: str) -> None:
    for seed in range(20):
        dataset, pictures = women(40, seed)
        split = RECIPES[recipe](dataset, seed)
        verdict = guard(split, dataset, pictures.__getitem__, seed=seed)
        assert verdict.is_clean
        assert verdict.null is not None
        assert verdict.null.low <= verdict.null.auc <= verdict.null.high
        assert verdict.null.low < 0.5 < verdict.null.high
        assert (verdict.images, verdict.blank, verdict.leaks) == (80, 0, ())


def test_meaningless_labels_are_predicted_where_copies_were_made_before_the_split() -> None:
    for seed in range(20):
        dataset, pictures = augmented(*women(40, seed))
        verdict = guard(
            plan(dataset, TASK, protocol=AS_WRITTEN, seed=seed), dataset, pictures.__getitem__, seed=seed
        )
        assert verdict.null is not None
        assert verdict.null.auc > 0.95
        assert verdict.null.women == 40
        assert not verdict.null.is_inside
        assert {leak.kind for leak in verdict.leaks} == {"group", "picture"}
        with pytest.raises(LeakError, match="labels without meaning are predicted"):
            verdict.require_clean()


def test_the_same_copies_split_by_woman_leak_nothing() -> None:
    dataset, pictures = augmented(*women(60, 1))
    assert guard(plan(dataset, TASK), dataset, pictures.__getitem__).is_clean


# -- planted leaks ------------------------------------------------------------------------------------------


def crossing_pair(split: SplitPlan, rows: dict[str, int], random: np.random.Generator) -> tuple[int, int]:
    """Row of a training or validation image and of a test image of one fold."""
    fold = split.folds[int(random.integers(len(split.folds)))]
    seen = fold.training if random.random() < 0.7 or not fold.validation else fold.validation
    return rows[str(random.choice(seen))], rows[str(random.choice(fold.test))]


def planted(kind: str, seed: int) -> tuple[GuardVerdict, int, int]:
    """Plant one leak between two parts; return the verdict and the two rows."""
    random = np.random.default_rng(seed)
    dataset, pictures = women(12, seed)
    split = plan(dataset, TASK, folds=3, seed=seed)
    rows = {record.image: row for row, record in enumerate(dataset.records)}
    seen, tested = crossing_pair(split, rows, random)
    records = list(dataset.records)
    if kind == "group":
        records[tested] = replace(records[tested], group=records[seen].group)
    elif kind == "file":
        records[tested] = replace(records[tested], sha256=records[seen].sha256)
    else:
        copy = orientations(pictures[seen])[int(random.integers(8))]
        if random.random() < 0.3:
            copy = 255 - copy
        if random.random() < 0.3:
            copy = copy.astype(np.uint16) * 257 + 3
        pictures[tested] = copy
    changed = DataSet(dataset.name, tuple(records))
    # The plan as someone would make it who knows nothing of the copy.
    leaking = replace(
        split,
        protocol=AS_WRITTEN,
        data_sha256=changed.sha256,
        groups={record.image: record.group for record in records},
    )
    return inspect(leaking, changed, pictures.__getitem__), seen, tested


@pytest.mark.parametrize("kind", ["group", "file", "picture"])
def test_none_of_two_hundred_planted_leaks_is_missed(kind: str) -> None:
    missed = []
    for seed in range(200 if kind == "picture" else 70):
        verdict, seen, tested = planted(kind, seed)
        # A woman's other image may be the one that is named beside the planted one.
        partner = {seen, seen ^ 1} if kind == "group" else {seen}
        if not any(tested in leak.rows and partner & set(leak.rows) for leak in verdict.leaks):
            missed.append(seed)
        assert {leak.kind for leak in verdict.leaks} == {kind}
    assert missed == []


def test_a_plan_that_puts_one_image_in_two_parts_cannot_be_made() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        dataset, _ = women(12, seed)
        fold = plan(dataset, TASK, folds=3, seed=seed).folds[0]
        name = str(random.choice(fold.test))
        with pytest.raises(LeakError):
            Fold((*fold.training, name), fold.validation, fold.test)


def test_a_leaking_split_by_group_is_refused_with_what_and_where_but_without_names() -> None:
    dataset, pictures = women(12, 0)
    split = plan(dataset, TASK, folds=3)
    rows = {record.image: row for row, record in enumerate(dataset.records)}
    seen, tested = rows[split.folds[1].training[0]], rows[split.folds[1].test[0]]
    pictures[tested] = np.flipud(pictures[seen])
    with pytest.raises(LeakError, match=r"fold.*: 1 pictures .* in two parts") as caught:
        guard(split, dataset, pictures.__getitem__)
    assert f"row {seen} (" in str(caught.value)
    assert f"row {tested} (" in str(caught.value)
    assert "1.2.3" not in str(caught.value)
    assert not any(record.group in str(caught.value).split() for record in dataset.records)


def test_folds_that_leak_alike_are_told_of_together() -> None:
    dataset, pictures = augmented(*women(12, 0))
    split = plan(dataset, TASK, folds=3, protocol=AS_WRITTEN)
    verdict = guard(split, dataset, pictures.__getitem__)
    of_groups = [leak for leak in verdict.leaks if leak.kind == "group"]
    assert len(of_groups) == 3
    (told,) = [finding for finding in verdict.findings() if "women or patients" in finding]
    low, high = min(leak.count for leak in of_groups), max(leak.count for leak in of_groups)
    assert told.startswith(f"each of 3 folds: {low if low == high else f'{low} to {high}'} women")
    assert f"row {of_groups[0].rows[0]} ({of_groups[0].parts[0]})" in told


def test_empty_pictures_are_copies_of_nothing() -> None:
    dataset, pictures = women(30, 0)
    for row in range(0, 60, 7):
        pictures[row] = np.full((16, 20), row, np.uint8)
    verdict = guard(plan(dataset, TASK), dataset, pictures.__getitem__)
    assert verdict.is_clean
    assert verdict.blank == 9


def test_a_split_of_other_data_is_refused() -> None:
    dataset, pictures = women(12, 0)
    split = plan(dataset, TASK, folds=3)
    changed = DataSet(dataset.name, (replace(dataset.records[0], group="w7"), *dataset.records[1:]))
    with pytest.raises(LeakError, match="another data set"):
        guard(split, changed, pictures.__getitem__)


def test_a_verdict_is_read_as_it_was_written(tmp_path: Path) -> None:
    dataset, pictures = augmented(*women(12, 0))
    for protocol in (BY_GROUP, AS_WRITTEN):
        verdict = guard(plan(dataset, TASK, folds=3, protocol=protocol), dataset, pictures.__getitem__)
        verdict.write(tmp_path / "guard.json")
        assert leak_guard.read(tmp_path / "guard.json") == verdict
    (tmp_path / "guard.json").write_text('{"leaks": []}')
    with pytest.raises(LeakError, match=r"guard\.json"):
        leak_guard.read(tmp_path / "guard.json")
    with pytest.raises(LeakError, match="without it no number"):
        leak_guard.read(tmp_path / "none.json")


def test_one_woman_tested_alone_leaves_nothing_to_compare() -> None:
    features = np.random.default_rng(0).normal(size=(4, 3))
    fold = (np.asarray([0, 1]), np.asarray([2, 3]))
    assert null_run(features, ["a", "b", "c", "c"], [fold]) is None


# -- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 16), (11, 17), (3, 12, 9)])
def test_all_copies_of_a_picture_share_its_key_and_no_other_picture_does(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, shape).astype(np.uint8)
    key = pixel_key(picture)
    wider = picture.astype(np.uint16) * 257
    curved = np.sqrt(picture.astype(np.float64) + 1.0)
    copies = [copy for one in (picture, wider, curved, 255 - picture) for copy in orientations(one)]
    assert {pixel_key(copy) for copy in copies} == {key}
    touched = picture.copy()
    touched[(0,) * touched.ndim] ^= 1
    assert pixel_key(touched) != key
    assert pixel_key(picture.reshape((*shape[:-2], 1, shape[-1] * shape[-2]))) != key
    assert pixel_key(np.zeros(shape, np.uint8)) is None


def test_small_features_do_not_change_when_a_picture_is_turned() -> None:
    picture = np.random.default_rng(2).normal(size=(50, 37))
    expected = small_features(picture)
    for copy in orientations(picture):
        np.testing.assert_allclose(small_features(copy), expected, atol=1e-9)
    assert not np.allclose(small_features(picture[::2]), expected)


# -- what starting weights know -----------------------------------------------------------------------------


def know(dataset: DataSet, images: tuple[str, ...]) -> frozenset[str]:
    """Return the digests of images, as a bundle's split names them."""
    return frozenset(record.digest for record in dataset.records if record.image in images)


def test_nobody_is_tested_whom_the_starting_weights_know() -> None:
    dataset, pictures = women(40, 1)
    split = plan(dataset, TASK, folds=4, seed=1)
    seen = Seen(trained=know(dataset, split.folds[0].training))
    with pytest.raises(
        LeakError, match=r"of 3 folds: .* the starting weights know .* Start from weights"
    ) as told:
        guard(split, dataset, pictures.__getitem__, seen=[seen])
    assert "Give copies one group" not in str(told.value)
    verdict = inspect(split, dataset, pictures.__getitem__, seen=[seen])
    assert {leak.fold for leak in verdict.leaks} == {1, 2, 3}, "fold 0 tests whom they do not know"
    for leak in verdict.leaks:
        groups = {dataset.records[row].group for row in leak.rows}
        assert len(groups) == 1
        assert leak.parts[0] == "starting weights"
    assert guard(split, dataset, pictures.__getitem__, seen=[seen], run_folds=1).is_clean


def test_who_stopped_the_first_training_may_stop_the_second_one_but_not_test_it() -> None:
    dataset, pictures = women(40, 2)
    split = plan(dataset, TASK, folds=4, seed=2)
    fold = split.folds[0]
    again = Seen(know(dataset, fold.training), know(dataset, fold.validation))
    assert guard(split, dataset, pictures.__getitem__, seen=[again], run_folds=1).is_clean
    (image, *_), other = fold.test, fold.validation
    tested = inspect(
        split, dataset, pictures.__getitem__, seen=[Seen(validated=know(dataset, (image,)))], run_folds=1
    )
    calibrating = inspect(
        split, dataset, pictures.__getitem__, seen=[Seen(trained=know(dataset, other[:1]))], run_folds=1
    )
    assert [leak.parts[1] for leak in (*tested.leaks, *calibrating.leaks)] == ["test", "validation"]
    assert [leak.count for leak in (*tested.leaks, *calibrating.leaks)] == [1, 1]


def test_nobody_is_tested_whom_weights_know_that_the_starting_weights_come_from() -> None:
    dataset, pictures = women(40, 3)
    split = plan(dataset, TASK, folds=4, seed=3)
    fold = split.folds[0]
    of_old = Seen(trained=know(dataset, fold.test[:6:2]), weights_sha256="0123456789abcdef" * 4)
    chain = [Seen(weights_sha256="a" * 64), Seen(weights_sha256="b" * 64), of_old]
    with pytest.raises(
        LeakError,
        match=r"fold 0: 3 women .* \(weights 0123456789ab, 2 steps before the starting weights\) and row",
    ):
        guard(split, dataset, pictures.__getitem__, seen=chain, run_folds=1)
    assert guard(split, dataset, pictures.__getitem__, seen=chain[:2], run_folds=1).is_clean


def test_each_network_of_the_chain_that_knows_a_tested_woman_is_named() -> None:
    dataset, pictures = women(40, 4)
    split = plan(dataset, TASK, folds=4, seed=4)
    one, other = (
        Seen(trained=know(dataset, split.folds[0].test[: 2 * count : 2]), weights_sha256=digit * 64)
        for count, digit in ((1, "a"), (2, "b"))  # two images of each woman
    )
    verdict = inspect(split, dataset, pictures.__getitem__, seen=[one, other], run_folds=1)
    nearest, before = verdict.findings()
    assert "fold 0: 1 women" in nearest
    assert "(starting weights)" in nearest
    assert "fold 0: 2 women" in before
    assert "(weights bbbbbbbbbbbb, 1 step before the starting weights)" in before
