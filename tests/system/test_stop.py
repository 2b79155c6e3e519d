"""Processes are stopped, killed or frozen one by one while studies flow: nothing is lost or doubled."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from db.lifecycle import JobState
from db.tables import Job
from dicom_node.crashpoints import VARIABLE
from tests.running_node import RunningNode, until
from tests.simulators.pacs import Behaviour, SimulatedPacs
from training.datasets.phantom_objects import study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEEDS = itertools.count(900)
PARTS = {
    "listen": ("listen",),
    "dispatch": ("dispatch",),
    "score": ("work", "--queues", "score"),
    "deliver": ("work", "--queues", "deliver"),
}
LONG_S, WAIT_S = 3600.0, 240.0


@pytest.fixture
def pacs() -> Iterator[SimulatedPacs]:
    with SimulatedPacs() as simulated:
        yield simulated


def send_study(node: RunningNode) -> None:
    node.send(study(seed=next(SEEDS), rows=320, columns=260))


def assert_all_delivered_once(node: RunningNode, pacs: SimulatedPacs, studies: int) -> None:
    rows = node.results()
    assert {row["delivery_state"] for row in rows} == {"delivered"}
    assert len({row["sop_instance_uid"] for row in rows}) == len(rows)
    assert set(pacs.hashes) == {row["sop_instance_uid"] for row in rows}
    assert all(len(contents) == 1 for contents in pacs.hashes.values())
    assert [row["revision"] for row in node.studies()] == [1] * studies
    jobs = node.jobs(kind=None)
    assert len(jobs) == 2 * studies
    assert {job["state"] for job in jobs} == {JobState.DONE}
    assert node.verify_audit().ok


def test_each_process_is_restarted_alone_while_studies_flow(tmp_path: Path, pacs: SimulatedPacs) -> None:
    with RunningNode(tmp_path, [pacs.destination]) as node:
        running = {part: node.start(*arguments) for part, arguments in PARTS.items()}
        node.wait_for_processes(set(PARTS))
        finished = threading.Event()
        sent = itertools.count()

        def scan() -> int:
            while not finished.is_set():
                send_study(node)
                next(sent)
            return next(sent)

        with ThreadPoolExecutor(1) as pool:
            scanner = pool.submit(scan)
            try:
                for part, arguments in PARTS.items():
                    before = len(node.studies())
                    running[part].send_signal(signal.SIGTERM)
                    assert running[part].wait(90) == 0, part
                    running[part] = node.start(*arguments)
                    until(lambda before=before: len(node.studies()) > before, WAIT_S, "another study")
            finally:
                finished.set()
            studies = scanner.result(timeout=WAIT_S)
        node.wait_until_delivered(studies, timeout_s=WAIT_S)
        assert_all_delivered_once(node, pacs, studies)
        assert all(job["attempts"] == 1 for job in node.jobs()), (
            "whoever stops finishes its job, or gives it back"
        )
        assert "Traceback" not in node.log


def test_a_worker_that_cannot_finish_in_time_gives_its_job_back_and_ends(
    tmp_path: Path, pacs: SimulatedPacs
) -> None:
    settings = {
        "jobs": {"lease_s": LONG_S, "stop_deadline_s": 1.0},
        "delivery": {"dimse_timeout_s": LONG_S},
    }
    pacs.behave(Behaviour.NEVER_ANSWER)
    with RunningNode(tmp_path, [pacs.destination], settings=settings) as node:
        node.start("listen")
        worker = node.start("work", "--queues", "score,deliver")
        node.wait_for_processes({"listen", "score+deliver"})
        send_study(node)
        assert pacs.wait_for(1, WAIT_S), "the PACS has an object and keeps silent"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        (waiting,) = [job for job in node.jobs(kind=None) if job["kind"] == "deliver"]
        assert (waiting["state"], waiting["attempts"]) == (JobState.QUEUED, 0)
        assert "job.given_back" in node.log

        pacs.behave(Behaviour.ACCEPT)
        node.start("work", "--queues", "deliver")
        node.wait_until_delivered(1, timeout_s=WAIT_S)
        assert_all_delivered_once(node, pacs, 1)


def test_the_job_of_a_killed_worker_does_not_wait_for_its_lease_under_serve(
    tmp_path: Path, pacs: SimulatedPacs
) -> None:
    settings = {"jobs": {"lease_s": LONG_S}, "training": {"workers": 0}}
    armed = {VARIABLE: f"score.predicted@{tmp_path / 'died'}"}
    with RunningNode(tmp_path, [pacs.destination], settings=settings, environment=armed) as node:
        node.start("serve")
        node.wait_for_processes({"listen", "dispatch", "score", "deliver"}, WAIT_S)
        send_study(node)
        node.wait_until_delivered(1, timeout_s=WAIT_S)
        assert (tmp_path / "died").exists()
        assert [job["attempts"] for job in node.jobs()] == [2]
        assert "part.leases_ended" in node.log
        assert_all_delivered_once(node, pacs, 1)


def is_in_hand(node: RunningNode, worker: subprocess.Popen[bytes]) -> bool:
    """Whether a worker holds a job."""
    with node.database.reading() as session:
        owners = session.scalars(select(Job.lease_owner).where(Job.state == JobState.RUNNING)).all()
    return any(str(owner).endswith(f":{worker.pid}") for owner in owners)


def frozen_without_a_lock(node: RunningNode, worker: subprocess.Popen[bytes]) -> psutil.Process:
    """Freeze a worker, but not while it writes: nobody else could write until it wakes."""
    process = psutil.Process(worker.pid)

    def freezes() -> bool:
        process.suspend()
        try:
            with closing(sqlite3.connect(node.data_dir / "node.db", timeout=1)) as connection:
                connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            process.resume()
            return False
        return True

    until(freezes, 60, "a moment in which nobody writes")
    return process


def test_a_worker_that_is_frozen_beyond_its_lease_writes_nothing_when_it_wakes(
    tmp_path: Path, pacs: SimulatedPacs
) -> None:
    with RunningNode(tmp_path, [pacs.destination], settings={"jobs": {"lease_s": 1.0}}) as node:
        node.start("listen")
        node.start("work", "--queues", "deliver")
        worker = node.start("work", "--queues", "score")
        node.wait_for_processes({"listen", "score", "deliver"})
        images = study(seed=next(SEEDS), rows=2048, columns=1664)
        node.send(images)
        until(lambda: is_in_hand(node, worker), 60, "a claim")
        frozen = frozen_without_a_lock(node, worker)
        try:
            assert node.jobs()[0]["state"] == JobState.RUNNING, "it was stopped in the middle"
            node.start("work", "--queues", "score")
            node.wait_until_delivered(1)
        finally:
            frozen.resume()
        until(lambda: "job.lease_lost" in node.log, 60, "the end of the late attempt")
        assert [job["attempts"] for job in node.jobs()] == [2]
        files = list((node.data_dir / "results").rglob("*.dcm"))
        assert len(files) == len(node.results()), "the late attempt left no file"
        assert_all_delivered_once(node, pacs, 1)
