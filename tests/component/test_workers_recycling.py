"""A score worker that ends itself between two jobs: when, what it leaves, and that nobody misses it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from db import processes
from db.jobs import Claim, finish
from db.lifecycle import JobKind, JobState
from dicom_node.errors import ResultError
from models.errors import DeviceMemoryError
from tests.steered_node import WORKER, SteeredNode, four_views
from workers.claim_loop import ClaimLoop, Handler, Terms
from workers.lease import Lease
from workers.recycling import YOUNGEST_S, Limits, Recycling, keep_place, resident_bytes, take_place
from workers.retry import Policy
from workers.runner import SignOfLife, run_embedded

TERMS = Terms(lease_s=30, hard_limit_s=900, policy=Policy(attempts=9, backoff_max_s=8))
SUCCESSOR = "worker@host-a:99"
PLACE = "worker@host-a:successor"
FAR = 60.0  # longer than any backoff of these terms


def recycled_after(limits: Limits, loops: dict[JobKind, ClaimLoop], **more: Callable[[], float]) -> Recycling:
    def stop() -> None:
        for loop in loops.values():
            loop.stop()

    return Recycling(limits, stop, **more)


def scoring_loop(node: SteeredNode, limits: Limits, handler: Handler | None = None) -> ClaimLoop:
    """Return a loop that a recycling of its own stops."""
    loops: dict[JobKind, ClaimLoop] = {}
    recycling = recycled_after(limits, loops)
    loops[JobKind.SCORE] = ClaimLoop(
        node.database,
        JobKind.SCORE,
        handler or finishing(node),
        terms=TERMS,
        owner=WORKER,
        after_job=recycling.after_job,
    )
    return loops[JobKind.SCORE]


def finishing(node: SteeredNode) -> Handler:
    return lambda claim, lease: node.finish_scoring(claim)


def failing(error: Exception) -> Handler:
    def handler(claim: Claim, lease: Lease) -> None:
        raise error

    return handler


def receive(node: SteeredNode, studies: int) -> None:
    for number in range(studies):
        node.receive(*four_views(f"2.25.{number}"))


def states(node: SteeredNode) -> list[str]:
    return [job.state for job in node.jobs()]


def heard_and_silent(node: SteeredNode) -> tuple[list[str], list[str]]:
    with node.reading() as session:
        heard, silent = processes.alive(session, node.database.now_in(session))
    return [process.name for process in heard], [process.name for process in silent]


def test_after_its_jobs_a_worker_claims_no_other_and_leaves_the_rest_due(
    node: SteeredNode, log: io.StringIO
) -> None:
    receive(node, 3)
    loop = scoring_loop(node, Limits(jobs=2))
    assert loop.drain() == 2
    assert loop.is_stopping
    assert sorted(states(node)) == [JobState.DONE, JobState.DONE, JobState.QUEUED]
    assert {job.lease_owner for job in node.jobs()} == {None}, "no lease is held"
    (told,) = [json.loads(line) for line in log.getvalue().splitlines() if "worker.recycled" in line]
    assert (told["level"], told["reason"], told["jobs"]) == ("info", "jobs", 2)
    assert loop.drain() == 0


def test_without_limits_a_worker_goes_on(node: SteeredNode) -> None:
    receive(node, 3)
    loop = scoring_loop(node, Limits())
    assert loop.drain() == 3
    assert not loop.is_stopping


def test_a_job_that_failed_counts_and_waits_for_its_next_attempt(node: SteeredNode) -> None:
    receive(node, 2)
    loop = scoring_loop(node, Limits(jobs=1), failing(ResultError("no region")))
    assert loop.drain() == 1
    assert loop.is_stopping
    assert states(node) == [JobState.QUEUED] * 2
    assert sorted(job.attempts for job in node.jobs()) == [0, 1]


def test_a_doorbell_ends_with_the_last_job_too(node: SteeredNode) -> None:
    receive(node, 2)
    named = node.jobs()[1].id
    loop = scoring_loop(node, Limits(jobs=1))
    assert loop.drain(named) == 1
    assert {job.id: job.state for job in node.jobs()}[named] == JobState.DONE
    assert sorted(states(node)) == [JobState.DONE, JobState.QUEUED]


@pytest.mark.parametrize(
    ("age_s", "limit", "reason"),
    [
        (YOUNGEST_S - 1, 1, None),
        (YOUNGEST_S, 1, "resident_bytes"),
        (YOUNGEST_S, 1 << 50, None),
        (YOUNGEST_S, 0, None),
    ],
    ids=["young", "large", "small", "off"],
)
def test_a_worker_that_grew_ends_after_its_job_unless_it_just_began(
    age_s: float, limit: int, reason: str | None
) -> None:
    stopped: list[str] = []
    times = iter([1000.0, 1000.0 + age_s])
    recycling = Recycling(
        Limits(resident_bytes=limit), lambda: stopped.append("stop"), now_s=lambda: next(times)
    )
    recycling.after_job(None)
    assert recycling.reason == reason
    assert stopped == ["stop"] * (reason is not None)


def test_the_resident_memory_is_what_the_process_holds_now() -> None:
    before = resident_bytes()
    held = np.ones(1 << 27, np.uint8)
    with_it = resident_bytes()
    del held
    after = resident_bytes()
    assert with_it - before > 1 << 26
    assert with_it - after > 1 << 26, "not the most that it ever held"


@pytest.mark.parametrize("error", [DeviceMemoryError("full"), MemoryError()], ids=["gpu", "host"])
def test_the_second_job_that_finds_no_memory_ends_the_process_and_both_come_again(
    node: SteeredNode, error: Exception
) -> None:
    receive(node, 3)
    loop = scoring_loop(node, Limits(), failing(error))
    assert loop.drain() == 2
    assert loop.is_stopping
    jobs = node.jobs()
    assert [job.state for job in jobs] == [JobState.QUEUED] * 3
    assert sorted(job.attempts for job in jobs) == [0, 1, 1]
    assert all(job.next_try_at > node.clock.time for job in jobs if job.attempts), "after their backoff"
    node.clock.advance(FAR)
    assert scoring_loop(node, Limits()).drain() == 3, "the successor does them"
    assert states(node) == [JobState.DONE] * 3


def test_one_job_that_finds_no_memory_ends_nobody(node: SteeredNode) -> None:
    receive(node, 2)
    errors: list[Exception] = [DeviceMemoryError("full")]

    def handler(claim: Claim, lease: Lease) -> None:
        if errors:
            raise errors.pop()
        node.finish_scoring(claim)

    loop = scoring_loop(node, Limits(), handler)
    assert loop.drain() == 2
    assert not loop.is_stopping
    assert sorted(states(node)) == [JobState.DONE, JobState.QUEUED]


def test_a_worker_that_was_told_to_stop_is_not_recycled(node: SteeredNode) -> None:
    receive(node, 1)
    loops: dict[JobKind, ClaimLoop] = {}
    recycling = recycled_after(Limits(jobs=1), loops)

    def handler(claim: Claim, lease: Lease) -> None:
        loops[JobKind.SCORE].stop()
        node.finish_scoring(claim)

    loops[JobKind.SCORE] = ClaimLoop(
        node.database, JobKind.SCORE, handler, terms=TERMS, owner=WORKER, after_job=recycling.after_job
    )
    loops[JobKind.SCORE].drain()
    assert recycling.reason is None, "nobody comes in its place"
    assert states(node) == [JobState.DONE]


def test_a_process_with_several_queues_ends_with_all_of_them_and_says_goodbye(node: SteeredNode) -> None:
    receive(node, 3)
    loops: dict[JobKind, ClaimLoop] = {}
    recycling = recycled_after(Limits(jobs=2), loops)

    def deliver(claim: Claim, lease: Lease) -> None:
        with node.transaction(WORKER) as tx:
            finish(tx, claim)

    loops[JobKind.SCORE] = ClaimLoop(
        node.database,
        JobKind.SCORE,
        finishing(node),
        terms=TERMS,
        owner=WORKER,
        after_job=recycling.after_job,
    )
    loops[JobKind.DELIVER] = ClaimLoop(node.database, JobKind.DELIVER, deliver, terms=TERMS, owner=WORKER)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(
            run_embedded, node.database, loops, name=WORKER, stop_deadline_s=600, recycling=recycling
        ).result(timeout=120)
    assert sorted(states(node)) == [JobState.DONE, JobState.DONE, JobState.QUEUED]
    delivered = sorted(job.state for job in node.jobs(JobKind.DELIVER))
    assert delivered == [JobState.DONE, JobState.QUEUED], "deliveries do not count, nor go on"
    assert node.actions().count("process.stopped") == 1
    assert heard_and_silent(node) == ([PLACE], []), "its kind is not missing meanwhile"


def recycled(node: SteeredNode, name: str) -> None:
    """Let a worker begin, and end for its successor."""
    recycling = recycled_after(Limits(jobs=1), {})
    with SignOfLife(node.database, {}, name, rung=False, recycling=recycling):
        recycling.after_job(None)


def test_a_successor_takes_the_place_that_was_kept_however_often(node: SteeredNode) -> None:
    for pid in (12, 13, 14):
        recycled(node, f"worker@host-a:{pid}")
        node.clock.advance(20)
    assert heard_and_silent(node) == ([PLACE], [])
    with SignOfLife(node.database, {}, SUCCESSOR, rung=False):
        assert heard_and_silent(node) == ([SUCCESSOR], [])
    node.clock.advance(3600)
    assert heard_and_silent(node) == ([], []), "it was told to stop: nobody comes in its place"


def test_where_no_successor_comes_its_silence_is_told(node: SteeredNode) -> None:
    recycled(node, WORKER)
    node.clock.advance(processes.SILENT_FOR_S + 1)
    with SignOfLife(node.database, {}, "worker@host-b:13", rung=False):
        assert heard_and_silent(node) == (["worker@host-b:13"], [PLACE]), "one of another host is none"
    with SignOfLife(node.database, {}, "deliver@host-a:13", rung=False):
        assert heard_and_silent(node)[1] == [PLACE], "nor is one of another kind"


def test_two_that_end_one_after_the_other_keep_one_place_from_the_last_end_on(node: SteeredNode) -> None:
    for name in (WORKER, SUCCESSOR):
        node.clock.advance(20)
        with node.transaction(name) as tx:
            keep_place(tx, name)
    node.clock.advance(20)
    assert heard_and_silent(node) == ([PLACE], [])
    for name in (WORKER, SUCCESSOR):
        with node.transaction(name) as tx:
            take_place(tx, name)
    assert heard_and_silent(node) == ([], [])
