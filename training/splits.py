"""Which images train, which validate and which test.

``by_group`` is the honest protocol: no woman (or patient) is in two parts, for her images resemble each
other. ``as_written`` splits image by image, as many published experiments do; its numbers are only ever
shown beside the honest ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleFormatError
from models.manifest import canonical, strict_json
from training.atomic_file import write_json
from training.errors import LeakError, SplitError
from training.records import DataSet, Record

BY_GROUP, AS_WRITTEN = "by_group", "as_written"
PROTOCOLS = (BY_GROUP, AS_WRITTEN)
PARTS = ("training", "validation", "test")
_FORMAT = 1
_SINGLE_TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Fold:
    """Names of the images that one network is trained, validated and tested on.

    Raises
    ------
    LeakError
        If an image stands in two parts, or twice in one.
    SplitError
        If there is nothing to train on or nothing to test.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        images = [*self.training, *self.validation, *self.test]
        if len(set(images)) != len(images):
            raise LeakError("An image is in two parts of a fold, or twice in one: list each once.")
        if not self.training or not self.test:
            raise SplitError("A fold has no image to train on, or none to test: ask for fewer folds.")

    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Name of each part to its images."""
        return {name: getattr(self, name) for name in PARTS}


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """Every fold of an experiment.

    Attributes
    ----------
    task : str
        The task whose classes are spread evenly.
    protocol : str
        ``"by_group"`` or ``"as_written"``.
    data_sha256 : str
        Digest of the data set (of its records for the task) that was split.
    seed : int
        Of the order of equals.
    groups : Mapping of str to str
        Woman or patient of each image.
    folds : tuple of Fold
        At least one; every image is tested at most once.

    Raises
    ------
    LeakError
        If an image is tested twice or, by group, a group is in two parts of a fold.
    SplitError
        If there is no fold, the protocol is unknown, or an image has no group.
    """

    task: str
    protocol: str
    data_sha256: str
    seed: int
    groups: Mapping[str, str]
    folds: tuple[Fold, ...]

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise SplitError(f"A split is one of {', '.join(PROTOCOLS)}, not {self.protocol!r}.")
        if not self.folds:
            raise SplitError("A split needs at least one fold.")
        if len(set(self.test_images)) != len(self.test_images):
            raise LeakError("An image is tested in two folds: test each once.")
        for number, fold in enumerate(self.folds):
            if any(image not in self.groups for part in fold.parts().values() for image in part):
                raise SplitError(f"Fold {number}: an image has no group.")
            if self.protocol == BY_GROUP and (crossing := self.groups_crossing(fold)):
                raise LeakError(
                    f"Fold {number}: {len(crossing)} women or patients are in two parts: split by group."
                )

    @property
    def test_images(self) -> tuple[str, ...]:
        """Images that are tested, fold by fold."""
        return tuple(image for fold in self.folds for image in fold.test)

    @property
    def sha256(self) -> str:
        """Digest of the whole plan: two runs with the same digest tested the same images."""
        return hashlib.sha256(canonical(self._content())).hexdigest()

    def groups_crossing(self, fold: Fold) -> frozenset[str]:
        """Return the groups that are in more than one part of a fold."""
        parts: defaultdict[str, set[str]] = defaultdict(set)
        for name, images in fold.parts().items():
            for image in images:
                parts[self.groups[image]].add(name)
        return frozenset(group for group, names in parts.items() if len(names) > 1)

    def write(self, path: Path) -> None:
        """Write the plan as JSON; :func:`read` gives it back."""
        write_json(path, self._content())

    def _content(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "task": self.task,
            "protocol": self.protocol,
            "data_sha256": self.data_sha256,
            "seed": self.seed,
            "groups": dict(self.groups),
            "folds": [{name: list(images) for name, images in f.parts().items()} for f in self.folds],
        }


def read(path: Path) -> SplitPlan:
    """Read a plan that :meth:`SplitPlan.write` wrote.

    Raises
    ------
    SplitError
        If the file is missing or not a plan.
    LeakError
        If the plan leaks, see :class:`SplitPlan`.
    """
    try:
        raw = strict_json(path.read_bytes(), path.name)
        if raw["format"] != _FORMAT:
            raise SplitError(f"{path.name} has a form that this program does not read: update it.")
        if not isinstance(raw["groups"], dict) or not isinstance(raw["seed"], int):
            raise TypeError(raw)
        return SplitPlan(
            task=str(raw["task"]),
            protocol=str(raw["protocol"]),
            data_sha256=str(raw["data_sha256"]),
            seed=raw["seed"],
            groups={str(image): str(group) for image, group in raw["groups"].items()},
            folds=tuple(Fold(*(tuple(map(str, fold[name])) for name in PARTS)) for fold in raw["folds"]),
        )
    except (OSError, BundleFormatError, KeyError, TypeError, ValueError) as error:
        raise SplitError(f"{path.name} cannot be read as a split ({type(error).__name__}).") from error


def plan(
    dataset: DataSet,
    task: str,
    *,
    folds: int = 5,
    validation_share: float = 0.15,
    seed: int = 0,
    protocol: str = BY_GROUP,
    official: bool = False,
) -> SplitPlan:
    """Split a data set so that each part holds each class in its own proportion.

    Parameters
    ----------
    dataset : DataSet
        What to split; images without a class for `task` are left out.
    task : str
        Its classes are spread evenly.
    folds : int
        2 or more cross-validate: each image is tested once. 1 makes one split with a fifth for the test.
    validation_share : float
        Share of what is not tested, 0..0.5, that calibrates instead of training; 0 leaves none.
    seed : int
        Of the order of equals.
    protocol : str
        ``"by_group"``, or ``"as_written"``: image by image.
    official : bool
        Test the images whose ``part`` is ``"test"``; those of ``"validation"`` validate where there are
        any. Needs one fold.

    Raises
    ------
    SplitError
        If there are too few groups, or no official test part.
    LeakError
        If the official parts share a group.
    """
    if protocol not in PROTOCOLS:
        raise SplitError(f"A split is one of {', '.join(PROTOCOLS)}, not {protocol!r}.")
    if folds < 1 or not 0.0 <= validation_share <= 0.5:
        raise SplitError("Ask for at least 1 fold and a validation share of 0..0.5.")
    chosen = dataset.for_task(task)
    random = np.random.default_rng(seed)
    tested = _official_test(chosen, folds) if official else _tested(chosen, task, folds, protocol, random)
    return SplitPlan(
        task=task,
        protocol=protocol,
        data_sha256=chosen.sha256,
        seed=seed,
        groups={record.image: record.group for record in chosen.records},
        folds=tuple(
            _fold(chosen, task, test, validation_share, protocol, random, official=official)
            for test in tested
        ),
    )


def _official_test(dataset: DataSet, folds: int) -> list[frozenset[str]]:
    test = frozenset(record.image for record in dataset.records if record.part == "test")
    if folds != 1 or not test:
        raise SplitError(
            f"{dataset.name} has {len(test)} images in an official test part; an official split needs some, "
            "and exactly 1 fold."
        )
    return [test]


def _tested(
    dataset: DataSet, task: str, folds: int, protocol: str, random: np.random.Generator
) -> list[frozenset[str]]:
    """Return the images that each fold tests."""
    shares = [1 / folds] * folds if folds > 1 else [1 - _SINGLE_TEST_SHARE, _SINGLE_TEST_SHARE]
    parts = _spread(dataset.records, task, shares, protocol, random)
    return parts if folds > 1 else parts[1:]


def _fold(
    dataset: DataSet,
    task: str,
    test: frozenset[str],
    validation_share: float,
    protocol: str,
    random: np.random.Generator,
    *,
    official: bool,
) -> Fold:
    rest = [record for record in dataset.records if record.image not in test]
    validation = frozenset(r.image for r in rest if r.part == "validation") if official else frozenset()
    if not validation and validation_share > 0.0:
        _, validation = _spread(rest, task, [1 - validation_share, validation_share], protocol, random)
    names = [record.image for record in dataset.records]
    return Fold(
        training=tuple(name for name in names if name not in test and name not in validation),
        validation=tuple(name for name in names if name in validation),
        test=tuple(name for name in names if name in test),
    )


def _spread(
    records: Sequence[Record],
    task: str,
    shares: Sequence[float],
    protocol: str,
    random: np.random.Generator,
) -> list[frozenset[str]]:
    """Spread images over parts of given `shares`, each class evenly; by group no group is broken up."""
    classes = sorted({record.labels[task] for record in records})
    unit_of = {r.image: r.group if protocol == BY_GROUP else r.image for r in records}
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counted[unit_of[record.image]][record.labels[task]] += 1
    if len(counted) < len(shares):
        raise SplitError(
            f"{len(counted)} women, patients or images cannot fill {len(shares)} parts: ask for fewer folds."
        )
    units = sorted(counted)
    counts = np.asarray([[counted[unit][name] for name in classes] for unit in units], dtype=np.float64)
    part = dict(zip(units, _assign(counts, shares, random), strict=True))
    return [
        frozenset(image for image, unit in unit_of.items() if part[unit] == number)
        for number in range(len(shares))
    ]


def _assign(
    counts: NDArray[np.float64], shares: Sequence[float], random: np.random.Generator
) -> NDArray[np.int64]:
    """Give each unit, a row of counts by class, to the part that its classes lack most.

    Units of rare classes and large ones choose first: what comes late has less to choose from. Each part's
    distance from what it should hold is measured as chi-squared does.
    """
    totals = counts.sum(axis=0)
    wanted = np.outer(shares, totals)
    held = np.zeros_like(wanted)
    size = (counts / totals).max(axis=1)
    shuffled = random.permutation(len(counts))
    assigned = np.empty(len(counts), dtype=np.int64)
    for unit in shuffled[np.argsort(-size[shuffled], kind="stable")]:
        added = counts[unit]
        change = ((2 * (held - wanted) + added) * added / (wanted * totals)).sum(axis=1)
        chosen = int(change.argmin())
        held[chosen] += added
        assigned[unit] = chosen
    return assigned
