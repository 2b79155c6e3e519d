"""The supervisor of a node's parts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dicom_node.cli.processes.supervisor import Part, Supervisor
from tests.running_node import until
from workers.exit_statuses import WorkerExit


def test_a_death_is_told_again_until_what_follows_from_it_is_done(tmp_path: Path) -> None:
    dies_once = f"test -e {tmp_path}/died && exec sleep 600; touch {tmp_path}/died; exit 1"
    told: list[int] = []

    def note(_part: Part, pid: int) -> bool:
        told.append(pid)
        if len(told) == 2:
            supervisor.stop()
        return len(told) == 2

    supervisor = Supervisor([Part("score-1", ["sh", "-c", dies_once])], note)
    assert supervisor.run() == 0
    assert len(told) == 2
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("exit 0", {"status": 0}),
        ("exit 3", {"status": 3}),
        ("kill -TERM $$", {"status": -15, "signal": "SIGTERM"}),
        ("kill -KILL $$", {"status": -9, "signal": "SIGKILL", "advice": "for want of memory"}),
    ],
)
def test_the_log_says_how_a_part_ended(end: str, told: dict[str, int | str]) -> None:
    def note(_part: Part, _pid: int) -> bool:
        supervisor.stop()
        return True

    supervisor = Supervisor([Part("score-1", ["sh", "-c", end])], note)
    with capture_logs() as logs:
        supervisor.run()

    (died,) = [entry for entry in logs if entry["event"] == "part.died"]
    assert {key: died[key] for key in ("status", "signal") if key in died} == {
        key: value for key, value in told.items() if key != "advice"
    }
    assert str(told.get("advice", "")) in died.get("advice", "")
    assert ("advice" in died) == ("advice" in told)
    assert ("again_in_s" in died) == (told["status"] != 3), "what refuses its settings is not started again"


def test_a_part_that_made_room_for_a_fresh_one_is_no_death_and_is_started_again_at_once(
    tmp_path: Path,
) -> None:
    rounds, goes_on = tmp_path / "rounds", tmp_path / "goes on"
    # So often that the pauses of a part that dies would last for minutes.
    ends_often = (
        f"echo >> {rounds}; test $(wc -l < {rounds}) -le 10 && exit {WorkerExit.RECYCLED}; "
        f"touch '{goes_on}'; exec sleep 600"
    )
    deaths: list[int] = []

    def note(_part: Part, pid: int) -> bool:
        deaths.append(pid)
        return True

    supervisor = Supervisor([Part("score-1", ["sh", "-c", ends_often])], note)
    with capture_logs() as logs, ThreadPoolExecutor(1) as other:
        running = other.submit(supervisor.run)
        try:
            until(goes_on.exists, 60, "the last start")
        finally:
            supervisor.stop()
        assert running.result(60) == 0
    told = [(entry["event"], entry["log_level"]) for entry in logs]
    once = [("part.started", "info"), ("part.recycled", "info")]
    assert told == [*once * 10, ("part.started", "info"), ("node.stopped", "info")]
    assert deaths == [], "it holds no lease that somebody has to end"


def test_a_part_that_cannot_be_started_now_ends_no_other_one_and_is_started_later(tmp_path: Path) -> None:
    program, script = tmp_path / "program", tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o700)
    told: list[str] = []

    def note(part: Part, _pid: int) -> bool:
        told.append(part.name)
        supervisor.stop()
        return True

    parts = [
        Part("listen", [str(program)]),
        Part("score-1", ["sh", "-c", f"mv {script} {program}; exec sleep 600"]),
    ]
    supervisor = Supervisor(parts, note)
    with capture_logs() as logs:
        assert supervisor.run() == 0

    events = [(entry["event"], entry.get("part")) for entry in logs]
    assert events.index(("part.not_started", "listen")) < events.index(("part.started", "listen"))
    assert told == ["listen"], "the other part lived until the stop"
