"""The queue of record: claiming work, holding its lease, ending it.

A claim is a compare-and-set that gives one worker a lease; ``attempts`` is its fence. Every later write of
that worker names owner and fence, so a worker that lost its lease (stopped, swapped out, cut off) changes
nothing. Messages of any broker are doorbells only: nothing here depends on one.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.canonical import canonical_json
from db.errors import LeaseLostError, TransitionRefusedError, UnknownRecordError
from db.lifecycle import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobKind,
    JobState,
    next_state,
    sources_of,
)
from db.session import Transaction, changed_rows
from db.tables import REJECTION_NOTE, Delivery, Job, ResultObject, Revision, Study

MOST_DOORBELLS = 32
LONGEST_DOORBELL_PAUSE_S = 60.0


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
        A job whose worker died on its attempt of this number is not claimed again; :func:`give_up_dead`
        ends it.
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
    """End a deliver, train or commit job as done."""
    job = end_attempt(tx, claim, JobEvent.FINISH, finished_at=tx.now)
    if job.kind == JobKind.DELIVER and job.destination is not None:
        _set_due(tx, job.destination, tx.now)
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


def pause_destination(tx: Transaction, destination: str, *, delay_s: float) -> None:
    """Let all waiting deliveries to a destination that is away wait together.

    One job asks at the end of each pause; thousands that each run into a time-out would keep the workers from
    the destinations that answer. The first that succeeds makes the others due again.
    """
    _set_due(tx, destination, tx.now + timedelta(seconds=delay_s))


def _set_due(tx: Transaction, destination: str, moment: datetime) -> None:
    tx.session.execute(
        update(Job)
        .where(Job.kind == JobKind.DELIVER, Job.state == JobState.QUEUED, Job.destination == destination)
        .values(next_try_at=moment, published_at=None)
        .execution_options(synchronize_session=False)
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
    held = select(Job).where(Job.state == JobState.RUNNING, Job.lease_owner == owner).with_for_update()
    ended = tx.session.scalars(held).all()
    for job in ended:
        job.lease_until = tx.now
        job.published_at = None
        audit_job(tx, job, "job.lease_ended", {"attempt": job.attempts, "worker": owner})
    return len(ended)


def retry(tx: Transaction, job_id: str) -> None:
    """Queue a failed job again, or end the backoff of a waiting one, as a person asks; attempts start anew.

    Raises
    ------
    UnknownRecordError
        If there is no such job.
    TransitionRefusedError
        If it is running or done, or would send results that a later revision has replaced.
    """
    job = tx.session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one_or_none()
    if job is None:
        raise UnknownRecordError(f"no job {job_id!r}; 'dicom-node job list' shows all")
    if job.state in (JobState.RUNNING, JobState.DONE):
        what = "it is running at a worker" if job.state == JobState.RUNNING else "it is done"
        raise TransitionRefusedError(f"nothing is to be tried again: {what}; look with 'dicom-node job show'")
    if job.kind == JobKind.DELIVER and is_replaced(tx.session, job):
        raise TransitionRefusedError(
            "a later revision of this study was scored; its results replace these, which are sent no more"
        )
    job.state = next_state(JOB_TRANSITIONS, JobState(job.state), JobEvent.RETRY)
    job.attempts = 0
    job.next_try_at = tx.now
    job.finished_at = job.published_at = None
    job.error_code = job.error = None
    refused = tx.session.scalars(
        select(Delivery).where(Delivery.job_id == job_id, Delivery.state == DeliveryState.REFUSED)
    ).all()
    for delivery in refused:
        delivery.state = next_state(DELIVERY_TRANSITIONS, DeliveryState(delivery.state), DeliveryEvent.RETRY)
        delivery.updated_at = tx.now
    audit_job(tx, job, "job.retried", {"objects": [d.result.sop_instance_uid for d in refused]})


def is_replaced(session: Session, job: Job) -> bool:
    """Whether a later revision of the job's study was scored for the same task."""
    own, later, scored = aliased(Revision), aliased(Revision), aliased(Job)
    found = select(scored.id).where(
        own.id == job.revision_id,
        later.study_id == own.study_id,
        later.number > own.number,
        scored.revision_id == later.id,
        scored.task == job.task,
        scored.kind == JobKind.SCORE,
        scored.state == JobState.DONE,
    )
    return session.scalars(found.limit(1)).first() is not None


def failed_with(session: Session, codes: Collection[str]) -> list[Job]:
    """Return the failed score jobs with one of these error codes, but those of replaced revisions."""
    failed = select(Job).where(
        Job.kind == JobKind.SCORE, Job.state == JobState.FAILED, Job.error_code.in_(codes)
    )
    return [job for job in session.scalars(failed.order_by(Job.created_at)) if not is_replaced(session, job)]


def queue_after(tx: Transaction, parent: Job, kind: JobKind, destination: str | None) -> Job:
    """Queue a job that follows from another one: of the same study, task and bundle, due at once."""
    job = Job(
        id=uuid.uuid4().hex,
        kind=kind,
        revision_id=parent.revision_id,
        task=parent.task,
        parent_job_id=parent.id,
        destination=destination,
        state=JobState.QUEUED,
        attempts=0,
        next_try_at=tx.now,
        created_at=tx.now,
        bundle_digest=parent.bundle_digest,
    )
    tx.session.add(job)
    tx.session.flush()
    return job


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
    tx: Transaction, *, again_after_s: float, max_attempts: Mapping[JobKind, int | None]
) -> list[tuple[JobKind, str]]:
    """Return the longest due jobs whose doorbell was not rung lately, and note that it is rung now.

    One doorbell makes a worker empty its queue, so a few of each kind are enough; and the longer a job waits
    (because no worker runs), the seldomer it is rung for, or a broker would fill up with doorbells.
    """
    found: list[tuple[JobKind, str]] = []
    for kind, attempts in max_attempts.items():
        due = tx.session.scalars(
            select(Job)
            .where(_due(kind, tx.now, attempts))
            .order_by(Job.next_try_at, Job.created_at, Job.id)
            .limit(MOST_DOORBELLS)
            .with_for_update(skip_locked=True)
        )
        for job in due:
            waited_s = (tx.now - job.next_try_at).total_seconds()
            pause_s = min(max(again_after_s, waited_s / 4), LONGEST_DOORBELL_PAUSE_S)
            if job.published_at is None or job.published_at <= tx.now - timedelta(seconds=pause_s):
                job.published_at = tx.now
                found.append((kind, job.id))
    return found


def _due(kind: JobKind, now: datetime, max_attempts: int | None) -> Any:
    """SQL: the job may be claimed now.

    A score job waits for those of earlier revisions of its study, whose report it will name as predecessor. A
    deliver job with a rejection note waits for those of earlier revisions, which send what it withdraws.
    """
    waiting = and_(Job.state == JobState.QUEUED, Job.next_try_at <= now)
    ended = and_(Job.state == JobState.RUNNING, Job.lease_until <= now)
    if max_attempts is not None:
        # Only a worker that died counts here: what waits for a disk or a database is tried without limit.
        ended = and_(ended, Job.attempts < max_attempts)
    # The states are named once more by themselves, so that the index leaves out every finished job.
    unfinished = Job.state.in_((JobState.QUEUED, JobState.RUNNING))
    condition = and_(Job.kind == kind, unfinished, or_(waiting, ended))
    if kind in (JobKind.SCORE, JobKind.DELIVER):
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
