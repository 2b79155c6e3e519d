"""How much there is and how much waits, in numbers that cost little: a monitor asks every few seconds.

Nothing here walks through all objects, studies or events: what is counted is what an index holds apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from db.audit.trail import is_of_action
from db.lifecycle import DeliveryState, JobKind, JobState, RevisionState
from db.tables import AuditEvent, Delivery, Instance, Job, Revision, Study

UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.FAILED)
_OPEN_DELIVERIES = (DeliveryState.PENDING, DeliveryState.UNKNOWN, DeliveryState.REFUSED)
LATEST_DELIVERIES = 50


@dataclass(frozen=True, slots=True)
class Census:
    """The node in numbers, at one moment.

    Attributes
    ----------
    instances, studies, audit_events : int
        Number of the newest row: how many there ever were. Numbers of rows that were given up count on
        PostgreSQL, which leaves gaps.
    open_revisions : int
        Studies that wait for more images or for the end of their quiet period.
    jobs : dict of (JobKind, JobState) to int
        Jobs that are not done: every kind in every such state.
    oldest_waiting_s : dict of JobKind to float
        Seconds since the oldest queued job of a kind came; 0 for none.
    deliveries : dict of (str, JobState) to int
        Deliver jobs that are not done, by destination.
    turnaround_s : tuple of float
        Seconds from a study's completion to its delivered results, of the latest deliveries, ascending.
    """

    instances: int
    studies: int
    audit_events: int
    open_revisions: int
    jobs: dict[tuple[JobKind, JobState], int]
    oldest_waiting_s: dict[JobKind, float]
    deliveries: dict[tuple[str, JobState], int]
    turnaround_s: tuple[float, ...]


def census(session: Session, now: datetime) -> Census:
    """Count.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        See :meth:`db.session.Database.reading`.
    now : datetime.datetime
        The database's time.
    """
    jobs = {(kind, state): 0 for kind in JobKind for state in UNFINISHED}
    oldest = dict.fromkeys(JobKind, 0.0)
    # Kinds and states by name: the index begins with them.
    by_state = (
        select(Job.kind, Job.state, func.count(), func.min(Job.created_at))
        .where(Job.kind.in_(list(JobKind)), Job.state.in_(UNFINISHED))
        .group_by(Job.kind, Job.state)
    )
    for kind, state, count, since in session.execute(by_state):
        jobs[JobKind(kind), JobState(state)] = count
        if state == JobState.QUEUED:
            oldest[JobKind(kind)] = max(0.0, (now - since).total_seconds())
    by_destination = (
        select(Job.destination, Job.state, func.count())
        .where(Job.kind == JobKind.DELIVER, Job.state.in_(UNFINISHED))
        .group_by(Job.destination, Job.state)
    )
    return Census(
        instances=_newest(session, select(func.max(Instance.id))),
        studies=_newest(session, select(func.max(Study.id))),
        audit_events=_newest(session, select(func.max(AuditEvent.seq))),
        open_revisions=_open_revisions(session),
        jobs=jobs,
        oldest_waiting_s=oldest,
        deliveries={
            (destination, JobState(state)): count
            for destination, state, count in session.execute(by_destination)
            if destination is not None
        },
        turnaround_s=_turnaround_s(session),
    )


def refused_results(session: Session) -> int:
    """Count the result objects that a destination refused."""
    return _open_deliveries(session).get(DeliveryState.REFUSED, 0)


def unfinished(session: Session) -> dict[str, dict[str, int]]:
    """Count what waits, runs or failed, in each state of it, and how much came; what is done is left out.

    Instances and complete revisions are numbered, not counted: see :class:`Census`.
    """
    jobs = {kind: dict.fromkeys(map(str, UNFINISHED), 0) for kind in JobKind}
    by_state = (
        select(Job.kind, Job.state, func.count())
        .where(Job.kind.in_(list(JobKind)), Job.state.in_(UNFINISHED))
        .group_by(Job.kind, Job.state)
    )
    for kind, state, count in session.execute(by_state):
        jobs[JobKind(kind)][state] = count
    # Each has its event, and the trail's index knows where they are.
    conflicts = session.scalars(select(func.count()).where(is_of_action("instance.conflict"))).one()
    opened = _open_revisions(session)
    deliveries = _open_deliveries(session)
    return {
        "instances": {
            "stored": _newest(session, select(func.max(Instance.id))) - conflicts,
            "conflicts": conflicts,
        },
        "revisions": {
            RevisionState.OPEN.value: opened,
            RevisionState.COMPLETE.value: _newest(session, select(func.max(Revision.id))) - opened,
        },
        **{f"{kind}_jobs": counted for kind, counted in jobs.items()},
        "deliveries": {state.value: deliveries.get(state, 0) for state in _OPEN_DELIVERIES},
    }


def _open_revisions(session: Session) -> int:
    is_open = Revision.state == RevisionState.OPEN
    return session.scalars(select(func.count()).select_from(Revision).where(is_open)).one()


def _open_deliveries(session: Session) -> dict[DeliveryState, int]:
    """Count what did not arrive by its state: the deliver jobs of it are not done."""
    found = session.execute(
        select(Delivery.state, func.count())
        .select_from(Job)
        .join(Delivery, Delivery.job_id == Job.id)
        .where(Job.kind == JobKind.DELIVER, Job.state.in_(UNFINISHED), Delivery.state.in_(_OPEN_DELIVERIES))
        .group_by(Delivery.state)
    )
    return {DeliveryState(state): count for state, count in found}


def _newest(session: Session, query: Select[int]) -> int:
    return session.scalars(query).one() or 0


def _turnaround_s(session: Session) -> tuple[float, ...]:
    score = aliased(Job)
    latest = (
        select(Job.id)
        .where(Job.kind == JobKind.DELIVER, Job.state == JobState.DONE)
        .order_by(Job.next_try_at.desc())
        .limit(LATEST_DELIVERIES)
    )
    times = session.execute(
        select(Revision.completed_at, Job.finished_at)
        .join(score, Job.parent_job_id == score.id)
        .join(Revision, score.revision_id == Revision.id)
        .where(Job.id.in_(latest))
    )
    return tuple(
        sorted(
            (finished - completed).total_seconds()
            for completed, finished in times
            if finished is not None and completed is not None
        )
    )
