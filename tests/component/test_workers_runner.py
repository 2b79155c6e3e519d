"""One process with several queues: their turns, what it takes for deafness, and how it says that it lives."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from db.jobs import Claim, finish
from db.lifecycle import JobKind, JobState
from db.session import Database
from dicom_node.cli.processes.worker import terms_of
from tests.steered_node import WORKER, SteeredNode, four_views, on_sqlite
from workers.claim_loop import ClaimLoop, Handler, Terms
from workers.lease import Lease
from workers.retry import Policy
from workers.runner import Hearing, SignOfLife, run_embedded

TERMS = Terms(lease_s=30, hard_limit_s=900, policy=Policy(attempts=3, backoff_max_s=8))


def loop_of(node: SteeredNode, kind: JobKind, handler: Handler) -> ClaimLoop:
    return ClaimLoop(node.database, kind, handler, terms=TERMS, owner=WORKER)


def refusing(claim: Claim, lease: Lease) -> None:
    raise AssertionError("this queue was not to be worked on")


def test_queues_of_one_process_take_turns_so_that_results_leave_during_a_backlog(node: SteeredNode) -> None:
    for number in range(3):
        node.receive(*four_views(f"2.25.{number}"))
    done: list[JobKind] = []

    def score(claim: Claim, lease: Lease) -> None:
        done.append(JobKind.SCORE)
        node.finish_scoring(claim)

    def deliver(claim: Claim, lease: Lease) -> None:
        done.append(JobKind.DELIVER)
        with node.transaction(WORKER) as tx:
            finish(tx, claim)
        if done.count(JobKind.DELIVER) == 3:
            for loop in loops.values():
                loop.stop()

    loops = {
        JobKind.SCORE: loop_of(node, JobKind.SCORE, score),
        JobKind.DELIVER: loop_of(node, JobKind.DELIVER, deliver),
    }
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run_embedded, node.database, loops, name=WORKER, stop_deadline_s=600).result(timeout=120)
    assert done == [JobKind.SCORE, JobKind.DELIVER] * 3


def test_a_drain_with_a_limit_leaves_the_rest_due(node: SteeredNode) -> None:
    for number in range(3):
        node.receive(*four_views(f"2.25.{number}"))
    loop = loop_of(node, JobKind.SCORE, lambda claim, lease: node.finish_scoring(claim))
    assert loop.drain(limit=1) == 1
    assert loop.is_due()
    assert sorted(job.state for job in node.jobs()) == [JobState.DONE, JobState.QUEUED, JobState.QUEUED]


def test_work_that_waits_behind_a_long_job_of_another_queue_is_not_missed(node: SteeredNode) -> None:
    node.receive(*four_views("2.25.1"))
    node.finish_scoring(node.claimed())  # a delivery is due
    node.receive(*four_views("2.25.2"))
    begun, go_on = threading.Event(), threading.Event()

    def score(claim: Claim, lease: Lease) -> None:
        begun.set()
        assert go_on.wait(60)
        node.finish_scoring(claim)

    scoring, delivering = (
        loop_of(node, JobKind.SCORE, score),
        loop_of(node, JobKind.DELIVER, refusing),
    )
    hearing = Hearing([scoring, delivering])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(scoring.drain)
        assert begun.wait(60)
        during = [hearing.missed_s(10) for _ in range(10)]
        go_on.set()
        running.result(timeout=60)
    assert delivering.is_due()
    assert during == [0.0] * 10


def test_work_that_stays_due_while_nothing_is_in_hand_was_missed(node: SteeredNode) -> None:
    loop = loop_of(node, JobKind.SCORE, lambda claim, lease: node.finish_scoring(claim))
    hearing = Hearing([loop, loop_of(node, JobKind.DELIVER, refusing)])
    assert hearing.missed_s(10) == 0
    node.receive(*four_views())
    assert [hearing.missed_s(10) for _ in range(3)] == [10, 20, 30]
    loop.drain()
    node.claimed(JobKind.DELIVER)
    assert hearing.missed_s(10) == 0, "it heard again"


@on_sqlite
def test_a_sign_of_life_that_is_refused_is_not_taken_for_an_absent_database(
    database: Database, log: io.StringIO
) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE process"))
    with SignOfLife(database, {}, WORKER, rung=False):
        pass
    first = json.loads(log.getvalue().splitlines()[0])
    assert (first["event"], first["level"]) == ("worker.sign_refused", "error")


def test_no_hard_limit_ends_a_train_worker_and_one_ends_the_others() -> None:
    terms = {kind: terms_of(kind, TERMS) for kind in JobKind}
    assert {kind: own.hard_limit_s for kind, own in terms.items()} == {
        JobKind.SCORE: 900,
        JobKind.DELIVER: 900,
        JobKind.TRAIN: None,
        JobKind.COMMIT: 900,
    }
