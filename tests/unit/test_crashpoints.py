"""Crash points: armed by one variable, dead exactly there, and alive after a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.crashpoints import CRASHPOINTS, VARIABLE, check_crashpoint, crashpoint
from dicom_node.errors import SettingsError

PASS_THREE_TIMES = """
from dicom_node.crashpoints import crashpoint
for passage in (1, 2, 3):
    crashpoint("listener.durable")
    crashpoint("listener.committed")
    print(passage, flush=True)
"""


def run(order: str) -> tuple[int, str]:
    """Pass two crash points three times in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PASS_THREE_TIMES],
        env={**os.environ, VARIABLE: order, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.replace("\n", "")


def test_the_process_dies_at_the_asked_passage() -> None:
    assert run("listener.committed") == (-signal.SIGKILL, "")
    assert run("listener.committed:3") == (-signal.SIGKILL, "12")
    assert run("score.claimed") == (0, "123")


def test_with_a_marker_it_dies_once(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    assert run(f"listener.durable:2@{marker}") == (-signal.SIGKILL, "1")
    assert marker.exists()
    assert run(f"listener.durable:2@{marker}") == (0, "123")


def test_a_process_that_passed_while_the_marker_was_there_dies_once_it_is_gone(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    marker.touch()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import pathlib, sys\nfrom dicom_node.crashpoints import crashpoint\n"
            "crashpoint('score.claimed')\nprint('alive', flush=True)\n"
            "pathlib.Path(sys.argv[1]).unlink()\ncrashpoint('score.claimed')\nprint('still alive')",
            str(marker),
        ],
        env={**os.environ, VARIABLE: f"score.claimed@{marker}", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["alive"])


def test_of_several_orders_each_is_followed_once(tmp_path: Path) -> None:
    orders = f"listener.committed:2@{tmp_path / 'first'},listener.durable@{tmp_path / 'second'}"
    assert run(orders) == (-signal.SIGKILL, "")
    assert run(orders) == (-signal.SIGKILL, "1")
    assert run(orders) == (0, "123")


def test_nothing_happens_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in CRASHPOINTS:
        crashpoint(name)
    assert check_crashpoint() == ()


def test_what_is_set_while_a_process_runs_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, CRASHPOINTS[0])
    crashpoint(CRASHPOINTS[0])
    assert check_crashpoint() == (CRASHPOINTS[0],)


@pytest.mark.parametrize(
    "order",
    ["listener", "listener.nowhere", "listener.durable:0", "listener.durable@rel", "listener.durable,"],
)
def test_a_wrong_order_is_refused_at_start(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, order)
    with pytest.raises(SettingsError, match=VARIABLE):
        check_crashpoint()


def test_right_orders_are_named_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "deliver.object_sent:2@/marker,score.claimed")
    assert check_crashpoint() == ("deliver.object_sent", "score.claimed")
