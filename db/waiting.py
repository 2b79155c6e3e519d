"""What waits for a worker: which jobs are due, which are rung for, and which wait for a destination together.

Workers and dispatchers look several times a second, so the statements are built once, and each finds its rows
in the order of an index: a look costs the same beside ten waiting jobs and beside a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, bindparam, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.lifecycle import JobKind, JobState
from db.session import Transaction
from db.tables import REJECTION_NOTE, Delivery, Job, ResultObject, Revision, UtcDateTime

MOST_DOORBELLS = 32
LONGEST_DOORBELL_PAUSE_S = 3600.0
DESTINATION_AWAY = "DESTINATION_AWAY"
"""Error code of the jobs that wait together for a destination that was away or silent."""

_NOW = bindparam("now", type_=UtcDateTime)
_MAX_ATTEMPTS = bindparam("max_attempts", type_=Integer)
_WITHOUT_LIMIT = 2**31 - 1  # the largest number of attempts that the column holds


def next_due(
    session: Session, kind: JobKind, now: datetime, *, max_attempts: int | None, job_id: str | None = None
) -> Job | None:
    """Return the job that has been due longest, or the named one, locked until the commit.

    What a worker left behind that died comes first. None where nothing is due, or others claim it just now.

    Parameters
    ----------
    now : datetime.datetime
        The transaction's time.
    max_attempts : int or None
        Attempts after which a job whose worker died is no longer due; None for no limit.
    job_id : str, optional
        This job or none.
    """
    statements = _next(kind, at_most=1, is_named=job_id is not None)
    for due in statements:
        found = session.scalars(due, {**_values(now, max_attempts), "job_id": job_id})
        if (job := found.one_or_none()) is not None:
            return job
    return None


def has_due(session: Session, kind: JobKind, now: datetime, *, max_attempts: int | None) -> bool:
    """Whether any job of a kind could be claimed now; a cheap look that locks nothing."""
    return bool(session.scalars(_is_any_due(kind), _values(now, max_attempts)).one())


def take_unpublished(
    tx: Transaction, *, again_after_s: float, max_attempts: Mapping[JobKind, int | None]
) -> list[tuple[JobKind, str]]:
    """Return the longest due jobs whose doorbell was not rung lately, and note that it is rung now.

    One doorbell makes a worker empty its queue, so a few of each kind are enough; and the longer a job waits
    (because no worker runs), the seldomer it is rung for, or a broker would fill up with doorbells: nobody
    takes them. A worker empties its queue when it starts, and starts anew where it misses doorbells.
    """
    rung: list[tuple[JobKind, str]] = []
    for kind, attempts in max_attempts.items():
        values = _values(tx.now, attempts)
        statements = _next(kind, at_most=MOST_DOORBELLS)
        found = [job for due in statements for job in tx.session.scalars(due, values)]
        for job in found[:MOST_DOORBELLS]:
            waited_s = (tx.now - job.next_try_at).total_seconds()
            pause_s = min(max(again_after_s, waited_s / 4), LONGEST_DOORBELL_PAUSE_S)
            if job.published_at is None or job.published_at <= tx.now - timedelta(seconds=pause_s):
                job.published_at = tx.now
                rung.append((kind, job.id))
    return rung


def pause_destination(tx: Transaction, kind: JobKind, destination: str, *, delay_s: float) -> None:
    """Let all waiting jobs of a kind wait together for a destination that is away or silent.

    One job asks at the end of each pause; thousands that each run into a time-out would keep the workers from
    the destinations that answer. What waits longer for a reason of its own does so still.
    """
    until = tx.now + timedelta(seconds=delay_s)
    _move(
        tx,
        (Job.kind == kind, Job.destination == destination, Job.next_try_at < until),
        next_try_at=until,
        error_code=DESTINATION_AWAY,
        error=f"{destination} was away or silent when it was asked; all that waits for it waits together",
    )


def resume_destination(tx: Transaction, kind: JobKind, destination: str) -> None:
    """Make due at once what waits for a destination that is there again, and nothing else."""
    _move(
        tx,
        (
            Job.kind == kind,
            Job.destination == destination,
            Job.next_try_at > tx.now,
            Job.error_code == DESTINATION_AWAY,
        ),
        next_try_at=tx.now,
    )


def _move(tx: Transaction, conditions: tuple[ColumnElement[bool], ...], **values: Any) -> None:
    """Change queued jobs, but those that another worker claims or moves at this moment."""
    free = select(Job.id).where(Job.state == JobState.QUEUED, *conditions).with_for_update(skip_locked=True)
    tx.session.execute(
        update(Job)
        .where(Job.id.in_(free))
        .values(published_at=None, **values)
        .execution_options(synchronize_session=False)
    )


def _values(now: datetime, max_attempts: int | None) -> dict[str, Any]:
    return {"now": now, "max_attempts": _WITHOUT_LIMIT if max_attempts is None else max_attempts}


@cache
def _next(kind: JobKind, *, at_most: int, is_named: bool = False) -> tuple[Select[Job], ...]:
    """Select and lock what may be claimed now, due longest first: what dead workers left, then the others."""
    named = (Job.id == bindparam("job_id"),) if is_named else ()
    return tuple(
        select(Job)
        .where(*conditions, *named)
        .order_by(Job.next_try_at, Job.created_at, Job.id)
        .limit(at_most)
        .with_for_update(skip_locked=True)
        # The session may hold the row as it was before.
        .execution_options(populate_existing=True)
        for conditions in _due(kind)
    )


@cache
def _is_any_due(kind: JobKind) -> Select[bool]:
    return select(or_(*(exists().where(*conditions) for conditions in _due(kind))))


def _due(kind: JobKind) -> tuple[tuple[ColumnElement[bool], ...], ...]:
    """SQL: the job may be claimed now, because its worker died, or because its turn has come."""
    unblocked = _unblocked(kind)
    # Only a worker that died counts here: what waits for a disk or a database is tried without limit.
    left = Job.state == JobState.RUNNING, Job.lease_until <= _NOW, Job.attempts < _MAX_ATTEMPTS
    waiting = Job.state == JobState.QUEUED, Job.next_try_at <= _NOW
    return (Job.kind == kind, *left, *unblocked), (Job.kind == kind, *waiting, *unblocked)


def _unblocked(kind: JobKind) -> tuple[ColumnElement[bool], ...]:
    """SQL: nothing else must end before the job.

    A score job waits for those of earlier revisions of its study, whose report it will name as predecessor. A
    deliver job with a rejection note waits for those of earlier revisions, which send what it withdraws.
    """
    if kind not in (JobKind.SCORE, JobKind.DELIVER):
        return ()
    earlier_job, earlier, own = aliased(Job), aliased(Revision), aliased(Revision)
    blocking = select(earlier_job.id).where(
        own.id == Job.revision_id,
        earlier.study_id == own.study_id,
        earlier.number < own.number,
        earlier_job.revision_id == earlier.id,
        earlier_job.task == Job.task,
        earlier_job.kind == kind,
        earlier_job.state.in_((JobState.QUEUED, JobState.RUNNING)),
    )
    if kind is JobKind.SCORE:
        return (~_is_any(blocking),)
    note = select(Delivery.id).where(
        Delivery.job_id == Job.id,
        Delivery.result_id == ResultObject.id,
        ResultObject.kind == REJECTION_NOTE,
    )
    return (or_(~_is_any(note), ~_is_any(blocking.where(earlier_job.destination == Job.destination))),)


def _is_any(rows: Select[Any]) -> ColumnElement[bool]:
    """SQL: there is such a row, looked for beside each job.

    Without the offset PostgreSQL reads whole tables once for a look that ends at the first job.
    """
    return rows.offset(0).exists()
