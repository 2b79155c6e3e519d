"""The words that data sets, splits, training and evaluation share: what one labelled image is.

Knows no files' formats and no network: a reader in :mod:`training.datasets` makes these values, everybody
else takes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.contract import Laterality, Region
from models.manifest import canonical


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion that somebody drew or marked.

    Attributes
    ----------
    centre : tuple of float
        Column and row in DICOM pixel coordinates of the source image (``0\\0`` is the outer corner of the
        first pixel).
    radius : float
        Of the circle that encloses it, in pixels of the source image.
    kind : str
        Its class in the data set's own words, such as ``"SPIC"``.
    is_malignant : bool or None
        None where nobody said.
    mask : Path or None
        An image of the source's size, above 0 inside the lesion.
    """

    centre: tuple[float, float]
    radius: float
    kind: str
    is_malignant: bool | None = None
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled image of a data set.

    Attributes
    ----------
    image : str
        Its name within the data set: a SOP Instance UID or a relative path. Unique.
    path : Path
        Where its pixels lie.
    group : str
        The woman or patient. No group is ever in two parts of a split.
    labels : Mapping of str to str
        Name of a task to the class of this image, one of the task's ``classes``. A task that the data set
        cannot answer for this image is missing.
    laterality : Laterality or None
        The side.
    view : str or None
        ``"CC"``, ``"MLO"`` or None.
    part : str or None
        ``"training"``, ``"validation"`` or ``"test"`` where the data set comes with an official split.
    spacing_mm : tuple of float or None
        Row and column spacing in the detector plane, millimetres.
    region : Region or None
        The part of the image that is looked at, where it is not the whole.
    lesions : tuple of Lesion
        What was drawn or marked.
    subgroups : Mapping of str to str
        What results are broken down by: ``scanner``, ``density``, ``lesion_kind``, ``age_decade``, …
    sha256 : str
        Hex digest of the file.
    """

    image: str
    path: Path
    group: str
    labels: Mapping[str, str]
    laterality: Laterality | None = None
    view: str | None = None
    part: str | None = None
    spacing_mm: tuple[float, float] | None = None
    region: Region | None = None
    lesions: tuple[Lesion, ...] = ()
    subgroups: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    sha256: str = ""

    @property
    def breast(self) -> str:
        """Names one breast of one woman; the group alone where the side is unknown."""
        return f"{self.group}/{self.laterality}" if self.laterality else self.group

    @property
    def digest(self) -> str:
        """Names the image without telling whose it is: digest of its file and, where there is one, region."""
        if self.region is None:
            return self.sha256
        return hashlib.sha256(canonical([self.sha256, list(_corners(self.region))])).hexdigest()


@dataclass(frozen=True, slots=True)
class DataSet:
    """Labelled images from one source.

    Attributes
    ----------
    name : str
        The reader's name, such as ``"mini_mias"``.
    records : tuple of Record
        In a fixed order.
    notes : tuple of str
        What the reader left out or changed, one sentence each. No patient data.
    """

    name: str
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()

    def for_task(self, task: str) -> DataSet:
        """Return the data set with the records alone that have a class for `task`."""
        chosen: Sequence[Record] = [record for record in self.records if task in record.labels]
        return DataSet(self.name, tuple(chosen), self.notes)

    def positions(self, images: Iterable[str]) -> NDArray[np.int64]:
        """Return which records images are, by their names."""
        place = {record.image: position for position, record in enumerate(self.records)}
        return np.asarray([place[image] for image in images], dtype=np.int64)

    @property
    def sha256(self) -> str:
        """Digest of every image's name, group, labels, region and file digest: not of where files lie."""
        rows = [
            [
                record.image,
                record.group,
                dict(sorted(record.labels.items())),
                None if record.region is None else list(_corners(record.region)),
                record.sha256,
            ]
            for record in self.records
        ]
        return hashlib.sha256(canonical([self.name, rows])).hexdigest()


def _corners(region: Region) -> tuple[float, float, float, float]:
    return region.left, region.top, region.right, region.bottom
