"""Drift of each device: the latest studies of a software version against the first ones of its model."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from db import deployments, observations
from db.session import Database
from models.drift import MINIMUM_REFERENCE, MINIMUM_WINDOW, Studies, signals

STEADY, DRIFTING, TOO_FEW = "steady", "drift", "too few studies"

Row = dict[str, Any]


def look(database: Database, task: str, *, reference: int, window: int) -> list[Row]:
    """Return a row per scanner model and software version that the present champion scored studies of.

    Parameters
    ----------
    database : Database
        Where observations are.
    task : str
        The task.
    reference : int
        First studies of a scanner model that count as normal.
    window : int
        Latest studies of each version to compare with them.
    """
    with database.reading() as session:
        champion = deployments.champion(session, task)
        if champion is None:
            return []
        devices = observations.devices(session, task, champion)
        seen = [
            observations.of_device(
                session,
                task,
                champion,
                scanner_model=device["scanner_model"],
                software_versions=device["software_versions"],
            )
            for device in devices
        ]
    normal: dict[str, list[Row]] = defaultdict(list)
    for device, studies in zip(devices, seen, strict=True):
        normal[device["scanner_model"]] += [s for s in studies if s["study_probability"] is not None]
    for model, studies in normal.items():
        normal[model] = sorted(studies, key=lambda study: study["observed_at"])[:reference]
    return [
        {**device, **_state(normal[device["scanner_model"]], studies, window)}
        for device, studies in zip(devices, seen, strict=True)
    ]


def _state(normal: list[Row], studies: list[Row], window: int) -> Row:
    in_reference = {id(study) for study in normal}
    scored = [study for study in studies if study["study_probability"] is not None]
    later = [study for study in scored if id(study) not in in_reference][-window:]
    if len(normal) < MINIMUM_REFERENCE or len(later) < MINIMUM_WINDOW:
        return {"state": TOO_FEW, "compared": len(later), "signals": []}
    alarms = [signal for signal in signals(_studies(normal), _studies(later)) if signal.is_alarm]
    named = [f"{signal.name} {signal.value:.3f} (p {signal.p_value:.1e})" for signal in alarms]
    return {"state": DRIFTING if alarms else STEADY, "compared": len(later), "signals": named}


def _studies(rows: list[Row]) -> Studies:
    numbers = set.intersection(*(set(row["numbers"]) for row in rows))
    categories = set.intersection(*(set(row["categories"]) for row in rows))
    return Studies(
        np.asarray([row["study_probability"] for row in rows], dtype=np.float64),
        {name: np.asarray([row["numbers"][name] for row in rows], dtype=np.float64) for name in numbers},
        {name: tuple(row["categories"][name] for row in rows) for name in categories},
    )
