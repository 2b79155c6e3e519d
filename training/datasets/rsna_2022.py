"""RSNA Screening Mammography Breast Cancer Detection (2022): ``train.csv`` and a DICOM file for each image.

The label is that of the breast: both of its views have it, whichever of them shows the cancer. Breasts with
implants and views other than CC and MLO are left out, as scoring refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.contract import Laterality
from training.datasets import DataSetReader
from training.records import DataSet, Record
from training.source_folder import Problems, Row, confined, one_of, table

_COLUMNS = ("site_id", "patient_id", "image_id", "laterality", "view", "cancer", "implant", "machine_id")


def _load(folder: Path, options: Mapping[str, Any], problems: Problems) -> DataSet:
    records = []
    implants = views = 0
    for row in table(folder / "train.csv", _COLUMNS, problems):
        if row["implant"] == "1":
            implants += 1
        elif row["view"] not in ("CC", "MLO"):
            views += 1
        elif (record := _record(folder, row, problems)) is not None:
            records.append(record)
    notes = (
        f"{implants} images of breasts with implants are left out.",
        f"{views} images of other views than CC and MLO are left out.",
    )
    return DataSet("rsna_2022", tuple(records), notes)


def _record(folder: Path, row: Row, problems: Problems) -> Record | None:
    path = confined(folder, f"train_images/{row['patient_id']}/{row['image_id']}.dcm", row.where, problems)
    side = one_of(row["laterality"], ("L", "R"), "laterality", row.where, problems)
    cancer = one_of(row["cancer"], ("0", "1"), "cancer", row.where, problems)
    one_of(row["implant"], ("0", "1"), "implant", row.where, problems)
    if path is None or side is None or cancer is None:
        return None
    return Record(
        image=f"{row['patient_id']}/{row['image_id']}",
        path=path,
        group=row["patient_id"],
        labels={"mammography_malignancy": "malignant" if cancer == "1" else "not_malignant"},
        laterality=Laterality(side),
        view=row["view"],
        subgroups={
            "site": row["site_id"],
            "scanner": row["machine_id"],
            "density": row.get("density"),
            "age_decade": _decade(row.get("age")),
        },
    )


def _decade(age: str) -> str:
    try:
        return f"{int(float(age)) // 10 * 10}s"
    except (ValueError, OverflowError):
        return ""


DATASET = DataSetReader(
    name="rsna_2022",
    title="RSNA Screening Mammography Breast Cancer Detection, 2022",
    layout="train.csv and train_images/PATIENT/IMAGE.dcm.",
    load=_load,
)
