"""One way to change the database: all or nothing, audited, with errors that tell no patient data."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select, text

from db import engine
from db.errors import AuditError, DatabaseError, DatabaseUnavailableError
from db.handoff import complete_quiet_studies, has_quiet_study, register_instance
from db.jobs import claim
from db.lifecycle import JobKind
from db.queueing import queue_training
from db.session import Database
from db.tables import AuditEvent, Instance, Job, Study
from tests.steered_node import (
    LISTENER,
    RULES,
    SteeredNode,
    four_views,
    mammogram,
    on_postgresql,
    on_sqlite,
    result_object,
)

CANARY = "CANARY^PATIENT"
SQLITE_NORMAL, SQLITE_FULL = 1, 2


@contextmanager
def impatient(database: Database) -> Iterator[Database]:
    """Open the database again with a short patience for locks."""
    url = database.engine.url.render_as_string(hide_password=False)
    opened = Database(url, database.trail, lock_timeout_s=0.1)
    yield opened
    opened.close()


@contextmanager
def another_writer(database: Database) -> Iterator[None]:
    """Hold what every writer needs, from outside."""
    if database.is_sqlite:
        other: Any = sqlite3.connect(str(database.engine.url.database), isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
    else:
        url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        other = psycopg.connect(url)
        other.execute("LOCK TABLE study, job, audit_event IN EXCLUSIVE MODE")
    try:
        yield
    finally:
        other.rollback()  # PostgreSQL's server learns of a closed connection when it gets round to it
        other.close()


def count(database: Database, table: type[Any]) -> int:
    with database.reading() as session:
        return len(session.scalars(select(table)).all())


def all_that_is_told(error: BaseException) -> str:
    """Everything that a log would show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


# --- all or nothing


def test_a_block_that_ends_well_is_committed_with_its_events(database: Database) -> None:
    with database.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(), RULES)

    assert count(database, Instance) == count(database, AuditEvent) == 1


def test_a_block_that_raises_leaves_no_row_and_no_event(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(), RULES)
        raise ZeroDivisionError

    assert count(database, Study) == count(database, Instance) == count(database, AuditEvent) == 0


def test_what_cannot_be_audited_does_not_happen(database: Database) -> None:
    with pytest.raises(AuditError), database.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(), RULES)
        tx.audit("instance.looked_at", detail={"not JSON": object()})

    assert count(database, Instance) == count(database, AuditEvent) == 0


def test_the_trail_names_who_acts(database: Database) -> None:
    with database.transaction("anna") as tx:
        queue_training(tx, recipe="phantoms", order={})

    with database.reading() as session:
        (event,) = session.scalars(select(AuditEvent))
    assert (event.actor, event.action) == ("anna", "job.queued")
    assert json.loads(event.detail)["recipe"] == "phantoms"


def test_a_transaction_without_events_writes_none(database: Database) -> None:
    with database.transaction(LISTENER) as tx:
        assert complete_quiet_studies(tx, RULES) == 0

    assert count(database, AuditEvent) == 0


def test_a_reading_at_one_moment_sees_nothing_that_is_committed_after_its_first_look(
    database: Database,
) -> None:
    with database.reading(at_one_moment=True) as session:
        before = session.scalars(select(AuditEvent.seq)).all()
        with database.transaction("anna") as tx:
            queue_training(tx, recipe="phantoms", order={})
        after = session.scalars(select(AuditEvent.seq)).all()

    assert before == after == []
    assert count(database, AuditEvent) == 1


# --- durability


@on_sqlite
def test_sqlite_syncs_each_commit_and_keeps_its_triggers(database: Database) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1}
    with database.reading() as session:
        for pragma, value in wanted.items():
            assert session.execute(text(f"PRAGMA {pragma}")).scalar_one() == value, pragma


@on_sqlite
def test_sqlites_log_gives_back_the_room_that_a_long_reading_made_it_take(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest_bytes = 256 << 10
    monkeypatch.setattr(engine, "_LONGEST_LOG_BYTES", longest_bytes)
    monkeypatch.setattr(engine, "_LOG_PAGES", 16)
    with closing(Database(str(database.engine.url), database.trail)) as busy:
        log = Path(f"{busy.engine.url.database}-wal")

        def write() -> None:
            with busy.transaction("node") as tx:
                tx.audit("test.event", detail={"long": "x" * 50_000})

        with busy.reading() as session:
            assert session.scalar(select(func.count()).select_from(Job)) == 0
            for _ in range(10):
                write()
            assert log.stat().st_size > 2 * longest_bytes
        for _ in range(3):
            write()
        assert log.stat().st_size <= longest_bytes


@on_postgresql
def test_a_postgresql_server_that_falls_silent_is_noticed_within_half_a_minute(database: Database) -> None:
    with database.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        stated = driver.info.get_parameters()
    idle, interval, count = (
        int(stated[name]) for name in ("keepalives_idle", "keepalives_interval", "keepalives_count")
    )
    assert idle + interval * count <= 30
    assert int(stated["tcp_user_timeout"]) == 20000


@on_postgresql
def test_postgresql_commits_synchronously_and_reads_what_is_committed(database: Database) -> None:
    wanted = {"synchronous_commit": "on", "transaction_isolation": "read committed", "lock_timeout": "15s"}
    with database.reading() as session:
        for setting, value in wanted.items():
            assert session.execute(text(f"SHOW {setting}")).scalar_one() == value, setting


# --- the database is away or locked


def test_a_locked_database_is_unavailable_and_nothing_is_written(database: Database) -> None:
    database.now()
    with impatient(database) as ours:
        with (
            another_writer(database),
            pytest.raises(DatabaseUnavailableError, match="again by itself"),
            ours.transaction(LISTENER) as tx,
        ):
            register_instance(tx, mammogram(), RULES)

        assert count(ours, Study) == count(ours, Instance) == count(ours, AuditEvent) == 0
        with ours.transaction(LISTENER) as tx:
            register_instance(tx, mammogram(), RULES)
    assert count(database, Instance) == 1


def test_a_claim_on_a_locked_database_is_unavailable_and_the_job_stays(node: SteeredNode) -> None:
    node.receive(*four_views())
    with (
        impatient(node.database) as ours,
        another_writer(node.database),
        pytest.raises(DatabaseUnavailableError),
        ours.transaction("worker@host-a:1") as tx,
    ):
        claim(tx, JobKind.SCORE, lease_s=30, max_attempts=5)

    (job,) = node.jobs()
    assert (job.state, job.attempts, job.lease_owner) == ("queued", 0, None)


def test_looking_does_not_wait_for_a_writer(node: SteeredNode) -> None:
    node.receive(mammogram())
    with node.transaction() as tx:
        register_instance(tx, mammogram("L"), RULES)
        with impatient(node.database) as ours, ours.reading() as session:
            assert not has_quiet_study(session, node.clock.time)
            assert len(session.scalars(select(Instance)).all()) == 1


@on_postgresql
def test_a_connection_that_is_cut_in_a_transaction_is_unavailable_and_then_made_anew(
    database: Database,
) -> None:
    with pytest.raises(DatabaseUnavailableError), database.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(), RULES)
        own = tx.session.scalars(select(text("pg_backend_pid()"))).one()
        cut(database, own)
        register_instance(tx, mammogram("L"), RULES)

    assert count(database, Instance) == count(database, AuditEvent) == 0
    with database.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(), RULES)
    assert count(database, Instance) == 1


@on_postgresql
def test_connections_that_were_cut_while_idle_are_replaced_unseen(database: Database) -> None:
    with database.reading() as session:
        idle = session.scalars(select(text("pg_backend_pid()"))).one()
    cut(database, idle)

    with database.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(), RULES)

    assert count(database, Instance) == 1


def cut(database: Database, backend_pid: int) -> None:
    """End a connection as the server's administrator does, and wait until it is gone."""
    url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as administrator:
        ended = administrator.execute("SELECT pg_terminate_backend(%s, 60000)", [backend_pid]).fetchone()
    assert ended == (True,)


@pytest.mark.parametrize(
    "url",
    ["sqlite:////nowhere/at/all/node.db", "postgresql+psycopg://node@127.0.0.1:1/node"],
    ids=["sqlite", "postgresql"],
)
def test_a_database_that_cannot_be_reached_is_unavailable(database: Database, url: str) -> None:
    nowhere = Database(url, database.trail)

    with pytest.raises(DatabaseUnavailableError), nowhere.transaction(LISTENER):
        pytest.fail("there is nothing to write to")
    with pytest.raises(DatabaseUnavailableError), nowhere.reading() as session:
        session.execute(text("SELECT 1"))
    nowhere.close()


@on_postgresql
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"database": CANARY}, "it has no database of this name"),
        ({"username": CANARY}, "wrong user or password"),
        ({"host": "127.0.0.1", "port": 1, "query": {}}, "it refuses connections"),
        ({"host": "nowhere.invalid", "port": 1, "query": {}}, "its host's name is not known"),
    ],
    ids=str,
)
def test_why_a_server_is_out_of_reach_is_told_without_its_words(
    database: Database, changed: dict[str, Any], told: str
) -> None:
    url = database.engine.url.set(**changed).render_as_string(hide_password=False)
    nowhere = Database(url, database.trail)
    with pytest.raises(DatabaseUnavailableError) as caught, nowhere.transaction(LISTENER):
        pytest.fail("there is nothing to write to")
    assert f"OperationalError: {told}" in str(caught.value)
    assert "nowhere.invalid" not in str(caught.value)
    assert CANARY not in str(caught.value)
    nowhere.close()


@on_sqlite
def test_a_full_sqlite_file_is_unavailable_and_keeps_what_was_there(database: Database) -> None:
    # The limit is the connection's, which the next transaction gets as well.
    with database.transaction(LISTENER) as tx:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    stored = 0
    with pytest.raises(DatabaseUnavailableError, match="SQLITE_FULL"):
        for n in range(1000):
            with database.transaction(LISTENER) as tx:
                register_instance(tx, mammogram(study=f"1.2.{n}"), RULES)
            stored += 1

    assert count(database, Instance) == stored


def test_missing_tables_are_not_taken_for_a_database_that_will_come_back(
    empty_database_url: str, database: Database
) -> None:
    empty = Database(empty_database_url, database.trail)

    with pytest.raises(DatabaseError, match="db check") as refusal, empty.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(), RULES)

    assert not isinstance(refusal.value, DatabaseUnavailableError)
    empty.close()


# --- no patient data in errors


@pytest.mark.parametrize(
    "spoiled",
    [
        {"calling_ae_title": None},
        {"patient_id": CANARY, "accession_number": None},
        {"patient_id": f"{CANARY}\udcff"},
        {"patient_id": f"{CANARY}\0", "accession_number": None},
        {"patient_id": CANARY * 30, "accession_number": None},
    ],
    ids=["instance", "accession_missing", "not_unicode", "nul", "too_long"],
)
def test_a_refused_statement_tells_no_patient_data(database: Database, spoiled: dict[str, Any]) -> None:
    received = mammogram(**{"patient_id": CANARY, **spoiled})

    with pytest.raises(DatabaseError) as refusal, database.transaction(LISTENER) as tx:
        register_instance(tx, received, RULES)

    assert CANARY not in all_that_is_told(refusal.value)
    assert count(database, Study) == count(database, Instance) == count(database, AuditEvent) == 0


def test_an_unavailable_database_tells_no_patient_data(database: Database) -> None:
    database.now()
    with (
        impatient(database) as ours,
        another_writer(database),
        pytest.raises(DatabaseUnavailableError) as refusal,
        ours.transaction(LISTENER) as tx,
    ):
        register_instance(tx, mammogram(patient_id=CANARY), RULES)

    assert CANARY not in all_that_is_told(refusal.value)


def test_an_error_names_the_drivers_code(database: Database) -> None:
    code = "SQLITE_CONSTRAINT_NOTNULL" if database.is_sqlite else "23502"

    with pytest.raises(DatabaseError, match=code), database.transaction(LISTENER) as tx:
        register_instance(tx, replace(mammogram(), sha256=None), RULES)  # type: ignore[arg-type]


# --- what the database refuses by itself

WRONG_VALUES = [
    ("revision", "state", "'closed'"),
    ("revision", "complete_reason", "'boredom'"),
    ("revision", "complete_reason", "NULL"),
    ("revision", "state", "'open'"),
    ("instance", "conflict", "2"),
    ("job", "state", "'paused'"),
    ("job", "kind", "'mail'"),
    ("job", "lease_owner", "'nobody'"),
    ("job", "state", "'running'"),
    ("job", "revision_id", "999"),
    ("delivery", "state", "'lost'"),
    ("delivery", "result_id", "999"),
    ("deployment", "role", "'jester'"),
    ("deployment", "bundle_digest", "'unknown'"),
]


@pytest.fixture
def filled(node: SteeredNode) -> SteeredNode:
    """A database with a row in every table of the flow."""
    node.receive(*four_views())
    node.finish_scoring(node.claimed(), results=[result_object()])
    with node.transaction() as tx:
        tx.session.execute(
            text("INSERT INTO bundle VALUES ('d', 'n', '1', 't', 1, '2026-01-01T00:00:00.000000Z', 'anna')")
        )
        tx.session.execute(
            text(
                "INSERT INTO deployment (task, role, bundle_digest, since, deployed_by) "
                "VALUES ('t', 'champion', 'd', '2026-01-01T00:00:00.000000Z', 'anna')"
            )
        )
    return node


def refused(node: SteeredNode, statement: str) -> bool:
    try:
        with node.transaction() as tx:
            tx.session.execute(text(statement))
    except DatabaseUnavailableError:
        raise
    except DatabaseError:
        return True
    return False


def test_the_database_refuses_wrong_values_whoever_writes_them(filled: SteeredNode) -> None:
    for table, column, value in WRONG_VALUES:
        assert refused(filled, f"UPDATE {table} SET {column} = {value}"), f"{table}.{column} = {value}"

    assert filled.revisions() == [(1, "complete", "all_views")]
    assert {job.state for job in filled.rows(Job)} == {"done", "queued"}


def test_the_database_refuses_what_there_must_be_one_of(filled: SteeredNode) -> None:
    open_revision = (
        "INSERT INTO revision (study_id, number, state, opened_at, last_instance_at, due_at) "
        "SELECT study_id, {number}, 'open', opened_at, last_instance_at, due_at FROM revision LIMIT 1"
    )
    assert refused(filled, open_revision.format(number=1))
    assert not refused(filled, open_revision.format(number=2))
    assert refused(filled, open_revision.format(number=3))

    deployment = (
        "INSERT INTO deployment (task, role, bundle_digest, since, deployed_by) "
        "SELECT task, role, bundle_digest, since, deployed_by FROM deployment LIMIT 1"
    )
    assert refused(filled, deployment)
    assert not refused(filled, "UPDATE deployment SET until = since")
    assert not refused(filled, deployment)


@pytest.mark.parametrize(
    ("kind", "changes", "is_refused"),
    [
        ("score", {}, True),
        ("score", {"task": "'another'"}, False),
        ("deliver", {}, True),
        ("deliver", {"destination": "'OTHER@host:104'"}, False),
    ],
)
def test_the_database_refuses_the_same_job_twice(
    filled: SteeredNode, kind: str, changes: dict[str, str], is_refused: bool
) -> None:
    own = {column.key: f'"{column.key}"' for column in Job.__table__.columns}
    values = {**own, "id": "'second'", **changes}
    copy = (
        f"INSERT INTO job ({', '.join(own.values())}) "
        f"SELECT {', '.join(values.values())} FROM job WHERE kind = '{kind}'"
    )

    assert refused(filled, copy) is is_refused


def test_the_database_refuses_a_second_accepted_instance_but_takes_conflicts(filled: SteeredNode) -> None:
    columns = [column.key for column in Instance.__table__.columns if column.key != "id"]

    def copy(conflict: int, spool_name: str) -> str:
        values = {**{c: c for c in columns}, "conflict": str(conflict), "spool_name": f"'{spool_name}'"}
        return (
            f"INSERT INTO instance ({', '.join(columns)}) "
            f"SELECT {', '.join(values[c] for c in columns)} FROM instance WHERE id = 1"
        )

    assert refused(filled, copy(0, "one"))
    assert not refused(filled, copy(1, "one"))
    assert not refused(filled, copy(1, "two"))
    assert refused(filled, copy(1, "two")), "no two rows may name one file"


def test_a_late_synced_commit_is_seen_at_once_by_all(database: Database) -> None:
    with database.late_synced() as late:
        with late.transaction("listener") as tx:
            tx.audit("instance.stored")
        with database.reading() as session:
            assert session.scalars(select(AuditEvent.action)).all() == ["instance.stored"]
        with database.transaction("listener") as tx:
            tx.audit("instance.refused")
        with late.reading() as session:
            assert len(session.scalars(select(AuditEvent.action)).all()) == 2


@on_sqlite
def test_late_synced_commits_are_synced_together(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.late_synced() as late:
        assert (synchronous(database), synchronous(late)) == (SQLITE_FULL, SQLITE_NORMAL)
        synced: list[str] = []
        sync = os.fsync

        def noted(descriptor: int) -> None:
            synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", noted)
        with late.transaction("listener") as tx:
            tx.audit("instance.stored")
        database.sync_commits()
        assert synced == [f"{Path(str(database.engine.url.database)).name}-wal"]


@on_sqlite
def test_a_log_whose_sync_failed_is_written_to_the_database_instead(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Path(f"{database.engine.url.database}-wal")
    failures = [OSError(errno.EIO, "some pages were not written")]
    sync = os.fsync

    def fail_once(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        sync(descriptor)

    with database.late_synced() as late:
        with late.transaction("listener") as tx:
            tx.audit("instance.stored")
        monkeypatch.setattr(os, "fsync", fail_once)
        with pytest.raises(DatabaseUnavailableError, match="EIO"):
            database.sync_commits()
        assert log.stat().st_size > 0
        with database.reading() as session:
            session.execute(text("SELECT 1 FROM study")).all()
            with late.transaction("listener") as tx:
                tx.audit("instance.stored")
        database.sync_commits()
        assert log.stat().st_size == 0, "who syncs the log again is told nothing of what was lost"


@on_sqlite
def test_who_cannot_know_of_a_failed_sync_has_the_log_written_to_the_database(database: Database) -> None:
    file = Path(str(database.engine.url.database))
    with database.late_synced() as late:
        with late.transaction("listener") as tx:
            tx.audit("instance.stored")
        database.sync_commits(from_scratch=True)
        # Without the log, as after a crash that took it.
        copy = file.with_name("copy.db")
        copy.write_bytes(file.read_bytes())
        with closing(sqlite3.connect(copy)) as alone:
            assert alone.execute("SELECT action FROM audit_event").fetchall() == [("instance.stored",)]


@on_sqlite
def test_a_long_reader_does_not_hold_up_who_cannot_know(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    with database.late_synced() as late, database.reading() as session:
        session.execute(text("SELECT 1 FROM study")).all()
        with late.transaction("listener") as tx:
            tx.audit("instance.stored")
        sync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), sync(descriptor)))
        database.sync_commits(from_scratch=True)
    assert len(synced) == 1, "what the reader kept from the database is synced where it is"


@on_sqlite
def test_the_log_is_held_from_before_the_first_commit_that_it_syncs(database: Database) -> None:
    log = Path(f"{database.engine.url.database}-wal")

    def held() -> int:
        files = (each for each in Path("/proc/self/fd").iterdir())
        return sum(os.path.realpath(each) == str(log) for each in files)

    with database.transaction("listener") as tx:
        tx.audit("instance.stored")
    before = held()
    with database.late_synced() as late:
        assert held() == before + 1, "or a failed sync of another process would be the only one told of"
        with late.transaction("listener") as tx:
            tx.audit("instance.stored")
        during = held()
        database.sync_commits()
        database.sync_commits()
        assert held() == during
    database.close()
    assert held() == 0


@on_sqlite
def test_the_log_is_synced_of_a_database_behind_a_link(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(str(database.engine.url.database))
    link = tmp_path / "link.sqlite"
    link.symlink_to(file)
    linked = Database(f"sqlite:///{link}", database.trail)
    synced: list[str] = []
    with linked.transaction("listener") as tx:
        tx.audit("instance.stored")
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name),
    )
    linked.sync_commits()
    linked.close()
    assert synced == [f"{file.name}-wal"]


def synchronous(database: Database) -> int:
    with database.reading() as session:
        return int(session.execute(text("PRAGMA synchronous")).scalar_one())


@on_postgresql
def test_a_server_that_can_crash_by_itself_syncs_every_commit(database: Database) -> None:
    with database.late_synced() as late:
        assert late is database
    database.sync_commits()
    with database.reading() as session:
        assert session.execute(text("SHOW synchronous_commit")).scalar_one() == "on"
