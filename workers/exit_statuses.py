"""Why a worker ended itself, as its exit status: what keeps it alive tells a fault from good order by it."""

from __future__ import annotations

from enum import IntEnum


class WorkerExit(IntEnum):
    """Exit statuses of workers beside those of every command; no command ends with one of these."""

    HARD_LIMIT = 75  # one job outlasted `jobs.hard_limit_s`
    DEAF = 76  # the broker's messages no longer arrived
    # Beyond sysexits.h, whose names systemd would print for it.
    RECYCLED = 79  # in good order, to make room for a fresh one: no fault
