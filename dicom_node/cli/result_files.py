"""Where ``result show`` and ``result check`` get their objects and images from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from db import listing
from db.errors import UnknownRecordError
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


def stored_objects(
    settings: Settings, study_instance_uid: str | None, job_id: str | None
) -> tuple[list[Dataset], list[Path]]:
    """Read a study's or a job's results from the node's own store, oldest first, and find its images.

    Raises
    ------
    UnknownRecordError
        When there are none.
    """
    with open_database(settings) as database, database.reading() as session:
        rows = listing.results(session, study_instance_uid=study_instance_uid, job_id=job_id)
        if not rows:
            raise UnknownRecordError("no result matches; 'dicom-node result list' shows all")
        studies = dict.fromkeys(row["study_instance_uid"] for row in rows)
        images = [row["file"] for study in studies for row in listing.instances(session, study)]
    results, spool = Spool(settings.results_dir), Spool(settings.spool_dir)
    files = dict.fromkeys(row["file"] for row in reversed(rows))
    return [dcmread(results.path_of(file)) for file in files], [spool.path_of(file) for file in images]


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
