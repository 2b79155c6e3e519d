"""How far each result object is at each destination."""

from __future__ import annotations

import json

import pytest

from db.deliveries import OutgoingObject, outgoing, record, states
from db.errors import LeaseLostError, TransitionRefusedError
from db.jobs import Claim
from db.lifecycle import DeliveryEvent, DeliveryState, JobKind
from db.tables import Delivery, Refusal
from tests.steered_node import (
    ARCHIVE,
    LEASE_S,
    OTHER_WORKER,
    PACS,
    STUDY,
    WORKER,
    SteeredNode,
    four_views,
    result_object,
)

PENDING, UNKNOWN, DELIVERED, COMMITTED, REFUSED, NOT_NEEDED = DeliveryState


@pytest.fixture
def claimed(node: SteeredNode) -> Claim:
    """A deliver job in hand, with three results for the PACS."""
    node.receive(*four_views())
    node.finish_scoring(node.claimed(), results=[result_object(n) for n in range(3)])
    return node.claimed(JobKind.DELIVER)


def to_send(node: SteeredNode, claimed: Claim) -> tuple[OutgoingObject, ...]:
    with node.reading() as session:
        return outgoing(session, claimed)


def states_now(node: SteeredNode, claimed: Claim) -> tuple[DeliveryState, ...]:
    with node.reading() as session:
        return states(session, claimed)


def happens(
    node: SteeredNode, claimed: Claim, delivery_id: int, event: DeliveryEvent, status: int | None = None
) -> DeliveryState:
    with node.transaction(claimed.owner) as tx:
        return record(tx, claimed, delivery_id, event, status=status, detail="why")


def test_the_stored_objects_are_sent_in_the_order_in_which_they_were_built(node: SteeredNode) -> None:
    node.receive(*four_views())
    built = [result_object(n) for n in range(3)]
    node.finish_scoring(node.claimed(), results=built)
    claimed = node.claimed(JobKind.DELIVER)

    assert claimed.destination == PACS
    assert [
        (o.sop_instance_uid, o.sop_class_uid, o.transfer_syntax_uid, o.file_name, o.sha256, o.attempts)
        for o in to_send(node, claimed)
    ] == [
        (r.sop_instance_uid, r.sop_class_uid, r.transfer_syntax_uid, r.file_name, r.sha256, 0) for r in built
    ]


@pytest.mark.parametrize(
    ("event", "status", "state"),
    [
        (DeliveryEvent.ACCEPTED, 0x0000, DELIVERED),
        (DeliveryEvent.NO_ANSWER, None, UNKNOWN),
        (DeliveryEvent.TURNED_AWAY, 0xA700, PENDING),
        (DeliveryEvent.REFUSE, 0xA900, REFUSED),
    ],
)
def test_what_became_of_a_send_is_stored(
    node: SteeredNode, claimed: Claim, event: DeliveryEvent, status: int | None, state: DeliveryState
) -> None:
    _, second, _ = to_send(node, claimed)
    node.clock.advance(5)

    assert happens(node, claimed, second.delivery_id, event, status) == state

    (row,) = node.rows(Delivery, Delivery.id == second.delivery_id)
    assert (row.state, row.attempts, row.last_status, row.detail) == (state, 1, status, "why")
    assert row.updated_at == node.clock.time
    assert states_now(node, claimed).count(PENDING) == (3 if state is PENDING else 2)


def test_each_send_is_audited_with_object_destination_state_and_status(
    node: SteeredNode, claimed: Claim
) -> None:
    first, second, _ = to_send(node, claimed)
    happens(node, claimed, first.delivery_id, DeliveryEvent.ACCEPTED, 0x0000)
    happens(node, claimed, second.delivery_id, DeliveryEvent.NO_ANSWER)

    accepted, unanswered = node.audited()[-2:]
    assert (accepted.action, unanswered.action) == ("result.accepted", "result.no_answer")
    assert (accepted.study_instance_uid, accepted.job_id, accepted.actor) == (STUDY, claimed.job_id, WORKER)
    assert json.loads(accepted.detail) == {
        "kind": "deliver",
        "sop_instance_uid": first.sop_instance_uid,
        "destination": PACS,
        "state": "delivered",
        "status": "0000",
        "attempt": 1,
    }
    assert json.loads(unanswered.detail)["status"] is None


def test_each_refusal_that_is_doubted_is_counted_and_audited_until_the_object_is_settled(
    node: SteeredNode, claimed: Claim
) -> None:
    first, second, _ = to_send(node, claimed)
    told = []
    for is_doubted in (True, False, True):
        with node.transaction(claimed.owner) as tx:
            event = DeliveryEvent.TURNED_AWAY
            record(tx, claimed, first.delivery_id, event, status=0xC001, detail="why", is_doubted=is_doubted)
        told.append(node.actions().count("result.turned_away"))

    assert told == [1, 1, 2]
    assert [(o.attempts, o.refusals) for o in to_send(node, claimed)] == [(3, 2), (0, 0), (0, 0)]
    happens(node, claimed, second.delivery_id, DeliveryEvent.ACCEPTED, 0x0000)
    assert len(node.rows(Refusal)) == 2, "those of another object are not its own"
    happens(node, claimed, first.delivery_id, DeliveryEvent.ACCEPTED, 0x0000)
    assert node.rows(Refusal) == []


def test_only_what_is_not_settled_is_sent_again(node: SteeredNode, claimed: Claim) -> None:
    first, second, third = to_send(node, claimed)
    happens(node, claimed, first.delivery_id, DeliveryEvent.ACCEPTED, 0x0000)
    happens(node, claimed, second.delivery_id, DeliveryEvent.NO_ANSWER)
    assert [o.delivery_id for o in to_send(node, claimed)] == [second.delivery_id, third.delivery_id]
    assert [o.attempts for o in to_send(node, claimed)] == [1, 0]

    happens(node, claimed, third.delivery_id, DeliveryEvent.REFUSE, 0xA900)
    happens(node, claimed, second.delivery_id, DeliveryEvent.ACCEPTED, 0x0111)

    assert to_send(node, claimed) == ()
    assert sorted(states_now(node, claimed)) == [DELIVERED, DELIVERED, REFUSED]


SENDING = [event for event in DeliveryEvent if event not in (DeliveryEvent.COMMIT, DeliveryEvent.MISS)]


@pytest.mark.parametrize("event", SENDING)
def test_what_is_delivered_stays_delivered(node: SteeredNode, claimed: Claim, event: DeliveryEvent) -> None:
    first, *_ = to_send(node, claimed)
    happens(node, claimed, first.delivery_id, DeliveryEvent.ACCEPTED, 0x0000)
    before = node.actions()

    with pytest.raises(TransitionRefusedError):
        happens(node, claimed, first.delivery_id, event)

    (row,) = node.rows(Delivery, Delivery.id == first.delivery_id)
    assert (row.state, row.attempts, row.last_status) == ("delivered", 1, 0x0000)
    assert node.actions() == before


def test_a_worker_that_lost_its_lease_records_nothing(node: SteeredNode, claimed: Claim) -> None:
    first, *_ = to_send(node, claimed)
    node.clock.advance(LEASE_S)
    later = node.claimed(JobKind.DELIVER, OTHER_WORKER)
    before = node.actions()

    with pytest.raises(LeaseLostError, match=claimed.job_id):
        happens(node, claimed, first.delivery_id, DeliveryEvent.REFUSE, 0xA900)

    assert set(states_now(node, later)) == {PENDING}
    assert node.actions() == before
    assert happens(node, later, first.delivery_id, DeliveryEvent.ACCEPTED, 0x0000) is DELIVERED


def test_destinations_do_not_share_their_states(node: SteeredNode) -> None:
    node.receive(*four_views())
    node.finish_scoring(node.claimed(), destinations=[PACS, ARCHIVE])
    one, other = node.claimed(JobKind.DELIVER), node.claimed(JobKind.DELIVER)
    assert {one.destination, other.destination} == {PACS, ARCHIVE}
    (sent,) = to_send(node, one)

    happens(node, one, sent.delivery_id, DeliveryEvent.ACCEPTED, 0x0000)

    assert states_now(node, one) == (DELIVERED,)
    assert states_now(node, other) == (PENDING,)
    (same_object,) = to_send(node, other)
    assert same_object.sop_instance_uid == sent.sop_instance_uid
