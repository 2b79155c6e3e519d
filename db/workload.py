"""Whether the score workers keep up with what arrives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from db.lifecycle import JobKind, JobState
from db.tables import Instance, Job

_LATEST_INSTANCES = 50_000
_LONGEST_WAIT = timedelta(days=7)  # what was due longer before it ended is not counted as finished


@dataclass(frozen=True, slots=True)
class Workload:
    """Score jobs of the last while.

    Attributes
    ----------
    waiting : int
        Jobs that are due and that nobody has claimed.
    oldest_s : float
        Seconds since the oldest of them came; 0 for none.
    came, finished : int
        Jobs that were queued, and that ended, within the period.
    """

    waiting: int
    oldest_s: float
    came: int
    finished: int


def score_workload(session: Session, now: datetime, *, period_s: float) -> Workload:
    """Return how much scoring waits, and what came and went within a period.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        See :meth:`db.session.Database.reading`.
    now : datetime.datetime
        The database's time.
    period_s : float
        Seconds to look back.
    """
    since = now - timedelta(seconds=period_s)
    is_score = Job.kind == JobKind.SCORE
    waits = (is_score, Job.state == JobState.QUEUED, Job.next_try_at <= now)
    waiting, oldest = session.execute(select(func.count(), func.min(Job.created_at)).where(*waits)).one()
    came = _counted(session, Job.created_at >= since, due_since=since)
    finished = _counted(session, Job.finished_at >= since, due_since=since - _LONGEST_WAIT)
    return Workload(waiting, (now - oldest).total_seconds() if oldest else 0.0, came, finished)


def _counted(session: Session, condition: ColumnElement[bool], *, due_since: datetime) -> int:
    """Count the score jobs that meet a condition, none of which was due before a time.

    The index knows when a job was due, never before it came: whoever asks every few minutes does not look at
    those of years.
    """
    latest = (Job.kind == JobKind.SCORE, Job.state.in_(JobState), Job.next_try_at >= due_since)
    return session.scalars(select(func.count()).where(*latest, condition)).one()


def received_bytes_per_day(session: Session, now: datetime) -> float:
    """Return how many bytes a day came, by the latest instances alone: of a week, or of the last 50,000.

    Of less than a day nothing is said of a whole one: it counts as a day.
    """
    latest = select(Instance.size_bytes, Instance.received_at).order_by(Instance.id.desc())
    rows = latest.limit(_LATEST_INSTANCES).subquery()
    recent = rows.c.received_at >= now - timedelta(days=7)
    total, first = session.execute(
        select(func.coalesce(func.sum(rows.c.size_bytes), 0), func.min(rows.c.received_at)).where(recent)
    ).one()
    return 0.0 if first is None else float(total) / max(1.0, (now - first) / timedelta(days=1))
