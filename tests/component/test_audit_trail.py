"""Events are chained in the transaction of their change, without a gap, and nobody changes them later."""

from __future__ import annotations

import itertools
import json
import re
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, text

from db import schema
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import AUDIT_TABLE, GENESIS, ROTATE_KEY, AuditEntry, AuditTrail, audit_json
from db.audit.verification import VerifyReport, verify
from db.errors import AuditError, DatabaseError
from db.processes import sign_of_life
from db.session import Database
from db.tables import Process
from tests.databases import production_role

postgres_only = pytest.mark.parametrize(
    "database_kind", [pytest.param("postgresql", marks=pytest.mark.postgres)]
)
sqlite_only = pytest.mark.parametrize("database_kind", ["sqlite"])


def rows(database: Database) -> list[dict[str, Any]]:
    with database.reading() as session:
        found = session.execute(select(AUDIT_TABLE).order_by(AUDIT_TABLE.c.seq)).mappings()
        return [dict(row) for row in found]


def chain_alone(database: Database, key: AuditKey, tmp_path: Path) -> VerifyReport:
    public_key = CheckpointKey.load_or_create(tmp_path / "unused.key").public_key
    return verify(database, key, tmp_path / "no-checkpoints", public_key)


def write_events(database: Database, count: int) -> None:
    with database.transaction("test") as tx:
        for number in range(count):
            tx.audit("test.event", detail={"number": number})


def test_each_event_names_the_one_before_and_is_numbered_without_a_gap(database: Database) -> None:
    write_events(database, 2)
    with pytest.raises(ZeroDivisionError), database.transaction("test") as tx:
        tx.audit("test.rolled_back")
        raise ZeroDivisionError
    write_events(database, 1)

    found = rows(database)
    assert [row["seq"] for row in found] == [1, 2, 3]
    assert found[0]["prev"] == GENESIS
    assert all(after["prev"] == before["mac"] for before, after in itertools.pairwise(found))


def test_an_event_says_who_did_what_to_what_and_when(database: Database, audit_key: AuditKey) -> None:
    with database.transaction("listener@host:17") as tx:
        tx.audit(
            "study.complete",
            study_instance_uid="1.2.3",
            job_id="j1",
            bundle="ab" * 32,
            detail={"b": 1, "a": "é"},
        )

    (row,) = rows(database)
    payload = json.loads(row["payload"])
    assert (row["actor"], row["action"], row["study_instance_uid"]) == (
        "listener@host:17",
        "study.complete",
        "1.2.3",
    )
    assert (row["job_id"], row["bundle"], row["detail"]) == ("j1", "ab" * 32, '{"a":"é","b":1}')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row["at"])
    assert row["payload"].startswith('{"action":"study.complete","actor":')
    assert payload["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert isinstance(payload["since_boot_us"], int)
    assert row["key_id"] == payload["key_id"] == audit_key.newest_id


@pytest.mark.parametrize("count", [7, 8, 20])
def test_many_events_of_one_transaction_are_chained_in_their_order(
    database: Database, audit_key: AuditKey, tmp_path: Path, count: int
) -> None:
    write_events(database, count)

    assert [json.loads(row["detail"])["number"] for row in rows(database)] == list(range(count))
    assert chain_alone(database, audit_key, tmp_path).events == count


@pytest.mark.parametrize(
    "text", ["plain", 'quote " and \\', "\n\t\x1b\x7f", "Größe \U0001f9e0", "\u2028", "A\udce9B"]
)
def test_a_payload_is_the_canonical_spelling_of_what_it_says(database: Database, text: str) -> None:
    with database.transaction(text) as tx:
        tx.audit(text, study_instance_uid=text, detail={"z": text, text: [text, None, 1.5, {}]})
        tx.audit("test.event", job_id=text, bundle=text)

    for row in rows(database):
        assert row["payload"] == audit_json(json.loads(row["payload"]))


def test_text_that_a_database_cannot_store_is_escaped_and_verifies(
    database: Database, audit_key: AuditKey, tmp_path: Path
) -> None:
    with database.transaction("actor\0\udce9") as tx:
        tx.audit("test.event", detail={"undecodable": "A\udce9B", "nul": "\0", "escape": "\x1b"})

    assert chain_alone(database, audit_key, tmp_path).ok
    (row,) = rows(database)
    assert json.loads(row["detail"]) == {"undecodable": "A\udce9B", "nul": "\0", "escape": "\x1b"}
    assert row["actor"] == "actor\\x00\\udce9"


@pytest.mark.parametrize("detail", [{"bytes": b"x"}, {"number": float("nan")}, {"set": {1}}, {1: 1, "1": 2}])
def test_a_detail_that_is_not_json_stops_the_change_it_describes(
    database: Database, detail: dict[str, Any]
) -> None:
    with pytest.raises(AuditError, match="JSON values only"), database.transaction("test") as tx:
        sign_of_life(tx, "listener@host:1", "listener")
        tx.audit("test.event", detail=detail)

    assert rows(database) == []
    assert_no_process(database)


@pytest.mark.parametrize(
    "entry",
    [{"actor": "x" * 129}, {"action": "x" * 65}, {"study_instance_uid": "1" * 65}, {"job_id": "\0" * 9}],
)
def test_a_text_longer_than_its_column_is_refused(entry: dict[str, str]) -> None:
    with pytest.raises(AuditError, match="is longer than"):
        AuditEntry(**{"actor": "a", "action": "b", **entry})


def assert_no_process(database: Database) -> None:
    with database.reading() as session:
        assert session.scalars(select(Process)).all() == []


def test_a_change_whose_event_cannot_be_written_does_not_happen(database: Database) -> None:
    """A18, the table is gone."""
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE audit_event"))

    with pytest.raises(DatabaseError), database.transaction("test") as tx:
        sign_of_life(tx, "listener@host:1", "listener")

    assert_no_process(database)


def test_a_node_with_another_key_cannot_continue_the_trail(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """A18, the key file was lost and a new one made."""
    write_events(database, 1)
    before = rows(database)
    stranger_key = AuditKey.load_or_create(tmp_path / "stranger.key")
    stranger = Database(database_url, AuditTrail(stranger_key))

    with pytest.raises(AuditError, match="restore the key file"), stranger.transaction("test") as tx:
        sign_of_life(tx, "listener@host:1", "listener")
    stranger.close()

    assert rows(database) == before
    assert_no_process(database)


@sqlite_only
def test_a_full_disk_stops_the_change_together_with_its_event(database: Database) -> None:
    """A18; the size limit of SQLite gives the same error as a full disk."""
    with database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    database.engine.dispose()
    event.listen(
        database.engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {pages + 2}").close()
    )

    with pytest.raises(DatabaseError), database.transaction("test") as tx:
        sign_of_life(tx, "listener@host:1", "listener")
        tx.audit("test.event", detail={"long": "x" * 100_000})

    assert rows(database) == []
    assert_no_process(database)


REFUSED_BY_BOTH = {
    "update": "UPDATE audit_event SET actor = 'someone else' WHERE seq = 2",
    "delete": "DELETE FROM audit_event WHERE seq = 2",
    "delete everything": "DELETE FROM audit_event",
    "upsert": "INSERT INTO audit_event SELECT * FROM audit_event WHERE seq = 2 "
    "ON CONFLICT (seq) DO UPDATE SET actor = 'x'",
}


def assert_refused(database: Database, *statements: str) -> None:
    before = rows(database)
    with (
        pytest.raises(Exception, match="the audit trail is append-only"),
        database.engine.begin() as connection,
    ):
        for statement in statements:
            connection.exec_driver_sql(statement)
    assert rows(database) == before
    assert len(before) == 3


@pytest.mark.parametrize("statement", [pytest.param(sql, id=name) for name, sql in REFUSED_BY_BOTH.items()])
def test_the_database_refuses_to_change_an_event(database: Database, statement: str) -> None:
    """A17."""
    write_events(database, 3)

    assert_refused(database, statement)


@sqlite_only
@pytest.mark.parametrize("verb", ["INSERT OR REPLACE", "REPLACE", "UPDATE OR REPLACE"])
def test_sqlite_refuses_to_replace_an_event(database: Database, verb: str) -> None:
    """A17: without recursive_triggers the first two overwrite a row silently."""
    write_events(database, 3)
    change = (
        f"{verb} audit_event SET seq = 1 WHERE seq = 2"
        if verb.startswith("UPDATE")
        else f"{verb} INTO audit_event SELECT * FROM audit_event WHERE seq = 2"
    )

    assert_refused(database, change)


@postgres_only
@pytest.mark.parametrize(
    "statements",
    [
        ["TRUNCATE audit_event"],
        ["TRUNCATE audit_event CASCADE"],
        ["SET session_replication_role = replica", "DELETE FROM audit_event"],
        ["SET session_replication_role = replica", "TRUNCATE audit_event"],
    ],
)
def test_postgresql_refuses_to_empty_the_trail(database: Database, statements: list[str]) -> None:
    """A17."""
    write_events(database, 3)

    assert_refused(database, *statements)


@postgres_only
def test_the_documented_production_role_runs_the_node_and_cannot_touch_the_trail(
    database: Database, audit_key: AuditKey
) -> None:
    """A17: the SQL is taken from the documentation as it stands."""
    with (
        production_role(database) as url,
        closing(Database(url, AuditTrail(audit_key))) as node,
    ):
        schema.require_head(node)
        with node.transaction("test") as tx:
            sign_of_life(tx, "listener@host:1", "listener")
        assert schema.check(node) == []
        for refused in (
            *REFUSED_BY_BOTH.values(),
            "TRUNCATE audit_event",
            "ALTER TABLE audit_event DISABLE TRIGGER ALL",
            "DROP TRIGGER audit_event_no_update ON audit_event",
            "DROP TABLE audit_event",
            "SET session_replication_role = replica",
            "UPDATE alembic_version SET version_num = '9999'",
        ):
            with pytest.raises(Exception, match=r"permission denied|must be owner"), node.engine.begin() as c:
                c.exec_driver_sql(refused)
        assert [row["action"] for row in rows(node)] == ["process.started"]


def test_six_writers_at_once_make_one_chain_and_none_has_to_try_again(
    database: Database, database_url: str, audit_key: AuditKey, tmp_path: Path
) -> None:
    """Half of them have a connection pool of their own, as another process has.

    They wait for each other as long as a slow disk takes: what must not happen is that one is turned away.
    """
    one, other = (
        Database(database_url, AuditTrail(AuditKey.load(audit_key.path)), lock_timeout_s=120)
        for _ in range(2)
    )
    failures: list[Exception] = []
    barrier = threading.Barrier(6)

    def work(node: Database, name: str) -> None:
        barrier.wait()
        try:
            for _ in range(20):
                with node.transaction(name) as tx:
                    sign_of_life(tx, f"{name}@host:1", name)
                    tx.audit("test.first")
                    tx.audit("test.second")
        except Exception as error:  # noqa: BLE001  # handed to the test's own thread
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=((one, other)[number % 2], f"writer{number}"))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    other.close()

    assert failures == []
    report = chain_alone(database, audit_key, tmp_path)
    assert report.problem is None
    assert report.events == 6 * 20 * 2 + 6
    found = [row["action"] for row in rows(database) if row["action"] != "process.started"]
    assert found == ["test.first", "test.second"] * 120


def test_after_a_rotation_every_process_signs_with_the_new_key(
    database: Database, database_url: str, audit_key: AuditKey, tmp_path: Path
) -> None:
    """A14."""
    running = Database(database_url, AuditTrail(AuditKey.load(audit_key.path)))
    write_events(running, 1)
    old_id = audit_key.newest_id

    with database.transaction("admin") as tx:
        new_id = database.trail.rotate_key(tx.connection, tx.actor)
    write_events(running, 1)
    write_events(database, 1)
    running.close()

    assert [(row["action"], row["key_id"]) for row in rows(database)] == [
        ("test.event", old_id),
        (ROTATE_KEY, old_id),
        ("test.event", new_id),
        ("test.event", new_id),
    ]
    assert chain_alone(database, AuditKey.load(audit_key.path), tmp_path).ok


def test_a_rotation_that_is_rolled_back_leaves_the_old_key_in_force(
    database: Database, audit_key: AuditKey, tmp_path: Path
) -> None:
    write_events(database, 1)
    old_id = audit_key.newest_id

    with pytest.raises(ZeroDivisionError), database.transaction("admin") as tx:
        database.trail.rotate_key(tx.connection, tx.actor)
        raise ZeroDivisionError
    write_events(database, 1)

    assert [row["key_id"] for row in rows(database)] == [old_id, old_id]
    assert chain_alone(database, audit_key, tmp_path).ok
