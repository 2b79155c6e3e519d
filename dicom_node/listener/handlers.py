"""What happens to one received object: checked, made durable, registered, and only then answered.

::

    wire --> buffer, file --> header --> spool (file, directory) --> register (row) --> Success
                   |            |     |        |                          |
                  A700  C000, A900    |       A700                       A700
                                      +--> small: journal --> Success, and digest, file and row after it
                                                     |
                                                    A700

This module knows no network: :mod:`dicom_node.listener.hot_path` brings bytes and takes statuses away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog

from db.errors import DatabaseError, DatabaseUnavailableError
from db.handoff import ReceivedInstance, Registration
from dicom_node.crashpoints import crashpoint
from dicom_node.errors import NodeError
from dicom_node.listener.contexts import TRANSFER_SYNTAX_BY_UID
from dicom_node.listener.header import InstanceHeader, check_against_command, read_header
from dicom_node.listener.journal_segment import JournaledFile
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.owed_rows import Describe, Journaling
from dicom_node.listener.part10 import Origin, file_preface
from dicom_node.listener.quarantine import Quarantining
from dicom_node.listener.reception import IncomingObject, Reception
from dicom_node.listener.status import Status, status_of
from dicom_node.spool import Spool, SpooledFile

Register = Callable[[ReceivedInstance], Registration]
OnEvent = Callable[[str, dict[str, Any]], None]

_log = structlog.get_logger(__name__)


class Outcome(NamedTuple):
    """What became of an object: the status of its answer, and why, where the object itself is at fault."""

    status: Status
    comment: str = ""


_STORED = Outcome(Status.SUCCESS)
# PS3.4 B.2.3: answers that may bear an Error Comment. What is wrong with the node is nobody else's.
_OBJECT_AT_FAULT = (Status.DATA_SET_DOES_NOT_MATCH, Status.CANNOT_UNDERSTAND)


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """One C-STORE request, before its data set.

    Attributes
    ----------
    origin : Origin
        What the command and the association say; ``transfer_syntax_uid`` is the negotiated one.
    abstract_syntax_uid : str
        The presentation context's SOP class.
    peer_address : str
        Network address of the sender.
    """

    origin: Origin
    abstract_syntax_uid: str
    peer_address: str


class StorageHandler:
    """Stores received objects.

    Parameters
    ----------
    spool : Spool
        Where files go.
    register : callable
        Commits the row of a durable file; see :func:`db.handoff.register_instance`.
    limits : ListenerLimits
        Bounds on a data set, and the room that stays free.
    on_event : callable
        Told of every refused object: action and detail, without patient data.
    journaling : Journaling, optional
        What makes small objects durable; by default each file is synced by itself.
    quarantining : Quarantining, optional
        What keeps objects that are at fault; by default nothing of them is kept.
    """

    def __init__(
        self,
        spool: Spool,
        register: Register,
        limits: ListenerLimits,
        on_event: OnEvent,
        journaling: Journaling | None = None,
        quarantining: Quarantining | None = None,
    ) -> None:
        self._spool = spool
        self._register = register
        self._limits = limits
        self._on_event = on_event
        self._journaling = journaling
        self._quarantining = quarantining

    def begin(self, request: StoreRequest, reception: Reception) -> IncomingObject:
        """Begin to receive the data set of a request.

        Parameters
        ----------
        request : StoreRequest
            The request.
        reception : Reception
            The association's.
        """
        return IncomingObject(
            self._spool, reception, file_preface(request.origin), self._limits.min_free_bytes
        )

    def finish(self, request: StoreRequest, incoming: IncomingObject) -> Outcome:
        """Store an object that came in whole.

        Returns
        -------
        Outcome
            Success when the object is durable, and has its row or a record in the journal that its row is
            made from; otherwise nothing of it is promised.
        """
        try:
            header = self._checked_header(request, incoming.data())
        except Exception as error:  # noqa: BLE001 - as below
            try:
                return self._refused(request, error, incoming)
            finally:
                incoming.discard()
        try:
            self._store(request, incoming, header)
        except Exception as error:  # noqa: BLE001 - the association's boundary: every failure has a status
            return self._refused(request, error)
        return _STORED

    def settle(self) -> None:
        """Return when every object that was answered with Success has its row, or the database is away."""
        if self._journaling is not None:
            self._journaling.rows.settle()

    def _store(self, request: StoreRequest, incoming: IncomingObject, header: InstanceHeader) -> None:
        def describe(file: SpooledFile) -> ReceivedInstance:
            return received_instance(header, request.origin, file, request.peer_address)

        if not self._is_journaled(request, incoming, describe):
            self._register_now(describe(incoming.commit()))

    def _is_journaled(self, request: StoreRequest, incoming: IncomingObject, describe: Describe) -> bool:
        """Leave an object to the journal; return False where it is not for it, or has no room there."""
        journaling = self._journaling
        if journaling is None or not journaling.takes(incoming.image_bytes):
            return False
        file = JournaledFile(incoming.named(), incoming.image(), incoming.size_bytes, request.peer_address)
        return journaling.keep(file, describe)

    def _register_now(self, received: ReceivedInstance) -> None:
        """Commit the row of a file that is durable by itself."""
        try:
            crashpoint("listener.durable")
            registration = self._register(received)
        except DatabaseUnavailableError:
            # The row may have been committed all the same: only a sweep, which asks the database, can tell.
            raise
        except BaseException:
            self._spool.remove(received.spool_name)
            raise
        crashpoint("listener.committed")
        if registration is Registration.DUPLICATE:
            self._spool.remove(received.spool_name)

    def _checked_header(self, request: StoreRequest, data: memoryview) -> InstanceHeader:
        origin = request.origin
        header = read_header(data, TRANSFER_SYNTAX_BY_UID[origin.transfer_syntax_uid], self._limits)
        check_against_command(
            header,
            abstract_syntax_uid=request.abstract_syntax_uid,
            affected_sop_class_uid=origin.sop_class_uid,
            affected_sop_instance_uid=origin.sop_instance_uid,
        )
        return header

    def _refused(
        self, request: StoreRequest, error: Exception, checked: IncomingObject | None = None
    ) -> Outcome:
        status = status_of(error)
        is_ours = isinstance(error, NodeError | DatabaseError)
        # Only our own errors are known to carry no patient data.
        reason = str(error) if is_ours else type(error).__name__
        if not is_ours:
            _log.error("listener.not_stored", status=f"{status:04X}", exc_info=error)
        detail = {
            "calling_ae_title": request.origin.calling_ae_title,
            "peer_address": request.peer_address,
            "sop_instance_uid": request.origin.sop_instance_uid,
            "status": f"{status:04X}",
            "reason": reason,
        }
        is_at_fault = status in _OBJECT_AT_FAULT
        if is_at_fault and checked is not None and self._quarantining is not None:
            kept = self._quarantining.keep(checked, detail)
            detail |= {"quarantined": kept} if kept is not None else {}
        self._on_event("instance.refused", detail)
        return Outcome(status, _for_peer(reason) if is_at_fault else "")


def _for_peer(reason: str) -> str:
    """The part of a reason that says what is wrong; what follows is for who runs the node."""
    return reason.partition(";")[0]


def received_instance(
    header: InstanceHeader, origin: Origin, file: SpooledFile, peer_address: str | None = None
) -> ReceivedInstance:
    """Return what is registered of a stored object; where it came from is known to its association alone."""
    return ReceivedInstance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        transfer_syntax_uid=origin.transfer_syntax_uid,
        patient_id=header.patient_id,
        accession_number=header.accession_number,
        modality=header.modality,
        laterality=header.facts.laterality,
        view=header.facts.view,
        for_presentation=header.facts.for_presentation,
        spool_name=file.name,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        calling_ae_title=origin.calling_ae_title,
        peer_address=peer_address,
    )
