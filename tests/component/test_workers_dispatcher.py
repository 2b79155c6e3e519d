"""The dispatcher's sweep: quiet studies, dead jobs, doorbells that are lost, and brokers that fail."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import workers.dispatcher
from db.audit.checkpoints import CheckpointWriter
from db.audit.keys import CheckpointKey
from db.errors import DatabaseUnavailableError
from db.lifecycle import CompletionReason, JobKind, JobState, RevisionState
from db.tables import Process
from tests.steered_node import RULES, SteeredNode, at_the_same_time, four_views, mammogram
from workers.dispatcher import Dispatcher, Ring

ATTEMPTS = {JobKind.SCORE: 2, JobKind.DELIVER: None, JobKind.TRAIN: 2}
PATIENCE_S = 60.0
RING_AGAIN_S = 2.0  # what nobody came for is rung for again (R8)


def dispatcher(
    node: SteeredNode, ring: Ring | None, *, checkpoint: Callable[[], None] = lambda: None
) -> Dispatcher:
    return Dispatcher(
        node.database,
        RULES,
        max_attempts=ATTEMPTS,
        ring=ring,
        checkpoint=checkpoint,
        name="dispatch@host:1",
    )


class Bell:
    """Remembers who was rung for; fails on demand."""

    def __init__(self) -> None:
        self.rung: list[tuple[JobKind, str]] = []
        self.broken = False

    def __call__(self, kind: JobKind, job_id: str) -> None:
        """Ring, or fail as an absent broker does."""
        if self.broken:
            raise ConnectionError("ZZCANARY")
        self.rung.append((kind, job_id))


def test_a_new_job_is_rung_for_once_and_again_only_when_nobody_came(node: SteeredNode) -> None:
    bell = Bell()
    sweeping = dispatcher(node, bell)
    node.receive(*four_views())
    (job,) = node.jobs()
    sweeping.sweep()
    node.clock.advance(RING_AGAIN_S - 0.01)
    sweeping.sweep()
    assert bell.rung == [(JobKind.SCORE, job.id)]
    node.clock.advance(0.01)  # Redis was flushed, restarted or never passed it on
    sweeping.sweep()
    assert bell.rung == [(JobKind.SCORE, job.id)] * 2


def test_two_dispatchers_at_once_complete_a_study_once_and_ring_once(node: SteeredNode) -> None:
    bell = Bell()
    node.receive(mammogram("R"), mammogram("L"))
    node.clock.advance(RULES.quiet_period_s)
    sweeping = [dispatcher(node, bell) for _ in range(2)]
    at_the_same_time(*(each.sweep for each in sweeping))
    at_the_same_time(*(each.sweep for each in sweeping))
    (job,) = node.jobs()
    assert [state for _, state, _ in node.revisions()] == [RevisionState.COMPLETE]
    assert node.actions().count("study.complete") == 1
    assert bell.rung == [(JobKind.SCORE, job.id)]


def test_a_claimed_job_is_not_rung_for_until_its_lease_ends(node: SteeredNode) -> None:
    bell = Bell()
    sweeping = dispatcher(node, bell)
    node.receive(*four_views())
    claimed = node.claimed()
    sweeping.sweep()
    assert bell.rung == []
    node.clock.advance(60)  # the worker died
    sweeping.sweep()
    assert bell.rung == [(JobKind.SCORE, claimed.job_id)]


def test_every_kind_of_job_is_rung_for_on_its_own_queue(node: SteeredNode) -> None:
    from db.queueing import queue_training

    node.receive(*four_views("2.25.1"))
    node.finish_scoring(node.claimed())
    node.receive(*four_views("2.25.2"))
    with node.transaction("anna") as tx:
        queue_training(tx, recipe="demonstration", order={"seed": 1})
    bell = Bell()
    dispatcher(node, bell).sweep()
    assert sorted(kind for kind, _ in bell.rung) == ["deliver", "score", "train"]


def test_a_broker_that_fails_loses_nothing_and_delays_nothing_else(node: SteeredNode) -> None:
    bell = Bell()
    signed: list[str] = []
    sweeping = dispatcher(node, bell, checkpoint=lambda: signed.append("signed"))
    bell.broken = True
    node.receive(mammogram("R", "CC"))
    node.clock.advance(RULES.quiet_period_s)
    sweeping.sweep()
    assert node.revisions() == [(1, RevisionState.COMPLETE, CompletionReason.QUIET_PERIOD)]
    assert signed == ["signed"], "the rest of the sweep went on"
    (job,) = node.jobs()
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    bell.broken = False
    node.clock.advance(RING_AGAIN_S)
    sweeping.sweep()
    assert bell.rung == [(JobKind.SCORE, job.id)]


def test_without_a_broker_nothing_is_noted_as_rung_for(node: SteeredNode) -> None:
    node.receive(*four_views())
    dispatcher(node, None).sweep()
    (job,) = node.jobs()
    assert job.published_at is None


def test_a_quiet_study_is_completed_and_a_busy_one_is_not(node: SteeredNode) -> None:
    sweeping = dispatcher(node, None)
    node.receive(mammogram("R", "CC", study="2.25.1"))
    node.clock.advance(RULES.quiet_period_s - 1)
    node.receive(mammogram("R", "CC", study="2.25.2"))
    sweeping.sweep()
    assert [state for _, state, _ in node.revisions()] == [RevisionState.OPEN, RevisionState.OPEN]
    node.clock.advance(1)
    sweeping.sweep()
    assert sorted(state for _, state, _ in node.revisions()) == [RevisionState.COMPLETE, RevisionState.OPEN]


def test_a_job_whose_worker_died_in_each_attempt_is_failed(node: SteeredNode) -> None:
    sweeping = dispatcher(node, None)
    node.receive(*four_views())
    for _ in range(2):
        assert node.claim(max_attempts=2) is not None
        sweeping.sweep()
        (job,) = node.jobs()
        assert job.state == JobState.RUNNING, "its worker may still live"
        node.clock.advance(60)
    sweeping.sweep()
    (job,) = node.jobs()
    assert (job.state, job.error_code) == (JobState.FAILED, "WORKER_DIED")
    assert node.actions().count("job.failed") == 1


def test_an_idle_sweep_writes_nothing_but_its_first_sign_of_life(node: SteeredNode) -> None:
    sweeping = dispatcher(node, Bell())
    sweeping.sweep()
    before = node.actions()
    assert before == ["process.started"]
    for _ in range(3):
        sweeping.sweep()
    assert node.actions() == before


def test_a_sign_of_life_is_given_once_in_a_while_and_not_with_every_sweep(
    node: SteeredNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeping = dispatcher(node, None)
    sweeping.sweep()
    (started,) = node.rows(Process)
    node.clock.advance(1)
    sweeping.sweep()
    (between,) = node.rows(Process)
    assert between.seen_at == started.seen_at

    monkeypatch.setattr(workers.dispatcher, "SIGN_OF_LIFE_S", 0.0)
    again = dispatcher(node, None)
    for _ in range(2):
        node.clock.advance(1)
        again.sweep()
    (alive,) = node.rows(Process)
    assert (alive.seen_at - started.seen_at).total_seconds() == 3


def test_between_its_sweeps_a_dispatcher_rests_and_a_stop_ends_the_rest(node: SteeredNode) -> None:
    sweeps: list[int] = []
    first, second = threading.Event(), threading.Event()

    def checkpoint() -> None:
        sweeps.append(len(sweeps))
        (second if first.is_set() else first).set()

    running = dispatcher(node, None, checkpoint=checkpoint)
    thread = threading.Thread(target=running.run, args=(3600.0,))
    thread.start()
    try:
        assert first.wait(PATIENCE_S)
        assert not second.wait(0.3)
    finally:
        running.stop()
        thread.join(PATIENCE_S)

    assert not thread.is_alive()
    assert sweeps == [0]
    assert node.rows(Process) == [], "it said goodbye"


def test_two_dispatchers_ring_once(node: SteeredNode) -> None:
    bell = Bell()
    node.receive(*four_views())
    dispatcher(node, bell).sweep()
    dispatcher(node, bell).sweep()
    assert len(bell.rung) == 1


def test_the_run_goes_on_while_the_database_is_away_and_says_goodbye_at_the_end(node: SteeredNode) -> None:
    sweeps: list[int] = []

    def checkpoint() -> None:
        sweeps.append(len(sweeps))
        if len(sweeps) == 1:
            raise DatabaseUnavailableError("the database does not answer")
        running.stop()

    running = dispatcher(node, None, checkpoint=checkpoint)
    running.run(period_s=0.01)
    assert len(sweeps) == 2
    assert node.rows(Process) == []
    assert node.actions() == ["process.started", "process.stopped"]


def test_a_checkpoint_folder_that_cannot_be_written_is_told_once_and_stops_nothing(
    node: SteeredNode, tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.dispatcher, "CHECKPOINT_AGAIN_S", 3600.0)  # however slow the disk is
    folder = tmp_path / "checkpoints"
    folder.write_text("a file is in the folder's place")
    writer = CheckpointWriter(folder, CheckpointKey.load_or_create(tmp_path / "checkpoint.key"), "NODE")
    attempts: list[int] = []

    def checkpoint() -> None:
        attempts.append(len(attempts))
        writer.write(node.database)

    def ring(kind: JobKind, job_id: str) -> None:
        running.stop()

    running = dispatcher(node, ring, checkpoint=checkpoint)
    for _ in range(3):
        running.sweep()
    node.receive(*four_views())
    running.run(period_s=0.01)
    assert attempts == [0], "not again before its time"
    (line,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (line["event"], line["level"]) == ("dispatcher.checkpoint_failed", "error")
    assert "make its folder writable" in line["reason"]
