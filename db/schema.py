"""Bringing the database to the tables of this version, and telling whether it has them.

On PostgreSQL the migrations belong to an owner role, and the node runs under a role that can neither rewrite
the audit trail nor switch off its triggers. Once, the role by an administrator, its rights by the owner after
``dicom-node db upgrade``::

    CREATE ROLE dicom_node LOGIN PASSWORD '...';
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO dicom_node;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO dicom_node;
    REVOKE UPDATE, DELETE, TRUNCATE ON audit_event FROM dicom_node;
    REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM dicom_node;
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, Connection, func, inspect, select, text

from db.audit import guards
from db.driver_errors import translated_errors
from db.engine import open_engine
from db.errors import SchemaError
from db.session import Database
from db.tables import Base

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic is imported where a database is changed or compared: most processes start on one that has these
# tables already, and a listener's memory is counted.

MIGRATIONS = Path(__file__).parent / "migrations"
VERSIONS = MIGRATIONS / "versions"
DATABASE_LOST = (
    "the node has keys, but its database is missing or empty; restore it from the backup "
    "(docs/how-to/back-up-and-restore.md), or correct database_url; to begin anew, move keys, checkpoints, "
    "spool and results away first"
)
_VERSION_TABLE = "alembic_version"  # Alembic's own
UPGRADE_LOCK = 0x6469636F6D_0002  # pg_advisory_xact_lock: "dicom", 2


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What an upgrade did.

    Attributes
    ----------
    before, after : str or None
        The database's revisions; None before the first upgrade of all.
    guards_restored : tuple of str
        Guards of the audit trail that somebody had removed, and that are back.
    """

    before: str | None
    after: str | None
    guards_restored: tuple[str, ...] = ()


def upgrade(database_url: str, revision: str = "head", *, was_used: bool = False) -> Upgrade:
    """Bring a database, empty or of an earlier version, to this version's tables; whole or not at all.

    May run in several processes at once: the first does it, the others find it done.

    Parameters
    ----------
    database_url : str
        SQLAlchemy URL, on PostgreSQL of the role that owns the tables.
    revision : str
        The revision to stop at; this version's by default.
    was_used : bool
        Whether the node had a database before: an empty one is then not the node's.

    Returns
    -------
    Upgrade
        What was done.

    Raises
    ------
    db.errors.SchemaError
        If the database is of a later version, empty although it was used, or its tables are another role's.
    db.errors.DatabaseUnavailableError
        If the database cannot be reached or written.
    """
    engine = open_engine(database_url)
    try:
        with translated_errors(), engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(UPGRADE_LOCK)))
            before = _revision_of(connection)
            _refuse_later_version(before)
            if before is None and was_used:
                raise SchemaError(DATABASE_LOST)
            if before != (head() if revision == "head" else revision):
                _require_owner(connection, before)
                _migrate(connection, revision)
            restored = [] if before is None else guards.restore(connection)
            return Upgrade(before, _revision_of(connection), tuple(restored))
    finally:
        engine.dispose()


def draft(database_url: str, message: str, folder: Path = VERSIONS) -> Path:
    """Draft the next migration: what the tables have and an upgraded database has not. For developers.

    Parameters
    ----------
    database_url : str
        A database at the head; it is only read.
    message : str
        What the migration does, an imperative sentence.
    folder : pathlib.Path
        Where the file is written.

    Returns
    -------
    pathlib.Path
        The draft, to be read and corrected.
    """
    from alembic import command

    engine = open_engine(database_url)
    try:
        with translated_errors(), engine.connect() as connection:
            config = _config()
            config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
            config.set_main_option("path_separator", "newline")
            config.set_main_option("version_locations", "\n".join({str(VERSIONS), str(folder)}))
            config.attributes["connection"] = connection
            number = f"{int(head()) + 1:04d}"
            command.revision(config, message, autogenerate=True, rev_id=number, version_path=str(folder))
    finally:
        engine.dispose()
    return next(folder.glob(f"{number}_*.py"))


def head() -> str:
    """Return the revision of this version's tables."""
    return _revisions()[-1]


def current(database: Database) -> str | None:
    """Return the database's revision, None when it was never upgraded."""
    with _connection(database) as connection:
        return _revision_of(connection)


def require_head(database: Database) -> None:
    """Refuse to work on other tables than this version's; call it when a process starts.

    Raises
    ------
    db.errors.SchemaError
        If the database is of an earlier or later version.
    """
    revision = current(database)
    _refuse_later_version(revision)
    if revision != head():
        raise SchemaError(
            f"the database is at revision {revision or 'none'}, this version needs {head()}; "
            "run 'dicom-node db upgrade'"
        )


def check(database: Database) -> list[str]:
    """Compare the database with this version's tables, in both directions.

    Returns
    -------
    list of str
        What differs: tables, columns, types, indexes, foreign keys, checks, and the triggers that guard the
        audit trail. Empty when nothing does.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with _connection(database) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [_described(difference) for difference in compare_metadata(context, Base.metadata)]
        return [
            *differences,
            *_missing_checks(connection),
            *(f"add_trigger, {name}" for name in guards.missing(connection)),
        ]


@contextmanager
def _connection(database: Database) -> Iterator[Connection]:
    """Open a connection that only reads."""
    with database.reading() as session:
        yield session.connection()


@cache
def _revisions() -> tuple[str, ...]:
    """The revisions that this version knows, oldest first; each file's name begins with its own."""
    revisions = tuple(sorted(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*_*.py")))
    if not revisions:
        raise SchemaError("the installation holds no migrations; reinstall dicom-node")
    return revisions


def _require_owner(connection: Connection, before: str | None) -> None:
    """Refuse to begin a migration under a role that would be refused in its midst, as the node's own is."""
    if connection.dialect.name == "sqlite":
        return
    if before is None:
        question = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
    else:
        table = f"'{guards.TABLE}'::regclass"
        question = f"SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = {table}"
    if not connection.scalar(text(question)):
        raise SchemaError(
            f"the database is at revision {before or 'none'}, this version needs {head()}, and this role may "
            "not change its tables; run 'dicom-node db upgrade' as the role that owns them "
            "(docs/how-to/production.md)"
        )


def _migrate(connection: Connection, revision: str) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _config() -> Config:
    """Return Alembic's configuration; there is no file, so that the installed package needs none."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _revision_of(connection: Connection) -> str | None:
    """Read the revision that the database says it has."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    revision: str | None = connection.scalar(text(f"SELECT version_num FROM {_VERSION_TABLE}"))
    return revision


def _refuse_later_version(revision: str | None) -> None:
    """Refuse a revision that this version has never heard of."""
    if revision is not None and revision not in _revisions():
        raise SchemaError(
            f"the database is at revision {revision}, made by a later version of dicom-node; "
            "install that version, or restore the backup made before its upgrade"
        )


def _described(difference: object) -> str:
    """Say one difference in words: Alembic's own tuple, or a list of them for one column."""
    parts = difference[0] if isinstance(difference, list) else difference
    if not isinstance(parts, tuple):
        return str(parts)
    return ", ".join(str(part) for part in parts if part is not None)


def _missing_checks(connection: Connection) -> list[str]:
    """Find CHECK constraints, which Alembic does not compare, that only one side has."""
    inspector = inspect(connection)
    differences = []
    for table in Base.metadata.sorted_tables:
        if not inspector.has_table(table.name):
            continue
        wanted = {str(c.name) for c in table.constraints if isinstance(c, CheckConstraint)}
        found = {str(c["name"]) for c in inspector.get_check_constraints(table.name)}
        differences += [f"add_check, {name}" for name in sorted(wanted - found)]
        differences += [f"remove_check, {name}" for name in sorted(found - wanted)]
    return differences
