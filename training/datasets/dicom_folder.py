"""A folder of DICOM studies as an archive exports them, and a table of labels.

Side, view, spacing and device are read from the objects; the table says only what was found. What scoring
would refuse, such as magnification views or raw images, is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.tasks import Task, all_tasks
from training.datasets import DataSetReader, Option
from training.dicom_images import FoundImage, found_image, groups, usable
from training.errors import DataSetError
from training.label_tables import Label, LabelTable, read_labels
from training.records import DataSet, Record
from training.source_folder import Problems


def task_of_mammograms(name: str) -> Task:
    """Return a task that mammograms can be labelled for.

    Raises
    ------
    DataSetError
        If there is none of this name.
    """
    offered = {task.name: task for task in all_tasks().values() if task.modality == "MG"}
    if name not in offered:
        raise DataSetError(f"No task of mammograms is called {name!r}; there are: {', '.join(offered)}.")
    return offered[name]


def _load(folder: Path, options: Mapping[str, Any], problems: Problems) -> DataSet:
    task = task_of_mammograms(options["task"])
    labels = read_labels(folder / options["labels"], task, problems)
    problems.raise_if_any()
    root = folder.resolve()
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    inside = (path for path in files if path.resolve().is_relative_to(root))
    images = [image for path in inside if (image := found_image(path, task)) is not None]
    kept, notes = usable(images)
    records, unlabelled = labelled(kept, images, labels, task)
    if unlabelled:
        notes.append(f"{unlabelled} images have no label and are left out.")
    if labels is not None and options["unmatched"] == "refuse":
        labels.tell_unused(problems)
    return DataSet("dicom_folder", tuple(records), tuple(notes))


def labelled(
    images: list[FoundImage], everything: list[FoundImage], labels: LabelTable | None, task: Task
) -> tuple[list[Record], int]:
    """Return records of the images that the table labels, and the number of the others.

    Parameters
    ----------
    images : list of FoundImage
        Those that can be trained on.
    everything : list of FoundImage
        All of them: they say which studies are of one patient.
    labels : LabelTable or None
        The table.
    task : Task
        Whose classes the labels are.
    """
    group = groups(everything)
    records = []
    for image in images:
        label = labels.of(image) if labels is not None else None
        if label is not None:
            records.append(record_of(image, group[image.sop_instance_uid], label, task))
    return records, len(images) - len(records)


def record_of(image: FoundImage, group: str, label: Label, task: Task) -> Record:
    """Return the record of one labelled object."""
    return Record(
        image=image.sop_instance_uid,
        path=image.path,
        group=group,
        labels={task.name: label.label},
        laterality=image.laterality,
        view=image.view,
        part=label.part,
        subgroups={"scanner": image.scanner},
    )


DATASET = DataSetReader(
    name="dicom_folder",
    title="A folder of DICOM studies",
    layout=(
        "DICOM files at any depth, and a table with the column label and one of sop_instance_uid, "
        "study_instance_uid and accession_number; laterality and split if you have them."
    ),
    load=_load,
    options=MappingProxyType(
        {
            "labels": Option("labels.csv", "The table, within the folder."),
            "task": Option("mammography_malignancy", "The task that the labels are classes of."),
            "unmatched": Option(
                "refuse", "What becomes of rows that no image answers to.", ("refuse", "ignore")
            ),
        }
    ),
)
