"""Where ``result show``, ``result check`` and ``result export`` get their objects and images from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from db import listing
from db.errors import FilesGoneError, UnknownRecordError
from db.listing import Row
from db.retention import RESULTS, Removed, removals
from db.session import Database
from dicom_node.cli.wiring import open_database
from dicom_node.errors import ImageError
from dicom_node.images.reader import ImageReader
from dicom_node.settings import Settings
from dicom_node.spool import Spool


def read_objects(paths: Iterable[Path]) -> dict[Path, Dataset]:
    """Read result objects, with their pixels.

    Raises
    ------
    typer.BadParameter
        When a file is no DICOM file.
    """
    return {path: _read(path, headers_only=False) for path in paths}


def read_headers(paths: Iterable[Path]) -> list[Dataset]:
    """Read the headers of images.

    Raises
    ------
    typer.BadParameter
        When a file is no DICOM file.
    """
    return [_read(path, headers_only=True) for path in paths]


def stored_files(
    database: Database, results: Spool, study_instance_uid: str | None, job_id: str | None
) -> tuple[list[Row], str]:
    """Find the files of the results of a study, a job, or all: a row each, newest first.

    Returns
    -------
    list of mapping
        Those that are there.
    str
        What became of the others, and what to do; empty where there are none.

    Raises
    ------
    UnknownRecordError
        When no result was ever made.
    FilesGoneError
        When none of the files is there.
    """
    with database.reading() as session:
        listed = listing.results(session, study_instance_uid=study_instance_uid, job_id=job_id)
        if not listed:
            raise UnknownRecordError("no result matches; 'dicom-node result list' shows all")
        rows = {row["sop_instance_uid"]: row for row in listed}.values()
        there = [row for row in rows if results.path_of(row["file"]).exists()]
        present = {row["file"] for row in there}
        gone = [row for row in rows if row["file"] not in present]
        removed = removals(session, RESULTS, {row["study_instance_uid"] for row in gone})
    told = " ".join(_told_of(gone, removed))
    if not there:
        raise FilesGoneError(told)
    return there, told


def _told_of(gone: Sequence[Row], removed: Mapping[str, Removed]) -> Iterator[str]:
    """Say when the files of some rows were removed, by which rule, and what to do."""
    by_rule: dict[str, list[Removed]] = {}
    lost = 0
    for row in gone:
        if (removal := removed.get(row["study_instance_uid"])) is None:
            lost += 1
        else:
            by_rule.setdefault(removal.rule, []).append(removal)
    for rule, found in by_rule.items():
        days = sorted({f"{removal.at:%Y-%m-%d}" for removal in found})
        when = days[0] if len(days) == 1 else f"days from {days[0]} to {days[-1]}"
        yield f"The files of {len(found)} results were removed on {when} ({rule})."
    if by_rule:
        yield (
            "Their destinations have them ('dicom-node result list'); the node makes new ones where a study "
            "is scored again, as after a late image or 'dicom-node model recall'."
        )
    if lost:
        yield (
            f"The files of {lost} results are missing, and nothing tells that they were removed: restore "
            "them from the backup; 'dicom-node study verify' names them."
        )


def stored_objects(
    settings: Settings, study_instance_uid: str | None, job_id: str | None
) -> tuple[list[Dataset], list[Path], str]:
    """Read a study's or a job's results from the node's own store, oldest first, and find its images.

    What became of results that are gone is told beside them, as :func:`stored_files` does and refuses. Images
    whose files are gone are left out.
    """
    results, spool = Spool(settings.results_dir), Spool(settings.spool_dir)
    with open_database(settings) as database:
        rows, told = stored_files(database, results, study_instance_uid, job_id)
        studies = dict.fromkeys(row["study_instance_uid"] for row in rows)
        with database.reading() as session:
            images = [row["file"] for study in studies for row in listing.instances(session, study)]
    objects: list[Dataset] = [dcmread(results.path_of(row["file"])) for row in reversed(rows)]
    return objects, [path for path in map(spool.path_of, images) if path.exists()], told


def images_as_displayed(paths: Iterable[Path]) -> dict[str, NDArray[np.uint16]]:
    """Read images as a display shows them: P-values by SOP Instance UID; those that can be read."""
    images = {}
    with ImageReader() as reader:
        for path in paths:
            uid = str(_read(path, headers_only=True).get("SOPInstanceUID", ""))
            try:
                images[uid] = reader.read(path, uid).view.pixels
            except ImageError:
                continue
    return images


def _read(path: Path, *, headers_only: bool) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=headers_only)
    except InvalidDicomError as exc:
        raise typer.BadParameter(f"{path} is no DICOM file") from exc
