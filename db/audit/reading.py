"""Reading the audit trail: by study, patient, accession number, job, bundle, actor, action and time.

The trail holds no patient data: a patient id or accession number is looked up in ``study`` and never
compared with the trail. Every value is a bound parameter and matches exactly.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from db.audit.trail import AUDIT_TABLE, TIME_FORMAT, is_of_action
from db.session import Database
from db.tables import Study

MAX_ROWS = 100_000
EXPORT_COLUMNS = tuple(column.name for column in AUDIT_TABLE.columns)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class AuditRow:
    """One event as it is shown; its fields are a promise to programs."""

    seq: int
    at: str
    actor: str
    action: str
    study_instance_uid: str | None
    job_id: str | None
    bundle: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExportedEvent:
    """One line of an exported trail: an event with everything that verification needs."""

    seq: int
    at: str
    actor: str
    action: str
    study_instance_uid: str | None
    job_id: str | None
    bundle: str | None
    detail: str
    payload: str
    prev: str
    mac: str
    key_id: str


@dataclass(frozen=True)
class AuditFilter:
    """Which events are asked for; what is None does not restrict.

    Attributes
    ----------
    study_instance_uid, patient_id, accession_number, job_id, bundle, action : str or None
        Exact values.
    actor : str or None
        As the trail has it, such as ``"listener@host:17"``, or the part before the ``@``, for all hosts.
    since, until : datetime.datetime or None
        Aware; from and including ``since``, up to and excluding ``until``.

    Raises
    ------
    ValueError
        If a time has no zone.
    """

    study_instance_uid: str | None = None
    patient_id: str | None = None
    accession_number: str | None = None
    job_id: str | None = None
    bundle: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None

    def __post_init__(self) -> None:
        """Refuse times that nobody can place."""
        for moment in (self.since, self.until):
            if moment is not None and moment.tzinfo is None:
                raise ValueError("a time of the audit trail needs a zone, such as 2026-01-31T08:00:00Z")

    def without_patient_data(self) -> dict[str, str]:
        """Return the given restrictions as JSON values, to audit the reading itself with.

        A patient id or accession number is mentioned, never named.
        """
        named = {
            name: getattr(self, name)
            for name in ("study_instance_uid", "job_id", "bundle", "action", "actor")
            if getattr(self, name) is not None
        }
        times = {name: _spelled(moment) for name in ("since", "until") if (moment := getattr(self, name))}
        given = {
            name: "given" for name in ("patient_id", "accession_number") if getattr(self, name) is not None
        }
        return {**named, **times, **given}

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the SQL conditions."""
        t = AUDIT_TABLE.c
        found: list[ColumnElement[bool]] = []
        for column in (t.study_instance_uid, t.job_id, t.bundle):
            if (value := getattr(self, column.name)) is not None:
                found.append(column == value)
        if self.action is not None:
            found.append(is_of_action(self.action))
        if self.actor is not None:
            of_any_host = t.actor.startswith(f"{self.actor}@", autoescape=True)
            found.append(or_(t.actor == self.actor, of_any_host))
        for patient_column in (Study.patient_id, Study.accession_number):
            if (value := getattr(self, patient_column.key)) is not None:
                studies = select(Study.study_instance_uid).where(patient_column == value)
                found.append(t.study_instance_uid.in_(studies))
        if self.since is not None:
            found.append(t.at >= _spelled(self.since))
        if self.until is not None:
            found.append(t.at < _spelled(self.until))
        return found


def query(
    session: Session, wanted: AuditFilter, *, limit: int = 100, newest_first: bool = True
) -> list[AuditRow]:
    """Return the events asked for.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        See :meth:`db.session.Database.reading`.
    wanted : AuditFilter
        Which.
    limit : int
        At most so many, and never more than ``MAX_ROWS``; :func:`export` has no limit.
    newest_first : bool
        The order, and with it which events a limit leaves out: by wall time where a time was given.
    """
    limit = max(0, min(limit, MAX_ROWS))
    by_time = wanted.since is not None or wanted.until is not None
    rows = rows_of(session, *wanted.conditions(), limit=limit, newest_first=newest_first, by_time=by_time)
    return sorted(rows, key=lambda row: row.seq, reverse=newest_first)


def rows_of(
    session: Session,
    *conditions: ColumnElement[bool],
    limit: int,
    newest_first: bool = False,
    by_time: bool = False,
) -> list[AuditRow]:
    """Return the events that meet SQL conditions; in the chain's order, or by their wall time.

    The order decides which index answers: a million events of a week are not sorted to show a hundred.
    """
    t = AUDIT_TABLE.c
    order = (t.at, t.seq) if by_time else (t.seq,)
    columns = (t.seq, t.at, t.actor, t.action, t.study_instance_uid, t.job_id, t.bundle, t.detail)
    rows = session.execute(
        select(*columns)
        .where(*conditions)
        .order_by(*(column.desc() if newest_first else column.asc() for column in order))
        .limit(limit)
    )
    return [AuditRow(*row[:-1], detail=json.loads(row.detail)) for row in rows]


def export(
    database: Database,
    stream: TextIO,
    format: Literal["jsonl", "csv"] = "jsonl",
    wanted: AuditFilter | None = None,
    *,
    up_to_seq: int | None = None,
) -> int:
    """Write events with everything that verification needs, oldest first.

    Parameters
    ----------
    database : Database
        Holds the trail.
    stream : text file
        Written to; open a CSV file with ``newline=""``.
    format : {"jsonl", "csv"}
        One JSON object per line, or a table with a header whose cells no spreadsheet takes for a formula.
    wanted : AuditFilter, optional
        Which events; all when left out.
    up_to_seq : int, optional
        The last event's number at most.

    Returns
    -------
    int
        How many events were written.
    """
    count = 0
    table = csv.writer(stream) if format == "csv" else None
    if table is not None:
        table.writerow(EXPORT_COLUMNS)
    for row in _stream(database, wanted or AuditFilter(), up_to_seq):
        if table is not None:
            table.writerow([_inert(value) for value in row.values()])
        else:
            stream.write(json.dumps(row) + "\n")
        count += 1
    return count


def _stream(database: Database, wanted: AuditFilter, up_to_seq: int | None) -> Iterator[dict[str, Any]]:
    """Yield whole rows without holding them all."""
    statement = select(AUDIT_TABLE).where(*wanted.conditions()).order_by(AUDIT_TABLE.c.seq)
    if up_to_seq is not None:
        statement = statement.where(AUDIT_TABLE.c.seq <= up_to_seq)
    with database.reading() as session, session.execute(statement.execution_options(yield_per=1000)) as rows:
        for row in rows.mappings():
            yield dict(row)


def _inert(value: Any) -> Any:
    """Return a CSV cell that a spreadsheet shows as it is instead of running it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def _spelled(moment: datetime) -> str:
    """Spell a time as the trail does."""
    return moment.astimezone(UTC).strftime(TIME_FORMAT)
