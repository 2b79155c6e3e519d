"""How a connection to either database is opened: its durability, its time-outs, how a transaction begins."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.pool import ConnectionPoolEntry

from db.driver_statements import execute_text

LOCK_TIMEOUT_S = 15.0
# Of the WAL, 16 MB: some commit in so many pages waits until they are written to the database.
_LOG_PAGES = 4000
# It grows beyond that while a reading lasts, such as an export of the whole trail; then it gives room back.
_LONGEST_LOG_BYTES = 64 << 20
READ_ONLY = "dicom_node_read_only"  # execution option of a connection that never writes
# A server that vanished without a word (a pulled cable, a forgetful firewall) is noticed in half a minute.
_SILENT_PEER = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20000,  # milliseconds
}


def open_engine(url: str, lock_timeout_s: float = LOCK_TIMEOUT_S, *, syncs_commits: bool = True) -> Engine:
    """Create the engine; by default with the durability that "answered means stored" needs."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": lock_timeout_s})
        event.listen(engine, "connect", partial(_prepare_sqlite, "FULL" if syncs_commits else "NORMAL"))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        parsed,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=10,
        isolation_level="READ COMMITTED",  # each look after a lock must see what the lock waited for
        connect_args={
            "connect_timeout": 5,
            **_SILENT_PEER,
            "options": f"-c synchronous_commit=on -c lock_timeout={round(lock_timeout_s * 1000)}ms",
        },
    )


def _prepare_sqlite(synchronous: str, connection: Any, _record: ConnectionPoolEntry) -> None:
    """Set what every connection needs: how the WAL is synced, and triggers that REPLACE cannot dodge."""
    connection.isolation_level = None  # BEGIN is ours: see _begin_sqlite
    cursor = connection.cursor()
    pragmas = (
        "journal_mode=WAL",
        f"synchronous={synchronous}",
        f"wal_autocheckpoint={_LOG_PAGES}",
        f"journal_size_limit={_LONGEST_LOG_BYTES}",
        "foreign_keys=ON",
        "recursive_triggers=ON",
    )
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Take the writer's lock at once: a deferred transaction can fail at its first write instead."""
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    execute_text(connection, "BEGIN" if read_only else "BEGIN IMMEDIATE")
