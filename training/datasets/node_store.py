"""What the node itself received: studies from its spool, with labels of a table or of readers' reports.

The folder is the node's data directory. Reports are objects that people wrote, exported from the archive into
a folder. Where a table and a report both speak for an image, the table wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from db.errors import DatabaseError
from db.stored_images import spooled_files
from models.tasks import Task
from training.datasets import DataSetReader, Option
from training.datasets.dicom_folder import record_of, task_of_mammograms
from training.dicom_images import FoundImage, found_image, groups, header_of, usable
from training.errors import DataSetError
from training.label_tables import Label, read_labels
from training.reader_reports import Assessment, assessments, label_of, latest
from training.records import DataSet, Record
from training.source_folder import Problems, confined


def _load(folder: Path, options: Mapping[str, Any], problems: Problems) -> DataSet:
    task = task_of_mammograms(options["task"])
    if not options["labels"] and not options["reports"]:
        raise DataSetError("node_store: name a table of labels (labels) or a folder of reports (reports).")
    if options["reports"] and len(task.classes) != 2:
        raise DataSetError(f"node_store: reports say malignant or not; {task.name} needs a table (labels).")
    labels = read_labels(Path(options["labels"]), task, problems) if options["labels"] else None
    said = _said(Path(options["reports"]), options["positive_birads"]) if options["reports"] else []
    images = _stored(folder, options["database_url"], task, problems)
    kept, notes = usable(images)
    group = groups(images)
    records: list[Record] = []
    from_reports = 0
    for image in kept:
        label = labels.of(image) if labels is not None else None
        if label is None:
            label = _reported(said, image, task)
            from_reports += label is not None
        if label is not None:
            records.append(record_of(image, group[image.sop_instance_uid], label, task))
    notes.append(f"{from_reports} images are labelled by reports of readers.")
    notes.append(f"{len(kept) - len(records)} images have no label and are left out.")
    return DataSet("node_store", tuple(records), tuple(notes))


def _stored(folder: Path, url: str, task: Task, problems: Problems) -> list[FoundImage]:
    if not url and not (folder / "node.db").is_file():
        problems.add("node.db", "is missing: give a node's data directory, or database_url for PostgreSQL")
        return []
    try:
        files = spooled_files(url or f"sqlite:///{folder / 'node.db'}", task.modality)
    except DatabaseError as error:
        problems.add("database", f"cannot be read ({type(error).__name__})")
        return []
    images = []
    for uid, name in files:
        path = confined(folder, f"spool/{name[:2]}/{name}", f"image {uid}", problems)
        image = found_image(path, task) if path is not None else None
        if path is not None and (image is None or image.sop_instance_uid != uid):
            problems.add(f"image {uid}", "its file is damaged; ask for the study again")
        elif image is not None:
            images.append(image)
    return images


def _said(folder: Path, positive_birads: int) -> list[list[Assessment]]:
    """What each report of a folder says, the latest first."""
    if not folder.is_dir():
        raise DataSetError("node_store: the folder of reports is not there.")
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    reports = [report for path in files if (report := header_of(path)) is not None]
    return [assessments(report, positive_birads) for report in latest(reports)]


def _reported(said: Sequence[Sequence[Assessment]], image: FoundImage, task: Task) -> Label | None:
    is_malignant = label_of(said, image.study_instance_uid, image.sop_instance_uid, image.laterality)
    return None if is_malignant is None else Label("report", task.classes[int(is_malignant)], None)


DATASET = DataSetReader(
    name="node_store",
    title="The node's own store",
    layout="A node's data directory: node.db and spool.",
    load=_load,
    options=MappingProxyType(
        {
            "labels": Option("", "A table of labels as dicom_folder takes it."),
            "reports": Option("", "A folder of structured reports that readers wrote."),
            "positive_birads": Option(4, "The lowest BI-RADS category in a report that counts as malignant."),
            "task": Option("mammography_malignancy", "The task that the labels are classes of."),
            "database_url": Option("", "PostgreSQL URL without a password; empty for node.db in the folder."),
        }
    ),
)
