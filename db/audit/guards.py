"""The triggers that refuse to change or remove audit events: which are missing, and putting them back.

The first migration creates them; who owns the tables can drop them. Then :func:`restore` makes them again, as
``dicom-node db upgrade`` and every start of a node do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

TABLE = "audit_event"
_REFUSAL = "the audit trail is append-only"
_SQLITE = {
    f"{TABLE}_no_{event.lower()}": (
        f"CREATE TRIGGER {TABLE}_no_{event.lower()} BEFORE {event} ON {TABLE}\n"
        f"    BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",
    )
    for event in ("UPDATE", "DELETE")
}
# ENABLE ALWAYS: a session that sets session_replication_role = replica is refused as well.
_POSTGRESQL = {
    f"{TABLE}_no_{event.lower()}": (
        f"DROP TRIGGER IF EXISTS {TABLE}_no_{event.lower()} ON {TABLE}",
        f"CREATE TRIGGER {TABLE}_no_{event.lower()} BEFORE {event} ON {TABLE} "
        f"FOR EACH {unit} EXECUTE FUNCTION {TABLE}_refuse()",
        f"ALTER TABLE {TABLE} ENABLE ALWAYS TRIGGER {TABLE}_no_{event.lower()}",
    )
    for event, unit in (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT"))
}
_POSTGRESQL_FUNCTION = (
    f"CREATE OR REPLACE FUNCTION {TABLE}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
)
_PRESENT = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    # tgenabled A: fires always, even for a session that plays a replica.
    "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'A'",
}
_MAY_RESTORE = (
    f"SELECT pg_get_userbyid(relowner) = current_user FROM pg_class WHERE oid = '{TABLE}'::regclass"
)


def may_lift(connection: Connection) -> bool:
    """Whether the database's role owns the table, as restoring and lifting guards needs."""
    return connection.dialect.name == "sqlite" or bool(connection.scalar(text(_MAY_RESTORE)))


@contextmanager
def lifted(connection: Connection) -> Iterator[None]:
    """Let events be removed within a transaction; the guard against it is back before its commit."""
    name = f"{TABLE}_no_delete"
    on = "" if connection.dialect.name == "sqlite" else f" ON {TABLE}"
    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}{on}")
    yield
    restore(connection)


def missing(connection: Connection) -> list[str]:
    """Return the guards that are gone or switched off, sorted."""
    dialect = connection.dialect.name
    wanted = _SQLITE if dialect == "sqlite" else _POSTGRESQL
    return sorted(wanted.keys() - set(connection.scalars(text(_PRESENT[dialect]))))


def restore(connection: Connection) -> list[str]:
    """Put back what is missing, where the database's role may; return what was put back."""
    found = missing(connection)
    if not found:
        return []
    if connection.dialect.name == "sqlite":
        statements = [statement for name in found for statement in _SQLITE[name]]
    elif may_lift(connection):
        statements = [
            _POSTGRESQL_FUNCTION,
            *(statement for name in found for statement in _POSTGRESQL[name]),
        ]
    else:
        return []  # the node's own role in production: 'doctor' and 'db check' tell
    for statement in statements:
        connection.exec_driver_sql(statement)
    return found
