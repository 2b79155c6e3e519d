"""The queue of record: who may claim a job, how long it is theirs, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from db import deliveries
from db.errors import LeaseLostError, TransitionRefusedError, UnknownRecordError
from db.jobs import (
    Claim,
    bind_bundle,
    end_attempt,
    end_leases,
    finish,
    give_up,
    give_up_dead,
    has_dead,
    held,
    release,
    renew,
    try_later,
)
from db.lifecycle import DeliveryEvent, DeliveryState, JobEvent, JobKind, JobState
from db.queueing import queue_training, retry
from db.session import Transaction
from db.tables import Analysis, Delivery, Job, ResultObject
from db.waiting import has_due, take_unpublished
from tests.steered_node import (
    ARCHIVE,
    BUNDLE,
    LEASE_S,
    LISTENER,
    OTHER_WORKER,
    PACS,
    STUDY,
    TASK,
    WORKER,
    SteeredNode,
    at_the_same_time,
    four_views,
    mammogram,
    result_object,
)

LIMITS = {JobKind.SCORE: 3, JobKind.DELIVER: None, JobKind.TRAIN: 1}


@pytest.fixture
def queued(node: SteeredNode) -> Job:
    """The score job of a complete four-view study, which is due now."""
    node.receive(*four_views())
    (job,) = node.jobs()
    return job


def facts(job: Job) -> dict[str, Any]:
    """Everything that a job's row says."""
    return {column.key: getattr(job, column.key) for column in Job.__table__.columns}


def is_due(node: SteeredNode, kind: JobKind = JobKind.SCORE, max_attempts: int | None = 5) -> bool:
    with node.reading() as session:
        return has_due(session, kind, node.clock.time, max_attempts=max_attempts)


def sweep_dead(node: SteeredNode) -> int:
    """Let a dispatcher end the jobs whose workers died."""
    with node.reading() as session:
        expected = has_dead(session, node.clock.time, max_attempts=LIMITS)
    with node.transaction("dispatcher@host-a:14") as tx:
        ended = give_up_dead(tx, max_attempts=LIMITS)
    assert (ended > 0) == expected
    return ended


def take(node: SteeredNode) -> list[tuple[JobKind, str]]:
    """Let a dispatcher take the jobs whose doorbell is to be rung."""
    with node.transaction("dispatcher@host-a:14") as tx:
        return take_unpublished(tx, again_after_s=10, max_attempts=LIMITS)


# --- claiming


def test_a_claim_gives_a_lease_and_the_first_fence(node: SteeredNode, queued: Job) -> None:
    before = datetime.now(UTC)
    claimed = node.claimed()

    assert (claimed.job_id, claimed.kind, claimed.owner, claimed.fence) == (queued.id, "score", WORKER, 1)
    assert (claimed.task, claimed.revision_id, claimed.destination) == (TASK, queued.revision_id, None)
    job = node.job(claimed)
    assert (job.state, job.attempts, job.lease_owner) == ("running", 1, WORKER)
    assert job.lease_until == node.clock.time + timedelta(seconds=LEASE_S)
    assert before <= claimed.first_started_at <= datetime.now(UTC), "results carry wall time"
    assert job.first_started_at == claimed.first_started_at


def test_a_claim_is_audited_with_study_job_and_worker(node: SteeredNode, queued: Job) -> None:
    node.claimed()

    event = node.audited()[-1]
    assert (event.action, event.actor, event.job_id) == ("job.claimed", WORKER, queued.id)
    assert event.study_instance_uid == STUDY
    assert json.loads(event.detail) == {"kind": "score", "attempt": 1}


def test_of_eight_claimers_one_wins(node: SteeredNode, queued: Job) -> None:
    calls = [partial(node.claim, JobKind.SCORE, f"worker@host-{n}:1") for n in range(8)]

    winners = [c for c in at_the_same_time(*calls) if c is not None]

    assert len(winners) == 1
    assert node.job(winners[0]).lease_owner == winners[0].owner
    assert node.job(winners[0]).attempts == 1
    assert node.actions().count("job.claimed") == 1


def test_eight_claimers_share_eight_jobs_without_a_double(node: SteeredNode) -> None:
    for n in range(8):
        node.receive(*four_views(f"1.2.{n}"))
    calls = [partial(node.claim, JobKind.SCORE, f"worker@host-{n}:1") for n in range(8)]

    first_round = [c.job_id for c in at_the_same_time(*calls) if c is not None]
    # On PostgreSQL a claimer whose candidate is taken at this moment may leave empty-handed and look again.
    rest = [c.job_id for c in iter(node.claim, None) if c is not None]

    assert sorted(first_round + rest) == sorted(job.id for job in node.jobs())


def test_nothing_is_claimed_where_nothing_is_due(node: SteeredNode) -> None:
    assert not is_due(node)
    assert node.claim() is None
    assert node.actions() == []


def test_a_claim_takes_only_its_own_kind(node: SteeredNode, queued: Job) -> None:
    assert node.claim(JobKind.DELIVER) is None
    assert node.claim(JobKind.TRAIN) is None
    assert node.jobs()[0].state == "queued"


def test_the_job_that_has_been_due_longest_comes_first(node: SteeredNode) -> None:
    for n in range(3):
        node.receive(*four_views(f"1.2.{n}"))
        node.clock.advance(1)

    claimed = [node.claimed().job_id for _ in range(3)]

    assert claimed == [job.id for job in node.jobs()]


def test_a_job_that_waited_out_its_backoff_comes_after_those_that_were_due_before_it(
    node: SteeredNode, queued: Job
) -> None:
    tried = node.claimed()
    with node.transaction(WORKER) as tx:
        try_later(tx, tried, delay_s=60, code="X", reason="x")
    node.clock.advance(59)
    node.receive(*four_views("1.2.9"))
    node.clock.advance(1)

    assert node.claimed().job_id != tried.job_id
    assert node.claimed().job_id == tried.job_id


def test_a_doorbell_claims_its_job_or_none(node: SteeredNode) -> None:
    node.receive(*four_views("1.2.1"))
    node.clock.advance(1)
    node.receive(*four_views("1.2.2"))
    _, second = node.jobs()

    claimed = node.claim(job_id=second.id)
    assert claimed is not None
    assert claimed.job_id == second.id
    assert node.claim(job_id=second.id) is None, "a doorbell that rings twice finds nothing"
    assert node.claim(job_id="unknown") is None
    assert node.jobs()[0].state == "queued"


def test_a_running_job_is_not_claimed_before_its_lease_ends(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    node.clock.advance(LEASE_S - 0.001)

    assert not is_due(node)
    assert node.claim(worker=OTHER_WORKER) is None
    assert node.job(claimed).lease_owner == WORKER


def test_once_the_lease_ended_another_worker_claims_with_the_next_fence(
    node: SteeredNode, queued: Job
) -> None:
    first = node.claimed()
    node.clock.advance(LEASE_S)
    assert is_due(node)

    second = node.claimed(worker=OTHER_WORKER)

    assert (second.job_id, second.owner, second.fence) == (first.job_id, OTHER_WORKER, 2)
    assert second.first_started_at == first.first_started_at, "rebuilt results carry the same time"


def test_renewing_keeps_the_job(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    node.clock.advance(LEASE_S - 1)
    with node.transaction(WORKER) as tx:
        renew(tx, claimed, lease_s=LEASE_S)
    node.clock.advance(LEASE_S - 1)

    assert node.claim(worker=OTHER_WORKER) is None
    assert node.job(claimed).attempts == 1


# --- a worker without the lease (R4)

Write = Callable[[Transaction, Claim], object]
WRITES: dict[str, Write] = {
    "renew": lambda tx, claimed: renew(tx, claimed, lease_s=LEASE_S),
    "bind_bundle": lambda tx, claimed: bind_bundle(tx, claimed, BUNDLE),
    "finish": finish,
    "try_later": lambda tx, claimed: try_later(tx, claimed, delay_s=1, code="X", reason="x"),
    "release": release,
    "give_up": lambda tx, claimed: give_up(tx, claimed, code="X", reason="x"),
    "what others write once they hold it": held,
}


@pytest.mark.parametrize(
    "now",
    [
        "claimed_by_another",
        "given_back_and_claimed_by_another",
        "done",
        "queued_again",
        "claimed_again_by_itself",
    ],
)
def test_a_worker_that_lost_its_lease_changes_nothing(node: SteeredNode, queued: Job, now: str) -> None:
    stale = node.claimed()
    if now == "given_back_and_claimed_by_another":  # whose fence is the same, as the attempt did not count
        with node.transaction(WORKER) as tx:
            release(tx, stale)
    node.clock.advance(LEASE_S)
    later = node.claimed(worker=WORKER if now == "claimed_again_by_itself" else OTHER_WORKER)
    if now == "done":
        with node.transaction(OTHER_WORKER) as tx:
            finish(tx, later)
    if now == "queued_again":
        with node.transaction(OTHER_WORKER) as tx:
            release(tx, later)
    before, audited_before = facts(node.job(stale)), node.actions()

    for name, write in WRITES.items():
        with pytest.raises(LeaseLostError, match=stale.job_id), node.transaction(WORKER) as tx:
            write(tx, stale)
            pytest.fail(f"{name} was let through")

    assert facts(node.job(stale)) == before
    assert node.actions() == audited_before


def test_a_lease_that_nobody_else_took_is_still_good_for_finishing(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    node.clock.advance(10 * LEASE_S)

    with node.transaction(WORKER) as tx:
        finish(tx, claimed)

    assert node.job(claimed).state == "done"


def test_two_workers_that_finish_one_job_leave_one_result_set(node: SteeredNode, queued: Job) -> None:
    stale = node.claimed()
    node.clock.advance(LEASE_S)
    later = node.claimed(worker=OTHER_WORKER)

    def finishes(claimed: Claim) -> bool:
        try:
            node.finish_scoring(claimed)
        except LeaseLostError:
            return False
        return True

    assert at_the_same_time(partial(finishes, stale), partial(finishes, later)) == [False, True]

    assert len(node.rows(Analysis)) == len(node.rows(ResultObject)) == len(node.rows(Delivery)) == 1
    assert len(node.jobs(JobKind.DELIVER)) == 1
    assert node.actions().count("job.scored") == 1


def test_one_claim_that_is_finished_twice_at_once_leaves_one_result_set(
    node: SteeredNode, queued: Job
) -> None:
    claimed = node.claimed()

    def finishes() -> bool:
        try:
            node.finish_scoring(claimed)
        except LeaseLostError:
            return False
        return True

    assert sorted(at_the_same_time(finishes, finishes)) == [False, True]
    assert len(node.rows(Analysis)) == len(node.rows(ResultObject)) == 1


# --- ending an attempt


def test_a_finished_job_is_never_claimed_again(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        finish(tx, claimed, detail={"sent": 3})
    node.clock.advance(10 * LEASE_S)

    assert not is_due(node)
    assert node.claim() is None
    job = node.job(claimed)
    assert (job.state, job.lease_owner, job.lease_until) == ("done", None, None)
    assert job.finished_at == node.clock.time - timedelta(seconds=10 * LEASE_S)
    assert json.loads(node.audited()[-1].detail) == {"kind": "score", "attempt": 1, "sent": 3}


def test_an_attempt_that_failed_waits_for_its_backoff_with_the_reason(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        try_later(tx, claimed, delay_s=20, code="GPU_MEMORY", reason="the device is out of memory")

    job = node.job(claimed)
    assert (job.state, job.attempts, job.lease_owner) == ("queued", 1, None)
    assert (job.error_code, job.error) == ("GPU_MEMORY", "the device is out of memory")
    node.clock.advance(19)
    assert node.claim() is None
    node.clock.advance(1)
    again = node.claimed()
    assert again.fence == 2
    assert node.job(again).error_code is None
    assert "job.retried_later" in node.actions()


def test_a_released_job_is_due_at_once_and_the_attempt_does_not_count(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        release(tx, claimed)

    job = node.job(claimed)
    assert (job.state, job.attempts, job.next_try_at) == ("queued", 0, node.clock.time)
    assert node.claimed(worker=OTHER_WORKER).fence == 1


def test_a_job_that_is_given_up_keeps_the_reason_and_is_not_claimed(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        give_up(tx, claimed, code="INPUT", reason="the pixel data cannot be decoded")
    node.clock.advance(10 * LEASE_S)

    job = node.job(claimed)
    assert (job.state, job.error_code, job.error) == ("failed", "INPUT", "the pixel data cannot be decoded")
    assert node.claim() is None
    event = node.audited()[-1]
    assert event.action == "job.failed"
    assert json.loads(event.detail)["code"] == "INPUT"


@pytest.mark.parametrize("event", [JobEvent.RETRY])
def test_an_attempt_cannot_end_by_an_event_that_running_does_not_allow(
    node: SteeredNode, queued: Job, event: JobEvent
) -> None:
    claimed = node.claimed()
    before = facts(node.job(claimed))

    with pytest.raises(TransitionRefusedError, match="running"), node.transaction(WORKER) as tx:
        end_attempt(tx, claimed, event)

    assert facts(node.job(claimed)) == before


def test_the_bundle_of_an_attempt_is_noted_and_audited_with_its_end(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        bind_bundle(tx, claimed, BUNDLE)
    with node.transaction(WORKER) as tx:
        give_up(tx, claimed, code="INPUT", reason="x")

    assert node.job(claimed).bundle_digest == BUNDLE
    assert node.audited()[-1].bundle == BUNDLE


# --- the limit of attempts (R11)


def test_a_job_whose_worker_dies_each_time_is_failed_after_its_last_attempt(
    node: SteeredNode, queued: Job
) -> None:
    for fence in (1, 2, 3):
        assert sweep_dead(node) == 0
        claimed = node.claim(max_attempts=3)
        assert claimed is not None
        assert claimed.fence == fence
        node.clock.advance(LEASE_S)

    assert not is_due(node, max_attempts=3)
    assert node.claim(max_attempts=3) is None
    assert sweep_dead(node) == 1

    (job,) = node.jobs()
    assert (job.state, job.attempts, job.error_code, job.lease_owner) == ("failed", 3, "WORKER_DIED", None)
    assert node.actions()[-1] == "job.failed"
    assert sweep_dead(node) == 0


def test_the_jobs_of_a_worker_that_was_seen_to_die_need_not_wait_for_their_leases(
    node: SteeredNode, queued: Job
) -> None:
    dead = node.claimed(worker=WORKER)
    with node.transaction("serve@host-a:1") as tx:
        assert end_leases(tx, OTHER_WORKER) == 0
    assert node.claim(worker=OTHER_WORKER) is None, "the lease of another one was left alone"

    with node.transaction("serve@host-a:1") as tx:
        assert end_leases(tx, WORKER) == 1

    assert node.actions()[-1] == "job.lease_ended"
    taken = node.claimed(worker=OTHER_WORKER)
    assert (taken.job_id, taken.fence) == (dead.job_id, dead.fence + 1), "the attempt counts"
    with pytest.raises(LeaseLostError), node.transaction(WORKER) as tx:
        finish(tx, dead)
    with node.transaction("serve@host-a:1") as tx:
        assert end_leases(tx, WORKER) == 0


def test_a_last_attempt_that_still_holds_its_lease_is_not_failed(node: SteeredNode, queued: Job) -> None:
    for _ in range(3):
        node.clock.advance(LEASE_S)
        claimed = node.claimed()
    node.clock.advance(LEASE_S - 1)

    assert sweep_dead(node) == 0
    assert node.job(claimed).state == "running"


def test_a_poisoned_job_does_not_hold_up_the_others(node: SteeredNode, queued: Job) -> None:
    node.clock.advance(1)
    node.receive(*four_views("1.2.9"))
    for _ in range(3):
        node.claim(job_id=queued.id)
        node.clock.advance(LEASE_S)

    other = node.claim(max_attempts=3)

    assert other is not None
    assert other.job_id != queued.id


def test_a_deliver_job_has_no_limit_where_none_is_set(node: SteeredNode, queued: Job) -> None:
    node.finish_scoring(node.claimed())
    for fence in range(1, 12):
        claimed = node.claim(JobKind.DELIVER, max_attempts=None)
        assert claimed is not None
        assert claimed.fence == fence
        node.clock.advance(LEASE_S)
        assert sweep_dead(node) == 0


# --- a person asks again


def test_a_failed_job_is_queued_again_by_command_with_all_its_attempts(
    node: SteeredNode, queued: Job
) -> None:
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        give_up(tx, claimed, code="INPUT", reason="x")
    node.clock.advance(3600)

    with node.transaction("anna") as tx:
        retry(tx, queued.id)

    job = node.job(claimed)
    assert (job.state, job.attempts, job.next_try_at) == ("queued", 0, node.clock.time)
    assert (job.error_code, job.error, job.finished_at) == (None, None, None)
    event = node.audited()[-1]
    assert (event.action, event.actor, event.job_id) == ("job.retried", "anna", queued.id)
    assert node.claimed().first_started_at == claimed.first_started_at


def test_a_command_ends_the_backoff_of_a_waiting_job(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        try_later(tx, claimed, delay_s=3600, code="X", reason="x")
    assert node.claim() is None

    with node.transaction("anna") as tx:
        retry(tx, queued.id)

    assert node.claimed().job_id == queued.id


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.DONE])
def test_a_running_or_done_job_is_not_retried(node: SteeredNode, queued: Job, state: JobState) -> None:
    claimed = node.claimed()
    if state is JobState.DONE:
        node.finish_scoring(claimed)
    before, audited_before = facts(node.job(claimed)), node.actions()

    with pytest.raises(TransitionRefusedError, match=state.value), node.transaction("anna") as tx:
        retry(tx, queued.id)

    assert facts(node.job(claimed)) == before
    assert node.actions() == audited_before


def test_an_unknown_job_is_not_retried(node: SteeredNode) -> None:
    with pytest.raises(UnknownRecordError, match="job list"), node.transaction("anna") as tx:
        retry(tx, "0" * 32)

    assert node.actions() == []


def test_retrying_a_delivery_sends_what_was_refused_and_nothing_else(node: SteeredNode, queued: Job) -> None:
    scored = node.claimed()
    node.finish_scoring(scored, results=[result_object(n) for n in range(3)], destinations=[PACS, ARCHIVE])
    mine, theirs = node.claimed(JobKind.DELIVER), node.claimed(JobKind.DELIVER, OTHER_WORKER)
    for claimed in (mine, theirs):
        with node.transaction(claimed.owner) as tx:
            first, second, _ = deliveries.outgoing(tx.session, claimed)
            deliveries.record(
                tx, claimed, first.delivery_id, DeliveryEvent.ACCEPTED, status=0x0000, detail=""
            )
            deliveries.record(tx, claimed, second.delivery_id, DeliveryEvent.REFUSE, status=0xA900, detail="")
            give_up(tx, claimed, code="REFUSED", reason="x")

    with node.transaction("anna") as tx:
        retry(tx, mine.job_id)

    of_mine = [d.state for d in node.rows(Delivery, Delivery.job_id == mine.job_id)]
    of_theirs = [d.state for d in node.rows(Delivery, Delivery.job_id == theirs.job_id)]
    assert of_mine == [DeliveryState.DELIVERED, DeliveryState.PENDING, DeliveryState.PENDING]
    assert of_theirs == [DeliveryState.DELIVERED, DeliveryState.REFUSED, DeliveryState.PENDING]
    assert node.job(theirs).state == "failed"


# --- revisions in their order


def test_the_job_of_revision_2_waits_for_that_of_revision_1(node: SteeredNode, queued: Job) -> None:
    node.receive(mammogram("R", "ML"))
    node.complete()
    (second,) = [job for job in node.jobs() if job.id != queued.id]

    first = node.claimed()
    assert first.job_id == queued.id
    assert not is_due(node)
    assert node.claim(job_id=second.id) is None

    node.finish_scoring(first)
    assert node.claimed().job_id == second.id


def test_a_failed_revision_does_not_hold_up_the_next(node: SteeredNode, queued: Job) -> None:
    node.receive(mammogram("R", "ML"))
    node.complete()
    first = node.claimed()
    with node.transaction(WORKER) as tx:
        give_up(tx, first, code="INPUT", reason="x")

    assert node.claimed().job_id != first.job_id


def test_the_revisions_of_other_studies_do_not_wait(node: SteeredNode, queued: Job) -> None:
    node.receive(*four_views("1.2.9"))

    assert node.claimed().job_id != node.claimed().job_id


# --- doorbells


def test_a_due_job_is_offered_once_and_again_when_nobody_came(node: SteeredNode, queued: Job) -> None:
    assert take(node) == [(JobKind.SCORE, queued.id)]
    assert take(node) == []
    node.clock.advance(9.9)
    assert take(node) == []

    node.clock.advance(0.1)
    assert take(node) == [(JobKind.SCORE, queued.id)]
    assert take(node) == []


def test_a_doorbell_changes_no_state_and_needs_no_audit(node: SteeredNode, queued: Job) -> None:
    audited_before = node.actions()
    take(node)

    (job,) = node.jobs()
    assert (job.state, job.attempts, job.published_at) == ("queued", 0, node.clock.time)
    assert node.actions() == audited_before


def test_a_running_job_is_offered_again_only_when_its_lease_ended(node: SteeredNode, queued: Job) -> None:
    take(node)
    node.claimed()
    node.clock.advance(LEASE_S - 1)
    assert take(node) == []

    node.clock.advance(1)
    assert take(node) == [(JobKind.SCORE, queued.id)]


@pytest.mark.parametrize("delay_s", [1.0, 3600.0])
def test_a_job_that_is_tried_later_is_offered_when_its_backoff_ends(
    node: SteeredNode, queued: Job, delay_s: float
) -> None:
    take(node)
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        try_later(tx, claimed, delay_s=delay_s, code="X", reason="x")
    assert take(node) == []

    node.clock.advance(delay_s)
    assert take(node) == [(JobKind.SCORE, queued.id)]


@pytest.mark.parametrize("way", ["released", "retried", "left by a dead worker"])
def test_a_job_that_somebody_makes_due_is_offered_at_once(node: SteeredNode, queued: Job, way: str) -> None:
    assert take(node) == [(JobKind.SCORE, queued.id)]
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        if way == "released":
            release(tx, claimed)
        elif way == "left by a dead worker":
            end_leases(tx, WORKER)
        else:
            give_up(tx, claimed, code="X", reason="x")
            retry(tx, claimed.job_id)

    assert take(node) == [(JobKind.SCORE, queued.id)]


def test_a_job_out_of_attempts_is_not_offered(node: SteeredNode, queued: Job) -> None:
    for _ in range(3):
        node.claimed()
        node.clock.advance(LEASE_S)

    assert take(node) == []


def test_two_dispatchers_ring_each_doorbell_once(node: SteeredNode) -> None:
    for n in range(5):
        node.receive(*four_views(f"1.2.{n}"))

    rung = [
        job_id for taken in at_the_same_time(partial(take, node), partial(take, node)) for _, job_id in taken
    ]

    assert sorted(rung) == sorted(job.id for job in node.jobs())


# --- training runs


def test_a_training_run_is_queued_claimed_and_carries_its_options(node: SteeredNode) -> None:
    with node.transaction("anna") as tx:
        job_id = queue_training(tx, recipe="phantoms", order={"seed": 7, "epochs": 2})

    claimed = node.claimed(JobKind.TRAIN)

    assert (claimed.job_id, claimed.task, claimed.revision_id) == (job_id, "phantoms", None)
    assert claimed.order == '{"epochs":2,"seed":7}'
    assert node.actions() == ["job.queued", "job.claimed"]
    assert node.audited()[0].actor == "anna"


def test_nothing_of_a_transaction_that_fails_is_kept(node: SteeredNode, queued: Job) -> None:
    claimed = node.claimed()
    before, audited_before = facts(node.job(claimed)), node.actions()

    with pytest.raises(ZeroDivisionError), node.transaction(LISTENER) as tx:
        finish(tx, claimed)
        queue_training(tx, recipe="phantoms", order={})
        raise ZeroDivisionError

    assert facts(node.job(claimed)) == before
    assert node.rows(Job, Job.kind == JobKind.TRAIN) == []
    assert node.actions() == audited_before
