"""The queue of record: claiming work, holding its lease, ending it.

A claim is a compare-and-set that gives one worker a lease; ``attempts`` is its fence. Every later write of
that worker names owner and fence, so a worker that lost its lease (stopped, swapped out, cut off) changes
nothing. Messages of any broker are doorbells only: nothing here depends on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import waiting
from db.errors import LeaseLostError, TransitionRefusedError
from db.lifecycle import JOB_TRANSITIONS, JobEvent, JobKind, JobState, next_state, sources_of
from db.row_changes import changed_rows
from db.session import Transaction
from db.tables import Job, Revision, Study


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
        ``AE@HOST:PORT`` of a deliver or commit job.
    parent_job_id : str or None
        The score job whose results a deliver job sends, or the deliver job whose objects a commit job asks
        for.
    first_started_at : datetime.datetime
        Start of the first attempt, aware UTC: the time that result objects carry.
    order : str
        Canonical JSON: options of a training run, or what a peer asked to commit.
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
    """Claim the job that is due first (see :func:`db.waiting.next_due`), or the named one; None when none is.

    Parameters
    ----------
    tx : Transaction
        Its actor becomes the lease's owner.
    kind : JobKind
        The queue to claim from.
    lease_s : float
        Seconds until the job may be claimed by another worker unless the lease is renewed.
    max_attempts : int or None
        A job whose worker died on its attempt of this number is not claimed again; :func:`give_up_dead`
        ends it.
    job_id : str, optional
        Claim this job or none.
    """
    job = waiting.next_due(tx.session, kind, tx.now, max_attempts=max_attempts, job_id=job_id)
    if job is None:
        return None
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
    """End a deliver, train or commit job as done; others that waited for its destination are due at once."""
    job = end_attempt(tx, claim, JobEvent.FINISH, finished_at=tx.now)
    if job.destination is not None:
        waiting.resume_destination(tx, claim.kind, job.destination)
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


def end_leases(tx: Transaction, owner: str) -> int:
    """End the leases of a worker that is known to be dead, so that others need not wait; return how many.

    The attempts count as those of any worker that died. Only who saw the process end may say so.
    """
    # The kinds are named so that the index leaves out every finished job.
    of_owner = Job.kind.in_(JobKind), Job.state == JobState.RUNNING, Job.lease_owner == owner
    held = select(Job).where(*of_owner).with_for_update()
    ended = tx.session.scalars(held).all()
    for job in ended:
        job.lease_until = tx.now
        job.published_at = None
        audit_job(tx, job, "job.lease_ended", {"attempt": job.attempts, "worker": owner})
    return len(ended)


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
        raise _lost(claim)


def held(tx: Transaction, claim: Claim) -> Job:
    """Return the job of a claim, locked until the commit.

    Raises
    ------
    LeaseLostError
        If it is no longer ours: its worker tells what becomes of it.
    """
    job = tx.session.get_one(Job, claim.job_id, with_for_update=True, populate_existing=True)
    if (job.state, job.lease_owner, job.attempts) != (JobState.RUNNING, claim.owner, claim.fence):
        raise _lost(claim)
    return job


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


def _lost(claim: Claim) -> LeaseLostError:
    return LeaseLostError(f"the lease of job {claim.job_id} ended; another worker has it")


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
