"""What waits for a disk, a database or a destination that is away: without limit, together, quietly."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from db import deliveries, jobs, queueing, waiting
from db.errors import TransitionRefusedError
from db.jobs import Claim
from db.lifecycle import DeliveryEvent, JobKind
from db.session import Database
from db.tables import HostClock, Job, Process, Revision
from dicom_node.errors import DestinationAwayError, DestinationUnavailableError
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
from workers.claim_loop import ClaimLoop, Terms
from workers.lease import Lease
from workers.retry import Policy, code_of

SILENCE_S = 30


def facts(job: Job) -> dict[str, Any]:
    """Everything that a job's row says."""
    return {column.key: getattr(job, column.key) for column in Job.__table__.columns}


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
        waiting.pause_destination(tx, JobKind.DELIVER, PACS, delay_s=30)

    other = node.claimed(JobKind.DELIVER)
    assert other.destination == ARCHIVE
    with node.transaction(WORKER) as tx:
        jobs.finish(tx, other)
    assert node.claim(JobKind.DELIVER) is None
    node.clock.advance(30)
    assert node.claimed(JobKind.DELIVER).destination == PACS


def test_a_destination_that_takes_associations_and_keeps_silent_leaves_the_worker_to_others_as_long(
    node: SteeredNode,
) -> None:
    for number in range(4):
        scored(node, f"1.2.{number}", PACS)
    asked: list[str] = []

    def handler(claim: Claim, lease: Lease) -> None:
        asked.append(f"{claim.destination} {claim.job_id}")
        if claim.destination == PACS:
            node.clock.advance(SILENCE_S)
            raise DestinationUnavailableError("the destination did not answer in time")
        with node.transaction(claim.owner) as tx:
            jobs.finish(tx, claim)

    terms = Terms(lease_s=600, hard_limit_s=None, policy=Policy(5, 300))
    loop = ClaimLoop(node.database, JobKind.DELIVER, handler, terms=terms, owner=WORKER)
    assert loop.drain() == 1, "the others for the PACS wait"
    node.clock.advance(SILENCE_S / 2)
    scored(node, "1.2.9", ARCHIVE)
    assert loop.drain() == 1
    assert asked[-1].startswith(ARCHIVE)
    node.clock.advance(SILENCE_S / 2)
    assert loop.drain() == 1
    assert asked[-1].startswith(PACS)
    assert len({*asked}) == 3, "another job than the first"


def test_the_first_delivery_that_succeeds_makes_the_others_due_at_once(node: SteeredNode) -> None:
    for number in range(3):
        scored(node, f"1.2.{number}", PACS)
    first = node.claimed(JobKind.DELIVER)
    with node.transaction(WORKER) as tx:
        waiting.pause_destination(tx, JobKind.DELIVER, PACS, delay_s=300)
    assert node.claim(JobKind.DELIVER) is None

    with node.transaction(WORKER) as tx:
        jobs.finish(tx, first)

    assert node.claimed(JobKind.DELIVER).destination == PACS


def test_what_waits_for_a_reason_of_its_own_does_so_while_its_destination_goes_and_comes_back(
    node: SteeredNode,
) -> None:
    for number in range(3):
        scored(node, f"1.2.{number}", PACS)
    refused, asking = node.claimed(JobKind.DELIVER), node.claimed(JobKind.DELIVER)
    with node.transaction(WORKER) as tx:
        jobs.try_later(tx, refused, delay_s=3600, code="DESTINATION_UNAVAILABLE", reason="out of resources")
    before = facts(node.job(refused))

    with node.transaction(WORKER) as tx:
        waiting.pause_destination(tx, JobKind.DELIVER, PACS, delay_s=300)
    (paused,) = [job for job in node.jobs(JobKind.DELIVER) if job.error_code == waiting.DESTINATION_AWAY]
    assert paused.next_try_at == node.clock.time + timedelta(seconds=300)
    with node.transaction(WORKER) as tx:
        jobs.finish(tx, asking)

    assert facts(node.job(refused)) == before
    assert node.claimed(JobKind.DELIVER).job_id == paused.id
    assert node.claim(JobKind.DELIVER) is None


def test_a_delivery_that_ends_touches_no_other_one_that_is_due(node: SteeredNode) -> None:
    for number in range(3):
        scored(node, f"1.2.{number}", PACS)
    ending = node.claimed(JobKind.DELIVER)
    with node.transaction() as tx:
        waiting.take_unpublished(tx, again_after_s=5, max_attempts={JobKind.DELIVER: None})
    others = [facts(job) for job in node.jobs(JobKind.DELIVER) if job.id != ending.job_id]
    assert all(job["published_at"] for job in others)

    node.clock.advance(1)
    with node.transaction(WORKER) as tx:
        jobs.finish(tx, ending)

    assert [facts(job) for job in node.jobs(JobKind.DELIVER) if job.id != ending.job_id] == others


@pytest.mark.parametrize(
    ("kind", "destination"),
    [
        pytest.param(JobKind.COMMIT, PACS, id="another kind"),
        pytest.param(JobKind.DELIVER, ARCHIVE, id="another destination"),
    ],
)
def test_those_of_another_kind_or_destination_wait_on_their_own(
    node: SteeredNode, kind: JobKind, destination: str
) -> None:
    queue_for_one_moment(node, JobKind.DELIVER, 1)
    queue_for_one_moment(node, kind, 1, destination=destination)
    now, later = node.clock.time, node.clock.time + timedelta(seconds=300)
    seen = []
    for asked, where, change in (
        (kind, destination, "pause"),
        (JobKind.DELIVER, PACS, "pause"),
        (JobKind.DELIVER, PACS, "resume"),
        (JobKind.DELIVER, PACS, "pause"),
        (kind, destination, "resume"),
    ):
        with node.transaction(WORKER) as tx:
            if change == "pause":
                waiting.pause_destination(tx, asked, where, delay_s=300)
            else:
                waiting.resume_destination(tx, asked, where)
        (first,) = node.rows(Job, Job.kind == JobKind.DELIVER, Job.destination == PACS)
        (other,) = node.rows(Job, Job.kind == kind, Job.destination == destination)
        seen.append((first.next_try_at, other.next_try_at))

    assert seen == [(now, later), (later, later), (now, later), (later, later), (later, now)]


def test_a_destination_that_goes_and_comes_back_changes_no_job_that_is_done_or_in_hand(
    node: SteeredNode,
) -> None:
    for number in range(2):
        scored(node, f"1.2.{number}", PACS)
    done = node.claimed(JobKind.DELIVER)
    with node.transaction(WORKER) as tx:
        jobs.finish(tx, done)
    node.claimed(JobKind.DELIVER)
    before = [facts(job) for job in node.jobs(JobKind.DELIVER)]

    with node.transaction(WORKER) as tx:
        waiting.pause_destination(tx, JobKind.DELIVER, PACS, delay_s=300)
    with node.transaction(WORKER) as tx:
        waiting.resume_destination(tx, JobKind.DELIVER, PACS)

    assert [facts(job) for job in node.jobs(JobKind.DELIVER)] == before


def test_what_waited_for_a_destination_is_rung_for_as_soon_as_that_is_there(node: SteeredNode) -> None:
    queue_for_one_moment(node, JobKind.DELIVER, 1)

    def rung() -> int:
        with node.transaction() as tx:
            return len(waiting.take_unpublished(tx, again_after_s=60, max_attempts={JobKind.DELIVER: None}))

    assert (rung(), rung()) == (1, 0)
    with node.transaction(WORKER) as tx:
        waiting.pause_destination(tx, JobKind.DELIVER, PACS, delay_s=300)
    assert rung() == 0
    with node.transaction(WORKER) as tx:
        waiting.resume_destination(tx, JobKind.DELIVER, PACS)
    assert rung() == 1


def test_the_code_of_those_that_wait_together_is_that_of_the_one_that_asked() -> None:
    assert code_of(DestinationAwayError("")) == waiting.DESTINATION_AWAY


@on_sqlite
@pytest.mark.parametrize("kind", [JobKind.SCORE, JobKind.DELIVER, JobKind.COMMIT])
def test_a_look_and_a_claim_cost_the_same_however_many_jobs_wait(node: SteeredNode, kind: JobKind) -> None:
    """Counted in steps of SQLite's machine, of which a slow computer does not make more."""
    steps = []
    for count in (20, 2000):
        queue_for_one_moment(node, kind, count)
        with node.reading() as session, counted_steps(session) as look:
            assert waiting.has_due(session, kind, node.clock.time, max_attempts=None)
        with node.transaction(WORKER) as tx, counted_steps(tx.session) as taking:
            assert waiting.next_due(tx.session, kind, tx.now, max_attempts=None) is not None
        steps.append((look[0], taking[0]))

    (few_look, few_take), (many_look, many_take) = steps
    assert 0 < many_look < 2 * few_look
    assert 0 < many_take < 2 * few_take


def queue_for_one_moment(node: SteeredNode, kind: JobKind, count: int, *, destination: str = PACS) -> None:
    """Queue jobs that are due together, as they are when their destination came back."""
    study = f"2.25.{uuid.uuid4().int}"
    node.receive(mammogram(study=study))
    revision = node.rows(Revision)[-1]
    columns = {
        "revision_id": revision.id,
        "destination": destination,
        "order": "{}",
        "state": "queued",
        "attempts": 0,
    }
    with node.transaction() as tx:
        tx.session.execute(
            insert(Job),
            [
                {
                    "id": uuid.uuid4().hex,
                    "kind": kind,
                    "task": f"task-{number}",
                    "next_try_at": tx.now,
                    "created_at": tx.now + timedelta(microseconds=number),
                    **columns,
                }
                for number in range(count)
            ],
        )


@contextmanager
def counted_steps(session: Session) -> Iterator[list[int]]:
    """Count the steps of SQLite's machine in a block."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    connection = session.connection().connection.driver_connection
    connection.set_progress_handler(count, 1)
    try:
        yield steps
    finally:
        connection.set_progress_handler(None, 1)


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
    for number in range(waiting.MOST_DOORBELLS + 3):
        node.receive(*four_views(f"1.2.{number}"))

    def rung() -> int:
        with node.transaction() as tx:
            return len(waiting.take_unpublished(tx, again_after_s=5, max_attempts={JobKind.SCORE: 5}))

    assert rung() == waiting.MOST_DOORBELLS
    node.clock.advance(5)
    assert rung() == waiting.MOST_DOORBELLS
    node.clock.advance(86400)
    assert rung() == waiting.MOST_DOORBELLS
    node.clock.advance(waiting.LONGEST_DOORBELL_PAUSE_S - 1)
    assert rung() == 0
    node.clock.advance(1)
    assert rung() == waiting.MOST_DOORBELLS


def test_a_queue_without_workers_leaves_few_doorbells_in_the_broker_for_a_week(node: SteeredNode) -> None:
    node.receive(*four_views("1.2.3"))
    rung = 0
    for _ in range(7 * 24 * 4):
        with node.transaction() as tx:
            rung += len(waiting.take_unpublished(tx, again_after_s=5, max_attempts={JobKind.SCORE: 5}))
        node.clock.advance(900)
    assert 24 * 7 <= rung < 24 * 7 + 50, "a worker that starts late has to take them all"


def test_a_delivery_whose_results_a_later_revision_replaced_is_not_retried(node: SteeredNode) -> None:
    scored(node, "1.2.3", PACS)
    refused = node.claimed(JobKind.DELIVER)
    with node.transaction(WORKER) as tx:
        jobs.give_up(tx, refused, code="UNDELIVERABLE", reason="x")
    node.receive(mammogram("R", "CC", study="1.2.3", sop_instance_uid=f"2.25.{uuid.uuid4().int}"))
    node.complete("1.2.3")
    node.finish_scoring(node.claimed())

    with pytest.raises(TransitionRefusedError, match="later revision"), node.transaction("anna") as tx:
        queueing.retry(tx, refused.job_id)
    assert node.job(refused).state == "failed"
    with node.reading() as session:
        assert queueing.given_up(session) == [], "nor with all others that were given up"


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
