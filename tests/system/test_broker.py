"""Several processes on PostgreSQL and Redis: whatever ends or forgets, every study is reported once."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from db import processes
from db.lifecycle import JobState
from dicom_node.cli.exit_codes import ExitCode
from dicom_node.crashpoints import VARIABLE
from tests.databases import PostgresServer
from tests.redis_server import RedisServer, Watcher, redis_server
from tests.running_node import START_S, WORK_S, RunningNode, until
from tests.simulators.pacs import SimulatedPacs
from training.datasets.phantom_objects import study

__all__ = ["redis_server"]

pytestmark = [pytest.mark.redis, pytest.mark.postgres, pytest.mark.timeout(600)]

SEEDS = itertools.count(700)
NAME, PATIENT_ID = "ZZCANARY^NAME", "ZZCANARYID"
QUEUE = "DICOM_NODE:score"
BACK_WITHIN_S = 5.0


@dataclass
class Hospital:
    """Listener, dispatcher, score workers and a deliver worker, each a process of its own."""

    node: RunningNode
    pacs: SimulatedPacs
    redis: RedisServer
    calm: Path
    scorers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_scorers(self, count: int) -> None:
        """Start score workers; the next one at the crash point dies there once :attr:`calm` is removed."""
        armed = {VARIABLE: f"score.predicted@{self.calm}"}
        self.scorers += [
            self.node.start("work", "--queues", "score", environment=armed) for _ in range(count)
        ]

    def scorers_are_ready(self) -> bool:
        """Whether every score worker has told that it lives."""
        with self.node.database.reading() as session:
            now = self.node.database.now_in(session)
            alive, _ = processes.alive(session, now, silent_for_s=60)
        return {process.pid for process in self.scorers} <= {int(p.name.rpartition(":")[2]) for p in alive}

    def stop_scorers(self) -> None:
        """End the score workers in good order."""
        for process in self.scorers:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(90) for process in self.scorers] == [0] * len(self.scorers)
        self.scorers.clear()

    def send_study(self) -> str:
        """Send a new study and return its UID."""
        images = study(seed=next(SEEDS), rows=640, columns=512, patient_name=NAME, patient_id=PATIENT_ID)
        self.node.send(images)
        return str(images[0].StudyInstanceUID)

    def wait_until_reported_once(self, *uids: str, timeout_s: float = WORK_S) -> None:
        """Wait until the PACS holds every result of these studies; then look for anything twice."""

        def all_done() -> bool:
            assert not self.node.jobs(kind=None, state=JobState.FAILED), self.node.log[-3000:]
            jobs = [job for uid in uids for job in self.node.jobs(kind=None, study_instance_uid=uid)]
            return len(jobs) == 2 * len(uids) and {job["state"] for job in jobs} == {JobState.DONE}

        until(all_done, timeout_s, "the reports")
        for uid in uids:
            rows = [row for row in self.node.results() if row["study_instance_uid"] == uid]
            assert rows
            assert {row["delivery_state"] for row in rows} == {"delivered"}
            assert [row["kind"] for row in rows].count("measurement_report_2d") == 1
            assert all(len(self.pacs.hashes[str(row["sop_instance_uid"])]) == 1 for row in rows)

    def end_connections(self) -> int:
        """End the connection of every process to the database; return how many there were."""
        with self.node.database.reading() as session:
            found = session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
            return len(found.all())

    def attempts(self, uid: str) -> int:
        """Return how often the study's score job was claimed."""
        (job,) = self.node.jobs(study_instance_uid=uid)
        return int(str(job["attempts"]))


@pytest.fixture(scope="module")
def running_hospital(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, redis_server: RedisServer
) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    url = postgres_server.create(upgraded=True)
    calm = folder / "calm"
    calm.touch()
    with (
        SimulatedPacs() as pacs,
        RunningNode(
            folder,
            [pacs.destination],
            database_url=url,
            broker_url=redis_server.url,
            # Two score workers: one that is only slow must not lose its job to the other.
            settings={"jobs": {"lease_s": 10.0, "backoff_max_s": 1.0}},
        ) as node,
    ):
        hospital = Hospital(node, pacs, redis_server, calm)
        node.start("listen")
        until((node.data_dir / "keys" / "checkpoint.key").exists, START_S, "the listener's start")
        node.start("dispatch")
        node.start("work", "--queues", "deliver")
        hospital.start_scorers(2)
        node.wait_for_processes({"listen", "dispatch", "score", "deliver"})
        yield hospital
    postgres_server.drop(url)


@pytest.fixture
def hospital(running_hospital: Hospital) -> Hospital:
    """The processes, with two score workers that live."""
    alive = [process for process in running_hospital.scorers if process.poll() is None]
    running_hospital.scorers[:] = alive
    running_hospital.calm.touch()
    running_hospital.start_scorers(2 - len(alive))
    until(running_hospital.scorers_are_ready, START_S, "the start of the score workers")
    return running_hospital


def test_a_study_is_reported_and_redis_hears_job_ids_only(hospital: Hospital) -> None:
    with Watcher(hospital.redis) as watcher:
        uid = hospital.send_study()
        hospital.wait_until_reported_once(uid)
        traffic = watcher.traffic
    for job in hospital.node.jobs(kind=None, study_instance_uid=uid):
        assert "LPUSH" in traffic.upper()
        assert '"dicom_node.' in traffic.replace("\\", ""), "doorbells did pass"
        assert job["state"] == JobState.DONE
    assert uid not in traffic
    assert "ZZCANARY" not in traffic + hospital.node.log
    assert hospital.attempts(uid) == 1


def test_workers_tell_of_their_jobs_in_lines_of_json_and_celery_does_not_chat(hospital: Hospital) -> None:
    uid = hospital.send_study()
    hospital.wait_until_reported_once(uid)
    (score_job,) = hospital.node.jobs(study_instance_uid=uid)

    def told() -> set[str]:
        """The events about the study's score job; every line of every worker must be an event."""
        text = "".join(path.read_text() for path in hospital.node.folder.glob("*-work.log"))
        events = [json.loads(line) for line in text.splitlines()]
        assert {event["level"] for event in events if "event" in event} <= {"info", "warning"}
        assert "worker.ready" in {event["event"] for event in events}
        assert not [event for event in events if "celery@" in str(event) or "Task dicom_node" in str(event)]
        return {event["event"] for event in events if event.get("job_id") == score_job["job_id"]}

    until(lambda: told() == {"job.claimed", "job.done"}, 60, "the last line")


def test_a_worker_killed_in_the_middle_of_a_job_is_replaced_by_another_once(hospital: Hospital) -> None:
    hospital.calm.unlink()
    uid = hospital.send_study()
    hospital.wait_until_reported_once(uid)
    dead = [process for process in hospital.scorers if process.poll() is not None]
    assert [process.returncode for process in dead] == [-signal.SIGKILL]
    assert hospital.attempts(uid) == 2
    assert hospital.node.verify_audit().ok


def test_redis_may_be_down_for_the_whole_time(hospital: Hospital) -> None:
    hospital.redis.kill()
    try:
        uids = [hospital.send_study() for _ in range(2)]
        revisions = {str(row["study_instance_uid"]): row["state"] for row in hospital.node.studies()}
        assert {revisions[uid] for uid in uids} == {"complete"}, "receiving needs no broker"
    finally:
        hospital.redis.start()
    hospital.wait_until_reported_once(*uids)


def test_redis_may_be_frozen_while_studies_arrive(hospital: Hospital) -> None:
    with hospital.redis.frozen():
        uids = [hospital.send_study() for _ in range(2)]
        states = {str(row["study_instance_uid"]): row["state"] for row in hospital.node.studies()}
        assert {states[uid] for uid in uids} == {"complete"}, "receiving waits for no broker"
    hospital.wait_until_reported_once(*uids)


def test_postgresql_may_end_every_connection_while_studies_are_on_their_way(hospital: Hospital) -> None:
    uids = []
    for _ in range(2):
        uids.append(hospital.send_study())
        assert hospital.end_connections() > 0
    hospital.wait_until_reported_once(*uids)
    assert hospital.node.verify_audit().ok


@pytest.mark.slow
def test_jobs_whose_messages_were_flushed_are_done_all_the_same(hospital: Hospital) -> None:
    hospital.stop_scorers()
    uids = [hospital.send_study() for _ in range(2)]
    until(lambda: hospital.redis.length(QUEUE) >= len(uids), 60, "the doorbells")
    hospital.redis.flush()
    assert hospital.redis.length(QUEUE) == 0
    assert {job["state"] for uid in uids for job in hospital.node.jobs(study_instance_uid=uid)} == {"queued"}
    hospital.start_scorers(2)
    hospital.wait_until_reported_once(*uids)
    assert [hospital.attempts(uid) for uid in uids] == [1, 1]


def seconds_until_restarted(node: RunningNode, part: str) -> float | None:
    """How long after its death ``serve`` started a part again; None where it did not yet."""
    died_at: datetime | None = None
    for event in (json.loads(line) for line in node.log.splitlines() if line.startswith("{")):
        if event.get("part") == part and event["event"] == "part.died":
            died_at = datetime.fromisoformat(event["timestamp"])
        elif event.get("part") == part and event["event"] == "part.started" and died_at is not None:
            return (datetime.fromisoformat(event["timestamp"]) - died_at).total_seconds()
    return None


def ways_of_dying(node: RunningNode, part: str) -> list[tuple[str, int]]:
    """Return level and status of each death that ``serve`` told of a part."""
    events = [json.loads(line) for line in node.log.splitlines() if line.startswith("{")]
    deaths = [event for event in events if (event["event"], event.get("part")) == ("part.died", part)]
    return [(death["level"], death["status"]) for death in deaths]


@pytest.mark.slow
def test_a_message_that_is_no_message_stops_no_study(hospital: Hospital, tmp_path: Path) -> None:
    """A second node on the same Redis, whose supervisor restarts what the message ends."""
    with SimulatedPacs() as pacs:
        settings = {"ae_title": "NODE_B", "scoring": {"workers": 1}}
        with RunningNode(
            tmp_path, [pacs.destination], broker_url=hospital.redis.url, settings=settings
        ) as other:
            other.start("serve")
            other.wait_for_processes({"listen", "dispatch", "score", "deliver"})
            with hospital.redis.client() as client:
                client.lpush("NODE_B:score", "this is no JSON")
            until(lambda: seconds_until_restarted(other, "score-1") is not None, START_S, "the restart")
            assert (seconds_until_restarted(other, "score-1") or 0.0) < BACK_WITHIN_S
            assert ways_of_dying(other, "score-1") == [("error", ExitCode.FAILED)]
            assert "find out who else writes to the broker" in other.log
            images = study(seed=next(SEEDS), rows=640, columns=512)
            with Watcher(hospital.redis) as watcher:
                other.send(images)
                other.wait_until_delivered(1)
                traffic = watcher.traffic
            (job,) = other.jobs()
            assert job["state"] == JobState.DONE
            assert set(pacs.hashes) == {row["sop_instance_uid"] for row in other.results()}
            rung = [line for line in traffic.splitlines() if '"LPUSH"' in line.upper()]
            assert rung
            assert all('"NODE_B:' in line for line in rung), "the first node was not rung for"
            assert not set(pacs.hashes) & set(hospital.pacs.hashes)


def test_workers_end_in_good_order_while_redis_is_down(hospital: Hospital) -> None:
    hospital.redis.kill()
    try:
        hospital.stop_scorers()
    finally:
        hospital.redis.start()
