"""An upgraded database has the tables of this version, on both databases."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from db import schema
from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.engine import open_engine
from db.errors import SchemaError
from db.session import Database
from db.tables import Base


@pytest.fixture
def empty_database(empty_database_url: str, audit_key: AuditKey) -> Database:
    return Database(empty_database_url, AuditTrail(audit_key))


def definitions(url: str) -> set[str]:
    """Every table, column, constraint and index as the database itself spells it, guards left out."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        query = "SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND name <> 'alembic_version'"
    else:
        query = """
            SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
            UNION SELECT conrelid::regclass || conname || pg_get_constraintdef(oid) FROM pg_constraint
                WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass
            UNION SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable,
                                   character_maximum_length, column_default)
                FROM information_schema.columns
                WHERE table_schema = 'public' AND table_name <> 'alembic_version'"""
    with engine.connect() as connection:
        found = [row for row in connection.scalars(text(query)) if row]
    engine.dispose()
    # SQLite keeps the statement's text, in which the order of a table's columns and constraints is free.
    return {"; ".join(sorted(line.strip(" ,\t") for line in row.splitlines())) for row in found}


def test_an_upgraded_empty_database_equals_the_tables(
    empty_database_url: str, new_database_url: Callable[..., str], empty_database: Database
) -> None:
    schema.upgrade(empty_database_url)

    declared_url = new_database_url(upgraded=False)
    declared = create_engine(declared_url)
    with declared.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
    declared.dispose()

    assert schema.check(empty_database) == []
    assert definitions(empty_database_url) == definitions(declared_url)
    assert len(definitions(empty_database_url)) > 25
    empty_database.close()


def test_upgrading_twice_changes_nothing(empty_database_url: str, empty_database: Database) -> None:
    schema.upgrade(empty_database_url)
    with empty_database.transaction("test") as tx:
        tx.audit("test.event")
    before = definitions(empty_database_url)

    schema.upgrade(empty_database_url)

    assert definitions(empty_database_url) == before
    assert schema.current(empty_database) == schema.head()
    with empty_database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM audit_event")) == 1
    empty_database.close()


def test_processes_that_upgrade_at_the_same_time_all_succeed(
    empty_database_url: str, empty_database: Database
) -> None:
    spawn = multiprocessing.get_context("spawn")
    starters = [spawn.Process(target=schema.upgrade, args=(empty_database_url,)) for _ in range(3)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(timeout=150)

    assert [starter.exitcode for starter in starters] == [0, 0, 0]
    assert schema.check(empty_database) == []
    empty_database.close()


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(empty_database_url: str) -> None:
    engine = open_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE study (id INTEGER)"))  # in the way of the first migration
    before = table_names(empty_database_url)

    with pytest.raises(Exception, match=r"refused a statement|cannot be used"):
        schema.upgrade(empty_database_url)

    assert table_names(empty_database_url) == before
    engine.dispose()


def table_names(url: str) -> list[str]:
    """The names of all tables."""
    engine = open_engine(url)
    query = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }[engine.dialect.name]
    with engine.connect() as connection:
        names = sorted(connection.scalars(text(query)))
    engine.dispose()
    return names


def test_a_process_refuses_to_start_on_a_database_that_was_never_upgraded(empty_database: Database) -> None:
    with pytest.raises(SchemaError, match="run 'dicom-node db upgrade'"):
        schema.require_head(empty_database)

    assert schema.current(empty_database) is None
    empty_database.close()


def test_a_process_refuses_a_database_of_a_later_version(database: Database, database_url: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(SchemaError, match="later version"):
        schema.require_head(database)
    with pytest.raises(SchemaError, match="later version"):
        schema.upgrade(database_url)


def test_a_process_starts_on_an_upgraded_database(database: Database) -> None:
    schema.require_head(database)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("DROP INDEX ix_job_due", "add_index"),
        ("ALTER TABLE job ADD COLUMN surplus INTEGER", "remove_column"),
        ("CREATE TABLE surplus (id INTEGER)", "remove_table"),
        ("DROP TABLE host_clock", "add_table"),
        ("DROP TRIGGER audit_event_no_delete {on}", "add_trigger, audit_event_no_delete"),
    ],
)
def test_check_finds_what_differs(database: Database, damage: str, expected: str) -> None:
    on = "" if database.is_sqlite else "ON audit_event"
    with database.engine.begin() as connection:
        connection.execute(text(damage.format(on=on)))

    differences = schema.check(database)

    assert len(differences) == 1
    assert differences[0].startswith(expected)


@pytest.mark.parametrize("database_kind", [pytest.param("postgresql", marks=pytest.mark.postgres)])
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("ALTER TABLE job DROP CONSTRAINT ck_job_state", "add_check, ck_job_state"),
        ("ALTER TABLE job ADD CONSTRAINT ck_surplus CHECK (attempts < 9)", "remove_check, ck_surplus"),
        (
            "ALTER TABLE audit_event DISABLE TRIGGER audit_event_no_update",
            "add_trigger, audit_event_no_update",
        ),
        ("ALTER TABLE study ALTER COLUMN patient_id TYPE varchar(300)", "modify_type"),
    ],
)
def test_check_finds_what_differs_where_alembic_or_sqlite_cannot(
    database: Database, damage: str, expected: str
) -> None:
    with database.engine.begin() as connection:
        connection.execute(text(damage))

    assert [difference[: len(expected)] for difference in schema.check(database)] == [expected]


def test_a_migration_drafted_without_a_change_is_empty(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    drafted = schema.draft(database_url, "Add nothing", tmp_path)

    assert drafted.name == f"{int(schema.head()) + 1:04d}_add_nothing.py"
    assert "op." not in drafted.read_text()
    assert schema.current(database) == schema.head()


def test_a_drafted_migration_holds_what_the_database_lacks(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE host_clock"))

    drafted = schema.draft(database_url, "Add the clock", tmp_path).read_text()

    compile(drafted, "drafted", "exec")
    assert drafted.count("op.create_table") == 1
    assert "'zero_at', UtcDateTime()" in drafted
    assert f"down_revision = {schema.head()!r}" in drafted


def test_the_revisions_that_are_read_from_file_names_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory(str(schema.MIGRATIONS))
    assert schema.head() == scripts.get_current_head()
    assert sorted(each.revision for each in scripts.walk_revisions()) == sorted(
        path.name.partition("_")[0] for path in schema.VERSIONS.glob("[0-9]*_*.py")
    )


def test_a_process_that_finds_its_tables_loads_no_migrations(
    empty_database_url: str, empty_database: Database
) -> None:
    schema.upgrade(empty_database_url)
    code = (
        "import sys; from db import schema; "
        f"schema.upgrade({empty_database_url!r}); print('alembic' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
    empty_database.close()
