"""Labels of DICOM objects from a table: by image, study or accession number, of a study or of a breast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.contract import Laterality
from models.tasks import Task
from training.dicom_images import FoundImage
from training.source_folder import Problems, Row, one_of, table

KEYS = ("sop_instance_uid", "study_instance_uid", "accession_number")
_SIDES = {"": None, "L": Laterality.LEFT, "R": Laterality.RIGHT}
_PARTS = ("", "training", "validation", "test")


@dataclass(frozen=True, slots=True)
class Label:
    """What a row says: the class, the part of an official split, and where it stands."""

    where: str
    label: str
    part: str | None


@dataclass(slots=True)
class LabelTable:
    """A table with one of :data:`KEYS`, ``label``, and optionally ``laterality`` and ``split``.

    Attributes
    ----------
    key : str
        Which of :data:`KEYS` it goes by.
    rows : dict
        Labels by the key's value and the side, None for both.
    used : set of str
        Where the rows stand that spoke for an image.
    """

    key: str
    rows: dict[tuple[str, Laterality | None], Label] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def of(self, image: FoundImage) -> Label | None:
        """Return the label of an image: that of its breast before that of its study."""
        key: str = getattr(image, self.key)
        found = self.rows.get((key, image.laterality)) or self.rows.get((key, None))
        if found is not None:
            self.used.add(found.where)
        return found

    def tell_unused(self, problems: Problems) -> None:
        """Tell every row that spoke for no image."""
        for label in self.rows.values():
            if label.where not in self.used:
                problems.add(label.where, f"no usable image has this {self.key}")


def read_labels(path: Path, task: Task, problems: Problems) -> LabelTable | None:
    """Read such a table; None after telling why it is none.

    Parameters
    ----------
    path : Path
        The table.
    task : Task
        Whose classes the labels are; 0 and 1 will do for two.
    problems : Problems
        Where faults go.
    """
    rows = list(table(path, ("label",), problems))
    keys = [key for key in KEYS if rows and key in rows[0].values]
    if len(keys) != 1:
        problems.add(path.name, f"needs rows, and exactly one of the columns {', '.join(KEYS)}")
        return None
    found = LabelTable(keys[0])
    for row in rows:
        _add(found, row, task.classes, problems)
    return found


def _add(found: LabelTable, row: Row, classes: Sequence[str], problems: Problems) -> None:
    label = row["label"]
    if len(classes) == 2 and label in ("0", "1"):
        label = classes[int(label)]
    known = one_of(label, classes, "label", row.where, problems)
    part = one_of(row.get("split"), _PARTS, "split", row.where, problems)
    side = row.get("laterality").upper()
    if side not in _SIDES:
        problems.add(row.where, "laterality must be L, R or empty")
        return
    if not row[found.key]:
        problems.add(row.where, f"{found.key} must not be empty")
        return
    place = (row[found.key], _SIDES[side])
    if place in found.rows:
        problems.add(row.where, f"repeats {found.rows[place].where}")
        return
    if known is not None and part is not None:
        found.rows[place] = Label(row.where, known, part or None)
