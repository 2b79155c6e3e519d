"""The deliver job: sends the stored bytes of a score job's results to one destination."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from db import commitments, deliveries, jobs
from db.deliveries import OutgoingObject
from db.jobs import Claim
from db.lifecycle import DeliveryEvent, DeliveryState
from db.session import Database
from dicom_node.crashpoints import crashpoint
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.dimse import Outgoing, Requestor, SendResult, send
from dicom_node.delivery.status import SendState, meaning_of
from dicom_node.errors import DestinationAwayError, DestinationUnavailableError, ResultError, SpoolError
from dicom_node.results.checks.checker import faults_of_file, in_short
from workers.lease import Lease
from workers.retry import RefusalDoubtedError, UndeliverableError, is_refusal_believed

_EVENT_OF = {
    SendState.DELIVERED: DeliveryEvent.ACCEPTED,
    SendState.UNKNOWN: DeliveryEvent.NO_ANSWER,
    SendState.TRY_AGAIN: DeliveryEvent.TURNED_AWAY,
    SendState.REFUSED: DeliveryEvent.REFUSE,
    SendState.NOT_NEEDED: DeliveryEvent.PASS_OVER,
}


class Sender:
    """Does deliver jobs.

    Parameters
    ----------
    database : Database
        Where the state of each object at each destination is kept.
    path_of : callable
        Result file name to path.
    requestor : Requestor
        Who sends, and how long it waits.
    commits : callable
        Whether a destination is asked to commit what it was sent.
    refused_tries : int
        Times that a destination must refuse an object by a status until that is believed.
    """

    def __init__(
        self,
        database: Database,
        path_of: Callable[[str], Path],
        requestor: Requestor,
        *,
        commits: Callable[[str], bool] = lambda _destination: False,
        refused_tries: int = 1,
    ) -> None:
        self._database = database
        self._path_of = path_of
        self._requestor = requestor
        self._commits = commits
        self._refused_tries = refused_tries

    def deliver(self, claim: Claim, lease: Lease) -> None:
        """Send what the destination has not settled yet, recording each answer before the next object.

        Raises
        ------
        DestinationUnavailableError
            If objects remain that the destination may take later; of the kind
            :class:`~dicom_node.errors.DestinationAwayError` where there was no association at all.
        RefusalDoubtedError
            If it refused one of them, which is not believed yet.
        UndeliverableError
            If all are settled and it refused one.
        LeaseLostError
            If another worker took over.
        """
        if claim.destination is None:
            raise UndeliverableError("the deliver job names no destination")
        with self._database.reading() as session:
            objects = deliveries.outgoing(session, claim)
        for item in (o for o in objects if o.is_needless):
            detail = "sent as an object of another class"
            self._record(claim, item, SendResult(item.sop_instance_uid, SendState.NOT_NEEDED, None, detail))
        objects = tuple(o for o in objects if not o.is_needless)
        last = self._stop_faulty(claim, objects, lease)
        stopped = {result.sop_instance_uid for result in last}
        by_uid = {o.sop_instance_uid: o for o in objects if o.sop_instance_uid not in stopped}

        def on_result(sop_instance_uid: str, result: SendResult) -> None:
            crashpoint("deliver.object_sent")
            lease.check()
            item = by_uid[sop_instance_uid]
            result = _heard(result, refusals=item.refusals + 1, refused_tries=self._refused_tries)
            self._record(claim, item, result)
            last.append(result)

        outgoing = [self._outgoing(item) for item in by_uid.values()]
        send(outgoing, Destination.parse(claim.destination), self._requestor, on_result=on_result)
        crashpoint("deliver.all_sent")
        doubted = [by_uid[r.sop_instance_uid].refusals + 1 for r in last if _is_doubted(r)]
        self._end(claim, last, refusals=max(doubted, default=0))

    def _stop_faulty(self, claim: Claim, objects: Sequence[OutgoingObject], lease: Lease) -> list[SendResult]:
        """Refuse for good what the node's own check does not let out; the other objects go on."""
        stopped = []
        for item in objects:
            if detail := _fault_in(self._path_of(item.file_name), item.sha256):
                lease.check()
                result = SendResult(item.sop_instance_uid, SendState.REFUSED, None, detail)
                self._record(claim, item, result)
                stopped.append(result)
        return stopped

    def _outgoing(self, item: OutgoingObject) -> Outgoing:
        return Outgoing(
            item.sop_instance_uid,
            item.sop_class_uid,
            item.transfer_syntax_uid,
            self._path_of(item.file_name),
            item.fallback_for,
        )

    def _record(self, claim: Claim, item: OutgoingObject, result: SendResult) -> None:
        with self._database.transaction(claim.owner) as tx:
            deliveries.record(
                tx,
                claim,
                item.delivery_id,
                _EVENT_OF[result.state],
                status=result.status,
                detail=result.detail,
                is_doubted=_is_doubted(result),
            )

    def _end(self, claim: Claim, results: list[SendResult], *, refusals: int) -> None:
        with self._database.reading() as session:
            states = deliveries.states(session, claim)
        if any(state in (DeliveryState.PENDING, DeliveryState.UNKNOWN) for state in states):
            open_results = [r for r in results if r.state in (SendState.TRY_AGAIN, SendState.UNKNOWN)]
            if refusals:
                detail = next(r.detail for r in open_results if _is_doubted(r))
                raise RefusalDoubtedError(f"{claim.destination}: {detail}", refusals=refusals)
            detail = open_results[0].detail if open_results else "some objects were not sent"
            is_away = bool(open_results) and not any(r.associated for r in open_results)
            unavailable = DestinationAwayError if is_away else DestinationUnavailableError
            raise unavailable(f"{claim.destination}: {detail}")
        if DeliveryState.REFUSED in states:
            refused = [r for r in results if r.state is SendState.REFUSED]
            detail = refused[0].detail if refused else "refused earlier"
            self._ask_for_commitment(claim)
            raise UndeliverableError(f"{claim.destination} refused an object: {detail}")
        with self._database.transaction(claim.owner) as tx:
            jobs.finish(tx, claim, detail={"destination": claim.destination, "objects": len(states)})
            if self._commits(str(claim.destination)):
                commitments.queue_request(tx, claim)

    def _ask_for_commitment(self, claim: Claim) -> None:
        """Let what was taken be committed although something else was refused."""
        if self._commits(str(claim.destination)):
            with self._database.transaction(claim.owner) as tx:
                commitments.queue_request(tx, claim)


def _heard(result: SendResult, *, refusals: int, refused_tries: int) -> SendResult:
    """Doubt a status that refuses an object until it came often enough; what was not even sent is certain."""
    if result.state is not SendState.REFUSED or result.status is None or refused_tries == 1:
        return result
    if is_refusal_believed(refusals, refused_tries):
        return replace(result, detail=f"{result.detail}; refused {refusals} times")
    detail = f"{result.detail}; refused {refusals} of {refused_tries} times, and sent again"
    return replace(result, state=SendState.TRY_AGAIN, detail=detail)


def _is_doubted(result: SendResult) -> bool:
    """Whether a destination refused the object and is asked again."""
    is_refusal = result.status is not None and meaning_of(result.status).state is SendState.REFUSED
    return is_refusal and result.state is SendState.TRY_AGAIN


def _fault_in(path: Path, sha256: str) -> str:
    """Say why a stored object must not be sent; nothing where it may, or where sending will tell."""
    try:
        with path.open("rb") as stored:
            digest = hashlib.file_digest(stored, "sha256").hexdigest()
        faults = faults_of_file(path)
    except ResultError as exc:
        return f"not sent: {exc}"
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise SpoolError("a stored result cannot be read now; look at the data directory's disk") from exc
    if faults:
        return f"not sent, it fails the node's own check: {in_short(faults)}"
    if digest != sha256:
        return "not sent: the stored bytes are not those that were built; restore the data directory"
    return ""
