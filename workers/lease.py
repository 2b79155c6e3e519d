"""Keeping a claimed job ours: a heartbeat thread renews the lease and tells when it is lost.

Beside it a timer is the watchdog: a job that outlasts the hard limit ends the whole process, because a
thread stuck in native code or on a silent database cannot be stopped otherwise. The supervisor starts a fresh
one and the lease frees the job.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

import structlog

from db.errors import DatabaseError, DatabaseUnavailableError, LeaseLostError
from db.jobs import Claim, renew
from db.session import Database
from dicom_node.errors import NodeError
from workers.exit_statuses import WorkerExit

LAST_WORDS_S = 1.0
COMMIT_AGAIN_S = 1.0

log = structlog.get_logger(__name__)


class WorkerStopsError(NodeError):
    """The job was ended in the middle because its worker stops; another goes on with it."""


class JobWaitsError(NodeError):
    """The job was put back with when and why, by the transaction that found what it waits for."""


class Lease:
    """The lease of one claim, renewed every third of its length while the block runs.

    Parameters
    ----------
    database : Database
        Where the lease is renewed.
    claim : Claim
        The job in hand.
    lease_s : float
        Length of the lease, seconds.
    hard_limit_s : float or None
        Seconds after which the process ends itself; None for work that may last.
    """

    def __init__(
        self,
        database: Database,
        claim: Claim,
        *,
        lease_s: float,
        hard_limit_s: float | None,
    ) -> None:
        self._database = database
        self._claim = claim
        self._lease_s = lease_s
        self._renewed_at = time.monotonic()
        self._finished = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{claim.job_id}", daemon=True)
        self._watchdog = None if hard_limit_s is None else threading.Timer(hard_limit_s, self._end_process)
        if self._watchdog is not None:
            self._watchdog.daemon = True

    def __enter__(self) -> Lease:
        self._thread.start()
        if self._watchdog is not None:
            self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.set()
        self._thread.join()  # still watched: the renewal in hand may hang
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog.join()

    def check(self) -> None:
        """Stop the attempt here if the lease is lost.

        Raises
        ------
        LeaseLostError
            If another worker may have the job.
        """
        if self._lost.is_set():
            raise LeaseLostError(f"the lease of job {self._claim.job_id} ended during the work")

    def commit(self, write: Callable[[], None]) -> None:
        """Commit what an attempt came to; while the database is away, again until the lease is lost.

        The work of minutes is not done again because the database was restarted at its end.

        Parameters
        ----------
        write : callable
            The transaction.

        Raises
        ------
        DatabaseUnavailableError
            If the database stays away, or nobody can tell whether an earlier try was committed after all.
        LeaseLostError
            If another worker has the job; nothing was written.
        """
        away: DatabaseUnavailableError | None = None
        while True:
            try:
                write()
                return
            except DatabaseUnavailableError as error:
                if away is None:
                    log.warning("job.outcome_waits", job_id=self._claim.job_id, reason=str(error))
                away = error
            except LeaseLostError:
                if away is None:
                    raise
                raise away from None
            if self._lost.wait(COMMIT_AGAIN_S):
                raise away

    def _beat(self) -> None:
        while not self._finished.wait(self._lease_s / 3):
            self._renew()

    def _end_process(self) -> None:
        """End the process, whatever hangs; its last words have their own thread: a log may hang too."""
        words = threading.Thread(
            target=log.error, args=("job.hard_limit",), kwargs={"job_id": self._claim.job_id}, daemon=True
        )
        words.start()
        words.join(LAST_WORDS_S)
        os._exit(WorkerExit.HARD_LIMIT)

    def _renew(self) -> None:
        try:
            with self._database.transaction(self._claim.owner) as tx:
                renew(tx, self._claim, lease_s=self._lease_s)
            self._renewed_at = time.monotonic()
        except LeaseLostError:
            self._lost.set()
        except DatabaseError:
            # The fence protects the job; without a database nobody else can have claimed it before the
            # lease ended.
            if time.monotonic() - self._renewed_at > self._lease_s:
                self._lost.set()
