"""Storage commitment on the listener: what peers ask of this node, and what destinations report to it.

Requests and reports are kept before they are answered. A request is looked into once its asker had time to
leave, and answered on its own association; most scanners release at once, and a worker opens an association
to those.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
from pynetdicom.presentation import build_context

from db import commitment_answers, commitments, jobs
from db.commitments import Report as ToldReport
from db.errors import DatabaseError, TransitionRefusedError, UnknownRecordError
from db.jobs import Claim
from db.lifecycle import JobKind
from db.session import Database
from dicom_node.commitment.inventory import take_stock
from dicom_node.commitment.references import (
    LARGEST_DATA_SET_BYTES,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_ACTION,
    TRANSFER_SYNTAX,
    CommitmentReport,
    MalformedReferencesError,
    decoded_report,
    decoded_request,
    encoded_report,
)
from dicom_node.crashpoints import crashpoint
from dicom_node.listener.command import N_ACTION_RQ, Request
from dicom_node.listener.handlers import OnEvent
from dicom_node.listener.services import Answer, Peer, Report, Service

MOST_WAITING = 1000
"""Requests of peers that may wait for their answer."""
MOST_ANSWERED_AT_ONCE = 4

_SUCCESS = 0x0000
_PROCESSING_FAILURE = 0x0110
_NO_SUCH_INSTANCE = 0x0112
_INVALID_ARGUMENT = 0x0115
_NO_SUCH_ACTION = 0x0123
_NOT_AUTHORISED = 0x0124
_RESOURCE_LIMITATION = 0x0213

_log = structlog.get_logger(__name__)


class CommitmentService:
    """Takes requests and reports.

    Parameters
    ----------
    database : Database
        Where they are kept.
    path_of : callable
        Name of a received object's file to path.
    actor : str
        This process.
    on_event : callable
        Told of what is turned away, for the audit trail.
    answers_to : mapping of str to str
        AE title to ``AE@HOST:PORT`` where that caller takes answers.
    answers_requests : bool
        Whether peers may ask; otherwise only reports of destinations are taken.
    lease_s : float
        Seconds after which a worker answers what a listener that died had in hand.
    may_leave_s : float
        Seconds that an asker has to end its association before it is answered on it.
    """

    def __init__(
        self,
        database: Database,
        path_of: Callable[[str], Path],
        *,
        actor: str,
        on_event: OnEvent,
        answers_to: Mapping[str, str],
        answers_requests: bool,
        lease_s: float = 60.0,
        may_leave_s: float = 0.5,
    ) -> None:
        self._database = database
        self._path_of = path_of
        self._actor = actor
        self._on_event = on_event
        self._answers_to = dict(answers_to)
        self._answers_requests = answers_requests
        self._lease_s = lease_s
        self._may_leave_s = may_leave_s
        self._places = threading.BoundedSemaphore(MOST_ANSWERED_AT_ONCE)

    @property
    def service(self) -> Service:
        """What the listener offers: both roles, as reports come from providers on their own associations."""
        context = build_context(PUSH_MODEL, [TRANSFER_SYNTAX])
        context.scu_role, context.scp_role = True, True
        return Service(context, self._requested, LARGEST_DATA_SET_BYTES, self._may_leave_s)

    def _requested(self, peer: Peer, request: Request, content: bytes) -> Answer:
        take = self._asked if request.field == N_ACTION_RQ else self._reported
        return take(peer, request, content)

    def _asked(self, peer: Peer, request: Request, content: bytes) -> Answer:
        """Keep what a peer asks to commit, and promise the answer."""
        if not self._answers_requests:
            return self._turned_away(peer, _NOT_AUTHORISED, "this node does not answer for received objects")
        if request.type_id != REQUEST_ACTION:
            return self._turned_away(peer, _NO_SUCH_ACTION, "no such action of storage commitment")
        if request.sop_instance_uid != PUSH_MODEL_INSTANCE.encode("ascii"):
            return self._turned_away(peer, _NO_SUCH_INSTANCE, "no such instance of storage commitment")
        try:
            transaction_uid, objects = decoded_request(content)
            claim = self._keep(peer.calling_ae_title, transaction_uid, objects)
        except MalformedReferencesError as error:
            return self._turned_away(peer, _INVALID_ARGUMENT, str(error))
        except TransitionRefusedError as error:
            return self._turned_away(peer, _RESOURCE_LIMITATION, str(error))
        except DatabaseError as error:
            return self._turned_away(peer, _PROCESSING_FAILURE, str(error))
        crashpoint("listener.request_kept")
        return Answer(_SUCCESS, None if claim is None else _Owed(self, claim))

    def _keep(self, asker: str, transaction_uid: str, objects: tuple[tuple[str, str], ...]) -> Claim | None:
        """Commit the request; claim it in the same transaction where it can be answered here and now."""
        has_place = self._places.acquire(blocking=False)
        claim = None
        try:
            with self._database.transaction(self._actor) as tx:
                job_id = commitment_answers.queue_answer(
                    tx,
                    asker=asker,
                    transaction_uid=transaction_uid,
                    objects=objects,
                    destination=self._answers_to.get(asker),
                    most_waiting=MOST_WAITING,
                )
                if has_place:
                    claim = jobs.claim(
                        tx, JobKind.COMMIT, lease_s=self._lease_s, max_attempts=None, job_id=job_id
                    )
        finally:
            if has_place and claim is None:
                self._places.release()
        return claim

    def _stock(self, claim: Claim) -> CommitmentReport | None:
        """Look for what a request names; None where a worker has to."""
        try:
            _, transaction_uid, objects = commitment_answers.asked(claim)
            return take_stock(self._database, self._path_of, transaction_uid, objects)
        except DatabaseError as error:
            # The lease ends by itself, and a worker goes on.
            _log.warning("commitment.left_to_workers", job_id=claim.job_id, reason=str(error))
            return None

    def _settle(self, claim: Claim, told: CommitmentReport | None, status: int | None) -> None:
        """Finish the job of a request whose asker heard the answer; leave any other to a worker."""
        try:
            with self._database.transaction(self._actor) as tx:
                if told is None or status is None:
                    jobs.release(tx, claim)
                else:
                    commitment_answers.finish(
                        tx,
                        claim,
                        transaction_uid=told.transaction_uid,
                        committed=len(told.committed),
                        failed=len(told.failed),
                        status=status,
                    )
        except DatabaseError as error:
            _log.warning("commitment.left_to_workers", job_id=claim.job_id, reason=str(error))
        finally:
            self._places.release()

    def _reported(self, peer: Peer, request: Request, content: bytes) -> Answer:
        """Record what a destination reports."""
        try:
            report = decoded_report(content)
            failed = {uid: reason for (_, uid), reason in report.failed.items()}
            told = ToldReport(
                report.transaction_uid, frozenset(report.committed), failed, peer.calling_ae_title
            )
            with self._database.transaction(self._actor) as tx:
                commitments.record_report(tx, told)
        except (MalformedReferencesError, UnknownRecordError) as error:
            return self._turned_away(peer, _INVALID_ARGUMENT, str(error))
        except DatabaseError as error:
            return self._turned_away(peer, _PROCESSING_FAILURE, str(error))
        crashpoint("listener.report_recorded")
        return Answer(_SUCCESS)

    def _turned_away(self, peer: Peer, status: int, reason: str) -> Answer:
        self._on_event("commitment.refused", {**_words_of(peer), "status": f"{status:04X}", "reason": reason})
        return Answer(status)


class _Owed:
    """The answer to a request that was kept."""

    def __init__(self, service: CommitmentService, claim: Claim) -> None:
        self._service = service
        self._claim = claim
        self._told: CommitmentReport | None = None

    def report(self) -> Report | None:
        """Look into it now."""
        told = self._service._stock(self._claim)
        self._told = told
        if told is None:
            return None
        return Report(PUSH_MODEL, PUSH_MODEL_INSTANCE, told.event_type, encoded_report(told))

    def ended(self, status: int | None) -> None:
        """Finish it, or leave it to a worker."""
        crashpoint("commit.reported")
        self._service._settle(self._claim, self._told, status)


def _words_of(peer: Peer) -> dict[str, str]:
    return {"calling_ae_title": peer.calling_ae_title, "peer_address": peer.address}
