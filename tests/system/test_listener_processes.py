"""Several listener processes on one port: they share the work, and one that dies is started again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from db.tables import Instance
from dicom_node.cli.processes.unused_libraries import UNUSED_LIBRARIES
from tests.running_node import START_S, RunningNode, until

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    """A listener of two processes."""
    with RunningNode(tmp_path, settings={"listener": {"minimum_free_bytes": 0, "processes": 2}}) as made:
        yield made


def send(node: RunningNode, objects: int, associations: int) -> None:
    """Send small objects; each must get Success."""
    numbers = [str(node.address.port), "small", str(objects), str(associations)]
    subprocess.run([sys.executable, "-m", "benchmarks.receive.blaster", *numbers], check=True, timeout=150)


def listening_children(supervisor: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The children that accept on the port."""
    found = []
    for child in psutil.Process(supervisor.pid).children():
        with suppress(psutil.Error):  # it may end while we look
            if any(each.status == psutil.CONN_LISTEN for each in child.net_connections()):
                found.append(child)
    return found


def test_two_processes_share_a_port_and_one_that_dies_comes_back(node: RunningNode) -> None:
    supervisor = node.start("listen")
    until(lambda: len(listening_children(supervisor)) == 2, START_S, "both processes")
    children = listening_children(supervisor)
    send(node, 64, 16)
    with node.database.reading() as session:
        assert session.scalars(select(func.count()).select_from(Instance)).one() == 64

    children[0].kill()
    psutil.wait_procs([children[0]], timeout=60)
    send(node, 8, 4)
    until(lambda: len(listening_children(supervisor)) == 2, START_S, "the restart")
    assert children[1] in listening_children(supervisor), "the other was left alone"
    send(node, 8, 4)
    with node.database.reading() as session:
        assert session.scalars(select(func.count()).select_from(Instance)).one() == 80

    family = listening_children(supervisor)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(90) == 0
    assert not [each for each in family if each.is_running()]
    report = node.verify_audit()
    assert report.ok


def test_a_listener_that_stored_images_has_loaded_no_library_that_it_never_uses(node: RunningNode) -> None:
    supervisor = node.start("listen")
    until(lambda: len(listening_children(supervisor)) == 2, START_S, "both processes")
    send(node, 8, 4)
    for child in listening_children(supervisor):
        loaded = " ".join(each.path for each in child.memory_maps())
        assert "pydantic_core" in loaded, "the maps name what is loaded"
        assert not [
            name for name in (*UNUSED_LIBRARIES, "scipy", "torch") if f"site-packages/{name}" in loaded
        ]


def test_a_port_that_another_program_has_is_refused_by_name(node: RunningNode) -> None:
    with socket.create_server(("127.0.0.1", node.address.port), reuse_port=True):
        process = node.start("listen")
        assert process.wait(START_S) != 0
    assert "cannot be listened on" in node.log
