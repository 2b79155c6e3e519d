"""Which device made each scored study, and its pixels and score in numbers: what drift is watched by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.canonical import canonical_json
from db.jobs import Claim
from db.session import Transaction
from db.tables import DeviceObservation

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Observation:
    """What one study tells about the device that made it. No patient data.

    Attributes
    ----------
    scanner_model, software_versions : str
        Manufacturer's Model Name (0008,1090) and Software Versions (0018,1020).
    numbers : Mapping of str to float
        The images' pixels in numbers.
    categories : Mapping of str to str
        Header elements of few values.
    """

    scanner_model: str
    software_versions: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)


def record(
    tx: Transaction,
    claim: Claim,
    observation: Observation,
    *,
    bundle: str,
    study_probability: float | None,
    withheld: bool,
) -> None:
    """Keep what a score job saw of a device.

    Parameters
    ----------
    claim : Claim
        The score job's attempt.
    observation : Observation
        The device, and its images in numbers.
    bundle : str
        Digest of the bundle that answered.
    study_probability : float or None
        0..1; None for a refused study.
    withheld : bool
        Whether the results stay in the node.
    """
    tx.session.add(
        DeviceObservation(
            job_id=claim.job_id,
            task=claim.task,
            bundle_digest=bundle,
            scanner_model=observation.scanner_model,
            software_versions=observation.software_versions,
            study_probability=study_probability,
            numbers=canonical_json(observation.numbers),
            categories=canonical_json(observation.categories),
            withheld=int(withheld),
            observed_at=tx.now,
        )
    )


def devices(session: Session, task: str, bundle: str) -> list[Row]:
    """Return a row per scanner model and software version that a bundle scored studies of."""
    columns = (DeviceObservation.scanner_model, DeviceObservation.software_versions)
    query = (
        select(*columns, func.count(), func.max(DeviceObservation.withheld))
        .where(DeviceObservation.task == task, DeviceObservation.bundle_digest == bundle)
        .group_by(*columns)
        .order_by(*columns)
    )
    return [
        {"scanner_model": model, "software_versions": versions, "studies": count, "withheld": bool(withheld)}
        for model, versions, count, withheld in session.execute(query)
    ]


def of_device(
    session: Session, task: str, bundle: str, *, scanner_model: str, software_versions: str
) -> list[Row]:
    """Return what was seen of one device, oldest first.

    Parameters
    ----------
    task : str
        The task.
    bundle : str
        Digest of the bundle that answered.
    scanner_model, software_versions : str
        The device, spelt as in an :class:`Observation`.
    """
    query = (
        select(DeviceObservation)
        .where(
            DeviceObservation.task == task,
            DeviceObservation.bundle_digest == bundle,
            DeviceObservation.scanner_model == scanner_model,
            DeviceObservation.software_versions == software_versions,
        )
        .order_by(DeviceObservation.observed_at, DeviceObservation.job_id)
    )
    return [
        {
            "observed_at": row.observed_at,
            "study_probability": row.study_probability,
            "numbers": json.loads(row.numbers),
            "categories": json.loads(row.categories),
        }
        for row in session.scalars(query)
    ]
