"""The commit job: asks a destination to keep what it took, or tells a peer what this node keeps.

Asking never ends by a time-out: a destination that does not report is asked again, seldomer each time, with
a new transaction. What it reports missing is sent again, the same bytes, and asked for again.

Most destinations report on an association of their own, which the listener takes. Those that were seen to do
so are not waited for: the worker goes on with the next study while the report is on its way.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from db import commitment_answers, commitments, jobs, waiting
from db.commitments import Report, Standing
from db.errors import DatabaseError, UnknownRecordError
from db.jobs import Claim
from db.session import Database
from dicom_node.commitment import exchange
from dicom_node.commitment.inventory import take_stock
from dicom_node.commitment.references import CommitmentReport
from dicom_node.crashpoints import crashpoint
from dicom_node.delivery.association import Requestor
from dicom_node.delivery.destination import Destination
from dicom_node.errors import DestinationUnavailableError
from workers.lease import JobWaitsError, Lease
from workers.retry import NotCommittedError, UndeliverableError

RESEND_LOOK_S = 60.0
LONGEST_PAUSE_S = 86400.0
AWAITED = "COMMITMENT_AWAITED"
"""Error code of jobs whose destination has not reported yet."""
ANSWERED_FOR = timedelta(days=7)
_SUCCESS, _INVALID_ARGUMENT, _PROCESSING_FAILURE = 0x0000, 0x0115, 0x0110


@dataclass(frozen=True, slots=True)
class CommitmentTerms:
    """How patiently destinations are asked.

    Attributes
    ----------
    report_wait_s : float
        Seconds that a report may take on the association of its request.
    ask_again_s : float
        Seconds after which a request without a report is asked again; doubled each time, up to a day.
    most_missing : int
        Reports of missing objects after which a person must look.
    """

    report_wait_s: float
    ask_again_s: float
    most_missing: int


class Committer:
    """Does commit jobs.

    Parameters
    ----------
    database : Database
        Where requests and their outcome are kept.
    path_of : callable
        Name of a received object's file to path.
    requestor : Requestor
        Who asks and answers, and how long it waits for everything but a report.
    terms : CommitmentTerms
        How patiently destinations are asked.
    """

    def __init__(
        self,
        database: Database,
        path_of: Callable[[str], Path],
        requestor: Requestor,
        *,
        terms: CommitmentTerms,
    ) -> None:
        self._database = database
        self._path_of = path_of
        self._requestor = requestor
        self._terms = terms
        # Destinations seen to report on associations of their own: nothing is waited for on the node's.
        self._reporting_elsewhere: set[str] = set()

    def commit(self, claim: Claim, lease: Lease) -> None:
        """Ask, or answer.

        Raises
        ------
        JobWaitsError
            If the destination has not reported yet.
        DestinationUnavailableError
            If the destination or the peer is away.
        UndeliverableError
            If a person must look.
        LeaseLostError
            If another worker took over.
        """
        if claim.parent_job_id is None:
            self._answer(claim, lease)
        else:
            self._ask(claim, lease, Destination.parse(str(claim.destination)))

    def _ask(self, claim: Claim, lease: Lease, destination: Destination) -> None:
        with self._database.reading() as session:
            standing = commitments.standing(session, claim)
        if standing.is_over:
            if not standing.is_replaced:
                self._reporting_elsewhere.add(str(destination))  # as nobody asks in this attempt
        # The first attempt after a person's retry asks once more.
        elif claim.fence > 1 and standing.reported_missing >= self._terms.most_missing:
            raise NotCommittedError(
                f"{destination} reported objects missing {standing.reported_missing} times that it had "
                "taken; look into its log"
            )
        elif standing.delivered:
            self._request(claim, lease, destination, standing)
            lease.check()
        self._end(claim, asked=standing)

    def _request(self, claim: Claim, lease: Lease, destination: Destination, standing: Standing) -> None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        name = str(destination)

        def note() -> None:
            with self._database.transaction(claim.owner) as tx:
                commitments.note_request(tx, claim, transaction_uid, objects=len(standing.delivered))
            crashpoint("commit.noted")
            lease.check()

        def is_reported() -> bool:
            with self._database.reading() as session:
                came = commitments.is_reported(session, transaction_uid)
            if came:
                self._reporting_elsewhere.add(name)
            return came

        def record(report: CommitmentReport) -> int:
            self._reporting_elsewhere.discard(name)
            return self._record(claim, destination, report)

        # One that left a request without a report is waited for all the same: it may have changed its ways.
        goes_on = name in self._reporting_elsewhere and not standing.unreported
        exchange.ask(
            destination,
            self._requestor,
            transaction_uid,
            standing.delivered,
            report_wait_s=0.0 if goes_on else self._terms.report_wait_s,
            on_open=note,
            on_report=record,
            is_reported=is_reported,
        )
        crashpoint("commit.requested")

    def _end(self, claim: Claim, *, asked: Standing) -> None:
        """End the job where nothing is left to be committed, else put it back.

        In one transaction that holds the job: a report that comes at this moment waits for it, and then finds
        a job that it can make due.
        """
        with self._database.transaction(claim.owner) as tx:
            jobs.held(tx, claim)
            standing = commitments.standing(tx.session, claim)
            if standing.is_over:
                detail = {"destination": claim.destination, "is_replaced": standing.is_replaced}
                jobs.finish(tx, claim, detail=detail)
                return
            pause_s, reason = self._pause(asked, standing)
            reason = f"{claim.destination} {reason}"
            jobs.try_later(tx, claim, delay_s=pause_s, code=AWAITED, reason=reason)
            waiting.resume_destination(tx, claim.kind, str(claim.destination))
        raise JobWaitsError(reason)

    def _pause(self, asked: Standing, standing: Standing) -> tuple[float, str]:
        """Return for how many seconds the destination is left alone, and why."""
        if not set(standing.delivered) <= set(asked.delivered):
            return 0.0, "took more meanwhile"
        if not standing.delivered or standing.reported_missing != asked.reported_missing:
            return RESEND_LOOK_S, "has not all objects; they are sent again"
        # Of requests without a report, the one just made is the last.
        pause_s = self._terms.ask_again_s * 2.0 ** min(standing.unreported - 1, 30)
        pause_s = min(max(pause_s, self._terms.ask_again_s), LONGEST_PAUSE_S)
        return pause_s, "took the request and has not reported yet"

    def _record(self, claim: Claim, destination: Destination, report: CommitmentReport) -> int:
        failed = {uid: reason for (_, uid), reason in report.failed.items()}
        told = Report(
            report.transaction_uid, frozenset(report.committed), failed, reporter=destination.ae_title
        )
        try:
            with self._database.transaction(claim.owner) as tx:
                commitments.record_report(tx, told)
        except UnknownRecordError:
            return _INVALID_ARGUMENT
        except DatabaseError:
            return _PROCESSING_FAILURE
        return _SUCCESS

    def _answer(self, claim: Claim, lease: Lease) -> None:
        asker, transaction_uid, objects = commitment_answers.asked(claim)
        if claim.destination is None:
            raise UndeliverableError(
                f"{asker} asked for storage commitment and ended its association; name where it takes the "
                "answer (callers.commitment_address)"
            )
        found = take_stock(self._database, self._path_of, transaction_uid, objects, go_on=lease.check)
        try:
            status = exchange.report(Destination.parse(claim.destination), self._requestor, found)
        except DestinationUnavailableError as error:
            if datetime.now(UTC) - claim.first_started_at < ANSWERED_FOR:
                # Of this kind alone: answers are not to wait for each other, as each has a week of its own.
                raise DestinationUnavailableError(str(error)) from error
            raise UndeliverableError(f"{asker} did not take the answer for a week: {error}") from error
        crashpoint("commit.reported")
        lease.check()
        with self._database.transaction(claim.owner) as tx:
            commitment_answers.finish(
                tx,
                claim,
                transaction_uid=transaction_uid,
                committed=len(found.committed),
                failed=len(found.failed),
                status=status,
            )
