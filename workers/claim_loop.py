"""The only executor of jobs: claim one, run it, end it, until nothing is due.

A Celery message, the embedded poll and a person's retry all lead here; whoever rings, the loop claims what
the database says is due.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from db import jobs, waiting
from db.errors import DatabaseError, DatabaseUnavailableError, LeaseLostError
from db.jobs import Claim
from db.lifecycle import JobKind
from db.session import Database
from dicom_node.crashpoints import crashpoint
from workers.absence import Absence
from workers.lease import JobWaitsError, Lease, WorkerStopsError
from workers.retry import GiveUp, Policy, code_of, decide, leaving_others_time, reason_of

Handler = Callable[[Claim, Lease], None]
AfterJob = Callable[[Exception | None], None]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms on which a worker holds jobs.

    Attributes
    ----------
    lease_s : float
        Seconds until a silent worker loses its job.
    hard_limit_s : float or None
        Seconds after which a worker that still holds one job ends itself; None for work that may last.
    policy : Policy
        What is tried again.
    """

    lease_s: float
    hard_limit_s: float | None
    policy: Policy

    @property
    def max_attempts(self) -> dict[JobKind, int | None]:
        """Claims after which a job whose worker keeps dying is failed, by kind.

        Deliveries and commitments have none: a PACS may be away for a week, and each look costs a claim.
        """
        return {
            JobKind.SCORE: self.policy.attempts,
            JobKind.DELIVER: None,
            JobKind.TRAIN: self.policy.attempts,
            JobKind.COMMIT: None,
        }


class ClaimLoop:
    """Runs the due jobs of one kind, one after the other.

    Parameters
    ----------
    database : Database
        The queue of record.
    kind : JobKind
        What to claim.
    handler : callable
        Does one job and commits its outcome; raises where it fails.
    terms : Terms
        Lease, limit and patience.
    owner : str
        This worker's name, unique among all processes of all hosts.
    after_job : callable, optional
        Told of each job that was worked on and is no longer in hand, with what it failed with, if it did;
        not while this loop stops.
    """

    def __init__(
        self,
        database: Database,
        kind: JobKind,
        handler: Handler,
        *,
        terms: Terms,
        owner: str,
        after_job: AfterJob | None = None,
    ) -> None:
        self._database = database
        self._kind = kind
        self._handler = handler
        self._terms = terms
        self._owner = owner
        self._after_job = after_job
        self._stopping = threading.Event()
        self._in_hand: Claim | None = None
        self._absence = Absence("worker")

    def stop(self) -> None:
        """Finish the job in hand and claim no other."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping.is_set()

    @property
    def is_idle(self) -> bool:
        """Whether no job is in hand."""
        return self._in_hand is None

    def give_back(self) -> None:
        """Let others have the job in hand; only for a process that ends at once, whatever its work does.

        What the attempt still writes finds no row of its own, because its claim ended.
        """
        claim = self._in_hand
        if claim is None:
            return
        try:
            with self._database.transaction(self._owner) as tx:
                jobs.release(tx, claim)
        except LeaseLostError:
            return
        except DatabaseError as error:
            log.warning("job.not_given_back", job_id=claim.job_id, reason=str(error))
            return
        log.warning("job.given_back", job_id=claim.job_id)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait, without end if no time is given; return True as soon as :meth:`stop` is called."""
        return self._stopping.wait(seconds)

    def drain(self, job_id: str | None = None, *, limit: int | None = None) -> int:
        """Run what is due, the named job first; return how many jobs were run.

        With a limit at most so many, so that other kinds of work get their turn. A database that is away
        ends the drain quietly: the next doorbell or poll tries again.
        """
        done = 0
        try:
            if job_id is not None and not self.is_stopping and self._run_one(job_id):
                done += 1
            while done != limit and not self.is_stopping and self.is_due() and self._run_one(None):
                done += 1
        except DatabaseUnavailableError as error:
            self._absence.note(error)
        else:
            self._absence.end()
        return done

    def is_due(self) -> bool:
        """Whether any job of this kind could be claimed now."""
        with self._database.reading() as session:
            now = self._database.now_in(session)
            return waiting.has_due(session, self._kind, now, max_attempts=self._limit)

    @property
    def _limit(self) -> int | None:
        return self._terms.max_attempts[self._kind]

    def _run_one(self, job_id: str | None) -> bool:
        with self._database.transaction(self._owner) as tx:
            claim = jobs.claim(
                tx, self._kind, lease_s=self._terms.lease_s, max_attempts=self._limit, job_id=job_id
            )
            claimed_at = tx.now
        if claim is None:
            return False
        crashpoint(f"{self._kind.value}.claimed")
        log.info("job.claimed", job_id=claim.job_id, kind=self._kind.value, attempt=claim.fence)
        self._in_hand = claim
        try:
            failure = self._work_on(claim, claimed_at)
        finally:
            self._in_hand = None
        if self._after_job is not None and not self.is_stopping:
            self._after_job(failure)
        return True

    def _work_on(self, claim: Claim, claimed_at: datetime) -> Exception | None:
        """Do a job; return what it failed with, which is recorded by then."""
        lease = Lease(
            self._database,
            claim,
            lease_s=self._terms.lease_s,
            hard_limit_s=self._terms.hard_limit_s,
        )
        with lease:
            try:
                self._handler(claim, lease)
            except LeaseLostError:
                log.warning("job.lease_lost", job_id=claim.job_id)
                return None
            except JobWaitsError as waits:
                log.info("job.waits", job_id=claim.job_id, kind=self._kind.value, reason=str(waits))
                return None
            except WorkerStopsError:
                self.give_back()
                return None
            except Exception as error:  # noqa: BLE001 - the process boundary of a job: record and go on
                self._record_failure(claim, claimed_at, error)
                return error
        crashpoint(f"{self._kind.value}.committed")
        log.info("job.done", job_id=claim.job_id, kind=self._kind.value)
        return None

    def _record_failure(self, claim: Claim, claimed_at: datetime, error: Exception) -> None:
        verdict = decide(error, claim.fence, self._terms.policy)
        code, reason = code_of(error), reason_of(error)
        final = isinstance(verdict, GiveUp)
        log.warning(
            "job.failed" if final else "job.retried_later",
            job_id=claim.job_id,
            code=code,
            reason=reason,
            exc_info=not isinstance(error, DatabaseError) and reason.startswith("unexpected"),
        )
        try:
            with self._database.transaction(claim.owner) as tx:
                if isinstance(verdict, GiveUp):
                    jobs.give_up(tx, claim, code=code, reason=reason)
                else:
                    took_s = (tx.now - claimed_at).total_seconds()
                    later = leaving_others_time(verdict, error, took_s=took_s)
                    jobs.try_later(tx, claim, delay_s=later.delay_s, code=code, reason=reason)
                    if later.destination_pause_s > 0 and claim.destination is not None:
                        pause_s = later.destination_pause_s
                        waiting.pause_destination(tx, claim.kind, claim.destination, delay_s=pause_s)
        except LeaseLostError:
            log.warning("job.lease_lost", job_id=claim.job_id)
