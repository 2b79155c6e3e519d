"""Recalling a bundle: the list for the reader, and the new revisions that withdraw its results."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from db import recall
from db.session import Database
from dicom_node.cli.wiring import completeness, person
from dicom_node.errors import SettingsError
from dicom_node.settings import Settings

Row = dict[str, Any]


def studies_of(database: Database, digest: str, since: datetime | None, until: datetime | None) -> list[Row]:
    """Return the rows of :func:`db.recall.scored_by`; times without a zone are UTC."""
    with database.reading() as session:
        return recall.scored_by(session, digest, since=_aware(since), until=_aware(until))


def queue_recall(
    settings: Settings, database: Database, digest: str, rows: Sequence[Row], out: Path | None
) -> Path:
    """Write the list, then queue the withdrawal and new scoring of every study on it.

    A command that was interrupted is given again: what it queued is not queued twice.

    Returns
    -------
    pathlib.Path
        The list; in the data directory unless ``out`` is given.

    Raises
    ------
    RecallRefusedError
        If another bundle cannot score the studies now; nothing is changed then.
    """
    with database.reading() as session:
        recall.require_recallable(session, digest)
    out = out or _default_path(settings, digest)
    write_list(rows, out)
    studies = recall.studies_to_recall(rows)
    rules = completeness(settings)
    for study in studies:
        with database.transaction(person()) as tx:
            recall.recall_study(tx, study, digest, rules)
    with database.transaction(person()) as tx:
        tx.audit("bundle.recalled", bundle=digest, detail={"revisions": len(rows), "studies": len(studies)})
    return out


def write_list(rows: Sequence[Row], path: Path) -> None:
    """Write the list for the reader, for its owner's eyes only: it names patients.

    Raises
    ------
    SettingsError
        If the file's name ends neither in .csv nor in .json, or it cannot be written.
    """
    if path.suffix not in (".csv", ".json"):
        raise SettingsError(f"--out: {path.name} must end in .csv or .json")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise SettingsError(f"--out: {path} cannot be written ({error.strerror})") from error
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".json":
            json.dump(list(rows), stream, indent=2)
            return
        writer = csv.DictWriter(stream, list(rows[0]) if rows else ["study_instance_uid"])
        writer.writeheader()
        writer.writerows({**row, "destinations": " ".join(row["destinations"])} for row in rows)


def _default_path(settings: Settings, digest: str) -> Path:
    return settings.data_dir / "recalls" / f"recall-{digest[:12]}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.csv"


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
