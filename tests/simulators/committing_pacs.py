"""A PACS that offers storage commitment and misbehaves on demand; it shares no code with the node."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_role, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel

from dicom_node.delivery.destination import Destination

INSTANCE = "1.2.840.10008.1.20.1.1"


class Commitment(Enum):
    """What it does with a request."""

    AT_ONCE = auto()  # reports on the association of the request
    AT_ONCE_TWICE = auto()  # the same again, as far as it is heard
    SOME_MISSING = auto()  # reports at once the last object as missing
    OTHER_TRANSACTION = auto()  # reports at once on a transaction that nobody began
    GARBAGE = auto()  # reports at once something that is no report
    LATER = auto()  # says nothing until told to
    REFUSE = auto()  # answers 0213
    DROP = auto()  # aborts instead of answering


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived."""

    transaction_uid: str
    objects: tuple[tuple[str, str], ...]


class CommittingPacs:
    """A storage commitment SCP on loopback, within its ``with`` block.

    Parameters
    ----------
    behaviour : Commitment
        What it does; may be set while it runs.
    offers_commitment : bool
        Whether it accepts the service at all.
    """

    def __init__(self, behaviour: Commitment = Commitment.LATER, *, offers_commitment: bool = True) -> None:
        self.behaviour = behaviour
        self.requests: list[Request] = []
        self.before_answering: Callable[[Request], object] = lambda _request: None
        """Called with each request, while its asker waits for the answer."""
        self.statuses: list[int | None] = []
        """How the node answered the reports."""
        self.answered = threading.Event()
        """Set with each answer to a report."""
        self.contents: dict[str, set[bytes]] = {}
        """Per SOP Instance UID the different data sets that were stored under it."""
        self._threads: list[threading.Thread] = []
        self._entity = AE("PACS")
        self._entity.add_supported_context("1.2.840.10008.1.1")
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        if offers_commitment:
            self._entity.add_supported_context(StorageCommitmentPushModel, [ImplicitVRLittleEndian])
        self._port = 0

    def __enter__(self) -> Self:
        handlers = [(evt.EVT_N_ACTION, self._asked), (evt.EVT_C_STORE, self._store)]
        server = self._entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self._port = server.server_address[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.join(timeout=60)
        self._entity.shutdown()

    @property
    def destination(self) -> Destination:
        """Where it listens."""
        return Destination("PACS", "127.0.0.1", self._port)

    def report_to(
        self, port: int, request: Request, missing: Sequence[str] = (), *, calling: str = "PACS"
    ) -> int | None:
        """Report on a new association, as the provider; return the node's status, None without one."""
        entity = AE(calling)
        entity.add_requested_context(StorageCommitmentPushModel, ImplicitVRLittleEndian)
        role = build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        association = entity.associate("127.0.0.1", port, ext_neg=[role])
        assert association.is_established, "the node took no association for a report"
        status = self._send(association, report_of(request, missing))
        association.release()
        return status

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.contents.setdefault(uid, set()).add(event.encoded_dataset(include_meta=False))
        return 0x0000

    def _asked(self, event: Any) -> tuple[int, None]:
        information = event.action_information
        objects = tuple(
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in information.ReferencedSOPSequence
        )
        request = Request(str(information.TransactionUID), objects)
        self.requests.append(request)
        self.before_answering(request)
        if self.behaviour is Commitment.REFUSE:
            return 0x0213, None
        if self.behaviour is Commitment.DROP:
            event.assoc.abort()
            return 0x0110, None
        if self.behaviour is not Commitment.LATER:
            responded = threading.Event()
            event.assoc.bind(evt.EVT_PDU_SENT, _note_response, [responded])
            thread = threading.Thread(
                target=self._report_at_once, args=(event.assoc, request, responded), daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return 0x0000, None

    def _report_at_once(self, association: Any, request: Request, responded: threading.Event) -> None:
        assert responded.wait(60), "the response was never sent"
        missing = [request.objects[-1][1]] if self.behaviour is Commitment.SOME_MISSING else []
        report = report_of(request, missing)
        if self.behaviour is Commitment.OTHER_TRANSACTION:
            report.TransactionUID = "2.25.404"
        if self.behaviour is Commitment.GARBAGE:
            report = Dataset()
            report.PatientName = "ZZCANARY"
        self._send(association, report)
        if self.behaviour is Commitment.AT_ONCE_TWICE and association.is_established:
            association.dimse_timeout = 0.5
            self._send(association, report)

    def _send(self, association: Any, report: Dataset) -> int | None:
        event_type = 2 if "FailedSOPSequence" in report else 1
        try:
            answer, _ = association.send_n_event_report(
                report, event_type, StorageCommitmentPushModel, INSTANCE
            )
            self.statuses.append(answer.get("Status"))
        except RuntimeError:
            # The node has ended the association.
            self.statuses.append(None)
        self.answered.set()
        return self.statuses[-1]


def report_of(request: Request, missing: Sequence[str] = ()) -> Dataset:
    """Make the Event Information for a request."""
    report = Dataset()
    report.TransactionUID = request.transaction_uid
    report.ReferencedSOPSequence = [_item(*each) for each in request.objects if each[1] not in missing]
    failed = [_item(*each) for each in request.objects if each[1] in missing]
    for item in failed:
        item.FailureReason = 0x0112
    if failed:
        report.FailedSOPSequence = failed
    if not report.ReferencedSOPSequence:
        del report.ReferencedSOPSequence
    return report


def _item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def _note_response(event: Any, responded: threading.Event) -> None:
    if isinstance(event.pdu, P_DATA_TF):
        responded.set()
