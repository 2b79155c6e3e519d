"""Phantoms as a data set: a folder of made-up DICOM mammograms whose lesions are known.

``python -m training.datasets.phantom_folder --out FOLDER --women 20`` draws one; training, evaluation and
localisation then run on it as on any other. What is learned from it holds for phantoms alone.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.contract import Laterality
from training.atomic_file import write_atomically
from training.datasets import DataSetReader
from training.datasets.phantom_objects import data_set
from training.datasets.phantoms import LesionKind, Phantom, draw
from training.records import DataSet, Lesion, Record
from training.source_folder import Problems, Row, confined, one_of, table

TABLE = "phantoms.csv"
_COLUMNS = ("path", "woman", "laterality", "view", "kind", "malignant", "x", "y", "radius", "spacing_mm")
_LESIONS = tuple(kind for kind in LesionKind if kind is not LesionKind.NORM)
_UID_ROOT = "2.25.1066"


def write_phantoms(
    folder: Path,
    *,
    women: int,
    rows: int = 512,
    columns: int = 416,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Draw four views of each of some women into a folder that the reader ``phantoms`` reads.

    Every second woman has a lesion in one breast; kinds take turns, and of each kind every second lesion is
    malignant.

    Parameters
    ----------
    folder : Path
        Where to; made where it is missing.
    women : int
        How many.
    rows, columns : int
        Size of the images, at least 64.
    seed : int
        The same arguments give the same bytes.
    advance : callable
        Called after each woman.
    """
    listed = io.StringIO()
    lines = csv.writer(listed, lineterminator="\n")
    lines.writerow(_COLUMNS)
    for woman in range(women):
        turn = woman // 2
        kind = _LESIONS[turn % len(_LESIONS)] if woman % 2 else LesionKind.NORM
        affected = ("L", "R")[int(np.random.default_rng([seed, woman]).integers(2))]
        for number, (side, view) in enumerate((s, v) for s in ("R", "L") for v in ("CC", "MLO")):
            shown = kind if side == affected else LesionKind.NORM
            phantom = draw(
                laterality=side,
                view=view,
                kind=shown,
                malignant=shown is not LesionKind.NORM and turn // len(_LESIONS) % 2 == 0,
                rows=rows,
                columns=columns,
                seed=seed * 100_000 + woman,
            )
            name = f"woman-{woman + 1:04d}/{side}-{view}.dcm"
            write_atomically(folder / name, _part10(phantom, seed, woman, number))
            lines.writerow(_listed(name, woman, phantom))
        advance()
    write_atomically(folder / TABLE, listed.getvalue().encode("ascii"))


def _part10(phantom: Phantom, seed: int, woman: int, number: int) -> bytes:
    study = f"{_UID_ROOT}.{seed}.{woman}"
    image = data_set(
        phantom,
        study_instance_uid=f"{study}.0",
        series_instance_uid=f"{study}.1.{number}",
        sop_instance_uid=f"{study}.2.{number}",
        patient_id=f"PHANTOM-{woman + 1:04d}",
        accession_number=f"P{woman + 1:04d}",
        instance_number=number + 1,
    )
    content = io.BytesIO()
    image.save_as(content, enforce_file_format=True)
    return content.getvalue()


def _listed(name: str, woman: int, phantom: Phantom) -> list[str]:
    lesion = phantom.lesion
    place = ("", "", "") if lesion is None else (*lesion.centre, lesion.radius)
    return [
        name,
        f"woman-{woman + 1:04d}",
        str(phantom.laterality),
        phantom.view,
        str(LesionKind.NORM if lesion is None else lesion.kind),
        str(int(lesion is not None and lesion.malignant)),
        *(value if isinstance(value, str) else repr(float(value)) for value in place),
        repr(phantom.spacing_mm),
    ]


def _load(folder: Path, options: Mapping[str, Any], problems: Problems) -> DataSet:
    rows = table(folder / TABLE, _COLUMNS, problems)
    records = [record for row in rows if (record := _record(folder, row, problems)) is not None]
    return DataSet("phantoms", tuple(records), ("Made-up images: no evidence for real mammograms.",))


def _record(folder: Path, row: Row, problems: Problems) -> Record | None:
    path = confined(folder, row["path"], row.where, problems)
    kind = one_of(row["kind"], tuple(str(kind) for kind in LesionKind), "kind", row.where, problems)
    side = one_of(row["laterality"], ("R", "L"), "laterality", row.where, problems)
    malignant = one_of(row["malignant"], ("0", "1"), "malignant", row.where, problems)
    try:
        spacing = float(row["spacing_mm"])
        place = [] if kind == LesionKind.NORM else [float(row[column]) for column in ("x", "y", "radius")]
    except ValueError:
        problems.add(row.where, "x, y, radius and spacing_mm must be numbers")
        return None
    if path is None or kind is None or side is None or malignant is None:
        return None
    lesions = (Lesion((place[0], place[1]), place[2], kind, malignant == "1"),) if place else ()
    return Record(
        image=row["path"],
        path=path,
        group=row["woman"],
        labels={
            "mammography_malignancy": "malignant" if malignant == "1" else "not_malignant",
            "mias7": kind,
        },
        laterality=Laterality(side),
        view=row["view"],
        spacing_mm=(spacing, spacing),
        lesions=lesions,
        subgroups={"lesion_kind": kind},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(prog="python -m training.datasets.phantom_folder", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the images")
    parser.add_argument("--women", type=int, default=20)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--columns", type=int, default=416)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    write_phantoms(given.out, women=given.women, rows=given.rows, columns=given.columns, seed=given.seed)


DATASET = DataSetReader(
    name="phantoms",
    title="Phantoms: made-up mammograms",
    layout=f"What python -m training.datasets.phantom_folder draws: {TABLE} and a folder for each woman.",
    load=_load,
)

if __name__ == "__main__":
    main()
