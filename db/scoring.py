"""What a score job reads and what it leaves behind: its analysis, its result objects, its deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from db.canonical import canonical_json
from db.deliveries import is_spare
from db.jobs import Claim, audit_job, end_attempt
from db.lifecycle import CompletionReason, DeliveryState, JobEvent, JobKind, JobState
from db.queueing import queue_after
from db.session import Transaction
from db.tables import REJECTION_NOTE, Analysis, Delivery, Instance, Job, ResultObject, Revision


@dataclass(frozen=True, slots=True)
class NewResult:
    """A result object whose bytes are already durable."""

    kind: str
    ordinal: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    file_name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SupersededDelivery:
    """A result object of an earlier revision that a destination has, or will have once it answers."""

    delivery_id: int
    destination: str
    result: ResultObject


@dataclass(frozen=True, slots=True)
class ScoreInput:
    """What a score job reads.

    Attributes
    ----------
    study_instance_uid : str
        The study.
    revision : int
        Number of the revision to score.
    reason : CompletionReason
        Why the revision is complete; after a recall all earlier results are withdrawn.
    instances : tuple of Instance
        Everything that the revision holds.
    predecessors : tuple of ResultObject
        The results that this revision's will replace.
    superseded : tuple of SupersededDelivery
        Where results of any earlier revision are that no rejection note has withdrawn.
    """

    study_instance_uid: str
    revision: int
    reason: CompletionReason
    instances: tuple[Instance, ...]
    predecessors: tuple[ResultObject, ...]
    superseded: tuple[SupersededDelivery, ...]


@dataclass(frozen=True, slots=True)
class OrderedObject:
    """One result object that a destination wants.

    Attributes
    ----------
    sop_instance_uid : str
        The object.
    fallback_for : str or None
        SOP Instance UID of the object that is sent rather than this one where the destination accepts its
        class.
    """

    sop_instance_uid: str
    fallback_for: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryOrder:
    """What one destination gets of a score job.

    Attributes
    ----------
    destination : str
        ``AE@HOST:PORT``.
    objects : tuple of OrderedObject
        At least one, in the order of sending.
    note : str or None
        SOP Instance UID of the rejection note among them.
    withdrawn : tuple of int
        The earlier deliveries that the note withdraws.
    """

    destination: str
    objects: tuple[OrderedObject, ...]
    note: str | None = None
    withdrawn: tuple[int, ...] = ()


def score_input(session: Session, claim: Claim) -> ScoreInput:
    """Load the input of a claimed score job.

    The instances come in the order of their SOP Instance UIDs, so that every attempt sees the same. The
    predecessors are the result objects of the latest earlier revision of the study that was scored.
    """
    revision = session.get_one(Revision, claim.revision_id)
    instances = instances_of(session, revision)
    earlier = session.scalars(
        select(Job.id)
        .join(Revision, Job.revision_id == Revision.id)
        .where(
            Revision.study_id == revision.study_id,
            Revision.number < revision.number,
            Job.kind == JobKind.SCORE,
            Job.task == claim.task,
            Job.state == JobState.DONE,
        )
        .order_by(Revision.number.desc())
        .limit(1)
    ).one_or_none()
    predecessors = session.scalars(
        select(ResultObject)
        .where(ResultObject.job_id == earlier, ResultObject.kind != REJECTION_NOTE, ~_only_spare())
        .order_by(ResultObject.id)
    ).all()
    return ScoreInput(
        revision.study.study_instance_uid,
        revision.number,
        CompletionReason(str(revision.complete_reason)),
        instances,
        tuple(predecessors),
        _superseded(session, claim, revision),
    )


def instances_of(session: Session, revision: Revision) -> tuple[Instance, ...]:
    """Return everything that a revision holds, in the order of the SOP Instance UIDs."""
    held = (
        select(Instance)
        .where(
            Instance.study_id == revision.study_id,
            Instance.conflict == 0,
            Instance.revision_number <= revision.number,
        )
        .order_by(Instance.sop_instance_uid)
    )
    return tuple(session.scalars(held))


def spool_names_of(session: Session, job_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the files that each of some score jobs reads, in the order of the SOP Instance UIDs."""
    read = (
        select(Job.id, Instance.spool_name)
        .join(Revision, Job.revision_id == Revision.id)
        .join(Instance, Instance.study_id == Revision.study_id)
        .where(Job.id.in_(job_ids), Instance.conflict == 0, Instance.revision_number <= Revision.number)
        .order_by(Instance.sop_instance_uid)
    )
    found: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
    for job_id, name in session.execute(read):
        found[job_id].append(name)
    return found


def _only_spare() -> Any:
    """SQL: the object was made for destinations that take its content in another class, and went to none."""
    deliveries = select(Delivery.id).where(Delivery.result_id == ResultObject.id).correlate(ResultObject)
    return and_(deliveries.exists(), ~deliveries.where(~is_spare()).exists())


def _superseded(session: Session, claim: Claim, revision: Revision) -> tuple[SupersededDelivery, ...]:
    rows = session.execute(
        select(Delivery, ResultObject)
        .join(ResultObject, Delivery.result_id == ResultObject.id)
        .join(Job, ResultObject.job_id == Job.id)
        .join(Revision, Job.revision_id == Revision.id)
        .where(
            Revision.study_id == revision.study_id,
            Revision.number < revision.number,
            Job.task == claim.task,
            Job.kind == JobKind.SCORE,
            ResultObject.kind != REJECTION_NOTE,
            Delivery.withdrawn_by.is_(None),
            # Whatever is pending will be sent before this revision's results are.
            Delivery.state.in_(
                (
                    DeliveryState.DELIVERED,
                    DeliveryState.COMMITTED,
                    DeliveryState.UNKNOWN,
                    DeliveryState.PENDING,
                )
            ),
        )
        .order_by(ResultObject.id, Delivery.id)
    ).all()
    return tuple(SupersededDelivery(d.id, d.destination, result) for d, result in rows)


def finish_scoring(
    tx: Transaction,
    claim: Claim,
    *,
    bundle: str,
    outcome: str,
    study_probability: float | None,
    document: Mapping[str, Any],
    results: Sequence[NewResult],
    deliveries: Sequence[DeliveryOrder],
) -> None:
    """Commit what a score job found, its result objects, and the jobs that deliver them.

    Parameters
    ----------
    claim : Claim
        The attempt.
    bundle : str
        Digest of the bundle that answered.
    outcome : str
        Value of :class:`models.contract.Outcome`.
    study_probability : float or None
        0..1; None for a refused study.
    document : Mapping
        Everything that explains the score, JSON values.
    results : sequence of NewResult
        The objects whose files are written.
    deliveries : sequence of DeliveryOrder
        Who gets which of them.

    Raises
    ------
    LeaseLostError
        If the lease ended meanwhile; nothing is written then.
    """
    job = end_attempt(tx, claim, JobEvent.FINISH, finished_at=tx.now)
    session = tx.session
    session.add(
        Analysis(
            job_id=job.id,
            outcome=outcome,
            study_probability=study_probability,
            document=canonical_json(document),
        )
    )
    rows = [ResultObject(job_id=job.id, created_at=tx.now, **asdict(result)) for result in results]
    session.add_all(rows)
    session.flush()
    audit_job(
        tx,
        job,
        "job.scored",
        {
            "outcome": outcome,
            "study_probability": study_probability,
            "attempt": claim.fence,
            "results": [{"sop_instance_uid": r.sop_instance_uid, "sha256": r.sha256} for r in results],
            "analysis": document,
        },
        bundle=bundle,
    )
    by_uid = {row.sop_instance_uid: row for row in rows}
    for order in deliveries:
        _queue_delivery(tx, job, by_uid, order)


def _queue_delivery(
    tx: Transaction, score_job: Job, results: Mapping[str, ResultObject], order: DeliveryOrder
) -> None:
    job = queue_after(tx, score_job, JobKind.DELIVER, order.destination)
    tx.session.add_all(
        Delivery(
            job_id=job.id,
            result_id=results[item.sop_instance_uid].id,
            destination=order.destination,
            state=DeliveryState.PENDING,
            attempts=0,
            updated_at=tx.now,
            fallback_for=None if item.fallback_for is None else results[item.fallback_for].id,
        )
        for item in order.objects
    )
    objects = [item.sop_instance_uid for item in order.objects]
    audit_job(tx, job, "job.queued", {"destination": order.destination, "objects": objects})
    if order.note is not None:
        _withdraw(tx, job, results[order.note], order.withdrawn)


def _withdraw(tx: Transaction, job: Job, note: ResultObject, deliveries: Sequence[int]) -> None:
    """Mark what a rejection note withdraws once it is there, with an event for each."""
    withdrawn = select(Delivery).where(Delivery.id.in_(deliveries)).order_by(Delivery.id)
    for delivery in tx.session.scalars(withdrawn):
        delivery.withdrawn_by = note.id
        detail = {
            "sop_instance_uid": delivery.result.sop_instance_uid,
            "destination": delivery.destination,
            "withdrawn_by": note.sop_instance_uid,
        }
        audit_job(tx, job, "result.withdrawn", detail)


def known_file_names(session: Session, names: Sequence[str]) -> set[str]:
    """Return which of the result folder's file names belong to a committed result object."""
    known: set[str] = set()
    for start in range(0, len(names), 500):
        chunk = names[start : start + 500]
        known.update(session.scalars(select(ResultObject.file_name).where(ResultObject.file_name.in_(chunk))))
    return known
