"""What waits for a disk, a database or a destination that is away: without limit, together, quietly."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, insert

from db import deliveries, jobs
from db.errors import TransitionRefusedError
from db.jobs import Claim
from db.lifecycle import DeliveryEvent, JobKind
from db.session import Database
from db.tables import HostClock, Job, Process
from tests.steered_node import (
    ARCHIVE,
    LEASE_S,
    PACS,
    WORKER,
    SteeredNode,
    four_views,
    mammogram,
    on_sqlite,
    result_object,
)


def wait(node: SteeredNode, claimed: Claim, delay_s: float = 1.0) -> None:
    """End an attempt that waits for something else to come back."""
    with node.transaction(claimed.owner) as tx:
        jobs.try_later(tx, claimed, delay_s=delay_s, code="SPOOL_FULL", reason="no room")


def scored(node: SteeredNode, study: str, *destinations: str) -> None:
    """Receive and score a study, so that its deliveries are due."""
    node.receive(*four_views(study))
    node.finish_scoring(node.claimed(), results=[result_object()], destinations=destinations)


def test_a_job_that_waits_for_a_disk_is_tried_far_beyond_the_attempts_that_a_failure_gets(
    node: SteeredNode,
) -> None:
    node.receive(*four_views())
    for _ in range(10):
        claimed = node.claim(max_attempts=5)
        assert claimed is not None
        wait(node, claimed)
        node.clock.advance(1)

    node.finish_scoring(node.claimed())
    assert node.jobs()[0].state == "done"


def test_a_job_that_waited_long_still_ends_when_its_worker_dies(node: SteeredNode) -> None:
    node.receive(*four_views())
    for _ in range(7):
        wait(node, node.claimed())
        node.clock.advance(1)
    node.claimed()
    node.clock.advance(LEASE_S)

    assert node.claim(max_attempts=5) is None
    with node.transaction() as tx:
        assert jobs.give_up_dead(tx, max_attempts={JobKind.SCORE: 5}) == 1


def test_deliveries_to_a_destination_that_is_away_wait_together_and_leave_the_worker_to_others(
    node: SteeredNode,
) -> None:
    for number in range(4):
        scored(node, f"1.2.{number}", PACS)
    node.clock.advance(1)
    scored(node, "1.2.9", ARCHIVE)

    first = node.claimed(JobKind.DELIVER)
    with node.transaction(WORKER) as tx:
        jobs.try_later(tx, first, delay_s=30, code="DESTINATION_AWAY", reason="x")
        jobs.pause_destination(tx, PACS, delay_s=30)

    other = node.claimed(JobKind.DELIVER)
    assert other.destination == ARCHIVE
    with node.transaction(WORKER) as tx:
        jobs.finish(tx, other)
    assert node.claim(JobKind.DELIVER) is None
    node.clock.advance(30)
    assert node.claimed(JobKind.DELIVER).destination == PACS


def test_the_first_delivery_that_succeeds_makes_the_others_due_at_once(node: SteeredNode) -> None:
    for number in range(3):
        scored(node, f"1.2.{number}", PACS)
    first = node.claimed(JobKind.DELIVER)
    with node.transaction(WORKER) as tx:
        jobs.pause_destination(tx, PACS, delay_s=300)
    assert node.claim(JobKind.DELIVER) is None

    with node.transaction(WORKER) as tx:
        jobs.finish(tx, first)

    assert node.claimed(JobKind.DELIVER).destination == PACS


def test_attempts_that_change_nothing_are_counted_without_an_event_each(node: SteeredNode) -> None:
    scored(node, "1.2.3", PACS)
    claimed = node.claimed(JobKind.DELIVER)
    with node.reading() as session:
        (item,) = deliveries.outgoing(session, claimed)
    told = []
    for status in (None, None, None, 0xA700, 0xA700):
        with node.transaction(WORKER) as tx:
            deliveries.record(
                tx, claimed, item.delivery_id, DeliveryEvent.TURNED_AWAY, status=status, detail="x"
            )
        told.append(node.actions().count("result.turned_away"))

    assert told == [1, 1, 1, 2, 2]
    with node.reading() as session:
        assert deliveries.outgoing(session, claimed)[0].attempts == 5


def test_of_many_waiting_jobs_a_few_are_rung_for_and_the_longer_they_wait_the_seldomer(
    node: SteeredNode,
) -> None:
    for number in range(jobs.MOST_DOORBELLS + 3):
        node.receive(*four_views(f"1.2.{number}"))

    def rung() -> int:
        with node.transaction() as tx:
            return len(jobs.take_unpublished(tx, again_after_s=5, max_attempts={JobKind.SCORE: 5}))

    assert rung() == jobs.MOST_DOORBELLS
    node.clock.advance(5)
    assert rung() == jobs.MOST_DOORBELLS
    node.clock.advance(3600)
    assert rung() == jobs.MOST_DOORBELLS
    node.clock.advance(jobs.LONGEST_DOORBELL_PAUSE_S - 1)
    assert rung() == 0
    node.clock.advance(1)
    assert rung() == jobs.MOST_DOORBELLS


def test_a_delivery_whose_results_a_later_revision_replaced_is_not_retried(node: SteeredNode) -> None:
    scored(node, "1.2.3", PACS)
    refused = node.claimed(JobKind.DELIVER)
    with node.transaction(WORKER) as tx:
        jobs.give_up(tx, refused, code="UNDELIVERABLE", reason="x")
    node.receive(mammogram("R", "CC", study="1.2.3", sop_instance_uid=f"2.25.{uuid.uuid4().int}"))
    node.complete("1.2.3")
    node.finish_scoring(node.claimed())

    with pytest.raises(TransitionRefusedError, match="later revision"), node.transaction("anna") as tx:
        jobs.retry(tx, refused.job_id)
    assert node.job(refused).state == "failed"


@on_sqlite
def test_a_boot_whose_predecessor_lived_in_the_future_goes_on_from_there(database: Database) -> None:
    future = datetime.now(UTC) + timedelta(days=3650)
    with database.engine.begin() as connection:
        connection.execute(delete(HostClock))
        connection.execute(insert(Process).values(name="x", kind="score", started_at=future, seen_at=future))
        connection.execute(
            insert(Job).values(
                id="j",
                kind="train",
                task="t",
                order="{}",
                state="queued",
                attempts=0,
                next_try_at=future,
                created_at=future,
            )
        )

    with database.transaction(WORKER) as tx:
        assert jobs.claim(tx, JobKind.TRAIN, lease_s=LEASE_S, max_attempts=5) is not None
