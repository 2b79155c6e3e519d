"""What turns claim loops into a process: its sign of life, its end in time, and looking into the database.

What answers a broker's doorbells instead is :mod:`workers.doorbells`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping

import structlog

from db import processes
from db.errors import DatabaseError, DatabaseUnavailableError
from db.lifecycle import JobKind
from db.session import Database
from workers.claim_loop import ClaimLoop
from workers.exit_statuses import WorkerExit
from workers.recycling import Recycling, keep_place, take_place

LOOK_EVERY_S = 0.1
SIGN_OF_LIFE_S = 10.0
DEAF_AFTER_S = 60.0
GIVE_BACK_S = 3.0
LONGEST_STOP_S = 28.0  # 'serve' kills what is left after 30

log = structlog.get_logger(__name__)


class Hearing:
    """Notices that doorbells no longer arrive: work stays due though this process does nothing.

    One process does one job at a time, whatever its queue: what waits behind that job was not missed.

    Parameters
    ----------
    loops : collection of ClaimLoop
        All of this process.
    """

    def __init__(self, loops: Collection[ClaimLoop]) -> None:
        self._loops = loops
        self._missed_s = 0.0

    def missed_s(self, passed_s: float) -> float:
        """Look, so many seconds after the last look; return for how many seconds work was missed."""
        try:
            is_idle = all(loop.is_idle for loop in self._loops)
            misses = is_idle and any(loop.is_due() for loop in self._loops)
        except DatabaseError:
            return 0.0
        self._missed_s = self._missed_s + passed_s if misses else 0.0
        return self._missed_s


class SignOfLife:
    """A thread that tells the database that this process lives, from start to goodbye.

    With a broker it also listens for deafness: work that stayed due for a minute while this process was idle
    means that doorbells no longer arrive, and a fresh process will hear again.

    A process that is recycled keeps a place for its successor, which takes it with its first sign of life.
    """

    def __init__(
        self,
        database: Database,
        loops: Mapping[JobKind, ClaimLoop],
        name: str,
        *,
        rung: bool,
        recycling: Recycling | None = None,
    ) -> None:
        self._database = database
        self._name = name
        self._recycling = recycling
        self._signs = processes.SignsOfLife(database, name, name.partition("@")[0])
        self._has_place = False
        self._hearing = Hearing(loops.values()) if rung else None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sign-of-life", daemon=True)

    def __enter__(self) -> SignOfLife:
        self._sign()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        try:
            with self._database.transaction(self._name) as tx:
                processes.goodbye(tx, self._name)
                if self._recycling is not None and self._recycling.reason is not None:
                    keep_place(tx, self._name)
        except DatabaseError as error:
            log.warning("worker.no_goodbye", reason=str(error))

    def _run(self) -> None:
        while not self._ended.wait(SIGN_OF_LIFE_S):
            self._sign()
            missed_s = self._hearing.missed_s(SIGN_OF_LIFE_S) if self._hearing else 0.0
            if missed_s >= DEAF_AFTER_S:
                log.error("worker.deaf", seconds=missed_s)
                os._exit(WorkerExit.DEAF)

    def _sign(self) -> None:
        try:
            self._signs.give()
            if not self._has_place:
                with self._database.transaction(self._name) as tx:
                    take_place(tx, self._name)
                self._has_place = True
        except DatabaseUnavailableError as error:
            log.warning("worker.database_away", reason=str(error))
        except DatabaseError as error:
            log.error("worker.sign_refused", reason=str(error))


class StopDeadline:
    """A thread that ends a process which was told to stop and does not: its job is given back first.

    A slide takes minutes and a PACS may keep silent for as long as its time-outs allow; who stops the process
    would kill it before, and the job would wait for the end of a lease.
    """

    def __init__(self, loops: Collection[ClaimLoop], deadline_s: float) -> None:
        self._loops = loops
        self._deadline_s = deadline_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stop-deadline", daemon=True)

    def __enter__(self) -> StopDeadline:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _run(self) -> None:
        next(iter(self._loops)).wait()
        if self._ended.wait(self._deadline_s):
            return
        giving = threading.Thread(target=self._give_back, name="give-back", daemon=True)
        giving.start()
        # A disk may be slow; a database that is away too keeps nobody longer: the lease ends by itself.
        giving.join(max(GIVE_BACK_S, LONGEST_STOP_S - self._deadline_s))
        os._exit(0)

    def _give_back(self) -> None:
        for loop in self._loops:
            loop.give_back()


def run_embedded(
    database: Database,
    loops: Mapping[JobKind, ClaimLoop],
    *,
    name: str,
    stop_deadline_s: float,
    recycling: Recycling | None = None,
) -> None:
    """Look into the database until stopped: the embedded default, which needs no broker.

    The kinds take turns, one job each, so that results leave while more studies wait to be scored.

    Parameters
    ----------
    database : Database
        The queue of record.
    loops : mapping
        What to work on; earlier kinds first.
    name : str
        This process.
    stop_deadline_s : float
        Seconds that the job in hand still has when the process is told to stop.
    recycling : Recycling, optional
        What may stop the loops between two jobs.
    """
    pace = next(iter(loops.values()))
    living = SignOfLife(database, loops, name, rung=False, recycling=recycling)
    with StopDeadline(loops.values(), stop_deadline_s), living:
        log.info("worker.ready", queues=[kind.value for kind in loops])
        while not pace.wait(LOOK_EVERY_S):
            while sum(loop.drain(limit=1) for loop in loops.values()):
                pass  # while anything was done, something else may be due
