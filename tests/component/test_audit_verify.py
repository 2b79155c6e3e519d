"""Whoever touches the trail behind the node's back is found out, and where."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, insert, select, text

from db.audit import guards
from db.audit.checkpoints import CheckpointWriter, read_checkpoints
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import AUDIT_TABLE, AuditTrail
from db.audit.verification import VerifyReport, verify
from db.errors import AuditError
from db.session import Database
from tests.steered_node import on_sqlite

Rows = list[dict[str, Any]]


@dataclass
class Node:
    """A node with a trail of nine events and, when asked, checkpoints outside its database."""

    database: Database
    key: AuditKey
    checkpoint_key: CheckpointKey
    folder: Path

    def __post_init__(self) -> None:
        self.writer = CheckpointWriter(self.folder, self.checkpoint_key, "NODE 1/2")

    def write_events(self, count: int) -> None:
        with self.database.transaction("node") as tx:
            for _ in range(count):
                tx.audit("test.event", study_instance_uid="1.2.3", job_id="j1", bundle="ab", detail={"n": 1})

    def checkpoint(self) -> None:
        self.writer.write(self.database)

    def verify(self, **options: Any) -> VerifyReport:
        return verify(self.database, self.key, self.folder, self.checkpoint_key.public_key, **options)

    def verify_chain_alone(self) -> VerifyReport:
        return verify(self.database, self.key, self.folder / "none", self.checkpoint_key.public_key)


@pytest.fixture
def node(database: Database, audit_key: AuditKey, tmp_path: Path) -> Node:
    """Events 1 to 9 in three transactions, no checkpoint."""
    made = Node(
        database, audit_key, CheckpointKey.load_or_create(tmp_path / "cp.key"), tmp_path / "elsewhere"
    )
    for _ in range(3):
        made.write_events(3)
    return made


@contextmanager
def attack(node: Node) -> Iterator[Connection]:
    """Open the database behind the node's back, as someone who may drop its triggers."""
    engine = create_engine(node.database.engine.url)
    on = "" if engine.dialect.name == "sqlite" else " ON audit_event"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER audit_event_no_update{on}")
        connection.exec_driver_sql(f"DROP TRIGGER audit_event_no_delete{on}")
        yield connection
    engine.dispose()


def read(connection: Connection) -> Rows:
    query = select(AUDIT_TABLE).order_by(AUDIT_TABLE.c.seq)
    return [dict(row) for row in connection.execute(query).mappings()]


def put(connection: Connection, rows: Rows) -> None:
    """Replace the whole trail."""
    connection.execute(AUDIT_TABLE.delete())
    connection.execute(insert(AUDIT_TABLE), rows)


def rechained(rows: Rows, mac: Callable[[str, str, str], str]) -> Rows:
    """Number and chain rows anew, from event 4 on."""
    prev = rows[2]["mac"]
    for row in rows[3:]:
        row["prev"] = prev
        prev = row["mac"] = mac(row["key_id"], prev, row["payload"])
    return rows


def edit(connection: Connection, _node: Node) -> None:
    connection.execute(
        text("UPDATE audit_event SET payload = replace(payload, 'node', 'nobody') WHERE seq = 4")
    )


def delete_middle(connection: Connection, _node: Node) -> None:
    connection.execute(text("DELETE FROM audit_event WHERE seq = 4"))


def delete_and_renumber(connection: Connection, _node: Node) -> None:
    rows = read(connection)
    put(connection, [*rows[:3], *({**row, "seq": row["seq"] - 1} for row in rows[4:])])


def insert_one(connection: Connection, _node: Node) -> None:
    rows = read(connection)
    forged = {**rows[2], "seq": 4, "prev": rows[2]["mac"], "mac": secrets.token_hex(32)}
    put(connection, [*rows[:3], forged, *({**row, "seq": row["seq"] + 1} for row in rows[3:])])


def insert_in_front(connection: Connection, _node: Node) -> None:
    rows = read(connection)
    put(connection, [{**rows[0], "seq": -4}, *rows])


def swap(connection: Connection, _node: Node) -> None:
    rows = read(connection)
    rows[3]["seq"], rows[5]["seq"] = 6, 4
    put(connection, rows)


def rewrite_without_key(connection: Connection, node: Node) -> None:
    rows = read(connection)
    rows[3]["payload"] = rows[3]["payload"].replace("node", "nobody")
    rows[3]["actor"] = "nobody"
    stranger = AuditKey.load_or_create(node.folder.parent / "stranger.key")
    put(connection, rechained(rows, lambda _id, *content: stranger.mac(stranger.newest_id, *content)))


def rewrite_with_another_key(connection: Connection, node: Node) -> None:
    rows = read(connection)
    stranger = AuditKey.load_or_create(node.folder.parent / "stranger.key")
    for row in rows[3:]:
        row["payload"] = row["payload"].replace(row["key_id"], stranger.newest_id)
        row["key_id"] = stranger.newest_id
    put(connection, rechained(rows, stranger.mac))


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (edit, "its text was changed"),
        (delete_middle, "missing; the next one is event 5"),
        (delete_and_renumber, "does not follow"),
        (insert_one, "its text was changed, or written without the key"),
        (swap, "does not follow"),
        (rewrite_without_key, "written without the key"),
        (rewrite_with_another_key, "was in force"),
        (insert_in_front, "no event has such a number"),
    ],
)
def test_the_chain_alone_shows_the_first_event_that_was_touched(
    node: Node, tamper: Callable[[Connection, Node], None], problem: str
) -> None:
    """A16, tampers 1 to 6."""
    assert node.verify_chain_alone().ok
    with attack(node) as connection:
        tamper(connection, node)

    report = node.verify_chain_alone()

    assert not report.ok
    assert report.first_bad_seq == (-4 if tamper is insert_in_front else 4)
    assert report.events == (0 if tamper is insert_in_front else 3)
    assert problem in str(report.problem)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("at", "2020-01-01T00:00:00.000000Z", "column 'at'"),
        ("actor", "nobody", "column 'actor'"),
        ("action", "other.event", "column 'action'"),
        ("action", "audit.rotate_key", "column 'action'"),
        ("study_instance_uid", None, "column 'study_instance_uid'"),
        ("job_id", "j2", "column 'job_id'"),
        ("bundle", "cd", "column 'bundle'"),
        ("detail", '{"n":2}', "column 'detail'"),
        ("detail", '{"n": 1}', "column 'detail'"),
        ("key_id", "0123456789abcdef", "was in force"),
        ("prev", "0" * 64, "does not follow"),
        ("mac", "0" * 64, "its text was changed"),
    ],
)
def test_a_typed_column_that_says_something_else_than_was_signed_is_found(
    node: Node, column: str, value: str | None, problem: str
) -> None:
    """A16, tamper 11; A12."""
    with attack(node) as connection:
        connection.execute(AUDIT_TABLE.update().where(AUDIT_TABLE.c.seq == 4).values({column: value}))

    report = node.verify_chain_alone()

    assert report.first_bad_seq == 4
    assert problem in str(report.problem)


def truncate_tail(connection: Connection, _node: Node) -> None:
    connection.execute(text("DELETE FROM audit_event WHERE seq > 6"))


def empty_table(connection: Connection, _node: Node) -> None:
    connection.execute(text("DELETE FROM audit_event"))


def rewrite_with_the_key(connection: Connection, node: Node) -> None:
    rows = read(connection)
    rows[3]["payload"] = rows[3]["payload"].replace("node", "nobody")
    rows[3]["actor"] = "nobody"
    put(connection, rechained(rows, node.key.mac))


@pytest.mark.parametrize(
    ("tamper", "first_bad_seq", "problem"),
    [
        (truncate_tail, 7, "knows events up to 9"),
        (empty_table, 1, "knows events up to 9"),
        (rewrite_with_the_key, 9, "after 0 up to 9 was rewritten by someone who holds the key"),
    ],
)
def test_a_checkpoint_shows_what_the_chain_alone_cannot(
    node: Node, tamper: Callable[[Connection, Node], None], first_bad_seq: int, problem: str
) -> None:
    """A16, tampers 7, 8 and 10; A15."""
    node.checkpoint()
    assert node.verify() == VerifyReport(events=9, checkpoints_checked=1, newest_checkpoint_seq=9)
    with attack(node) as connection:
        tamper(connection, node)

    report = node.verify()

    assert node.verify_chain_alone().ok
    assert report.first_bad_seq == first_bad_seq
    assert problem in str(report.problem)
    assert report.events == (6 if tamper is truncate_tail else 0), "before a rewrite no event is sure"


@pytest.mark.parametrize(("events_since", "first_bad_seq"), [(0, 7), (2, 9), (5, 9)])
def test_a_restored_backup_is_found_whether_or_not_the_node_went_on(
    node: Node, events_since: int, first_bad_seq: int
) -> None:
    """A16, tamper 9: the table is again as it was after event 6."""
    node.checkpoint()
    with attack(node) as connection:
        put(connection, read(connection)[:6])
    if events_since:
        node.write_events(events_since)

    report = node.verify()

    assert node.verify_chain_alone().ok
    assert report.first_bad_seq == first_bad_seq
    assert not report.ok


def test_a_rewrite_is_narrowed_down_between_two_checkpoints(node: Node) -> None:
    node.checkpoint()
    node.write_events(3)
    node.checkpoint()
    with attack(node) as connection:
        rows = read(connection)
        rows[10]["actor"] = "nobody"
        rows[10]["payload"] = rows[10]["payload"].replace("node", "nobody")
        put(connection, rechained(rows, node.key.mac))

    report = node.verify()

    assert report.checkpoints_checked == 1
    assert report.first_bad_seq == 12
    assert report.events == 9
    assert "some event after 9 up to 12" in str(report.problem)


def test_a_tampered_trail_that_grew_and_was_checkpointed_again_is_still_found(node: Node) -> None:
    node.checkpoint()
    with attack(node) as connection:
        truncate_tail(connection, node)
    node.write_events(10)
    node.checkpoint()

    assert node.verify().first_bad_seq == 9


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(b'"seq":9', b'"seq":6'),
        lambda line: line.replace(b'"count":9', b'"count":8'),
        lambda line: line.replace(b'"signature":"', b'"signature":"AAAA'),
        lambda line: b'{"seq":9}\n',
        lambda line: b"[1, 2}\n",
    ],
)
def test_a_checkpoint_that_the_node_did_not_sign_is_a_problem(
    node: Node, damage: Callable[[bytes], bytes]
) -> None:
    node.checkpoint()
    (file,) = node.folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))

    report = node.verify()

    assert report.first_bad_seq is None
    assert "checkpoints-NODE_1_2.jsonl, line 1 was not signed" in str(report.problem)


def test_a_checkpoint_signed_with_another_key_is_a_problem(node: Node) -> None:
    stranger = CheckpointKey.load_or_create(node.folder.parent / "stranger.key")
    CheckpointWriter(node.folder, stranger, "NODE").write(node.database)

    assert "was not signed" in str(node.verify().problem)


def test_a_checkpoint_that_a_crash_tore_is_passed_over_and_the_next_one_counts(node: Node) -> None:
    node.checkpoint()
    (file,) = node.folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:40])
    assert node.verify().checkpoints_checked == 1

    node.write_events(1)
    node.checkpoint()

    assert node.verify() == VerifyReport(events=10, checkpoints_checked=2, newest_checkpoint_seq=10)


def test_every_nodes_checkpoints_are_checked(node: Node) -> None:
    node.checkpoint()
    CheckpointWriter(node.folder, node.checkpoint_key, "NODE2").write(node.database)

    assert node.verify().checkpoints_checked == 2


def test_an_empty_trail_verifies_and_gets_no_checkpoint(
    database: Database, audit_key: AuditKey, tmp_path: Path
) -> None:
    checkpoint_key = CheckpointKey.load_or_create(tmp_path / "cp.key")
    writer = CheckpointWriter(tmp_path / "elsewhere", checkpoint_key, "NODE")

    assert not writer.is_due(database, every_events=1, every_s=0)
    assert writer.write(database) is None
    assert verify(database, audit_key, tmp_path / "elsewhere", checkpoint_key.public_key) == VerifyReport(0)
    assert not (tmp_path / "elsewhere").exists()


def test_a_checkpoint_is_due_at_start_then_after_so_many_events_or_so_much_time(node: Node) -> None:
    assert node.writer.is_due(node.database, every_events=1000, every_s=1000)
    node.checkpoint()
    assert not node.writer.is_due(node.database, every_events=1, every_s=0)  # nothing happened since

    node.write_events(2)

    assert not node.writer.is_due(node.database, every_events=3, every_s=1000)
    assert node.writer.is_due(node.database, every_events=2, every_s=1000)
    assert node.writer.is_due(node.database, every_events=3, every_s=0)


@on_sqlite
def test_a_later_checkpoint_costs_the_same_however_long_the_trail_is(node: Node) -> None:
    """Counted in steps of SQLite's machine, of which a slow computer does not make more."""
    steps = [0]

    def count_a_step() -> int:
        steps[0] += 1
        return 0

    def count_steps(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_progress_handler(count_a_step, 1)

    event.listen(node.database.engine, "connect", count_steps)
    node.database.engine.dispose()
    costs = []
    for earlier in (0, 3000):
        node.write_events(earlier)
        node.checkpoint()
        node.write_events(3)
        before = steps[0]
        node.checkpoint()
        costs.append(steps[0] - before)

    assert 0 < costs[1] < 2 * costs[0]
    assert node.verify().checkpoints_checked == 4


def test_events_that_vanished_before_a_checkpoint_are_not_counted_as_there(node: Node) -> None:
    node.checkpoint()
    node.write_events(3)
    with node.database.engine.begin() as connection, guards.lifted(connection):
        vanished = connection.execute(select(AUDIT_TABLE).where(AUDIT_TABLE.c.seq == 11)).one()
        connection.execute(text("DELETE FROM audit_event WHERE seq = 11"))
    node.checkpoint()

    (_, checkpoint) = read_checkpoints(node.folder, node.checkpoint_key.public_key)
    assert (checkpoint.seq, checkpoint.count) == (12, 11)
    assert node.verify().first_bad_seq == 11

    with node.database.engine.begin() as connection:
        connection.execute(insert(AUDIT_TABLE).values(vanished._asdict()))
    assert node.verify().first_bad_seq == 12, "whoever signed this one missed an event"


def test_a_checkpoint_that_cannot_be_written_is_an_error(node: Node) -> None:
    node.folder.write_text("a file where the folder should be")

    with pytest.raises(AuditError, match="cannot be written"):
        node.checkpoint()


def test_a_quick_look_checks_only_the_events_asked_for(node: Node) -> None:
    node.checkpoint()
    with attack(node) as connection:
        connection.execute(AUDIT_TABLE.update().where(AUDIT_TABLE.c.seq == 2).values(actor="nobody"))

    assert node.verify(since=5) == VerifyReport(
        events=5, checkpoints_checked=1, newest_checkpoint_seq=9, first_seq=5
    )
    assert node.verify(since=2).first_bad_seq == 2
    assert node.verify(since=10) == VerifyReport(events=0, first_seq=10)
    assert node.verify().first_bad_seq == 2


def test_a_quick_look_leaves_the_checkpoints_of_earlier_events_to_the_whole_one(node: Node) -> None:
    """In ten years there are a million: their signatures would keep 'doctor' busy for minutes."""
    stranger = CheckpointKey.load_or_create(node.folder.parent / "stranger.key")
    CheckpointWriter(node.folder, stranger, "NODE").write(node.database)
    node.write_events(1)
    node.checkpoint()

    assert node.verify(since=10).checkpoints_checked == 1
    assert "was not signed" in str(node.verify(since=9).problem)
    assert "was not signed" in str(node.verify().problem)


def test_a_key_retired_by_rotation_no_longer_signs(node: Node) -> None:
    """A14: a stolen old key is of no use for new events."""
    old_id = node.key.newest_id
    with node.database.transaction("admin") as tx:
        node.database.trail.rotate_key(tx.connection, tx.actor)
    node.write_events(1)
    assert node.verify().ok
    with attack(node) as connection:
        rows = read(connection)
        last = rows[-1]
        last["payload"] = last["payload"].replace(last["key_id"], old_id)
        last["key_id"] = old_id
        last["mac"] = node.key.mac(old_id, last["prev"], last["payload"])
        put(connection, rows)

    assert "was in force" in str(node.verify().problem)
    assert node.verify().first_bad_seq == 11


def test_a_key_that_another_process_made_meanwhile_is_known(node: Node, audit_key: AuditKey) -> None:
    seen_before = AuditKey.load(audit_key.path)
    with node.database.transaction("admin") as tx:
        node.database.trail.rotate_key(tx.connection, tx.actor)
    node.write_events(1)

    report = verify(node.database, seen_before, node.folder, node.checkpoint_key.public_key)

    assert report.problem is None
    assert report.events == 11


def since_boot() -> timedelta:
    return timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))


def test_a_wall_clock_that_goes_backwards_is_flagged_and_no_error(
    database_url: str, audit_key: AuditKey, tmp_path: Path
) -> None:
    """A20: set back by two hours before the third event, and right otherwise, however long a commit takes."""
    started = datetime(2026, 1, 31, 8, 0, tzinfo=UTC) - since_boot()
    set_back = iter([timedelta(0), timedelta(0), timedelta(hours=2), timedelta(hours=2)])
    trail = AuditTrail(audit_key, wall_clock=lambda: started + since_boot() - next(set_back))
    database = Database(database_url, trail)
    for _ in range(4):
        with database.transaction("test") as tx:
            tx.audit("test.event")

    public_key = CheckpointKey.load_or_create(tmp_path / "cp.key").public_key
    report = verify(database, audit_key, tmp_path / "none", public_key)
    database.close()

    assert report.ok
    assert [step.seq for step in report.clock_steps] == [3]
    assert report.clock_steps[0].back_by_s == pytest.approx(7200, abs=5)


def test_progress_is_told_while_many_events_are_checked(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.audit.verification.BATCH_ROWS", 4)
    seen: list[int] = []

    node.verify(progress=seen.append)

    assert seen == [4, 8]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_checkpoint_signs_nothing_that_a_power_cut_could_take(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Path(f"{node.database.engine.url.database}-wal")
    synced = log.stat().st_size
    sync = os.fsync

    def note_log(descriptor: int) -> None:
        nonlocal synced
        sync(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink() == log:
            synced = log.stat().st_size

    monkeypatch.setattr(os, "fsync", note_log)
    with node.database.late_synced() as late:
        with late.transaction("listener") as tx:
            tx.audit("instance.stored")
        assert log.stat().st_size > synced
        node.checkpoint()
        disk = tmp_path / "disk"
        disk.mkdir()
        shutil.copy(str(node.database.engine.url.database), disk / "node.db")
        (disk / "node.db-wal").write_bytes(log.read_bytes()[:synced])
    left = Database(f"sqlite:///{disk / 'node.db'}", node.database.trail)
    with left.transaction("listener, started again") as tx:
        tx.audit("instance.stored")
    report = verify(left, node.key, node.folder, node.checkpoint_key.public_key)
    assert report.ok, report.problem
    assert report.checkpoints_checked == 1
    left.close()
