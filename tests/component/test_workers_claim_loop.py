"""The claim loop on a real database: what it claims, how an attempt ends, and what is never stored."""

from __future__ import annotations

import io
import json

import pytest

from db import jobs
from db.errors import DatabaseUnavailableError
from db.jobs import Claim
from db.lifecycle import JobKind, JobState
from db.session import Database
from db.tables import Job
from dicom_node.errors import DestinationAwayError, DestinationUnavailableError, ResultError
from tests.steered_node import WORKER, SteeredNode, four_views
from workers.claim_loop import ClaimLoop, Handler, Terms
from workers.lease import Lease
from workers.retry import Policy

ATTEMPTS = 3
TERMS = Terms(lease_s=30, hard_limit_s=900, policy=Policy(ATTEMPTS, backoff_max_s=8))
CANARY = "ZZCANARY^NAME"
FAR = 60.0  # longer than any backoff of these terms


class ForeignError(Exception):
    """An error of somebody else's library that quotes a data set."""


def loop_with(node: SteeredNode, handler: Handler) -> ClaimLoop:
    return ClaimLoop(node.database, JobKind.SCORE, handler, terms=TERMS, owner=WORKER)


def finishing(node: SteeredNode, seen: list[str] | None = None) -> Handler:
    def handler(claim: Claim, lease: Lease) -> None:
        if seen is not None:
            seen.append(claim.job_id)
        node.finish_scoring(claim)

    return handler


def failing(error: Exception) -> Handler:
    def handler(claim: Claim, lease: Lease) -> None:
        raise error

    return handler


def only_job(node: SteeredNode) -> Job:
    (job,) = node.jobs()
    return job


def test_everything_due_is_done_the_named_job_first(node: SteeredNode) -> None:
    for number in range(3):
        node.receive(*four_views(f"2.25.{number}"))
    by_age = [job.id for job in node.jobs()]
    done: list[str] = []
    assert loop_with(node, finishing(node, done)).drain(by_age[2]) == 3
    assert done[0] == by_age[2]
    assert sorted(done) == sorted(by_age)
    assert {job.state for job in node.jobs()} == {JobState.DONE}


def test_a_doorbell_for_a_job_that_is_done_does_nothing(node: SteeredNode) -> None:
    node.receive(*four_views())
    loop = loop_with(node, finishing(node))
    assert loop.drain() == 1
    before = node.actions()
    assert loop.drain(only_job(node).id) == 0
    assert loop.drain("no-such-job") == 0
    assert node.actions() == before


def test_an_unexpected_error_puts_the_job_back_with_a_code_and_without_the_strangers_words(
    node: SteeredNode, log: io.StringIO
) -> None:
    node.receive(*four_views())
    loop_with(node, failing(ForeignError(f"bad value {CANARY}"))).drain()
    job = only_job(node)
    assert (job.state, job.attempts, job.error_code) == (JobState.QUEUED, 1, "FOREIGN")
    assert job.lease_owner is None
    assert job.next_try_at > node.clock.time, "not before its backoff"
    assert "ForeignError" in (job.error or "")
    audited = json.dumps([event.detail for event in node.audited()])
    assert CANARY not in (job.error or "") + audited + log.getvalue()
    (line,) = [json.loads(line) for line in log.getvalue().splitlines() if "retried_later" in line]
    assert line["exception"]["type"] == "ForeignError", "the log tells where it happened"
    assert any("failing" in call or "handler" in call for call in line["exception"]["at"])


def test_a_job_waits_for_its_backoff_and_is_then_done(node: SteeredNode) -> None:
    node.receive(*four_views())
    loop_with(node, failing(ResultError("no region"))).drain()
    steady = loop_with(node, finishing(node))
    assert steady.drain() == 0, "it is not due yet"
    assert only_job(node).state == JobState.QUEUED
    node.clock.advance(FAR)
    assert steady.drain() == 1
    assert (only_job(node).state, only_job(node).attempts) == (JobState.DONE, 2)


def test_a_job_that_keeps_failing_is_given_up_with_its_reason_and_others_go_on(node: SteeredNode) -> None:
    node.receive(*four_views("2.25.1"))
    (bad,) = node.jobs()

    def handler(claim: Claim, lease: Lease) -> None:
        if claim.job_id == bad.id:
            raise ResultError("the report has no region")
        node.finish_scoring(claim)

    loop = loop_with(node, handler)
    for _ in range(ATTEMPTS + 2):
        loop.drain()
        node.clock.advance(FAR)
    node.receive(*four_views("2.25.2"))
    loop.drain()
    first, second = node.jobs()
    assert (first.state, first.attempts, first.error_code) == (JobState.FAILED, ATTEMPTS, "RESULT")
    assert first.error == "the report has no region"
    assert second.state == JobState.DONE
    assert node.actions().count("job.retried_later") == ATTEMPTS - 1
    assert node.actions().count("job.failed") == 1


def test_a_lost_lease_ends_the_attempt_and_writes_nothing(node: SteeredNode) -> None:
    node.receive(*four_views())

    def handler(claim: Claim, lease: Lease) -> None:
        node.clock.advance(TERMS.lease_s + 1)
        other = node.claim(worker="worker@host-b:1")
        assert other is not None
        node.finish_scoring(claim)  # too late: the fence moved

    loop_with(node, handler).drain()
    job = only_job(node)
    assert (job.state, job.attempts, job.lease_owner) == (JobState.RUNNING, 2, "worker@host-b:1")
    assert job.error_code is None
    assert {"job.scored", "job.retried_later", "job.failed"}.isdisjoint(node.actions())


def test_an_error_after_the_lease_was_lost_does_not_touch_the_job_of_another(node: SteeredNode) -> None:
    node.receive(*four_views())

    def handler(claim: Claim, lease: Lease) -> None:
        node.clock.advance(TERMS.lease_s + 1)
        assert node.claim(worker="worker@host-b:1") is not None
        raise ResultError("whatever")

    loop_with(node, handler).drain()
    job = only_job(node)
    assert (job.state, job.lease_owner, job.error_code) == (JobState.RUNNING, "worker@host-b:1", None)


def test_a_loop_that_was_told_to_stop_finishes_its_job_and_claims_no_other(node: SteeredNode) -> None:
    node.receive(*four_views("2.25.1"))
    node.receive(*four_views("2.25.2"))
    loop: ClaimLoop

    def handler(claim: Claim, lease: Lease) -> None:
        assert not loop.is_idle
        loop.stop()
        node.finish_scoring(claim)

    loop = loop_with(node, handler)
    assert loop.drain() == 1
    assert loop.is_idle
    assert sorted(job.state for job in node.jobs()) == [JobState.DONE, JobState.QUEUED]
    assert loop.drain() == 0


def test_a_database_that_is_away_ends_the_drain_quietly(node: SteeredNode, log: io.StringIO) -> None:
    class Away(Database):
        """The node's database, whose server just went."""

        def reading(self):  # type: ignore[no-untyped-def]
            raise DatabaseUnavailableError("the database does not answer; start it again")

    node.receive(*four_views())
    url = node.database.engine.url.render_as_string(hide_password=False)
    away = Away(url, node.database.trail, clock=node.clock)
    loop = ClaimLoop(away, JobKind.SCORE, finishing(node), terms=TERMS, owner=WORKER)
    assert loop.drain() == 0
    away.close()
    assert "worker.database_away" in log.getvalue()
    assert only_job(node).attempts == 0


@pytest.mark.parametrize(
    ("error", "asked"),
    [(DestinationAwayError("no association"), 1), (DestinationUnavailableError("out of resources"), 3)],
    ids=["away", "turned one away"],
)
def test_only_a_destination_that_is_away_makes_its_other_deliveries_wait(
    node: SteeredNode, error: Exception, asked: int
) -> None:
    for number in range(3):
        node.receive(*four_views(f"1.2.{number}"))
        node.finish_scoring(node.claimed())
    seen: list[str] = []

    def send(claim: Claim, _lease: Lease) -> None:
        seen.append(claim.job_id)
        raise error

    ClaimLoop(node.database, JobKind.DELIVER, send, terms=TERMS, owner=WORKER).drain()

    assert len(set(seen)) == len(seen) == asked


def test_a_delivery_is_claimed_as_often_as_it_takes(node: SteeredNode) -> None:
    node.receive(*four_views())
    node.finish_scoring(node.claimed())
    delivering = ClaimLoop(
        node.database, JobKind.DELIVER, failing(ResultError("x")), terms=TERMS, owner=WORKER
    )
    assert delivering.is_due()
    assert TERMS.max_attempts == {
        JobKind.SCORE: 3,
        JobKind.DELIVER: None,
        JobKind.TRAIN: 3,
        JobKind.COMMIT: None,
    }


def test_a_worker_that_dies_in_every_attempt_is_noticed_by_its_leases(node: SteeredNode) -> None:
    node.receive(*four_views("2.25.1"))
    node.receive(*four_views("2.25.2"))
    dying, other = node.jobs()
    for _ in range(ATTEMPTS):
        # SIGKILL leaves a claim behind and nothing else.
        assert node.claim(job_id=dying.id, max_attempts=ATTEMPTS) is not None
        node.clock.advance(TERMS.lease_s + 40)
    loop = loop_with(node, finishing(node))
    assert loop.drain(dying.id) == 1, "the other job is done; nobody claims the deadly one again"
    with node.transaction() as tx:
        assert jobs.give_up_dead(tx, max_attempts=TERMS.max_attempts) == 1
    states = {job.id: (job.state, job.error_code) for job in node.jobs()}
    assert states == {dying.id: (JobState.FAILED, "WORKER_DIED"), other.id: (JobState.DONE, None)}
