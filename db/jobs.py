"""The queue of record: claiming work, holding its lease, ending it.

A claim is a compare-and-set that gives one worker a lease; ``attempts`` is its fence. Every later write of
that worker names owner and fence, so a worker that lost its lease (stopped, swapped out, cut off) changes
nothing. Messages of any broker are doorbells only: nothing here depends on one.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.canonical import canonical_json
from db.errors import LeaseLostError, TransitionRefusedError, UnknownRecordError
from db.lifecycle import (
    JOB_TRANSITIONS,
    DeliveryState,
    JobEvent,
    JobKind,
    JobState,
    next_state,
    sources_of,
)
from db.session import Transaction, changed_rows
from db.tables import REJECTION_NOTE, Delivery, Job, ResultObject, Revision, Study


@dataclass(frozen=True, slots=True)
class Claim:
    """A job in hand.

    Attributes
    ----------
    job_id : str
        The job.
    kind : JobKind
        What it does.
    owner : str
        The worker that claimed it.
    fence : int
        Number of this attempt, counted from 1; writes of earlier attempts no longer match.
    task : str
        The clinical task, or the recipe of a training run.
    revision_id : int or None
        The study revision; None for training.
    destination : str or None
        ``AE@HOST:PORT`` of a deliver job.
    parent_job_id : str or None
        The score job whose results a deliver job sends.
    first_started_at : datetime.datetime
        Start of the first attempt, aware UTC: the time that result objects carry.
    order : str
        Canonical JSON options of a training run.
    """

    job_id: str
    kind: JobKind
    owner: str
    fence: int
    task: str
    revision_id: int | None
    destination: str | None
    parent_job_id: str | None
    first_started_at: datetime
    order: str


def claim(
    tx: Transaction, kind: JobKind, *, lease_s: float, max_attempts: int | None, job_id: str | None = None
) -> Claim | None:
    """Claim the job that has been due longest, or the named one; None when nothing is due.

    Parameters
    ----------
    tx : Transaction
        Its actor becomes the lease's owner.
    kind : JobKind
        The queue to claim from.
    lease_s : float
        Seconds until the job may be claimed by another worker unless the lease is renewed.
    max_attempts : int or None
        A job that was claimed this often is never claimed again; :func:`give_up_dead` ends it.
    job_id : str, optional
        Claim this job or none.
    """
    candidate = (
        select(Job.id)
        .where(_due(kind, tx.now, max_attempts))
        .order_by(Job.next_try_at, Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if job_id is not None:
        candidate = candidate.where(Job.id == job_id)
    found = tx.session.scalars(candidate).one_or_none()
    if found is None:
        return None
    job = tx.session.get_one(Job, found)
    tx.session.refresh(job)
    job.state = next_state(JOB_TRANSITIONS, JobState(job.state), JobEvent.CLAIM)
    job.attempts += 1
    job.lease_owner = tx.actor
    job.lease_until = tx.now + timedelta(seconds=lease_s)
    # Wall time, unlike all times that are compared: it becomes the date in the report.
    job.first_started_at = job.first_started_at or datetime.now(UTC)
    job.error_code = job.error = None
    audit_job(tx, job, "job.claimed", {"attempt": job.attempts})
    return Claim(
        job_id=job.id,
        kind=kind,
        owner=tx.actor,
        fence=job.attempts,
        task=job.task,
        revision_id=job.revision_id,
        destination=job.destination,
        parent_job_id=job.parent_job_id,
        first_started_at=job.first_started_at,
        order=job.order,
    )


def has_due(session: Session, kind: JobKind, now: datetime, *, max_attempts: int | None) -> bool:
    """Whether any job of a kind could be claimed now; a cheap look that locks nothing."""
    return session.scalars(select(Job.id).where(_due(kind, now, max_attempts)).limit(1)).first() is not None


def renew(tx: Transaction, claim: Claim, *, lease_s: float) -> None:
    """Prolong a lease that is still ours.

    Raises
    ------
    LeaseLostError
        If another worker holds the job now.
    """
    _set(tx, claim, lease_until=tx.now + timedelta(seconds=lease_s))


def bind_bundle(tx: Transaction, claim: Claim, digest: str) -> None:
    """Note which bundle this attempt scores with."""
    _set(tx, claim, bundle_digest=digest)


def finish(tx: Transaction, claim: Claim, *, detail: Mapping[str, Any] | None = None) -> None:
    """End a deliver or train job as done."""
    job = end_attempt(tx, claim, JobEvent.FINISH, finished_at=tx.now)
    audit_job(tx, job, "job.done", {"attempt": claim.fence, **(detail or {})})


def try_later(tx: Transaction, claim: Claim, *, delay_s: float, code: str, reason: str) -> None:
    """Put a job back for a later attempt, with the reason."""
    job = end_attempt(
        tx,
        claim,
        JobEvent.TRY_LATER,
        next_try_at=tx.now + timedelta(seconds=delay_s),
        error_code=code,
        error=reason,
        published_at=None,
    )
    audit_job(
        tx,
        job,
        "job.retried_later",
        {"attempt": claim.fence, "code": code, "reason": reason, "delay_s": round(delay_s, 3)},
    )


def release(tx: Transaction, claim: Claim) -> None:
    """Give a job back untouched, as a worker does that is told to stop; the attempt does not count."""
    job = end_attempt(
        tx, claim, JobEvent.RELEASE, next_try_at=tx.now, attempts=claim.fence - 1, published_at=None
    )
    audit_job(tx, job, "job.released", {"attempt": claim.fence})


def give_up(tx: Transaction, claim: Claim, *, code: str, reason: str) -> None:
    """End a job as failed, with the reason."""
    job = end_attempt(tx, claim, JobEvent.GIVE_UP, finished_at=tx.now, error_code=code, error=reason)
    audit_job(tx, job, "job.failed", {"attempt": claim.fence, "code": code, "reason": reason})


def give_up_dead(tx: Transaction, *, max_attempts: Mapping[JobKind, int | None]) -> int:
    """Fail the jobs whose worker died on their last attempt; return how many.

    A job that kills its process never reports a failure: only its ended lease tells.
    """
    ended = 0
    for kind, limit in max_attempts.items():
        if limit is None:
            continue
        dead = select(Job).where(*_dead(kind, tx.now, limit)).with_for_update(skip_locked=True)
        for job in tx.session.scalars(dead):
            job.state = next_state(JOB_TRANSITIONS, JobState(job.state), JobEvent.GIVE_UP)
            job.lease_owner = job.lease_until = None
            job.finished_at = tx.now
            job.error_code = "WORKER_DIED"
            job.error = f"the worker died in each of {job.attempts} attempts; look at the worker's log"
            audit_job(tx, job, "job.failed", {"attempt": job.attempts, "code": job.error_code})
            ended += 1
    return ended


def has_dead(session: Session, now: datetime, *, max_attempts: Mapping[JobKind, int | None]) -> bool:
    """Whether any job's worker died on its last attempt; a cheap look that locks nothing."""
    limited = {kind: limit for kind, limit in max_attempts.items() if limit is not None}
    return any(
        session.scalars(select(Job.id).where(*_dead(kind, now, limit)).limit(1)).first() is not None
        for kind, limit in limited.items()
    )


def retry(tx: Transaction, job_id: str) -> None:
    """Queue a failed job again, or end the backoff of a waiting one, as a person asks; attempts start anew.

    Raises
    ------
    UnknownRecordError
        If there is no such job.
    TransitionRefusedError
        If it is running or done.
    """
    job = tx.session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one_or_none()
    if job is None:
        raise UnknownRecordError(f"no job {job_id!r}; 'dicom-node job list' shows all")
    job.state = next_state(JOB_TRANSITIONS, JobState(job.state), JobEvent.RETRY)
    job.attempts = 0
    job.next_try_at = tx.now
    job.finished_at = job.published_at = None
    job.error_code = job.error = None
    tx.session.execute(
        update(Delivery)
        .where(Delivery.job_id == job_id, Delivery.state == DeliveryState.REFUSED)
        .values(state=DeliveryState.PENDING, updated_at=tx.now)
    )
    audit_job(tx, job, "job.retried", {})


def queue_training(tx: Transaction, *, recipe: str, order: Mapping[str, Any]) -> str:
    """Queue a training run; return the job's id."""
    job = Job(
        id=uuid.uuid4().hex,
        kind=JobKind.TRAIN,
        task=recipe,
        order=canonical_json(order),
        state=JobState.QUEUED,
        attempts=0,
        next_try_at=tx.now,
        created_at=tx.now,
    )
    tx.session.add(job)
    tx.session.flush()
    tx.audit("job.queued", job_id=job.id, detail={"kind": JobKind.TRAIN.value, "recipe": recipe})
    return job.id


def take_unpublished(
    tx: Transaction, *, again_after_s: float, max_attempts: Mapping[JobKind, int | None], limit: int = 500
) -> list[tuple[JobKind, str]]:
    """Return due jobs whose doorbell was not rung lately, and note that it is rung now."""
    found: list[tuple[JobKind, str]] = []
    stale = tx.now - timedelta(seconds=again_after_s)
    for kind, attempts in max_attempts.items():
        silent = or_(Job.published_at.is_(None), Job.published_at <= stale)
        ids = tx.session.scalars(
            select(Job.id)
            .where(_due(kind, tx.now, attempts), silent)
            .order_by(Job.next_try_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        if ids:
            tx.session.execute(update(Job).where(Job.id.in_(ids)).values(published_at=tx.now))
        found += [(kind, job_id) for job_id in ids]
    return found


def _due(kind: JobKind, now: datetime, max_attempts: int | None) -> Any:
    """SQL: the job may be claimed now.

    A score job waits for those of earlier revisions of its study, whose report it will name as predecessor. A
    deliver job with a rejection note waits for those of earlier revisions, which send what it withdraws.
    """
    waiting, ended = (
        and_(Job.state == JobState.QUEUED, Job.next_try_at <= now),
        and_(Job.state == JobState.RUNNING, Job.lease_until <= now),
    )
    condition = and_(Job.kind == kind, or_(waiting, ended))
    if max_attempts is not None:
        condition = and_(condition, Job.attempts < max_attempts)
    if kind is not JobKind.TRAIN:
        earlier_job, earlier, own = aliased(Job), aliased(Revision), aliased(Revision)
        blocked = exists().where(
            own.id == Job.revision_id,
            earlier.study_id == own.study_id,
            earlier.number < own.number,
            earlier_job.revision_id == earlier.id,
            earlier_job.task == Job.task,
            earlier_job.kind == kind,
            earlier_job.state.in_((JobState.QUEUED, JobState.RUNNING)),
        )
        if kind is JobKind.DELIVER:
            blocked = blocked.where(earlier_job.destination == Job.destination)
            condition = and_(condition, or_(~_has_rejection_note(), ~blocked))
        else:
            condition = and_(condition, ~blocked)
    return condition


def _has_rejection_note() -> Any:
    """SQL: the deliver job sends a rejection note."""
    return exists().where(
        Delivery.job_id == Job.id,
        Delivery.result_id == ResultObject.id,
        ResultObject.kind == REJECTION_NOTE,
    )


def _dead(kind: JobKind, now: datetime, limit: int) -> tuple[Any, ...]:
    """SQL: the job's lease ended on its last attempt."""
    return (Job.kind == kind, Job.state == JobState.RUNNING, Job.lease_until <= now, Job.attempts >= limit)


def _set(tx: Transaction, claim: Claim, **values: Any) -> None:
    """Change a job that is still ours."""
    changed = tx.session.execute(
        update(Job)
        .where(
            Job.id == claim.job_id,
            Job.state == JobState.RUNNING,
            Job.lease_owner == claim.owner,
            Job.attempts == claim.fence,
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    if changed_rows(changed) != 1:
        raise LeaseLostError(f"the lease of job {claim.job_id} ended; another worker has it")


def end_attempt(tx: Transaction, claim: Claim, event: JobEvent, **values: Any) -> Job:
    """End an attempt by the compare-and-set that the fence guards.

    Raises
    ------
    LeaseLostError
        If the job is no longer ours.
    """
    if JobState.RUNNING not in sources_of(JOB_TRANSITIONS, event):
        raise TransitionRefusedError(f"a running job does not allow {event.value!r}")
    state = JOB_TRANSITIONS[JobState.RUNNING, event]
    _set(tx, claim, state=state, lease_owner=None, lease_until=None, **values)
    job = tx.session.get_one(Job, claim.job_id)
    tx.session.refresh(job)
    return job


def audit_job(
    tx: Transaction, job: Job, action: str, detail: Mapping[str, Any], *, bundle: str | None = None
) -> None:
    """Record an event of a job with its study and bundle."""
    study = None
    if job.revision_id is not None:
        study = tx.session.scalars(
            select(Study.study_instance_uid)
            .join(Revision, Revision.study_id == Study.id)
            .where(Revision.id == job.revision_id)
        ).one()
    tx.audit(
        action,
        study_instance_uid=study,
        job_id=job.id,
        bundle=bundle or job.bundle_digest,
        detail={"kind": job.kind, **detail},
    )
