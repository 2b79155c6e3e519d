"""Images of any kind that a table names: ``path, patient, label`` and, where known, side, view and split.

The one to use for a data set that has no reader of its own.

* `label` is a class of the task, or 0 and 1 for a task of two classes.
* `patient` keeps the images of one person in one part of a split. It stands in the files of every run: use a
  pseudonym, never a Patient ID. The same holds for the names of files.
* `laterality` is L, R or empty, `view` CC, MLO or anything else, `split` training, validation, test or empty.
* Files are PNG, PGM, JPEG, TIFF of 8 or 16 bits, or DICOM, whose side, view and spacing are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.contract import Laterality
from models.tasks import all_tasks, task_named
from training.datasets import DataSetReader, Option
from training.errors import DataSetError
from training.records import DataSet, Record
from training.source_folder import Problems, Row, confined, one_of, table

_PARTS = {"": None, "train": "training", "training": "training", "val": "validation"}
_PARTS |= {"validation": "validation", "test": "test"}
_SIDES = {"": None, "l": Laterality.LEFT, "left": Laterality.LEFT}
_SIDES |= {"r": Laterality.RIGHT, "right": Laterality.RIGHT}
_SUBGROUP = "subgroup:"


def _load(folder: Path, options: Mapping[str, Any], problems: Problems) -> DataSet:
    if options["task"] not in all_tasks():
        raise DataSetError(
            f"plain_csv: no task is called {options['task']!r}; use one of {', '.join(all_tasks())}."
        )
    task = task_named(options["task"])
    rows = table(folder / options["table"], ("path", "patient", "label"), problems)
    spacing = float(options["spacing_mm"])
    records = []
    for row in rows:
        record = _record(folder, row, task.name, task.classes, spacing, problems)
        if record is not None:
            records.append(record)
    return DataSet("plain_csv", tuple(records))


def _record(
    folder: Path, row: Row, task: str, classes: tuple[str, ...], spacing: float, problems: Problems
) -> Record | None:
    path = confined(folder, row["path"], row.where, problems)
    label = row["label"]
    if len(classes) == 2 and label in ("0", "1"):
        label = classes[int(label)]
    known = one_of(label, classes, "label", row.where, problems)
    side, part = row.get("laterality").lower(), row.get("split").lower()
    if side not in _SIDES:
        problems.add(row.where, "laterality must be L, R or empty")
    if part not in _PARTS:
        problems.add(row.where, "split must be training, validation, test or empty")
    if not row["patient"]:
        problems.add(row.where, "patient must not be empty: no patient may be in two parts of a split")
    if path is None or known is None or side not in _SIDES or part not in _PARTS:
        return None
    view = row.get("view").upper()
    return Record(
        image=path.relative_to(folder.resolve()).as_posix(),
        path=path,
        group=row["patient"],
        labels={task: known},
        laterality=_SIDES[side],
        view=view if view in ("CC", "MLO") else None,
        part=_PARTS[part],
        spacing_mm=(spacing, spacing) if spacing > 0 else None,
        subgroups={
            column.removeprefix(_SUBGROUP): value
            for column, value in row.values.items()
            if column.startswith(_SUBGROUP)
        },
    )


DATASET = DataSetReader(
    name="plain_csv",
    title="Images named by a table",
    layout=(
        "A table with the columns path, patient and label, and if you have them laterality, view, split and "
        "any number of subgroup:NAME; paths are relative to the folder."
    ),
    load=_load,
    options=MappingProxyType(
        {
            "table": Option("labels.csv", "The table, within the folder."),
            "task": Option("mammography_malignancy", "The task that the labels are classes of."),
            "spacing_mm": Option(
                0.0, "Distance of pixel centres, millimetres; 0 where unknown or in DICOM files."
            ),
        }
    ),
)
