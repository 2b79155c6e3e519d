"""The storage SCP on its port: associations in, statuses out.

pynetdicom is the authority of the protocol; what is stored and how is answered is decided in
:mod:`dicom_node.listener.handlers`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import pydicom.config as pydicom_config
import pynetdicom._config as pynetdicom_config
import structlog
from pynetdicom import AE, evt
from pynetdicom._validators import validate_ui
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_node.commitment.references import PUSH_MODEL
from dicom_node.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.listener.admission import Admission, Admitted, Knock, Operation, Refusal, UserIdentity
from dicom_node.listener.contexts import NOTHING_ACCEPTED, VERIFICATION, supported_contexts
from dicom_node.listener.handlers import OnEvent, Register, StorageHandler
from dicom_node.listener.handshakes import Handshakes, names_of
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.owed_rows import Journaling
from dicom_node.listener.quarantine import Quarantining
from dicom_node.listener.services import Service
from dicom_node.listener.transport import BoundedAssociationServer, BoundedRequestHandler, Port
from dicom_node.spool import Spool

_LOCAL_LIMIT_EXCEEDED = Refusal(2, 3, 2, "too many associations")
_TOO_MANY_OF_ONE_PEER = Refusal(2, 3, 2, "too many associations of this peer")
_CONGESTED = Refusal(2, 3, 1, "too much work is waiting")
_UNDECIDED = Refusal(2, 3, 1, "could not be decided on; the log tells why")
_MOST_PROPOSED_TOLD = 8
_OPERATION_OF = {VERIFICATION: Operation.ECHO, PUSH_MODEL: Operation.COMMIT}
_STOP_POLL_S = 0.01
_LAST_WORDS_S = 1.5
_ACCEPT_POLL_S = 0.05

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Storing:
    """What makes received objects durable and known.

    Attributes
    ----------
    spool : Spool
        Where their files are kept.
    register : callable
        Commits the row of a durable object: ``register(ReceivedInstance) -> Registration``.
    journaling : Journaling or None
        What makes small objects durable; without it each file is synced by itself.
    quarantining : Quarantining or None
        What keeps samples of objects that are refused as faulty; without it nothing of them is kept.
    """

    spool: Spool
    register: Register
    journaling: Journaling | None = None
    quarantining: Quarantining | None = None


class Listener:
    """A storage and verification SCP.

    Parameters
    ----------
    ae_title : str
        The node's AE title.
    port : Port
        Where it accepts; for a free one see :attr:`port`.
    storing : Storing
        What becomes of received objects.
    limits : ListenerLimits
        Bounds of associations and objects.
    on_event : callable
        Told what the audit trail must know and the database does not see: ``on_event(action, detail)`` with
        the actions ``association.rejected``, ``association.aborted``, ``association.unserved``,
        ``security.tls_refused`` and ``instance.refused``. No patient data. Called from the associations'
        threads.
    admission : Admission, optional
        Who may come in, and for what. By default everybody.
    services : sequence of Service
        What it offers besides storage and verification.
    is_congested : callable
        Whether so much work waits that associations are rejected as transient.
    """

    def __init__(
        self,
        ae_title: str,
        port: Port,
        storing: Storing,
        *,
        limits: ListenerLimits,
        on_event: OnEvent,
        admission: Admission | None = None,
        services: Sequence[Service] = (),
        is_congested: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ae_title = ae_title.strip()
        self._address = (port.host, port.number)
        self._limits = limits
        self._on_event = on_event
        storage = StorageHandler(
            storing.spool, storing.register, limits, self._report, storing.journaling, storing.quarantining
        )
        self._admission = admission or Admission(ae_title)
        self._is_congested = is_congested
        self._services = {each.abstract_syntax: each for each in services}
        tls = port.tls
        self._make_server = partial(
            BoundedAssociationServer,
            limits=limits,
            storage=storage,
            services=self._services,
            handshakes=None if tls is None else Handshakes(tls, limits.acse_timeout_s, self._report),
            shares_port=port.is_shared,
        )
        self._places = threading.Lock()
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
            contexts=[*supported_contexts(), *(each.context for each in self._services.values())],
            evt_handlers=[
                (evt.EVT_REQUESTED, self._admit),
                (evt.EVT_USER_ID, self._pass_user),
                (evt.EVT_ABORTED, self._aborted),
                (evt.EVT_RELEASED, self._released),
            ],
            server_class=self._make_server,
            request_handler=BoundedRequestHandler,
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_ACCEPT_POLL_S,), name="listener-accept", daemon=True
        )
        self._thread.start()
        _log.info("listener.ready", ae_title=self._ae_title, host=self._address[0], port=self.port)

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
            association.dul.socket.cut_off()
        deadline = max(deadline, time.monotonic() + _LAST_WORDS_S)
        for association in associations:
            association.join(max(deadline - time.monotonic(), 0.0))
        if self._thread is not None:
            self._thread.join()
        _log.info("listener.stopped", port=self.port)

    def _admit(self, event: evt.Event) -> None:
        association = event.assoc
        try:
            decision = self._decision(association)
        except Exception:  # noqa: BLE001 - pynetdicom would log it and go on to accept
            _log.exception("listener.undecided")
            decision = _UNDECIDED
        if isinstance(decision, Admitted):
            _offer(association, decision.operations)
            if decision.has_proved_user:
                _confirm_user_where_asked(association)
            return
        self._report("association.rejected", _detail(association, decision.words))
        association.acse.send_reject(decision.result, decision.source, decision.reason)
        association.kill()

    def _decision(self, association: Any) -> Admitted | Refusal:
        decision = self._admission.decide(_knock(association))
        if isinstance(decision, Refusal):
            return decision
        if self._is_congested():
            return _CONGESTED
        return self._refused_place(association) or decision

    def _refused_place(self, association: Any) -> Refusal | None:
        """Give an association one of the places that there are, or say why it gets none."""
        # Counted and taken as one: of many that knock at once each sees those before it.
        with self._places:
            placed = [each for each in association._server.active_associations if each.has_place]
            if len(placed) >= self._limits.max_associations:
                return _LOCAL_LIMIT_EXCEEDED
            address = association.requestor.address
            from_peer = sum(each.requestor.address == address for each in placed)
            if from_peer >= self._limits.max_associations_per_peer:
                return _TOO_MANY_OF_ONE_PEER
            association.has_place = True
        return None

    def _pass_user(self, event: evt.Event) -> tuple[bool, None]:
        # Decided, and confirmed where it was checked, with everything else in _admit.
        return True, None

    def _aborted(self, event: evt.Event) -> None:
        self._report("association.aborted", _detail(event.assoc, event.assoc.end_reason))

    def _released(self, event: evt.Event) -> None:
        # A peer whose every proposal was turned down mostly leaves politely, and its user sees a failure.
        if event.assoc.accepted_contexts:
            return
        self._report("association.unserved", _detail(event.assoc, NOTHING_ACCEPTED))

    def _report(self, action: str, detail: dict[str, Any]) -> None:
        try:
            self._on_event(action, detail)
        except Exception:  # noqa: BLE001 - the callback is not ours
            # The peer's answer does not depend on it, and the object it concerns was refused anyway.
            _log.exception("listener.event_not_told", action=action)


def _detail(association: Any, reason: str) -> dict[str, Any]:
    """Return what the audit trail is told of an association and its end."""
    detail: dict[str, Any] = {
        "calling_ae_title": _calling_ae_title(association),
        "peer_address": association.requestor.address,
        "reason": reason,
    }
    if reason == NOTHING_ACCEPTED:
        detail["proposed"] = _proposed(association)
    return detail


def _calling_ae_title(association: Any) -> str:
    # PS3.5 6.2: leading and trailing spaces of an AE title are not significant.
    primitive = association.requestor.primitive
    return str(primitive.calling_ae_title).strip() if primitive is not None else ""


def _proposed(association: Any) -> list[str]:
    """Return which SOP classes a peer proposed, as many as tell what it is."""
    proposed = [str(each.abstract_syntax) for each in association.requestor.requested_contexts]
    return list(dict.fromkeys(proposed))[:_MOST_PROPOSED_TOLD]


def _knock(association: Any) -> Knock:
    requestor = association.requestor
    identity = requestor.user_identity
    return Knock(
        calling_ae_title=_calling_ae_title(association),
        called_ae_title=str(requestor.primitive.called_ae_title),
        address=requestor.address,
        certificate_names=names_of(association.dul.socket.socket),
        user=identity
        and UserIdentity(
            identity.user_identity_type, identity.primary_field or b"", identity.secondary_field or b""
        ),
    )


def _offer(association: Any, operations: frozenset[Operation]) -> None:
    """Leave the presentation contexts of the operations that are the caller's; all others are rejected."""
    association.acceptor.supported_contexts = [
        context
        for context in association.acceptor.supported_contexts
        if _OPERATION_OF.get(str(context.abstract_syntax), Operation.STORE) in operations
    ]


def _confirm_user_where_asked(association: Any) -> None:
    """Add the positive response to user name and passcode (PS3.7 D.3.3.7.2), which pynetdicom leaves out."""
    if not association.requestor.user_identity.positive_response_requested:
        return
    response = UserIdentityNegotiation()
    response.server_response = b""
    association.acceptor.add_negotiation_item(response)


def _is_finished(association: Any) -> bool:
    connection = association.dul.socket
    return not association.is_alive() or connection is None or connection.is_idle


@lru_cache(maxsize=1024)
def _checked_uid(value: str) -> tuple[bool, str]:
    return validate_ui(value)  # type: ignore[no-any-return]  # pynetdicom has no types


def _configure_pynetdicom() -> None:
    """Set what pynetdicom keeps per process: strict UIDs, and nothing of a message in any log."""
    pynetdicom_config.ENFORCE_UID_CONFORMANCE = True
    # A negotiation checks the same few UIDs dozens of times, which was half of its time. pydicom checks each
    # as well, only to warn.
    pynetdicom_config.VALIDATORS["UI"] = _checked_uid
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"
    pynetdicom_config.LOG_REQUEST_IDENTIFIERS = False
    pynetdicom_config.LOG_RESPONSE_IDENTIFIERS = False
    pynetdicom_config.STORE_RECV_CHUNKED_DATASET = False
    pynetdicom_config.UNRESTRICTED_STORAGE_SERVICE = False
