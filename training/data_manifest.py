"""A data set as one JSON file: which images, whose, with which labels, and the digest of every file.

It lies in the folder of a run, and says later what the run was made from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.contract import Laterality, Region
from training.atomic_file import write_atomically
from training.errors import DataSetError
from training.records import DataSet, Lesion, Record

FORMAT = 1


def write_manifest(data_set: DataSet, path: Path) -> None:
    """Write a data set's manifest.

    Parameters
    ----------
    data_set : DataSet
        As a reader gave it.
    path : Path
        The file; replaced where it exists.
    """
    content = {
        "format": FORMAT,
        "name": data_set.name,
        "sha256": data_set.sha256,
        "notes": list(data_set.notes),
        "records": [_written(record) for record in data_set.records],
    }
    write_atomically(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode("utf-8"))


def read_manifest(path: Path) -> DataSet:
    """Read a data set back from its manifest; the images themselves are not opened.

    Raises
    ------
    DataSetError
        If the file is missing, is no manifest, or its content is not what its digest says.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DataSetError(f"{path.name} has another form than this program reads; make it again.")
        records = tuple(_read(record) for record in content["records"])
        data_set = DataSet(str(content["name"]), records, tuple(content["notes"]))
        stated = content["sha256"]
    except OSError as error:
        raise DataSetError(f"{path.name} cannot be read; make it again by reading the data set.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataSetError(f"{path.name} is no manifest of a data set; make it again.") from error
    if data_set.sha256 != stated:
        raise DataSetError(f"{path.name} was changed after it was written; make it again.")
    return data_set


def _written(record: Record) -> dict[str, Any]:
    return {
        "image": record.image,
        "path": str(record.path),
        "group": record.group,
        "labels": dict(record.labels),
        "laterality": record.laterality,
        "view": record.view,
        "part": record.part,
        "spacing_mm": record.spacing_mm,
        "region": _corners(record.region),
        "lesions": [_written_lesion(lesion) for lesion in record.lesions],
        "subgroups": dict(record.subgroups),
        "sha256": record.sha256,
    }


def _written_lesion(lesion: Lesion) -> dict[str, Any]:
    return {
        "centre": lesion.centre,
        "radius": lesion.radius,
        "kind": lesion.kind,
        "is_malignant": lesion.is_malignant,
        "mask": None if lesion.mask is None else str(lesion.mask),
    }


def _corners(region: Region | None) -> list[float] | None:
    return None if region is None else [region.left, region.top, region.right, region.bottom]


def _read(raw: Mapping[str, Any]) -> Record:
    spacing = raw["spacing_mm"]
    return Record(
        image=raw["image"],
        path=Path(raw["path"]),
        group=raw["group"],
        labels=dict(raw["labels"]),
        laterality=Laterality(raw["laterality"]) if raw["laterality"] else None,
        view=raw["view"],
        part=raw["part"],
        spacing_mm=(float(spacing[0]), float(spacing[1])) if spacing else None,
        region=Region(*(float(corner) for corner in raw["region"])) if raw["region"] else None,
        lesions=tuple(_read_lesion(lesion) for lesion in raw["lesions"]),
        subgroups=dict(raw["subgroups"]),
        sha256=raw["sha256"],
    )


def _read_lesion(raw: Mapping[str, Any]) -> Lesion:
    return Lesion(
        centre=(float(raw["centre"][0]), float(raw["centre"][1])),
        radius=float(raw["radius"]),
        kind=raw["kind"],
        is_malignant=raw["is_malignant"],
        mask=Path(raw["mask"]) if raw["mask"] else None,
    )
