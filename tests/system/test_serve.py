"""``dicom-node serve``: starts all parts, keeps them alive, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from db.lifecycle import JobState
from dicom_node import installation
from tests.free_ports import free_port
from tests.running_node import START_S, WORK_S, RunningNode, until
from training.datasets.phantom_objects import study

pytestmark = pytest.mark.timeout(600)

PARTS = {"listen", "dispatch", "score", "deliver", "train"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    """A node without any destination."""
    with RunningNode(tmp_path) as made:
        yield made


def parts_of(supervisor: subprocess.Popen[bytes]) -> dict[str, psutil.Process]:
    """Return the children of ``serve`` by the queue or command that they run."""
    found = {}
    for child in psutil.Process(supervisor.pid).children():
        with suppress(psutil.Error):  # it may end while we look
            words = child.cmdline()
            found.update({name: child for name in PARTS if name in words})
    return found


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended while we looked
        return True


def test_a_node_without_destinations_scores_survives_a_dead_part_and_stops_in_good_order(
    node: RunningNode,
) -> None:
    supervisor = node.start("serve")
    node.wait_for_processes(PARTS)
    parts = parts_of(supervisor)
    assert set(parts) == PARTS
    until(lambda: node.log.count('"worker.ready"') >= 3, START_S, "the workers' readiness")

    killed = parts["deliver"]
    killed.kill()
    until(lambda: parts_of(supervisor).get("deliver", killed).pid != killed.pid, START_S, "the restart")
    assert {name: each.pid for name, each in parts_of(supervisor).items() if name != "deliver"} == {
        name: each.pid for name, each in parts.items() if name != "deliver"
    }, "the others were left alone"

    images = study(seed=1, rows=640, columns=512)
    node.send(images)
    until(lambda: [job["state"] for job in node.jobs()] == [JobState.DONE], WORK_S, "the score")
    assert {row["delivery_state"] for row in node.results()} == {None}
    assert [job["kind"] for job in node.jobs(kind=None)] == ["score"], "nothing to deliver"

    family = psutil.Process(supervisor.pid).children(recursive=True)
    until(lambda: node.log.count('"worker.ready"') >= 4, START_S, "the restarted worker's readiness")
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(90) == 0
    assert [process for process in family if not is_gone(process)] == []
    log = node.log
    assert "node.stopped" in log
    assert "part.killed" not in log, "nobody had to be forced"
    assert node.verify_audit().ok
    with node.database.reading() as session:
        from db import processes

        alive, silent = processes.alive(session, node.database.now_in(session), silent_for_s=60)
    assert [process.kind for process in alive + silent] == ["deliver"], "all but the killed one said goodbye"


def test_a_killed_supervisor_takes_its_parts_along(node: RunningNode) -> None:
    supervisor = node.start("serve")
    until(lambda: set(parts_of(supervisor)) == PARTS, START_S, "the start of the parts")
    family = psutil.Process(supervisor.pid).children(recursive=True)
    supervisor.kill()
    supervisor.wait()
    until(lambda: all(is_gone(process) for process in family), 90, "the end of the parts")


def run(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DICOM_NODE_")}
    return subprocess.run(
        [*installation.console_script(), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**clean, **(environment or {})},
    )


def test_a_port_that_is_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(
            "listen",
            *("--data-dir", tmp_path / "data", "--port", port),
            environment={"DICOM_NODE_HOST": "127.0.0.1"},
        )
    assert ended.returncode == 6
    assert str(port) in ended.stderr
    assert "in use" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


def test_a_wrong_setting_stops_serve_before_it_starts_anything(tmp_path: Path) -> None:
    ended = run("serve", "--data-dir", tmp_path / "data", environment={"DICOM_NODE_JOBS__LEASE_S": "soon"})
    assert (ended.returncode, ended.stdout) == (3, "")
    said = " ".join(ended.stderr.split())
    assert "jobs.lease_s" in said
    assert "60" in said
    assert not (tmp_path / "data").exists()


def test_commands_find_a_listener_by_its_data_directory_alone(tmp_path: Path) -> None:
    data_dir, port = tmp_path / "data", free_port()
    flags = ("--port", str(port), "--ae-title", "MAMMO_AI", "--destination", "PACS@127.0.0.1:1")
    listener = subprocess.Popen(
        [*installation.console_script(), "listen", "--data-dir", str(data_dir), *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until((data_dir / "node.db").exists, START_S, "the listener's start")
        until((data_dir / "keys" / "audit.key").exists, START_S, "the listener's keys")
        shown = json.loads(run("config", "show", "--json", "--data-dir", data_dir).stdout)
        assert (shown["port"], shown["ae_title"]) == (port, "MAMMO_AI")
        assert shown["destinations"] == ["PACS@127.0.0.1:1"]
        assert run("study", "list", "--json", "--data-dir", data_dir).stdout.strip() == "[]"
    finally:
        listener.send_signal(signal.SIGTERM)
        assert listener.wait(90) == 0
