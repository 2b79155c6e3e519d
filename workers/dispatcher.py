"""The node's clockwork: completes quiet studies, ends dead jobs, rings doorbells, signs checkpoints.

It alone publishes messages, always after the commit and never inside a transaction. Whatever a broker
forgets, the next sweep finds in the database and rings for again. Two dispatchers at once are harmless.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import structlog

from db import handoff, jobs, processes, waiting
from db.errors import AuditError, DatabaseError
from db.handoff import Completeness
from db.lifecycle import JobKind
from db.session import Database
from dicom_node.crashpoints import crashpoint
from workers.absence import Absence

SIGN_OF_LIFE_S = 10.0
CHECKPOINT_AGAIN_S = 30.0

log = structlog.get_logger(__name__)

Ring = Callable[[JobKind, str], None]


class Dispatcher:
    """Sweeps the database.

    Parameters
    ----------
    database : Database
        The queue of record.
    rules : Completeness
        When a study is complete.
    max_attempts : mapping
        Claims after which a job whose worker keeps dying is failed, by kind.
    ring : callable or None
        Publishes a doorbell for a job; None where workers look into the database themselves.
    checkpoint : callable
        Signs an audit checkpoint when one is due.
    name : str
        This process, as audit actor.
    ring_again_after_s : float
        Seconds after which a job that nobody claimed is rung for again.
    """

    def __init__(
        self,
        database: Database,
        rules: Completeness,
        *,
        max_attempts: Mapping[JobKind, int | None],
        ring: Ring | None,
        checkpoint: Callable[[], None],
        name: str,
        ring_again_after_s: float = 2.0,
    ) -> None:
        self._database = database
        self._rules = rules
        self._max_attempts = max_attempts
        self._ring = ring
        self._checkpoint = checkpoint
        self._name = name
        self._ring_again_after_s = ring_again_after_s
        self._stopping = threading.Event()
        self._signs = processes.SignsOfLife(database, name, "dispatch")
        self._sign_due_at = 0.0
        self._checkpoint_due_at = 0.0

    def stop(self) -> None:
        """End after the sweep in hand."""
        self._stopping.set()

    def run(self, period_s: float) -> None:
        """Sweep until stopped; a database or broker that is away is tried again at the next sweep."""
        absence = Absence("dispatcher")
        while not self._stopping.is_set():
            try:
                self.sweep()
            except DatabaseError as error:
                absence.note(error)
            else:
                absence.end()
            self._stopping.wait(period_s)
        self._say_goodbye()

    def sweep(self) -> None:
        """Do everything that is due now."""
        if time.monotonic() >= self._sign_due_at:
            self._signs.give()
            self._sign_due_at = time.monotonic() + SIGN_OF_LIFE_S
        self._complete_quiet_studies()
        self._give_up_dead_jobs()
        self._ring_doorbells()
        self._sign_checkpoint()

    def _sign_checkpoint(self) -> None:
        """Sign a checkpoint when one is due; a folder that cannot be written stops nothing else."""
        if time.monotonic() < self._checkpoint_due_at:
            return
        try:
            self._checkpoint()
        except AuditError as error:
            log.error("dispatcher.checkpoint_failed", reason=str(error))
            self._checkpoint_due_at = time.monotonic() + CHECKPOINT_AGAIN_S

    def _complete_quiet_studies(self) -> None:
        with self._database.reading() as session:
            if not handoff.has_quiet_study(session, self._database.now_in(session)):
                return
        with self._database.transaction(self._name) as tx:
            completed = handoff.complete_quiet_studies(tx, self._rules)
        crashpoint("dispatcher.completed")
        log.info("studies.completed", reason="quiet_period", studies=completed)

    def _give_up_dead_jobs(self) -> None:
        with self._database.reading() as session:
            now = self._database.now_in(session)
            if not jobs.has_dead(session, now, max_attempts=self._max_attempts):
                return
        with self._database.transaction(self._name) as tx:
            ended = jobs.give_up_dead(tx, max_attempts=self._max_attempts)
        log.error("jobs.given_up", jobs=ended)

    def _ring_doorbells(self) -> None:
        if self._ring is None:
            return
        with self._database.reading() as session:
            now = self._database.now_in(session)
            due = [
                kind
                for kind, attempts in self._max_attempts.items()
                if waiting.has_due(session, kind, now, max_attempts=attempts)
            ]
        if not due:
            return
        with self._database.transaction(self._name) as tx:
            found = waiting.take_unpublished(
                tx,
                again_after_s=self._ring_again_after_s,
                max_attempts={kind: self._max_attempts[kind] for kind in due},
            )
        crashpoint("dispatcher.before_publish")
        for kind, job_id in found:
            try:
                self._ring(kind, job_id)
            except Exception as error:  # noqa: BLE001 - any broker failure: the next sweep rings again
                log.warning("dispatcher.broker_away", error=type(error).__name__, jobs=len(found))
                return
            crashpoint("dispatcher.published")

    def _say_goodbye(self) -> None:
        try:
            with self._database.transaction(self._name) as tx:
                processes.goodbye(tx, self._name)
        except DatabaseError as error:
            log.warning("dispatcher.no_goodbye", reason=str(error))
