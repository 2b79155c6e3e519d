"""Whether the score workers keep up with what arrives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.lifecycle import JobKind, JobState
from db.tables import Job


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
    came = session.scalars(select(func.count()).where(is_score, Job.created_at >= since)).one()
    finished = session.scalars(select(func.count()).where(is_score, Job.finished_at >= since)).one()
    return Workload(waiting, (now - oldest).total_seconds() if oldest else 0.0, came, finished)
