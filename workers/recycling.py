"""When a score worker ends itself between two jobs, so that a fresh process takes its place.

Memory that libraries lose, or a GPU's memory in pieces, comes back with the end of the process alone.
Celery's own limits hold for its prefork pool, and our workers have none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from db.row_changes import insert_if_absent
from db.session import Transaction
from db.tables import Process
from models.errors import DeviceMemoryError

YOUNGEST_S = 60.0
"""A worker that lived shorter is not ended for its size: the limit may lie below what a fresh one takes."""
MOST_SHORTAGES = 2
"""Jobs that may end for want of memory; the process ends with the last of them."""

_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a worker serves.

    Attributes
    ----------
    jobs : int
        Jobs after which it ends; 0: any number.
    resident_bytes : int
        Resident memory above which it ends, bytes; 0: any size.
    """

    jobs: int = 0
    resident_bytes: int = 0


class Recycling:
    """Looks after each job whether this process has served long enough, and stops it then.

    Parameters
    ----------
    limits : Limits
        How long it serves.
    stop : callable
        Lets the process claim no other job, of any kind.
    now_s : callable, optional
        A clock that is never set, seconds.
    """

    def __init__(
        self, limits: Limits, stop: Callable[[], None], *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._stop = stop
        self._now_s = now_s
        self._began_s = now_s()
        self._jobs = 0
        self._shortages = 0
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why the process ends to be started afresh; None while it goes on, or was told to stop."""
        return self._reason

    def after_job(self, error: Exception | None) -> None:
        """Count a job that ended; it is no longer in hand.

        Parameters
        ----------
        error : Exception or None
            What it failed with, if it did.
        """
        self._jobs += 1
        self._shortages += isinstance(error, DeviceMemoryError | MemoryError)
        resident = resident_bytes()
        self._reason = self._due(resident)
        if self._reason is not None:
            log.info("worker.recycled", reason=self._reason, jobs=self._jobs, resident_bytes=resident)
            self._stop()

    def _due(self, resident: int) -> str | None:
        if self._shortages >= MOST_SHORTAGES:
            return "out_of_memory"
        if 0 < self._limits.jobs <= self._jobs:
            return "jobs"
        is_old = self._now_s() - self._began_s >= YOUNGEST_S
        return "resident_bytes" if is_old and 0 < self._limits.resident_bytes < resident else None


def keep_place(tx: Transaction, name: str) -> None:
    """Give a sign of life for the successor of a process that is recycled.

    Until it is there nobody is told that its kind is missing; where none comes, the silence tells.

    Parameters
    ----------
    tx : Transaction
        That of the process's goodbye.
    name : str
        The process, ``kind@host:pid``.
    """
    kind, place = name.partition("@")[0], _place_of(name)
    kept = tx.session.get(Process, place, with_for_update=True)
    if kept is not None:
        kept.seen_at = tx.now
    else:
        values = {"name": place, "kind": kind, "started_at": tx.now, "seen_at": tx.now}
        insert_if_absent(tx.session, Process, values)


def take_place(tx: Transaction, name: str) -> None:
    """Take the place that was kept for a process of this kind on this host, if one was."""
    kept = tx.session.get(Process, _place_of(name), with_for_update=True)
    if kept is not None:
        tx.session.delete(kept)


def _place_of(name: str) -> str:
    return f"{name.rpartition(':')[0]}:successor"


def resident_bytes() -> int:
    """Return how much of the machine's memory this process holds now, without its children."""
    return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
