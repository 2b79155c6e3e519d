"""A6: events are kept for their retention; what is removed after it leaves a trail that verifies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from db import schema
from db.audit import sink_cursor
from db.audit.checkpoints import CheckpointWriter
from db.audit.cuts import Cut
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.pruning import check_retention, prune
from db.audit.trail import AuditTrail
from db.audit.verification import VerifyReport, verify
from db.errors import AuditError
from db.session import Database
from tests.command_line import Answer, command
from tests.databases import production_role
from tests.steered_node import on_postgresql

START = datetime(2015, 1, 31, 8, 0, tzinfo=UTC)
CUT_AT = START + timedelta(days=4)


@pytest.fixture
def checkpoint_key(tmp_path: Path) -> CheckpointKey:
    return CheckpointKey.load_or_create(tmp_path / "checkpoint.key")


@pytest.fixture
def trail(database: Database) -> Iterator[Database]:
    """Ten events, a day apart, long ago."""
    times = iter(START + timedelta(days=day) for day in range(10))
    database.trail = AuditTrail(database.trail.key, wall_clock=lambda: next(times))
    for number in range(10):
        with database.transaction("test") as tx:
            tx.audit("account.added", detail={"user": f"user-{number}"})
    database.trail = AuditTrail(database.trail.key)
    yield database


def removed(trail: Database, key: CheckpointKey, folder: Path, **options: str) -> Cut | None:
    """Remove what is older than the fifth day."""
    return prune(
        trail,
        before=CUT_AT,
        archive=folder / "old.jsonl",
        folder=folder,
        key=key,
        node="N",
        actor="anna",
        **options,
    )


def checked(trail: Database, key: CheckpointKey, folder: Path) -> VerifyReport:
    return verify(trail, trail.trail.key, folder, key.public_key)


def test_what_stays_verifies_from_the_cut_on(
    trail: Database, checkpoint_key: CheckpointKey, tmp_path: Path
) -> None:
    CheckpointWriter(tmp_path, checkpoint_key, "N").write(trail)

    cut = removed(trail, checkpoint_key, tmp_path)

    assert cut is not None
    assert cut.seq == 4
    report = checked(trail, checkpoint_key, tmp_path)
    assert (report.ok, report.first_seq, report.events) == (True, 5, 7)  # 5 to 10, and the removal
    assert report.checkpoints_checked == 1
    assert schema.check(trail) == [], "the guards are back"


def test_nothing_behind_a_younger_event_goes_though_its_clock_was_wrong(
    database: Database, checkpoint_key: CheckpointKey, tmp_path: Path
) -> None:
    times = iter(START + timedelta(days=day) for day in (0, 1, 6, 2))
    database.trail = AuditTrail(database.trail.key, wall_clock=lambda: next(times))
    for _ in range(4):
        with database.transaction("test") as tx:
            tx.audit("account.added")
    database.trail = AuditTrail(database.trail.key)

    cut = removed(database, checkpoint_key, tmp_path)

    assert cut is not None
    assert cut.seq == 2
    assert checked(database, checkpoint_key, tmp_path).first_seq == 3


def test_the_archive_holds_what_was_removed_and_the_trail_its_digest(
    trail: Database, checkpoint_key: CheckpointKey, tmp_path: Path
) -> None:
    removed(trail, checkpoint_key, tmp_path)

    archive = tmp_path / "old.jsonl"
    rows = [json.loads(line) for line in archive.read_text().splitlines()]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4]
    assert {"payload", "prev", "mac", "key_id"} <= rows[0].keys()
    assert archive.stat().st_mode & 0o077 == 0
    with trail.reading() as session:
        detail = session.scalars(text("SELECT detail FROM audit_event WHERE action = 'audit.pruned'")).one()
    assert json.loads(detail)["archive_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_checkpoints_and_further_removals_go_on(
    trail: Database, checkpoint_key: CheckpointKey, tmp_path: Path
) -> None:
    removed(trail, checkpoint_key, tmp_path)
    CheckpointWriter(tmp_path, checkpoint_key, "N").write(trail)
    assert checked(trail, checkpoint_key, tmp_path).checkpoints_checked == 1

    again = prune(
        trail,
        before=START + timedelta(days=8),
        archive=tmp_path / "more.jsonl",
        folder=tmp_path,
        key=checkpoint_key,
        node="N",
        actor="anna",
    )

    assert again is not None
    report = checked(trail, checkpoint_key, tmp_path)
    assert (again.seq, report.ok, report.first_seq) == (8, True, 9)


@pytest.mark.parametrize("last", [3, 5])
def test_a_beginning_that_was_removed_by_hand_is_found(
    trail: Database, checkpoint_key: CheckpointKey, tmp_path: Path, last: int
) -> None:
    if last > 4:
        removed(trail, checkpoint_key, tmp_path)
    on = "" if trail.is_sqlite else " ON audit_event"
    with trail.engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER audit_event_no_delete{on}"))
        connection.execute(text(f"DELETE FROM audit_event WHERE seq <= {last}"))

    report = checked(trail, checkpoint_key, tmp_path)

    assert not report.ok
    assert "missing" in (report.problem or "")


def test_a_forged_cut_is_found(trail: Database, checkpoint_key: CheckpointKey, tmp_path: Path) -> None:
    removed(trail, checkpoint_key, tmp_path)
    (file,) = tmp_path.glob("cuts-*.jsonl")
    file.write_text(file.read_text().replace('"seq":4', '"seq":5'))

    assert "not signed" in (checked(trail, checkpoint_key, tmp_path).problem or "")


def test_a_checkpoint_is_no_cut(trail: Database, checkpoint_key: CheckpointKey, tmp_path: Path) -> None:
    CheckpointWriter(tmp_path, checkpoint_key, "N").write(trail)
    (file,) = tmp_path.glob("checkpoints-*.jsonl")
    file.rename(tmp_path / "cuts-N.jsonl")

    assert not checked(trail, checkpoint_key, tmp_path).ok


def test_an_archive_is_never_overwritten(
    trail: Database, checkpoint_key: CheckpointKey, tmp_path: Path
) -> None:
    (tmp_path / "old.jsonl").write_text("kept")

    with pytest.raises(AuditError, match="name a new file"):
        removed(trail, checkpoint_key, tmp_path)

    assert (tmp_path / "old.jsonl").read_text() == "kept"
    assert checked(trail, checkpoint_key, tmp_path).events == 10


def test_events_that_a_sink_does_not_have_yet_stay(
    trail: Database, checkpoint_key: CheckpointKey, tmp_path: Path
) -> None:
    with pytest.raises(AuditError, match="sink does not have"):
        removed(trail, checkpoint_key, tmp_path, sink="syslog")
    assert checked(trail, checkpoint_key, tmp_path).events == 10

    with trail.transaction("dispatch") as tx:
        sink_cursor.take(tx, "syslog", lease_s=1)
        sink_cursor.advance(tx, "syslog", 4)
    assert removed(trail, checkpoint_key, tmp_path, sink="syslog") is not None


@pytest.mark.parametrize("years", [0, 6, 10])
def test_nothing_younger_than_six_years_may_be_removed_whatever_is_configured(years: int) -> None:
    now = datetime(2026, 11, 2, tzinfo=UTC)
    kept = max(years, 6)
    check_retention(now - timedelta(days=366 * kept), now, years=years)
    with pytest.raises(AuditError, match=rf"kept for {kept} years"):
        check_retention(now - timedelta(days=366 * kept - 1), now, years=years)


@dataclass(frozen=True)
class CommandedNode:
    """A node that only commands touch; its database is ``url``, or else in its folder."""

    folder: Path
    url: str | None

    def run(self, *arguments: str | Path) -> Answer:
        environment = {} if self.url is None else {"DICOM_NODE_DATABASE_URL": self.url}
        return command(*arguments, "--data-dir", self.folder, environment=environment)

    def write_old_events(self, count: int) -> None:
        """Write events of 2015, one a day, as the node did then."""
        times = iter(START + timedelta(days=day) for day in range(count))
        trail = AuditTrail(AuditKey.load(self.folder / "keys" / "audit.key"), wall_clock=lambda: next(times))
        with closing(Database(self.url or f"sqlite:///{self.folder / 'node.db'}", trail)) as then:
            for number in range(count):
                with then.transaction("test") as tx:
                    tx.audit("account.added", detail={"user": f"user-{number}"})


@pytest.fixture
def commanded(tmp_path: Path, database_kind: str, new_database_url: Callable[..., str]) -> CommandedNode:
    is_embedded = database_kind == "sqlite"
    node = CommandedNode(tmp_path / "data", None if is_embedded else new_database_url(upgraded=False))
    assert node.run("db", "upgrade").status == 0
    return node


def test_the_command_refuses_what_is_too_young_and_removes_nothing(
    commanded: CommandedNode, tmp_path: Path
) -> None:
    archive = tmp_path / "a.jsonl"
    commanded.run("audit", "verify")

    answer = commanded.run("audit", "prune", "--before", "2026-01-01", "--archive", archive)

    assert answer.status != 0
    assert "kept for 10 years" in " ".join(answer.err.split())
    assert not archive.exists()
    nothing = commanded.run("audit", "prune", "--before", "2000-01-01", "--archive", archive)
    assert (nothing.status, nothing.out.strip()) == (0, "No event is so old.")


def test_the_command_moves_what_is_old_enough_and_the_rest_verifies(
    commanded: CommandedNode, tmp_path: Path
) -> None:
    commanded.write_old_events(6)
    archive = tmp_path / "a.jsonl"

    answer = commanded.run("audit", "prune", "--before", f"{CUT_AT:%Y-%m-%d}", "--archive", archive)

    assert answer.status == 0
    assert [json.loads(line)["seq"] for line in archive.read_text().splitlines()] == [1, 2, 3, 4]
    verified = commanded.run("audit", "verify", "--json").json
    assert (verified["ok"], verified["first_seq"], verified["events"]) == (True, 5, 3)


@on_postgresql
def test_the_role_of_the_node_may_remove_nothing(
    trail: Database, checkpoint_key: CheckpointKey, tmp_path: Path
) -> None:
    with production_role(trail) as url, closing(Database(url, trail.trail)) as node:
        with pytest.raises(AuditError, match="as the role that owns the tables"):
            removed(node, checkpoint_key, tmp_path)

        assert not (tmp_path / "old.jsonl").exists()
        assert checked(node, checkpoint_key, tmp_path).events == 10


def test_a_shorter_retention_is_no_right_setting(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[audit]\nretention_years = 5\n")
    answer = command("config", "check", "--config", file, "--data-dir", tmp_path)
    assert answer.status == 3
    assert "audit.retention_years" in answer.err


def test_an_export_overwrites_no_file(commanded: CommandedNode, tmp_path: Path) -> None:
    out = tmp_path / "trail.jsonl"
    out.write_text("kept")

    answer = commanded.run("audit", "export", "--out", out)

    assert answer.status == 2
    assert "exists" in answer.err
    assert out.read_text() == "kept"


def test_an_action_that_nobody_writes_is_refused_with_what_was_meant(commanded: CommandedNode) -> None:
    answer = commanded.run("audit", "query", "--action", "job.score")

    assert answer.status != 0
    said = " ".join(answer.err.split())
    assert "did you mean job.scored?" in said
    assert "study.complete" in said
    assert commanded.run("audit", "query", "--action", "job.scored").status == 0
