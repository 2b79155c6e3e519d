"""How jobs come into the queue: after another job, for a training run, and again when somebody asks."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, and_, delete, select
from sqlalchemy.orm import Session, aliased

from db.canonical import canonical_json
from db.errors import TransitionRefusedError, UnknownRecordError
from db.jobs import audit_job
from db.lifecycle import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobKind,
    JobState,
    next_state,
)
from db.session import Transaction
from db.tables import Delivery, Job, Refusal, Revision


def queue(tx: Transaction, kind: JobKind, *, task: str, job_id: str | None = None, **columns: Any) -> Job:
    """Queue a job, due at once; without an event, which is the caller's to tell.

    Parameters
    ----------
    kind : JobKind
        What it does.
    task : str
        The clinical task, the recipe of a training run, or the service that a peer asked for.
    job_id : str, optional
        Its name; by default a random one.
    **columns
        What else its row holds.
    """
    job = Job(
        id=job_id or uuid.uuid4().hex,
        kind=kind,
        task=task,
        state=JobState.QUEUED,
        attempts=0,
        next_try_at=tx.now,
        created_at=tx.now,
        **columns,
    )
    tx.session.add(job)
    tx.session.flush()
    return job


def queue_after(tx: Transaction, parent: Job, kind: JobKind, destination: str | None) -> Job:
    """Queue a job that follows from another one: of the same study, task and bundle."""
    return queue(
        tx,
        kind,
        task=parent.task,
        revision_id=parent.revision_id,
        parent_job_id=parent.id,
        destination=destination,
        bundle_digest=parent.bundle_digest,
    )


def queue_training(tx: Transaction, *, recipe: str, order: Mapping[str, Any]) -> str:
    """Queue a training run; return the job's id."""
    job = queue(tx, JobKind.TRAIN, task=recipe, order=canonical_json(order))
    tx.audit("job.queued", job_id=job.id, detail={"kind": JobKind.TRAIN.value, "recipe": recipe})
    return job.id


def retry(tx: Transaction, job_id: str) -> None:
    """Queue a failed job again, or end the backoff of a waiting one, as a person asks.

    Attempts start anew, and so does the count of refusals that are doubted: who asks has mended something.

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
    of_job = select(Delivery.id).where(Delivery.job_id == job_id)
    tx.session.execute(delete(Refusal).where(Refusal.delivery_id.in_(of_job)))
    audit_job(tx, job, "job.retried", {"objects": [d.result.sop_instance_uid for d in refused]})


def given_up(session: Session, *, kind: JobKind | None = None, destination: str | None = None) -> list[str]:
    """Return the failed jobs that can be tried again, oldest first.

    Not those that would send results which a later revision has replaced.

    Parameters
    ----------
    kind : JobKind or None
        Only of this kind.
    destination : str or None
        Only for this destination, ``AE@HOST:PORT``.
    """
    conditions = [Job.kind.in_(JobKind if kind is None else [kind]), Job.state == JobState.FAILED]
    if destination is not None:
        conditions.append(Job.destination == destination)
    is_superseded = and_(Job.kind == JobKind.DELIVER, _replacing(Job).exists())
    return list(session.scalars(select(Job.id).where(*conditions, ~is_superseded).order_by(Job.created_at)))


def is_replaced(session: Session, job: Job) -> bool:
    """Whether a later revision of the job's study was scored for the same task."""
    return session.scalars(_replacing(job).limit(1)).first() is not None


def _replacing(job: Job | type[Job]) -> Select[str]:
    """Select the score jobs whose results replace those of a job, or of each job of a statement."""
    own, later, scored = aliased(Revision), aliased(Revision), aliased(Job)
    return select(scored.id).where(
        own.id == job.revision_id,
        later.study_id == own.study_id,
        later.number > own.number,
        scored.revision_id == later.id,
        scored.task == job.task,
        scored.kind == JobKind.SCORE,
        scored.state == JobState.DONE,
    )


def failed_with(session: Session, codes: Collection[str]) -> list[str]:
    """Return the failed score jobs with one of these error codes, but those of replaced revisions."""
    failed = select(Job.id).where(
        Job.kind == JobKind.SCORE,
        Job.state == JobState.FAILED,
        Job.error_code.in_(codes),
        ~_replacing(Job).exists(),
    )
    return list(session.scalars(failed.order_by(Job.created_at)))


def reopen(tx: Transaction, job: Job, *, after_s: float) -> None:
    """Queue a job again that was done or given up, because there is work for it."""
    job.state = next_state(JOB_TRANSITIONS, JobState(job.state), JobEvent.REOPEN)
    job.next_try_at = tx.now + timedelta(seconds=after_s)
    job.finished_at = job.published_at = None
    job.error_code = job.error = None
    audit_job(tx, job, "job.reopened", {"delay_s": after_s})
