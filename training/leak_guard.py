"""What must hold before a number is believed: nothing that was tested had been seen in training.

Women, image names, files and pictures (however turned, mirrored, inverted or brightened) never cross the
parts of a fold, nobody is tested whom the starting weights know or those that they come from, and labels that
mean nothing cannot be predicted. Findings name rows of the data set, never names of images or women: those
may tell who somebody is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleFormatError
from models.manifest import strict_json
from training.atomic_file import write_json
from training.errors import LeakError
from training.null_run import NullRun, null_run, small_features
from training.pixel_keys import pixel_key
from training.records import DataSet, Record
from training.splits import AS_WRITTEN, PARTS, Fold, SplitPlan
from training.starting_weights import Seen

Images = Callable[[int], NDArray[Any]]
"""Gives the pixels of the record in this row: ``(rows, columns)`` or ``(channels, rows, columns)``."""

_WEIGHTS = "weights"
_MEANINGS = {
    "group": "women or patients are",
    "image": "image names are",
    "file": "files of the same content are",
    "picture": "pictures (turned, mirrored or brightened copies among them) are",
    _WEIGHTS: "women or patients whom the starting weights know are",
}


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that is in two parts of a fold.

    Attributes
    ----------
    kind : str
        ``"group"``, ``"image"``, ``"file"``, ``"picture"``, or ``"weights"`` for women or patients whom the
        weights know that the run starts from, or the weights that those come from.
    fold : int
        Which fold, from 0.
    count : int
        How many different ones.
    rows : tuple of int
        Rows of the data set, from 0, of one example: one in each of `parts`.
    parts : tuple of str
        Such as ``("training", "test")``; weights are named by the first digits of their digest.
    """

    kind: str
    fold: int
    count: int
    rows: tuple[int, int]
    parts: tuple[str, str]


def _finding(leaks: Sequence[Leak]) -> str:
    """Say what crosses in one fold, or in several alike."""
    first, counts = leaks[0], [leak.count for leak in leaks]
    where = f"fold {first.fold}" if len(leaks) == 1 else f"each of {len(leaks)} folds"
    count = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    return (
        f"{where}: {count} {_MEANINGS[first.kind]} in two parts, such as row {first.rows[0]} "
        f"({first.parts[0]}) and row {first.rows[1]} ({first.parts[1]}) of the data set"
    )


@dataclass(frozen=True, slots=True)
class GuardVerdict:
    """What the guard found about one split of one data set.

    Attributes
    ----------
    split_sha256, data_sha256 : str
        What it is about.
    protocol : str
        The split's protocol.
    images, blank : int
        Pictures that were compared; those of one grey value, which are copies of nothing.
    leaks : tuple of Leak
        Everything that crosses.
    null : NullRun or None
        The run with labels that mean nothing; None where no fold tests two women.
    """

    split_sha256: str
    data_sha256: str
    protocol: str
    images: int
    blank: int
    leaks: tuple[Leak, ...]
    null: NullRun | None

    @property
    def is_clean(self) -> bool:
        """Whether numbers measured on this split may be believed."""
        return not self.leaks and (self.null is None or self.null.is_inside)

    def findings(self) -> tuple[str, ...]:
        """One clause for each kind of thing found, and for each network that starting weights come from."""
        alike: dict[tuple[str, str], list[Leak]] = {}
        for leak in sorted(self.leaks, key=lambda leak: list(_MEANINGS).index(leak.kind)):
            # Each network that the weights come from is named, of parts one is enough of an example.
            alike.setdefault((leak.kind, leak.parts[0] if leak.kind == _WEIGHTS else ""), []).append(leak)
        found = tuple(map(_finding, alike.values()))
        if self.null is None or self.null.is_inside:
            return found
        return (
            *found,
            f"labels without meaning are predicted with an AUC of {self.null.auc:.3f}, outside "
            f"{self.null.low:.3f}..{self.null.high:.3f}: test images are recognised",
        )

    def require_clean(self) -> None:
        """Raise :class:`LeakError` with everything that was found, if anything was."""
        if not self.is_clean:
            raise LeakError(
                "This split leaks; no number measured on it is shown: "
                + "; ".join(self.findings())
                + ". Rows are the records of data.json, from 0. "
                + " ".join(self._ways())
            )

    def _ways(self) -> list[str]:
        """What would end the leaks."""
        others = [leak for leak in self.leaks if leak.kind != _WEIGHTS]
        ways = []
        if others or not self.leaks:
            ways.append("Give copies one group in the data set and split again by group.")
        if len(others) < len(self.leaks):
            ways.append(
                "Start from weights that know none of these women, or with the split that they were trained "
                "with and their fold alone (--set run_folds=1)."
            )
        return ways

    def write(self, path: Path) -> None:
        """Write the verdict as JSON; :func:`read` gives it back."""
        write_json(path, asdict(self))


def read(path: Path) -> GuardVerdict:
    """Read a verdict that :meth:`GuardVerdict.write` wrote.

    Raises
    ------
    LeakError
        If the file is missing or not a verdict: without one nothing is believed.
    """
    try:
        raw = strict_json(path.read_bytes(), path.name)
        leaks = tuple(
            Leak(**{**leak, "rows": tuple(leak["rows"]), "parts": tuple(leak["parts"])})
            for leak in raw["leaks"]
        )
        null = None if raw["null"] is None else NullRun(**raw["null"])
        return GuardVerdict(**{**raw, "leaks": leaks, "null": null})
    except (OSError, BundleFormatError, KeyError, TypeError) as error:
        raise LeakError(
            f"{path.name} cannot be read as the leak guard's verdict ({type(error).__name__}); without it no "
            "number is shown: run the training again."
        ) from error


def inspect(
    plan: SplitPlan,
    dataset: DataSet,
    images: Images,
    *,
    seed: int = 0,
    seen: Sequence[Seen] = (),
    run_folds: int | None = None,
) -> GuardVerdict:
    """Look for everything that crosses the parts of a split.

    Parameters
    ----------
    plan : SplitPlan
        The split.
    dataset : DataSet
        What was split; its records for the plan's task are looked at.
    images : callable
        ``images(row)`` gives the pixels of record `row` of ``dataset.for_task(plan.task)``, as prepared for
        the network or as stored. Called once for each.
    seed : int
        Of the labels that mean nothing.
    seen : sequence of Seen
        What the weights know that the folds start from, then what those knew that they come from.
    run_folds : int or None
        How many of the folds start from them; all where None.

    Raises
    ------
    LeakError
        If the plan is not one of this data set.
    """
    chosen = dataset.for_task(plan.task)
    records = chosen.records
    if plan.data_sha256 != chosen.sha256:
        raise LeakError("The split was made of another data set, or the data set changed: split again.")
    pictures, features = [], []
    for row in range(len(records)):
        pixels = images(row)
        pictures.append(pixel_key(pixels))
        features.append(small_features(pixels))
    rows = {record.image: row for row, record in enumerate(records)}
    folds = [(chosen.positions(fold.training), chosen.positions(fold.test)) for fold in plan.folds]
    groups = [record.group for record in records]
    return GuardVerdict(
        split_sha256=plan.sha256,
        data_sha256=plan.data_sha256,
        protocol=plan.protocol,
        images=len(records),
        blank=pictures.count(None),
        leaks=(
            *crossings(plan, _keys(records, pictures), rows),
            *_known_to_weights(plan.folds[:run_folds], records, rows, seen),
        ),
        null=null_run(np.stack(features), groups, folds, seed=seed),
    )


def guard(
    plan: SplitPlan,
    dataset: DataSet,
    images: Images,
    *,
    seed: int = 0,
    seen: Sequence[Seen] = (),
    run_folds: int | None = None,
) -> GuardVerdict:
    """Inspect a split and refuse one that leaks, unless it is one ``as_written``, whose numbers are marked.

    Parameters are those of :func:`inspect`.

    Raises
    ------
    LeakError
        If a split by group leaks, with what and where; or if the plan is not one of this data set.
    """
    verdict = inspect(plan, dataset, images, seed=seed, seen=seen, run_folds=run_folds)
    if plan.protocol != AS_WRITTEN:
        verdict.require_clean()
    return verdict


def crossings(
    plan: SplitPlan, keys: Mapping[str, Sequence[Hashable | None]], rows: Mapping[str, int]
) -> tuple[Leak, ...]:
    """Return everything that is in two parts of a fold.

    Parameters
    ----------
    plan : SplitPlan
        The split.
    keys : Mapping of str to sequence
        For each kind of :class:`Leak`, a key for each row; rows with the same key must stay together. None
        where a row has no key.
    rows : Mapping of str to int
        Row of each image.
    """
    found = []
    for number, fold in enumerate(plan.folds):
        placed = [(rows[image], part) for part in PARTS for image in fold.parts()[part]]
        for kind, values in keys.items():
            first: dict[Hashable, tuple[int, str]] = {}
            crossing: dict[Hashable, tuple[tuple[int, str], tuple[int, str]]] = {}
            for row, part in placed:
                if (key := values[row]) is None:
                    continue
                seen = first.setdefault(key, (row, part))
                if seen[1] != part:
                    crossing.setdefault(key, (seen, (row, part)))
            if crossing:
                (row, part), (other_row, other_part) = next(iter(crossing.values()))
                found.append(Leak(kind, number, len(crossing), (row, other_row), (part, other_part)))
    return tuple(found)


def _known_to_weights(
    folds: Sequence[Fold], records: Sequence[Record], rows: Mapping[str, int], chain: Sequence[Seen]
) -> Iterator[Leak]:
    """Find who is tested, or calibrates, though a network was trained on them that the weights come from.

    Those who stopped and calibrated its training may do so again; they may not test.
    """
    first = {record.group: row for row, record in reversed(list(enumerate(records)))}
    for steps, network in enumerate(chain):
        trained, known = network.women(records)
        for number, fold in enumerate(folds):
            forbidden = (("test", fold.test, known), ("validation", fold.validation, trained))
            crossing: dict[str, tuple[int, str]] = {}
            for part, images, groups in forbidden:
                for row in (rows[image] for image in images):
                    if records[row].group in groups:
                        crossing.setdefault(records[row].group, (row, part))
            if crossing:
                group, (row, part) = next(iter(crossing.items()))
                parts = (_link_name(network, steps), part)
                yield Leak(_WEIGHTS, number, len(crossing), (first[group], row), parts)


def _link_name(network: Seen, steps: int) -> str:
    if steps == 0:
        return "starting weights"
    return f"weights {network.name}, {steps} step{'s' * (steps > 1)} before the starting weights"


def _keys(records: Sequence[Record], pictures: Sequence[str | None]) -> dict[str, list[str | None]]:
    return {
        "group": [record.group for record in records],
        "image": [record.image for record in records],
        "file": [record.sha256 or None for record in records],
        "picture": list(pictures),
    }
