"""Storage commitment of results, as rows: what destinations were asked and reported (PS3.4 annex J).

A deliver job whose destination commits is the parent of one job of the kind ``commit``, which asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.errors import UnknownRecordError
from db.jobs import Claim, audit_job, held
from db.lifecycle import DELIVERY_TRANSITIONS, DeliveryEvent, DeliveryState, JobKind, JobState, next_state
from db.queueing import is_replaced, queue_after, reopen
from db.session import Transaction
from db.tables import CommitmentRequest, Delivery, Job, ResultObject

FIRST_RESEND_PAUSE_S = 60.0
LONGEST_RESEND_PAUSE_S = 3600.0
_OPEN = (DeliveryState.PENDING, DeliveryState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the objects of one delivery stand.

    Attributes
    ----------
    delivered : tuple of (str, str)
        SOP class and instance UID of those that are delivered and not committed yet.
    has_open : bool
        Whether others are still on their way.
    unreported : int
        Requests that the destination never reported on.
    reported_missing : int
        Requests whose report said that objects are missing.
    is_replaced : bool
        Whether results of a later revision replace them: they are sent no more, so not asked for either.
    """

    delivered: tuple[tuple[str, str], ...]
    has_open: bool
    unreported: int
    reported_missing: int
    is_replaced: bool

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be committed, or nobody wants it any more."""
        return self.is_replaced or not (self.delivered or self.has_open)


@dataclass(frozen=True, slots=True)
class Report:
    """What a destination says of a request (N-EVENT-REPORT, PS3.4 J.3.3).

    Attributes
    ----------
    transaction_uid : str
        The request.
    committed : frozenset of (str, str)
        SOP class and instance UID.
    failed : mapping of str to int
        SOP Instance UID to Failure Reason (0008,1197).
    reporter : str
        AE title of who says so, for the audit trail.
    """

    transaction_uid: str
    committed: frozenset[tuple[str, str]]
    failed: Mapping[str, int]
    reporter: str


def queue_request(tx: Transaction, delivery: Claim) -> None:
    """Let the objects of a delivery that ended be asked for, at once.

    Nothing happens where nothing is delivered, or where asking was given up.
    """
    states = tx.session.scalars(select(Delivery.state).where(Delivery.job_id == delivery.job_id)).all()
    if DeliveryState.DELIVERED not in states:
        return
    parent = tx.session.get_one(Job, delivery.job_id)
    job = tx.session.scalars(_asking(delivery.job_id)).one_or_none()
    if job is None:
        job = queue_after(tx, parent, JobKind.COMMIT, parent.destination)
        audit_job(tx, job, "job.queued", {"destination": parent.destination})
    elif job.state == JobState.QUEUED:
        _make_due(tx, job)
    elif job.state == JobState.DONE:
        reopen(tx, job, after_s=0)


def standing(session: Session, claim: Claim) -> Standing:
    """Return where the objects stand that a commit job asks for."""
    rows = session.execute(
        select(Delivery.state, ResultObject.sop_class_uid, ResultObject.sop_instance_uid)
        .join(ResultObject, Delivery.result_id == ResultObject.id)
        .where(Delivery.job_id == claim.parent_job_id)
        .order_by(ResultObject.id)
    ).all()
    parent = session.get_one(Job, claim.parent_job_id)
    return Standing(
        delivered=tuple((c, i) for state, c, i in rows if state == DeliveryState.DELIVERED),
        has_open=any(state in _OPEN for state, _, _ in rows),
        unreported=_requests(session, claim.job_id, CommitmentRequest.reported_at.is_(None)),
        reported_missing=_requests(session, claim.job_id, CommitmentRequest.missing > 0),
        is_replaced=is_replaced(session, parent),
    )


def note_request(tx: Transaction, claim: Claim, transaction_uid: str, *, objects: int) -> None:
    """Note a request before it is sent, so that its report is known whenever it comes.

    Raises
    ------
    LeaseLostError
        If another worker has the job: it asks itself.
    """
    job = held(tx, claim)
    tx.session.add(
        CommitmentRequest(job_id=job.id, transaction_uid=transaction_uid, objects=objects, asked_at=tx.now)
    )
    detail = {
        "destination": job.destination,
        "transaction_uid": transaction_uid,
        "objects": objects,
        "attempt": claim.fence,
    }
    audit_job(tx, job, "commitment.requested", detail)


def is_reported(session: Session, transaction_uid: str) -> bool:
    """Whether the destination reported on a request of this node."""
    reported = (
        CommitmentRequest.transaction_uid == transaction_uid,
        CommitmentRequest.reported_at.is_not(None),
    )
    return session.scalars(select(CommitmentRequest.id).where(*reported)).one_or_none() is not None


def record_report(tx: Transaction, report: Report) -> None:
    """Record what a destination reports: objects become committed, or are sent again.

    A report counts whichever of the node's requests it names, late and repeated ones, too; what it says of
    objects that were not asked for, or are settled, changes nothing.

    Raises
    ------
    UnknownRecordError
        If no such request was made.
    """
    session = tx.session
    named = session.execute(
        select(CommitmentRequest.id, Job.id, Job.parent_job_id)
        .join(Job, CommitmentRequest.job_id == Job.id)
        .where(CommitmentRequest.transaction_uid == report.transaction_uid)
    ).one_or_none()
    if named is None:
        raise UnknownRecordError("the report names no request of this node")
    request_id, job_id, parent_id = named
    # In the order in which a deliver worker that ends its job takes them, or both would wait for each other.
    parent = session.get_one(Job, parent_id, with_for_update=True)
    job = session.get_one(Job, job_id, with_for_update=True)
    request = session.get_one(CommitmentRequest, request_id, with_for_update=True)
    committed, missing, to_resend = _apply(tx, parent, report)
    if request.reported_at is None:
        request.reported_at, request.committed, request.missing = tx.now, committed, missing
    elif missing:
        request.missing = max(missing, request.missing or 0)
    if not committed and not missing:
        return
    audit_job(
        tx,
        job,
        "commitment.reported",
        {
            "destination": job.destination,
            "transaction_uid": report.transaction_uid,
            "reporter": report.reporter,
            "committed": committed,
            "missing": missing,
        },
    )
    session.flush()
    if to_resend and parent.state in (JobState.DONE, JobState.FAILED):
        times = _requests(session, job.id, CommitmentRequest.missing > 0)
        reopen(tx, parent, after_s=resend_pause_s(times))
    elif job.state == JobState.QUEUED:
        _make_due(tx, job)


def resend_pause_s(times: int) -> float:
    """Return the seconds before objects are sent again that were reported missing so many times, from 1."""
    return 0.0 if times <= 1 else min(FIRST_RESEND_PAUSE_S * 2 ** min(times - 2, 10), LONGEST_RESEND_PAUSE_S)


def waiting_since(session: Session, moment: datetime) -> int:
    """Return how many deliveries wait since before a moment for their destination to commit."""
    waiting = select(func.count()).where(
        Job.kind == JobKind.COMMIT,
        Job.parent_job_id.is_not(None),
        Job.state.in_((JobState.QUEUED, JobState.RUNNING)),
        Job.created_at < moment,
    )
    return session.scalars(waiting).one()


def _apply(tx: Transaction, parent: Job, report: Report) -> tuple[int, int, int]:
    """Change what a report speaks of; return how many are committed, missing, and to be sent again."""
    committed = missing = to_resend = 0
    rows = tx.session.execute(
        select(Delivery, ResultObject)
        .join(ResultObject, Delivery.result_id == ResultObject.id)
        .where(Delivery.job_id == parent.id, Delivery.state == DeliveryState.DELIVERED)
        .order_by(ResultObject.id)
        .with_for_update(of=Delivery)
    ).all()
    parent_is_replaced = is_replaced(tx.session, parent)
    for delivery, result in rows:
        uid = result.sop_instance_uid
        if uid in report.failed:
            missing += 1
            delivery.detail = f"reported missing by storage commitment: {report.failed[uid]:04X}"
            event = DeliveryEvent.MISS
        elif (result.sop_class_uid, uid) in report.committed:
            committed += 1
            event = DeliveryEvent.COMMIT
        else:
            continue
        if event is DeliveryEvent.MISS and not parent_is_replaced:
            to_resend += 1
        if event is DeliveryEvent.COMMIT or not parent_is_replaced:
            delivery.state = next_state(DELIVERY_TRANSITIONS, DeliveryState(delivery.state), event)
        delivery.updated_at = tx.now
        action = "result.committed" if event is DeliveryEvent.COMMIT else "result.missing"
        reason = report.failed.get(uid)
        detail = {
            "sop_instance_uid": uid,
            "destination": delivery.destination,
            "state": delivery.state,
            "reason": None if reason is None else f"{reason:04X}",
        }
        audit_job(tx, parent, action, detail)
    return committed, missing, to_resend


def _asking(delivery_job_id: str) -> Any:
    return (
        select(Job).where(Job.kind == JobKind.COMMIT, Job.parent_job_id == delivery_job_id).with_for_update()
    )


def _make_due(tx: Transaction, job: Job) -> None:
    job.next_try_at, job.published_at = tx.now, None


def _requests(session: Session, job_id: str, condition: Any) -> int:
    """Return how many requests of a job are of a kind."""
    counted = select(func.count()).where(CommitmentRequest.job_id == job_id, condition)
    return session.scalars(counted).one()
