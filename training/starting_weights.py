"""Whose images weights have seen that a run starts from: their bundle or their run says so.

Whoever tunes a network on images and tests it on others that its first training had seen measures memory. Of
published weights nobody says anything; of those that this program made the split lies beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import BundleFormatError
from models.manifest import strict_json
from training import data_manifest, splits
from training.errors import DataSetError, SplitError
from training.records import Record
from training.run_folder import RunFolder

SPLIT = "split.json"
"""Of a bundle: its images by digest."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What weights know.

    Attributes
    ----------
    trained, validated : frozenset of str
        :attr:`~training.records.Record.digest` of the images that trained them, and of those that stopped and
        calibrated that training. Empty where nobody says.
    """

    trained: frozenset[str] = frozenset()
    validated: frozenset[str] = frozenset()

    def women(self, records: Sequence[Record]) -> tuple[frozenset[str], frozenset[str]]:
        """Return the women or patients of `records` who trained the weights, and those who did anything."""
        digests = {record.digest: record.group for record in records if record.sha256}
        trained = frozenset(group for digest, group in digests.items() if digest in self.trained)
        return trained, trained | {group for digest, group in digests.items() if digest in self.validated}


def seen_by(weights: Path) -> Seen:
    """Return what weights know, from what lies beside them.

    Parameters
    ----------
    weights : Path
        Those of a bundle, of a fold in a run's folder, or others.

    Raises
    ------
    SplitError
        If what lies there cannot be read.
    """
    of_bundle, run = weights.parent / SPLIT, RunFolder(weights.parent.parent)
    if of_bundle.is_file():
        return _of_bundle(of_bundle)
    kind, _, number = weights.parent.name.partition("-")
    if kind == "fold" and number.isdecimal() and run.split.is_file():
        return _of_fold(run, int(number))
    return Seen()


def _of_bundle(path: Path) -> Seen:
    try:
        parts = strict_json(path.read_bytes(), path.name)["parts"]
        return Seen(*(frozenset(str(image[0]) for image in parts[part]) for part in splits.PARTS[:2]))
    except (OSError, BundleFormatError, KeyError, TypeError, IndexError) as error:
        raise SplitError(_UNREADABLE.format(path, type(error).__name__)) from error


def _of_fold(run: RunFolder, number: int) -> Seen:
    try:
        digest = {record.image: record.digest for record in data_manifest.read_manifest(run.data).records}
        parts = splits.read(run.split).folds[number].parts()
        return Seen(*(frozenset(digest[image] for image in parts[part]) for part in splits.PARTS[:2]))
    except (SplitError, DataSetError, KeyError, IndexError) as error:
        raise SplitError(_UNREADABLE.format(run.split, type(error).__name__)) from error


_UNREADABLE = (
    "{} lies beside the starting weights and cannot be read ({}), so nobody knows whose images they have "
    "seen: copy the bundle or the run again, or give the weights from a folder of their own."
)
