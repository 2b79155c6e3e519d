"""Whose time decides leases, quiet periods and backoff.

On PostgreSQL it is the server's clock, which all hosts share. On SQLite, where all processes live on one
host, it is the host's boot-time clock plus an offset that the database stores once per boot: stepping the
wall clock moves neither a lease nor a quiet period.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from db.tables import HostClock, Job, Process, Revision

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Tells the database's time."""

    def now(self, connection: Connection, *, may_write: bool) -> datetime:
        """Return the time, aware UTC; ``may_write`` says whether the transaction is a writing one."""
        ...


class ServerClock:
    """PostgreSQL's own clock, read once per transaction."""

    def now(self, connection: Connection, *, may_write: bool) -> datetime:
        """Return the server's time, aware UTC."""
        moment: datetime = connection.scalars(select(func.clock_timestamp())).one()
        return moment.astimezone(UTC)


class BootClock:
    """The host's CLOCK_BOOTTIME plus the offset stored for this boot."""

    def __init__(self) -> None:
        self._zero_at: datetime | None = None

    def now(self, connection: Connection, *, may_write: bool) -> datetime:
        """Return wall time as it was at this boot's first use plus the time since, aware UTC."""
        since_boot = timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
        if self._zero_at is None:
            boot_id = BOOT_ID.read_text().strip()
            of_this_boot = select(HostClock.zero_at).where(HostClock.boot_id == boot_id)
            stored = connection.scalars(of_this_boot).one_or_none()
            zero_at = stored or _present(connection) - since_boot
            if not stored and not may_write:
                return zero_at + since_boot
            if not stored:
                connection.execute(delete(HostClock))
                connection.execute(insert(HostClock).values(boot_id=boot_id, zero_at=zero_at))
                # Not kept yet: a rollback would forget the row, and another process then store another time.
                return zero_at + since_boot
            self._zero_at = zero_at
        return self._zero_at + since_boot


def _present(connection: Connection) -> datetime:
    """Return the wall time at a boot's first use, but never before anything that the database holds.

    A clock that was wrong at an earlier boot would otherwise leave work that is due only in that future.
    """
    columns = (Job.created_at, Revision.last_instance_at, Process.seen_at)
    newest: list[datetime | None] = [connection.scalar(select(func.max(column))) for column in columns]
    return max([datetime.now(UTC), *(moment for moment in newest if moment is not None)])


def clock_for(engine: Engine) -> Clock:
    """Return the clock of a database."""
    return BootClock() if engine.dialect.name == "sqlite" else ServerClock()
