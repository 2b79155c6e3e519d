"""Whose images weights have seen that a run starts from: their bundle or their run says so.

Whoever tunes a network on images and tests it on others that its first training had seen measures memory. Of
published weights nobody says anything; of those that this program made the split lies beside them. Weights
that were tuned themselves know whom their own start knew, however many tunings ago: the whole chain is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import BundleFormatError
from models.manifest import strict_json
from training import data_manifest, run_folder, splits
from training.atomic_file import write_json
from training.errors import DataSetError, ProvenanceError, SplitError, TrainingError
from training.records import Record
from training.run_folder import RunFolder

SPLIT = "split.json"
"""Of a bundle: its images by digest."""

STARTED_FROM = "started_from"
"""In a bundle's split: the weights that its network started from; absent where it started from none."""

LONGEST = 32
"""Networks in a chain beyond which it is not believed."""

_SHORT = 12  # digits that name weights to a person


@dataclass(frozen=True, slots=True)
class Seen:
    """What one network of a chain knows of its own training, not of the weights that it started from.

    Attributes
    ----------
    trained, validated : frozenset of str
        :attr:`~training.records.Record.digest` of the images that trained it, and of those that stopped and
        calibrated that training. Empty where nobody says.
    weights_sha256 : str
        Hex digest of its weights.
    """

    trained: frozenset[str] = frozenset()
    validated: frozenset[str] = frozenset()
    weights_sha256: str = ""

    @property
    def name(self) -> str:
        """What a person calls the weights: the first digits of their digest."""
        return self.weights_sha256[:_SHORT]

    def women(self, records: Sequence[Record]) -> tuple[frozenset[str], frozenset[str]]:
        """Return the women or patients of `records` who trained the weights, and those who did anything."""
        digests = {record.digest: record.group for record in records if record.sha256}
        trained = frozenset(group for digest, group in digests.items() if digest in self.trained)
        return trained, trained | {group for digest, group in digests.items() if digest in self.validated}


def seen_by(weights: Path, sha256: str) -> tuple[Seen, ...]:
    """Return what weights know, and what those knew that they were trained from, nearest first.

    Parameters
    ----------
    weights : Path
        Those of a bundle, of a fold in a run's folder, or others.
    sha256 : str
        Their hex digest.

    Raises
    ------
    ProvenanceError
        If what lies beside weights of the chain cannot be read, weights are not where their run found them,
        the same weights come twice, or the chain has more than :data:`LONGEST` networks.
    """
    chain: list[Seen] = []
    step: _Step | None = _Step(weights, sha256)
    while step is not None:
        found, step = _known_at(step)
        chain += found
        _require_end(chain)
    return tuple(chain)


def write(chain: Sequence[Seen], run: RunFolder) -> None:
    """Keep in a run's folder what its starting weights know: they may lie elsewhere later, or nowhere."""
    write_json(run.started_from, {STARTED_FROM: told(chain)})


def of_run(run: RunFolder) -> tuple[Seen, ...]:
    """Return what the weights know that a run started from, nearest first; empty where it used none.

    Raises
    ------
    ProvenanceError
        See :func:`seen_by`.
    """
    if run.started_from.is_file():
        return _read(run.started_from, lambda raw: _links(raw[STARTED_FROM]))
    step = _start_of(run)
    return () if step is None else seen_by(step.weights, step.sha256)


def told(chain: Sequence[Seen]) -> list[dict[str, Any]]:
    """Return a chain as JSON values: digests alone, in an order that tells nothing."""
    return [
        {
            "weights_sha256": one.weights_sha256,
            "trained": sorted(one.trained),
            "validated": sorted(one.validated),
        }
        for one in chain
    ]


@dataclass(frozen=True, slots=True)
class _Step:
    """Weights whose training is asked for next."""

    weights: Path
    sha256: str


def _known_at(step: _Step) -> tuple[tuple[Seen, ...], _Step | None]:
    """Return what is told beside weights, and what is still to be asked."""
    of_bundle, run = step.weights.parent / SPLIT, RunFolder(step.weights.parent.parent)
    if of_bundle.is_file():
        return _read(of_bundle, lambda raw: _of_bundle(raw, step.sha256)), None
    kind, _, number = step.weights.parent.name.partition("-")
    if not (kind == "fold" and number.isdecimal() and run.split.is_file()):
        return (Seen(weights_sha256=step.sha256),), None
    own = _of_fold(run, int(number), step.sha256)
    if run.started_from.is_file():
        return (own, *of_run(run)), None
    return (own,), _start_of(run)


def _of_bundle(raw: Mapping[str, Any], sha256: str) -> tuple[Seen, ...]:
    trained, validated = (
        frozenset(str(image[0]) for image in raw["parts"][part]) for part in splits.PARTS[:2]
    )
    return Seen(trained, validated, sha256), *_links(raw.get(STARTED_FROM, []))


def _of_fold(run: RunFolder, number: int, sha256: str) -> Seen:
    try:
        digest = {record.image: record.digest for record in data_manifest.read_manifest(run.data).records}
        parts = splits.read(run.split).folds[number].parts()
        trained, validated = (frozenset(digest[image] for image in parts[part]) for part in splits.PARTS[:2])
    except (SplitError, DataSetError, KeyError, IndexError) as error:
        raise ProvenanceError(_UNREADABLE.format(run.split, type(error).__name__)) from error
    return Seen(trained, validated, sha256)


def _links(raw: Sequence[Mapping[str, Any]]) -> tuple[Seen, ...]:
    return tuple(
        Seen(
            frozenset(map(str, link["trained"])),
            frozenset(map(str, link["validated"])),
            str(link["weights_sha256"]),
        )
        for link in raw
    )


def _read(path: Path, chain_in: Callable[[Mapping[str, Any]], tuple[Seen, ...]]) -> tuple[Seen, ...]:
    try:
        return chain_in(strict_json(path.read_bytes(), path.name))
    except (OSError, BundleFormatError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ProvenanceError(_UNREADABLE.format(path, type(error).__name__)) from error


def _start_of(run: RunFolder) -> _Step | None:
    """Return the weights that a run names which kept nothing of them, as they lie where it found them."""
    try:
        options = run_folder.read(run)["options"]
        named, sha256 = options["weights"], options["weights_sha256"]
    except (TrainingError, KeyError, TypeError) as error:
        raise ProvenanceError(_UNREADABLE.format(run.run, type(error).__name__)) from error
    if named is None:
        return None
    step = _Step(Path(named), sha256)
    try:
        is_there = hashlib.sha256(step.weights.read_bytes()).hexdigest() == step.sha256
    except OSError:
        is_there = False
    if not is_there:
        raise ProvenanceError(
            f"The run in {run.path} started from the weights {step.sha256[:_SHORT]}, which are not at "
            f"{step.weights} any more, so nobody knows whose images they have seen: put them back there with "
            "what lay beside them, or start from other weights."
        )
    return step


def _require_end(chain: Sequence[Seen]) -> None:
    """Refuse a chain that cannot be true, so that following one always ends."""
    names = [one.weights_sha256 for one in chain]
    if again := next((one for number, one in enumerate(chain) if one.weights_sha256 in names[:number]), None):
        raise ProvenanceError(
            f"The weights {again.name} stand twice in the chain that the starting weights come from, as if "
            "they had been trained from themselves: what lies beside them was changed. Copy the bundle or "
            "the run again, or start from other weights."
        )
    if len(chain) > LONGEST:
        raise ProvenanceError(
            f"The starting weights come from a chain of more than {LONGEST} networks, beyond the weights "
            f"{chain[LONGEST].name}: start from weights with fewer trainings behind them."
        )


_UNREADABLE = (
    "{} lies beside weights that the run starts from, or that these come from, and cannot be read ({}), so "
    "nobody knows whose images they have seen: copy the bundle or the run again, or give the weights from a "
    "folder of their own."
)
