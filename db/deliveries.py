"""How far each result object is at each destination."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.orm import Session, aliased

from db.jobs import Claim, audit_job, held
from db.lifecycle import DELIVERY_TRANSITIONS, DeliveryEvent, DeliveryState, next_state
from db.session import Transaction
from db.tables import Delivery, Job, Refusal, ResultObject

SETTLED = (
    DeliveryState.DELIVERED,
    DeliveryState.COMMITTED,
    DeliveryState.REFUSED,
    DeliveryState.NOT_NEEDED,
)


@dataclass(frozen=True, slots=True)
class OutgoingObject:
    """One stored result object that a destination has not settled yet.

    Attributes
    ----------
    refusals : int
        Attempts at which the destination refused it, and was not believed yet.
    fallback_for : str or None
        SOP Instance UID of the object that is sent rather than this one where the destination accepts its
        class.
    is_needless : bool
        Whether the destination has that other object already.
    """

    delivery_id: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    file_name: str
    sha256: str
    attempts: int
    refusals: int = 0
    fallback_for: str | None = None
    is_needless: bool = False


def outgoing(session: Session, claim: Claim) -> tuple[OutgoingObject, ...]:
    """Return what a deliver job still has to send, in the order in which the objects were built."""
    other_result, other = aliased(ResultObject), aliased(Delivery)
    refusals = select(func.count()).where(Refusal.delivery_id == Delivery.id).scalar_subquery()
    rows = session.execute(
        select(Delivery, ResultObject, refusals, other_result.sop_instance_uid, other.state)
        .join(ResultObject, Delivery.result_id == ResultObject.id)
        .outerjoin(other_result, Delivery.fallback_for == other_result.id)
        .outerjoin(other, and_(other.result_id == other_result.id, other.job_id == Delivery.job_id))
        .where(Delivery.job_id == claim.job_id, Delivery.state.not_in(SETTLED))
        .order_by(ResultObject.id)
    ).all()
    return tuple(
        OutgoingObject(
            delivery.id,
            result.sop_instance_uid,
            result.sop_class_uid,
            result.transfer_syntax_uid,
            result.file_name,
            result.sha256,
            delivery.attempts,
            refused,
            fallback_for,
            other_state in (DeliveryState.DELIVERED, DeliveryState.COMMITTED),
        )
        for delivery, result, refused, fallback_for, other_state in rows
    )


def record(
    tx: Transaction,
    claim: Claim,
    delivery_id: int,
    event: DeliveryEvent,
    *,
    status: int | None,
    detail: str,
    is_doubted: bool = False,
) -> DeliveryState:
    """Record what became of one send; return the delivery's new state.

    An attempt that changes neither state nor status is counted without an event of its own: the job's events
    tell it, and a destination that is away for a weekend must not fill the trail. Refusals are few, and each
    has its event.

    Parameters
    ----------
    claim : Claim
        The deliver job's attempt.
    delivery_id : int
        One object at one destination.
    event : DeliveryEvent
        What became of it.
    status : int or None
        Status (0000,0900) of the response, where one came.
    detail : str
        For the operator; never patient data.
    is_doubted : bool
        Whether the status refuses the object, and is not believed yet.

    Raises
    ------
    LeaseLostError
        If another worker has the job: its own attempt will tell.
    """
    job = held(tx, claim)
    delivery = tx.session.get_one(Delivery, delivery_id)
    before = (delivery.state, delivery.last_status, delivery.attempts > 0)
    delivery.state = next_state(DELIVERY_TRANSITIONS, DeliveryState(delivery.state), event)
    delivery.attempts += 1
    delivery.last_status = status
    delivery.detail = detail or None
    delivery.updated_at = tx.now
    if is_doubted:
        tx.session.add(Refusal(delivery_id=delivery_id, attempt=delivery.attempts))
    elif delivery.attempts > 1 and delivery.state in SETTLED:
        # Whoever sends it again, after a person or storage commitment asked for that, counts anew.
        tx.session.execute(delete(Refusal).where(Refusal.delivery_id == delivery_id))
    if is_doubted or (delivery.state, delivery.last_status, True) != before:
        _tell(tx, job, delivery, event)
    return DeliveryState(delivery.state)


def _tell(tx: Transaction, job: Job, delivery: Delivery, event: DeliveryEvent) -> None:
    """Write the event of a send that changed something."""
    status = delivery.last_status
    detail = {
        "sop_instance_uid": delivery.result.sop_instance_uid,
        "destination": delivery.destination,
        "state": delivery.state,
        "status": None if status is None else f"{status:04X}",
        "attempt": delivery.attempts,
    }
    audit_job(tx, job, f"result.{event.value}", detail)


def is_spare() -> ColumnElement[bool]:
    """SQL: of two objects with the same content in two classes this one is not sent, as far as is known.

    Until an association told which class the destination accepts, that is the fallback.
    """
    preferred = aliased(Delivery)
    passed_over = select(preferred.id).where(
        preferred.result_id == Delivery.fallback_for,
        preferred.destination == Delivery.destination,
        preferred.state == DeliveryState.NOT_NEEDED,
    )
    is_pending_fallback = and_(Delivery.fallback_for.is_not(None), Delivery.state == DeliveryState.PENDING)
    return or_(
        Delivery.state == DeliveryState.NOT_NEEDED,
        and_(is_pending_fallback, ~passed_over.correlate(Delivery).exists()),
    )


def states(session: Session, claim: Claim) -> tuple[DeliveryState, ...]:
    """Return the state of every delivery of a job."""
    found = session.scalars(select(Delivery.state).where(Delivery.job_id == claim.job_id))
    return tuple(DeliveryState(state) for state in found)
