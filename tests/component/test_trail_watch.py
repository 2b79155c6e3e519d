"""A16: the trail is verified at each start and once a day though nobody asks, and what is wrong is told."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

import db.audit.verification
from db.audit import guards
from db.audit.checkpoints import CheckpointWriter
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import AuditTrail
from db.session import Database
from tests.steered_node import SteeredNode, mammogram
from workers.trail_watch import TrailWatch

TAIL = 4
NAME = "dispatch@host-a:14"


@pytest.fixture(autouse=True)
def short_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few events be the tail."""
    monkeypatch.setattr(db.audit.verification, "TAIL_EVENTS", TAIL)


@pytest.fixture
def key(tmp_path: Path) -> CheckpointKey:
    return CheckpointKey.load_or_create(tmp_path / "checkpoint.key")


@pytest.fixture
def trail(node: SteeredNode, tmp_path: Path, key: CheckpointKey) -> Iterator[SteeredNode]:
    """A node with ten events, all of them under a checkpoint."""
    for number in range(10):
        node.receive(mammogram(study=f"2.25.{number}"))
    CheckpointWriter(tmp_path / "checkpoints", key, "NODE").write(node.database)
    yield node


@pytest.fixture
def watch(trail: SteeredNode, tmp_path: Path, key: CheckpointKey) -> TrailWatch:
    """A dispatcher's that has just started."""
    return TrailWatch(trail.database, tmp_path / "checkpoints", key.public_key, NAME)


def told(node: SteeredNode) -> list[dict[str, object]]:
    return [json.loads(event.detail) for event in node.audited() if event.action == "audit.verified"]


def touch(node: SteeredNode, seq: int) -> None:
    """Change an event behind the node's back."""
    with node.database.engine.begin() as connection:
        on = "" if connection.dialect.name == "sqlite" else " ON audit_event"
        connection.execute(text(f"DROP TRIGGER audit_event_no_update{on}"))
        connection.execute(text(f"UPDATE audit_event SET actor = 'mallory' WHERE seq = {seq}"))


def test_the_newest_events_are_verified_at_the_start_and_all_at_the_next_look(
    trail: SteeredNode, watch: TrailWatch
) -> None:
    watch.look()
    watch.look()
    assert told(trail) == [
        {"ok": True, "events": TAIL, "whole": False},
        {"ok": True, "events": 11, "whole": True},
    ]
    assert trail.audited()[-1].actor == NAME


def test_the_whole_trail_is_verified_once_a_day_however_often_a_dispatcher_looks_or_starts(
    trail: SteeredNode, watch: TrailWatch, tmp_path: Path, key: CheckpointKey
) -> None:
    two_days_ago = datetime.now(UTC) - timedelta(days=2)
    earlier = Database(
        trail.database.engine.url.render_as_string(hide_password=False),
        AuditTrail(AuditKey.load(tmp_path / "keys" / "audit.key"), wall_clock=lambda: two_days_ago),
    )
    with earlier.transaction(NAME) as tx:
        tx.audit("audit.verified", detail={"ok": True, "events": 10, "whole": True})
    earlier.close()
    other = TrailWatch(trail.database, tmp_path / "checkpoints", key.public_key, "dispatch@host-b:15")
    for each in (watch, other):
        each.look()
    assert [look["whole"] for look in told(trail)] == [True, False, False], "a start looks at the end alone"
    for each in (watch, other, watch, other):
        each.look()
    assert [look["whole"] for look in told(trail)] == [True, False, False, True], "one look a day is enough"


def test_an_event_that_was_touched_lately_is_told_at_the_start(
    trail: SteeredNode, watch: TrailWatch, log: io.StringIO
) -> None:
    touch(trail, 9)
    report = watch.look()
    assert report is not None
    assert report.first_bad_seq == 9
    (line,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (line["event"], line["level"], line["first_bad_seq"]) == ("audit.broken", "error", 9)
    assert "audit verify" in line["advice"]
    assert told(trail) == [{"ok": False, "events": 2, "whole": False}]


def test_an_event_that_was_touched_long_ago_is_told_within_a_day(
    trail: SteeredNode, watch: TrailWatch, log: io.StringIO
) -> None:
    touch(trail, 2)
    watch.look()
    assert told(trail) == [{"ok": True, "events": TAIL, "whole": False}]
    report = watch.look()
    assert report is not None
    assert report.first_bad_seq == 2
    assert '"first_bad_seq": 2' in log.getvalue()
    assert told(trail)[-1] == {"ok": False, "events": 1, "whole": True}


def test_a_tail_that_was_cut_is_told_at_the_start(
    trail: SteeredNode, watch: TrailWatch, log: io.StringIO
) -> None:
    with trail.database.engine.begin() as connection, guards.lifted(connection):
        connection.execute(text("DELETE FROM audit_event WHERE seq > 8"))
    watch.look()
    assert "knows events up to 10" in log.getvalue()


def test_a_process_that_stops_waits_for_no_verification(
    trail: SteeredNode, tmp_path: Path, key: CheckpointKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.audit.verification, "BATCH_ROWS", 1)
    stopping = TrailWatch(
        trail.database, tmp_path / "checkpoints", key.public_key, NAME, is_stopping=lambda: True
    )
    assert stopping.look() is None
    assert told(trail) == []
