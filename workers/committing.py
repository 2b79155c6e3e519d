"""The commit job: asks a destination to keep what it took, or tells a peer what this node keeps.

Asking never ends by a time-out: a destination that does not report is asked again, seldomer each time, with
a new transaction. What it reports missing is sent again, the same bytes, and asked for again.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from db import commitment_answers, commitments, jobs
from db.commitments import Report, Standing
from db.errors import DatabaseError, UnknownRecordError
from db.jobs import Claim
from db.session import Database
from dicom_node.commitment import exchange
from dicom_node.commitment.inventory import take_stock
from dicom_node.commitment.references import CommitmentReport
from dicom_node.crashpoints import crashpoint
from dicom_node.delivery.association import DeliveryTimeouts
from dicom_node.delivery.destination import Destination
from dicom_node.errors import DestinationUnavailableError
from workers.lease import Lease
from workers.retry import CommitmentAwaitedError, NotCommittedError, UndeliverableError

RESEND_LOOK_S = 60.0
LONGEST_PAUSE_S = 86400.0
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
    calling_ae_title : str
        The node's AE title.
    timeouts : DeliveryTimeouts
        Bounds of every network wait.
    terms : CommitmentTerms
        How patiently destinations are asked.
    tls_for : callable
        The TLS context of a destination; None for one that is reached without.
    """

    def __init__(
        self,
        database: Database,
        path_of: Callable[[str], Path],
        *,
        calling_ae_title: str,
        timeouts: DeliveryTimeouts,
        terms: CommitmentTerms,
        tls_for: Callable[[Destination], ssl.SSLContext | None] = lambda _destination: None,
    ) -> None:
        self._database = database
        self._path_of = path_of
        self._calling_ae_title = calling_ae_title
        self._timeouts = timeouts
        self._terms = terms
        self._tls_for = tls_for

    def commit(self, claim: Claim, lease: Lease) -> None:
        """Ask, or answer.

        Raises
        ------
        DestinationUnavailableError
            If the destination or the peer is away, or has not reported yet.
        UndeliverableError
            If a person must look.
        LeaseLostError
            If another worker took over.
        """
        if claim.parent_job_id is None:
            self._answer(claim, lease)
        elif not self._has_ended(claim, standing := self._standing(claim)):
            self._ask(claim, lease, standing)

    def _ask(self, claim: Claim, lease: Lease, standing: Standing) -> None:
        # The first attempt after a person's retry asks once more.
        if claim.fence > 1 and standing.reported_missing >= self._terms.most_missing:
            raise NotCommittedError(
                f"{claim.destination} reported objects missing {standing.reported_missing} times that it had "
                "taken; look into its log"
            )
        if standing.delivered:
            self._request(claim, lease, standing)
            lease.check()
            asked, standing = standing, self._standing(claim)
            if self._has_ended(claim, standing):
                return
            if standing.reported_missing == asked.reported_missing and standing.delivered:
                # Of requests without a report, the one just made is the last.
                pause_s = self._terms.ask_again_s * 2.0 ** min(standing.unreported - 1, 30)
                raise CommitmentAwaitedError(
                    f"{claim.destination} took the request and has not reported yet",
                    ask_again_s=min(max(pause_s, self._terms.ask_again_s), LONGEST_PAUSE_S),
                )
        raise CommitmentAwaitedError(
            f"{claim.destination} has not all objects; they are sent again", ask_again_s=RESEND_LOOK_S
        )

    def _request(self, claim: Claim, lease: Lease, standing: Standing) -> None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        destination = Destination.parse(str(claim.destination))
        tls = self._tls_for(destination)
        with self._database.transaction(claim.owner) as tx:
            commitments.note_request(tx, claim, transaction_uid, objects=len(standing.delivered))
        crashpoint("commit.noted")
        lease.check()
        exchange.ask(
            destination,
            transaction_uid,
            standing.delivered,
            calling_ae_title=self._calling_ae_title,
            timeouts=self._timeouts,
            report_wait_s=self._terms.report_wait_s,
            on_report=lambda report: self._record(claim, destination, report),
            tls=tls,
        )
        crashpoint("commit.requested")

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

    def _standing(self, claim: Claim) -> Standing:
        with self._database.reading() as session:
            return commitments.standing(session, claim)

    def _has_ended(self, claim: Claim, standing: Standing) -> bool:
        """End the job where nothing is left to be committed, or nobody wants it any more."""
        if not standing.is_replaced and (standing.delivered or standing.has_open):
            return False
        with self._database.transaction(claim.owner) as tx:
            jobs.finish(
                tx, claim, detail={"destination": claim.destination, "is_replaced": standing.is_replaced}
            )
        return True

    def _answer(self, claim: Claim, lease: Lease) -> None:
        asker, transaction_uid, objects = commitment_answers.asked(claim)
        if claim.destination is None:
            raise UndeliverableError(
                f"{asker} asked for storage commitment and ended its association; name where it takes the "
                "answer (callers.commitment_address)"
            )
        found = take_stock(self._database, self._path_of, transaction_uid, objects, go_on=lease.check)
        destination = Destination.parse(claim.destination)
        try:
            status = exchange.report(
                destination,
                found,
                calling_ae_title=self._calling_ae_title,
                timeouts=self._timeouts,
                tls=self._tls_for(destination),
            )
        except DestinationUnavailableError as error:
            if datetime.now(UTC) - claim.first_started_at < ANSWERED_FOR:
                raise
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
