"""Score workers that end themselves between two jobs: others go on, and every study is scored once."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from db import processes
from db.lifecycle import JobState
from tests.command_line import command
from tests.databases import PostgresServer
from tests.redis_server import RedisServer, redis_server
from tests.running_node import START_S, WORK_S, RunningNode, until
from training.datasets.phantom_objects import study
from workers.exit_statuses import WorkerExit

__all__ = ["redis_server"]

pytestmark = pytest.mark.timeout(600)

JOBS = 2


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    """A node whose score workers end after two jobs each."""
    with RunningNode(tmp_path, settings={"scoring": {"recycle_after_jobs": JOBS}}) as made:
        yield made


def send_studies(node: RunningNode, *seeds: int) -> None:
    for seed in seeds:
        node.send(study(seed=seed, rows=320, columns=260))


def states(node: RunningNode) -> list[str]:
    return sorted(str(job["state"]) for job in node.jobs())


def claims(node: RunningNode) -> list[tuple[str, str]]:
    """Return which worker claimed which score job, as the trail tells."""
    answer = command("audit", "query", "--action", "job.claimed", "--json", "--data-dir", node.data_dir)
    assert answer.status == 0, answer.err
    return [
        (event["actor"], event["job_id"])
        for event in json.loads(answer.out)
        if event["detail"]["kind"] == "score"
    ]


def doctors_word_on_processes(node: RunningNode) -> tuple[str, str]:
    findings = json.loads(command("doctor", "--json", "--data-dir", node.data_dir).out)
    (finding,) = [each for each in findings if each["check"] == "processes"]
    return finding["verdict"], finding["found"]


def made_room(worker: subprocess.Popen[bytes], node: RunningNode) -> None:
    assert worker.wait(WORK_S) == WorkerExit.RECYCLED == 79
    name = f":{worker.pid}"
    with node.database.reading() as session:
        heard, silent = processes.alive(session, node.database.now_in(session))
    assert not [each for each in heard + silent if each.name.endswith(name)], "it said goodbye"
    assert JobState.RUNNING not in states(node), "it holds no job"


def test_serve_starts_another_after_so_many_jobs_and_every_study_is_scored_once(node: RunningNode) -> None:
    node.serve()
    send_studies(node, 1, 2, 3, 4, 5)
    until(lambda: node.log.count("worker.recycled") >= 1, WORK_S, "the end of the first worker")
    assert doctors_word_on_processes(node)[0] == "ok", "nobody is told that a worker is missing"
    until(lambda: states(node) == [JobState.DONE] * 5, WORK_S, "every score")

    claimed = claims(node)
    workers = list(dict.fromkeys(worker for worker, _ in claimed))
    assert sorted(Counter(job for _, job in claimed).values()) == [1] * 5, "no study was scored twice"
    assert sorted(Counter(worker for worker, _ in claimed).values()) == [1, JOBS, JOBS]
    assert len(workers) == 3, "each was a process of its own"
    assert [job["attempts"] for job in node.jobs()] == [1] * 5
    assert doctors_word_on_processes(node)[0] == "ok"
    events = [json.loads(line) for line in node.log.splitlines()]
    of_parts = [event for event in events if event["event"] in ("part.recycled", "part.died")]
    assert [(each["event"], each["level"], each["part"]) for each in of_parts] == [
        ("part.recycled", "info", "score-1")
    ] * 2, "nothing died"
    assert "job.given_back" not in node.log
    assert "part.leases_ended" not in node.log
    assert node.verify_audit().ok


def test_a_worker_without_a_supervisor_tells_by_its_status_that_it_made_room_and_the_next_one_goes_on(
    node: RunningNode,
) -> None:
    node.start("listen")
    node.wait_for_processes({"listen"})
    send_studies(node, 1, 2, 3)
    made_room(node.start("work", "--queues", "score"), node)
    assert states(node) == [JobState.DONE, JobState.DONE, JobState.QUEUED]

    second = node.start("work", "--queues", "score")
    until(lambda: states(node) == [JobState.DONE] * 3, START_S + WORK_S, "the last score")
    assert second.poll() is None, "it has a job left to do"
    assert [job["attempts"] for job in node.jobs()] == [1] * 3


@pytest.mark.redis
@pytest.mark.postgres
def test_a_worker_that_a_broker_rings_for_ends_alike(
    tmp_path: Path, postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    url = postgres_server.create(upgraded=True)
    with RunningNode(
        tmp_path,
        database_url=url,
        broker_url=redis_server.url,
        settings={"ae_title": "RECYCLED", "scoring": {"recycle_after_jobs": JOBS}},
    ) as node:
        node.start("listen")
        node.start("dispatch")
        rung = node.start("work", "--queues", "score")
        node.wait_for_processes({"listen", "dispatch", "score"})
        until(lambda: '"worker.ready"' in node.log, START_S, "the worker's ear")
        send_studies(node, 1, 2, 3, 4)
        made_room(rung, node)
        assert states(node) == [JobState.DONE] * 2 + [JobState.QUEUED] * 2

        # What waited is done before the first doorbell is answered.
        made_room(node.start("work", "--queues", "score"), node)
        assert states(node) == [JobState.DONE] * 4
        assert [job["attempts"] for job in node.jobs()] == [1] * 4
        assert "Traceback" not in node.log
    postgres_server.drop(url)
