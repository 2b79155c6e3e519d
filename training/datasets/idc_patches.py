"""Breast histology patches of invasive ductal carcinoma, as a tree ``PATIENT/…_class0|1.png``.

Patches are 50 x 50 pixels; those that the slide's edge cut are smaller, and nearly all of them negative: a
network could learn the size instead of the tissue. They are left out unless padding is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from training.datasets import DataSetReader, Option
from training.errors import ImageFileError
from training.image_files import size_of
from training.records import DataSet, Record
from training.source_folder import Problems

SIDE = 50
CLASSES = ("not_idc", "idc")

_NAME = re.compile(r"(?P<patient>\d+)_idx\d+_x\d+_y\d+_class(?P<label>[01])\.png")


def _load(folder: Path, options: Mapping[str, Any], problems: Problems) -> DataSet:
    root = folder.resolve()
    records: list[Record] = []
    cut = strangers = 0
    for path in sorted(folder.rglob("*.png")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            strangers += 1
            continue
        where = path.relative_to(folder).as_posix()
        size = _size(root, path, match, where, problems)
        if size is None:
            continue
        if size != (SIDE, SIDE):
            cut += 1
            if options["edge"] == "drop":
                continue
        records.append(
            Record(
                image=where,
                path=path,
                group=match["patient"],
                labels={"idc": CLASSES[int(match["label"])]},
                subgroups={"patch": "whole" if size == (SIDE, SIDE) else "cut"},
            )
        )
    notes = [
        f"{cut} patches cut by a slide's edge are {'left out' if options['edge'] == 'drop' else 'padded'}."
    ]
    if strangers:
        notes.append(f"{strangers} PNG files are not named like patches and are left out.")
    return DataSet("idc_patches", tuple(records), tuple(notes))


def _size(
    root: Path, path: Path, match: re.Match[str], where: str, problems: Problems
) -> tuple[int, int] | None:
    """Return rows and columns of a patch, or None after telling what is wrong with it."""
    folders = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else path.parts[:-1]
    if match["patient"] not in folders:
        problems.add(where, "lies in another patient's folder than its name says")
        return None
    if folders[-1] in ("0", "1") and folders[-1] != match["label"]:
        problems.add(where, "lies in another class's folder than its name says")
        return None
    if not path.resolve().is_relative_to(root):
        problems.add(where, "leads outside the data set's folder")
        return None
    try:
        rows, columns = size_of(path)
    except ImageFileError as error:
        problems.add(where, str(error))
        return None
    if max(rows, columns) > SIDE:
        problems.add(where, f"has {rows} x {columns} pixels; a patch has at most {SIDE} x {SIDE}")
        return None
    return rows, columns


DATASET = DataSetReader(
    name="idc_patches",
    title="Breast histology patches, invasive ductal carcinoma",
    layout="PATIENT/PATIENT_idxN_xX_yY_classC.png, or the same with folders 0 and 1 between.",
    load=_load,
    options=MappingProxyType(
        {"edge": Option("drop", "What becomes of patches cut by a slide's edge.", ("drop", "pad"))}
    ),
)
