"""CBIS-DDSM as The Cancer Imaging Archive delivers it: four case lists and a tree of DICOM files.

What to know of it:

* The paths in the lists are older than the archive's present folders; their first component is still the
  folder's name, and the file is looked for below it.
* A list has a row for each abnormality. Rows of one film are one image here, also where the mass list and
  the calcification list both have it.
* The folder of an abnormality holds a crop and a mask, in any order: the mask has the size of the film.
* Some patients are in the training part of one list and in the test part of the other. Their training
  images are left out, so that the official test part stays as it is.
* Files carry no spacing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from models.contract import Laterality
from training.datasets import DataSetReader
from training.errors import ImageFileError
from training.image_files import PixelSource
from training.records import DataSet, Lesion, Record
from training.source_folder import Problems, Row, table

_LISTS = {
    "mass_case_description_train_set.csv": ("MASS", "training"),
    "calc_case_description_train_set.csv": ("CALC", "training"),
    "mass_case_description_test_set.csv": ("MASS", "test"),
    "calc_case_description_test_set.csv": ("CALC", "test"),
}
_COLUMNS = (
    "patient_id",
    "left or right breast",
    "image view",
    "pathology",
    "image file path",
    "roi mask file path",
)
_SIDES = {"LEFT": Laterality.LEFT, "RIGHT": Laterality.RIGHT}
_IS_MALIGNANT = {"MALIGNANT": True, "BENIGN": False, "BENIGN_WITHOUT_CALLBACK": False}
_PATIENT = re.compile(r"P_\d{5}")


@dataclass(frozen=True, slots=True)
class _Abnormality:
    """One row of a list."""

    where: str
    film: tuple[str, Laterality, str]  # patient, side, view
    kind: str
    part: str
    density: str
    is_malignant: bool
    film_folder: str
    roi_folder: str


def _load(folder: Path, options: Mapping[str, Any], problems: Problems) -> DataSet:
    films: dict[tuple[str, Laterality, str], list[_Abnormality]] = {}
    for name, (kind, part) in _LISTS.items():
        for row in table(folder / name, _COLUMNS, problems):
            abnormality = _abnormality(row, kind, part, problems)
            if abnormality is not None:
                films.setdefault(abnormality.film, []).append(abnormality)
    folders = _folders(folder)
    maskless = 0
    records = []
    with PixelSource() as source:
        for _, rows in sorted(films.items()):
            record, without = _record(rows, folders, source, problems)
            maskless += without
            if record is not None:
                records.append(record)
    return DataSet("cbis_ddsm", *_without_torn_patients(records, maskless))


def _abnormality(row: Row, kind: str, part: str, problems: Problems) -> _Abnormality | None:
    side, view = _SIDES.get(row["left or right breast"].upper()), row["image view"].upper()
    is_malignant = _IS_MALIGNANT.get(row["pathology"].upper())
    faults = [
        (side is None, "left or right breast must be LEFT or RIGHT"),
        (view not in ("CC", "MLO"), "image view must be CC or MLO"),
        (is_malignant is None, f"pathology must be one of {', '.join(_IS_MALIGNANT)}"),
        (not _PATIENT.fullmatch(row["patient_id"]), "patient_id must look like P_00001"),
    ]
    for is_fault, what in faults:
        if is_fault:
            problems.add(row.where, what)
    if side is None or is_malignant is None or any(is_fault for is_fault, _ in faults):
        return None
    return _Abnormality(
        where=row.where,
        film=(row["patient_id"], side, view),
        kind=kind,
        part=part,
        density=row.get("breast_density") or row.get("breast density"),
        is_malignant=is_malignant,
        film_folder=_first_component(row["image file path"]),
        roi_folder=_first_component(row["roi mask file path"]),
    )


def _first_component(path: str) -> str:
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return parts[0] if parts else ""


def _folders(folder: Path) -> dict[str, Path]:
    """Every folder below by its name, links not followed."""
    return {name: Path(parent) / name for parent, names, _ in os.walk(folder) for name in names}


def _record(
    rows: Sequence[_Abnormality],
    folders: Mapping[str, Path],
    source: PixelSource,
    problems: Problems,
) -> tuple[Record | None, int]:
    """Return one film with all its abnormalities, and how many of them have no usable mask."""
    first = rows[0]
    files = _images_below(folders.get(first.film_folder))
    if len(files) != 1:
        problems.add(first.where, f"its image folder holds {len(files)} DICOM images instead of 1")
        return None, 0
    path, size = files[0]
    lesions: list[Lesion] = []
    for row in rows:
        mask = next((p for p, s in _images_below(folders.get(row.roi_folder)) if s == size), None)
        if mask is None:
            continue
        try:
            inside = source.mask(mask)
        except ImageFileError as error:
            problems.add(row.where, f"its mask: {error}")
            continue
        if inside.any():
            centre, radius = _circle_around(inside)
            lesions.append(Lesion(centre, radius, row.kind, row.is_malignant, mask))
    patient, side, view = first.film
    is_malignant = any(row.is_malignant for row in rows)
    kinds = sorted({row.kind for row in rows})
    record = Record(
        image=first.film_folder,
        path=path,
        group=patient,
        labels={"mammography_malignancy": "malignant" if is_malignant else "not_malignant"},
        laterality=side,
        view=view,
        part="test" if any(row.part == "test" for row in rows) else "training",
        lesions=tuple(lesions),
        subgroups={"density": first.density, "lesion_kind": "+".join(kinds)},
    )
    return record, len(rows) - len(lesions)


def _images_below(folder: Path | None) -> list[tuple[Path, tuple[int, int]]]:
    """DICOM images below a folder, sorted, each with rows and columns."""
    found = []
    for path in sorted(folder.rglob("*.dcm")) if folder is not None else ():
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
            found.append((path, (int(header.Rows), int(header.Columns))))
        except (OSError, InvalidDicomError, AttributeError, TypeError, ValueError):
            continue
    return found


def _circle_around(inside: NDArray[np.bool_]) -> tuple[tuple[float, float], float]:
    rows, columns = np.nonzero(inside)
    x, y = columns + 0.5, rows + 0.5
    centre = float(x.mean()), float(y.mean())
    return centre, float(np.hypot(x - centre[0], y - centre[1]).max() + 0.5)


def _without_torn_patients(
    records: Sequence[Record], maskless: int
) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    tested = {record.group for record in records if record.part == "test"}
    kept = tuple(record for record in records if record.part == "test" or record.group not in tested)
    notes = []
    if torn := len(records) - len(kept):
        notes.append(f"{torn} training images are left out: their patients are in the test part, too.")
    if maskless:
        notes.append(f"{maskless} abnormalities have no mask of their film's size.")
    return kept, tuple(notes)


DATASET = DataSetReader(
    name="cbis_ddsm",
    title="CBIS-DDSM",
    layout=f"{', '.join(_LISTS)}, and below the folder the DICOM folders that they name.",
    load=_load,
)
