"""VinDr-Mammo: 5,000 studies with BI-RADS categories of each breast and boxes around findings.

Its labels are what radiologists wrote, not pathology: a network trained on it learns to call what they would
call. Each study is another patient.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import hypot
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.contract import Laterality
from training.datasets import DataSetReader, Option
from training.records import DataSet, Lesion, Record
from training.source_folder import Problems, Row, confined, one_of, table

_BREASTS, _FINDINGS = "breast-level_annotations.csv", "finding_annotations.csv"
_IMAGE_COLUMNS = (
    "study_id",
    "image_id",
    "laterality",
    "view_position",
    "breast_birads",
    "breast_density",
    "split",
)
_FINDING_COLUMNS = ("image_id", "finding_categories", "xmin", "ymin", "xmax", "ymax")
_BIRADS = re.compile(r"BI-RADS ([1-5])")
_CATEGORY = re.compile(r"'([^']+)'")
_NOTHING = "No Finding"


def _load(folder: Path, options: Mapping[str, Any], problems: Problems) -> DataSet:
    findings = _findings(folder, problems)
    positive = int(options["positive_birads"])
    records = []
    for row in table(folder / _BREASTS, _IMAGE_COLUMNS, problems):
        record = _record(folder, row, findings.pop(row["image_id"], ()), positive, problems)
        if record is not None:
            records.append(record)
    if findings:
        problems.add(_FINDINGS, f"{len(findings)} of its images are not in {_BREASTS}")
    note = f"BI-RADS {positive} and above counts as malignant: an assessment, not pathology."
    return DataSet("vindr_mammo", tuple(records), (note,))


def _findings(folder: Path, problems: Problems) -> dict[str, tuple[Lesion, ...]]:
    """Boxes by image: the circle of a lesion goes through the corners of its box."""
    by_image: dict[str, tuple[Lesion, ...]] = {}
    for row in table(folder / _FINDINGS, _FINDING_COLUMNS, problems):
        kinds = _CATEGORY.findall(row["finding_categories"])
        if not kinds:
            problems.add(row.where, "finding_categories must look like ['Mass']")
            continue
        known = by_image.setdefault(row["image_id"], ())
        if kinds == [_NOTHING]:
            continue
        try:
            left, top, right, bottom = (float(row[c]) for c in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            problems.add(row.where, "a finding needs the numbers xmin, ymin, xmax and ymax")
            continue
        if not (left < right and top < bottom):
            problems.add(row.where, "xmin must be below xmax, and ymin below ymax")
            continue
        centre = ((left + right) / 2, (top + bottom) / 2)
        by_image[row["image_id"]] = (
            *known,
            Lesion(centre, hypot(right - left, bottom - top) / 2, "+".join(sorted(kinds))),
        )
    return by_image


def _record(
    folder: Path, row: Row, lesions: tuple[Lesion, ...], positive: int, problems: Problems
) -> Record | None:
    path = confined(folder, f"images/{row['study_id']}/{row['image_id']}.dicom", row.where, problems)
    side = one_of(row["laterality"], ("L", "R"), "laterality", row.where, problems)
    view = one_of(row["view_position"], ("CC", "MLO"), "view_position", row.where, problems)
    part = one_of(row["split"], ("training", "test"), "split", row.where, problems)
    birads = _BIRADS.fullmatch(row["breast_birads"])
    if birads is None:
        problems.add(row.where, "breast_birads must be BI-RADS 1 to BI-RADS 5")
    if path is None or side is None or birads is None or view is None or part is None:
        return None
    return Record(
        image=row["image_id"],
        path=path,
        group=row["study_id"],
        labels={"mammography_malignancy": "malignant" if int(birads[1]) >= positive else "not_malignant"},
        laterality=Laterality(side),
        view=view,
        part=part,
        lesions=lesions,
        subgroups={
            "density": row["breast_density"],
            "birads": birads[1],
            "lesion_kind": "+".join(sorted({lesion.kind for lesion in lesions})),
        },
    )


DATASET = DataSetReader(
    name="vindr_mammo",
    title="VinDr-Mammo",
    layout=f"{_BREASTS}, {_FINDINGS} and images/STUDY/IMAGE.dicom.",
    load=_load,
    options=MappingProxyType(
        {"positive_birads": Option(4, "The lowest category of a breast that counts as malignant, 1 to 5.")}
    ),
)
