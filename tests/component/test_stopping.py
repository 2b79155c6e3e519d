"""A process that is told to stop hears it at once and ends in time, whatever it waits for at that moment."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from dicom_node.cli.processes.listener import ABORT_S, STOPPING_THREAD, stop_together
from tests.listening import MG_FOR_PRESENTATION, listening

C_STORE_RQ = 0x0001
WAITING_PROGRAM = """
import sqlite3, sys, threading
from dicom_node.cli.processes.stopping import when_told_to_stop
deadline_s = float(sys.argv[2]) or None
told = threading.Event()
def stop():
    told.set()
    print("told", flush=True)
when_told_to_stop(stop, deadline_s=deadline_s)
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
print("waits", flush=True)
connection.execute("BEGIN IMMEDIATE")
print("has the lock", told.is_set(), flush=True)
"""


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """An SQLite file that somebody else keeps locked."""
    file = tmp_path / "node.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield file, connection


def waiting_process(file: Path, deadline_s: float) -> subprocess.Popen[str]:
    """Start a process whose main thread waits for the lock."""
    command = [sys.executable, "-c", WAITING_PROGRAM, str(file), str(deadline_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_a_locked_database_hears_the_signal_at_once(
    locked: tuple[Path, sqlite3.Connection], number: signal.Signals
) -> None:
    file, lock = locked
    with waiting_process(file, 0) as process:
        assert process.stdout is not None
        process.send_signal(number)
        assert process.stdout.readline() == "told\n"
        assert process.poll() is None, "without a deadline it goes on"
        lock.rollback()
        assert process.stdout.readline() == "has the lock True\n"
        assert process.wait(60) == 0


def test_a_process_that_goes_on_waiting_ends_itself_at_its_deadline(
    locked: tuple[Path, sqlite3.Connection],
) -> None:
    with waiting_process(locked[0], 0.2) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stdout is not None
        words = process.stdout.read()
        assert words.startswith("told\n")
        assert "process.stop_deadline" in words
        assert "has the lock" not in words


def test_listeners_end_at_the_deadline_however_many_senders_are_in_the_midst_of_an_object(
    tmp_path: Path,
) -> None:
    finished = threading.Event()
    with listening(tmp_path) as node, ExitStack() as stack:
        senders = [stack.enter_context(node.scu()) for _ in range(25)]
        for number, sender in enumerate(senders):
            sender.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, f"2.25.{number + 1}")

        def trickle() -> None:
            for sender in itertools.cycle(senders):
                if finished.wait(0.005):
                    return
                with suppress(OSError):
                    sender.send_data(bytes(64), is_whole=False)

        trickling = threading.Thread(target=trickle, daemon=True)
        stack.callback(trickling.join, 30)
        stack.callback(finished.set)
        trickling.start()
        began = time.monotonic()
        stop_together([node.listener], deadline_s=0.3)
        took_s = time.monotonic() - began
        assert 0.3 <= took_s < ABORT_S + 9, "each sender would take a second of its own"
        assert node.rows.all == []
    for thread in threading.enumerate():
        if thread.name == STOPPING_THREAD:
            thread.join(30)  # it has nothing to wait for any more: the senders are gone
