"""The storage SCP on its port: associations in, statuses out.

pynetdicom is the authority of the protocol; what is stored and how is answered is decided in
:mod:`dicom_node.listener.handlers`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pynetdicom._config as pynetdicom_config
import structlog
from pynetdicom import AE, evt

from dicom_node.listener.contexts import supported_contexts
from dicom_node.listener.handlers import OnEvent, Register, StorageHandler, StoreRequest
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Origin
from dicom_node.listener.status import Status
from dicom_node.listener.transport import BoundedAssociationServer, BoundedRequestHandler
from dicom_node.spool import Spool

# PS3.8 9.3.4: result, source and reason of an A-ASSOCIATE-RJ.
_CALLING_AE_TITLE_NOT_RECOGNISED = (1, 1, 3)
_CALLED_AE_TITLE_NOT_RECOGNISED = (1, 1, 7)
_LOCAL_LIMIT_EXCEEDED = (2, 3, 2)
_REASONS = {
    _CALLING_AE_TITLE_NOT_RECOGNISED: "calling AE title not recognised",
    _CALLED_AE_TITLE_NOT_RECOGNISED: "called AE title not recognised",
    _LOCAL_LIMIT_EXCEEDED: "too many associations",
}
_NO_DATA_SET = 0x0101
_C_STORE_RQ = 0x0001
_C_ECHO_RQ = 0x0030
_STOP_POLL_S = 0.01
_ACCEPT_POLL_S = 0.05

_log = structlog.get_logger(__name__)


class Listener:
    """A storage and verification SCP.

    Parameters
    ----------
    ae_title : str
        The node's AE title.
    host : str
        Address to listen on.
    port : int
        Port to listen on; 0 takes a free one, see :attr:`port`.
    spool : Spool
        Where received objects become durable.
    register : callable
        Commits the row of a durable object: ``register(ReceivedInstance) -> Registration``.
    limits : ListenerLimits
        Bounds of associations and objects.
    on_event : callable
        Told what the audit trail must know and the database does not see: ``on_event(action, detail)`` with
        the actions ``association.rejected``, ``association.aborted`` and ``instance.refused``. No patient
        data. Called from the associations' threads.
    allowed_callers : mapping, optional
        Calling AE titles that are admitted, each with the network addresses that it may come from (empty:
        any). None admits everybody.
    require_called_ae_title : bool
        Whether a peer must call the node by its AE title.
    """

    def __init__(
        self,
        ae_title: str,
        host: str,
        port: int,
        *,
        spool: Spool,
        register: Register,
        limits: ListenerLimits,
        on_event: OnEvent,
        allowed_callers: Mapping[str, frozenset[str]] | None = None,
        require_called_ae_title: bool = False,
    ) -> None:
        self._ae_title = ae_title.strip()
        self._address = (host, port)
        self._limits = limits
        self._on_event = on_event
        self._handler = StorageHandler(spool, register, limits, self._report)
        self._allowed_callers = (
            None
            if allowed_callers is None
            else {title.strip(): addresses for title, addresses in allowed_callers.items()}
        )
        self._require_called_ae_title = require_called_ae_title
        self._server: BoundedAssociationServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; the one asked for while it is not started."""
        return self._server.server_address[1] if self._server else self._address[1]

    def start(self) -> None:
        """Bind the port and accept associations in a thread of its own.

        Raises
        ------
        OSError
            If the port cannot be bound.
        """
        _configure_pynetdicom()
        entity = AE(self._ae_title)
        entity.maximum_pdu_size = self._limits.max_pdu_bytes
        # Never reached: who is one too many is decided in _refusal, with an event for the audit trail.
        entity.maximum_associations = 1_000_000
        entity.acse_timeout = self._limits.acse_timeout_s
        entity.network_timeout = self._limits.network_timeout_s
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._server = entity.make_server(
            self._address,
            ae_title=self._ae_title,
            contexts=supported_contexts(),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._admit),
                (evt.EVT_DIMSE_RECV, self._check_request),
                (evt.EVT_C_ECHO, self._echo),
                (evt.EVT_C_STORE, self._store),
                (evt.EVT_ABORTED, self._aborted),
            ],
            server_class=BoundedAssociationServer,
            request_handler=BoundedRequestHandler,
        )
        self._server.limits = self._limits
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_ACCEPT_POLL_S,), name="listener-accept", daemon=True
        )
        self._thread.start()
        _log.info("listening", ae_title=self._ae_title, port=self.port)

    def stop(self, deadline_s: float) -> None:
        """Accept nothing more, finish the objects in hand, then end every association.

        Parameters
        ----------
        deadline_s : float
            How long objects in hand may take; what is not finished then is aborted and gets no Success.
        """
        server, self._server = self._server, None
        if server is None:
            return
        self._address = (self._address[0], server.server_address[1])
        server.shutdown()
        deadline = time.monotonic() + deadline_s
        associations = server.active_associations
        for association in associations:
            association.dul.socket.read_no_further()
        while time.monotonic() < deadline and not all(_is_finished(each) for each in associations):
            time.sleep(_STOP_POLL_S)
        for association in associations:
            association.abort()
            association.join(max(deadline - time.monotonic(), 1.0))
        if self._thread is not None:
            self._thread.join()
        _log.info("stopped listening", port=self.port)

    def _admit(self, event: evt.Event) -> None:
        association = event.assoc
        refusal = self._refusal(association)
        if refusal is None:
            return
        self._report(
            "association.rejected",
            {
                "calling_ae_title": _calling_ae_title(association),
                "peer_address": association.requestor.address,
                "reason": _REASONS[refusal],
            },
        )
        association.acse.send_reject(*refusal)
        association.kill()

    def _refusal(self, association: Any) -> tuple[int, int, int] | None:
        request = association.requestor.primitive
        calling = _calling_ae_title(association)
        if self._allowed_callers is not None:
            addresses = self._allowed_callers.get(calling)
            if addresses is None or (addresses and association.requestor.address not in addresses):
                return _CALLING_AE_TITLE_NOT_RECOGNISED
        if self._require_called_ae_title and str(request.called_ae_title).strip() != self._ae_title:
            return _CALLED_AE_TITLE_NOT_RECOGNISED
        server = association._server
        established = sum(each.is_established for each in server.active_associations)
        return _LOCAL_LIMIT_EXCEEDED if established >= self._limits.max_associations else None

    def _check_request(self, event: evt.Event) -> None:
        # pynetdicom leaves a request without its mandatory elements unanswered, and the peer waiting.
        command = event.message.command_set
        kind, names_instance = command.CommandField, bool(command.get("AffectedSOPInstanceUID"))
        has_data_set = command.CommandDataSetType != _NO_DATA_SET
        if kind == _C_ECHO_RQ or (kind == _C_STORE_RQ and names_instance and has_data_set):
            event.assoc.dul.socket.note_request()
        else:
            event.assoc.dul.event_queue.put("Evt19")

    def _echo(self, event: evt.Event) -> int:
        return Status.SUCCESS

    def _store(self, event: evt.Event) -> int:
        association, request, context = event.assoc, event.request, event.context
        origin = Origin(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(context.transfer_syntax),
            calling_ae_title=_calling_ae_title(association),
            called_ae_title=str(association.requestor.primitive.called_ae_title).strip(),
        )
        return self._handler.store(
            StoreRequest(
                origin,
                abstract_syntax_uid=str(context.abstract_syntax),
                peer_address=association.requestor.address,
                data=request.DataSet.getbuffer(),
            )
        )

    def _aborted(self, event: evt.Event) -> None:
        self._report(
            "association.aborted",
            {
                "calling_ae_title": _calling_ae_title(event.assoc),
                "peer_address": event.assoc.requestor.address,
            },
        )

    def _report(self, action: str, detail: dict[str, Any]) -> None:
        try:
            self._on_event(action, detail)
        except Exception:  # noqa: BLE001 - the callback is not ours
            # The peer's answer does not depend on it, and the object it concerns was refused anyway.
            _log.exception("event could not be recorded", action=action)


def _calling_ae_title(association: Any) -> str:
    # PS3.5 6.2: leading and trailing spaces of an AE title are not significant.
    primitive = association.requestor.primitive
    return str(primitive.calling_ae_title).strip() if primitive is not None else ""


def _is_finished(association: Any) -> bool:
    connection = association.dul.socket
    return not association.is_alive() or connection is None or connection.is_idle


def _configure_pynetdicom() -> None:
    """Set what pynetdicom keeps per process: strict UIDs, and nothing of a message in any log."""
    pynetdicom_config.ENFORCE_UID_CONFORMANCE = True
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
    pynetdicom_config.STORE_RECV_CHUNKED_DATASET = False
    pynetdicom_config.UNRESTRICTED_STORAGE_SERVICE = False
