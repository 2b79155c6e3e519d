"""The port: accepted connections become associations, as many as there are places."""

from __future__ import annotations

import errno
import math
import socket
import socketserver
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node.listener.association import DirectAssociation
from dicom_node.listener.handlers import StorageHandler
from dicom_node.listener.handshakes import Handshakes
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.services import Service
from dicom_node.tls import ServerTls

# What accept says where it is this machine that has no room; BaseServer passes it over in silence.
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_ROOM_ADVICE = "raise the limit of open files (LimitNOFILE, ulimit -n), or lower listener.max_associations"
_ACCEPT_AGAIN_S = 0.1
_TELL_AGAIN_S = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Port:
    """Where a listener accepts connections.

    Attributes
    ----------
    host : str
        The address.
    number : int
        The TCP port; 0 takes a free one.
    tls : ServerTls or None
        The certificates of a port that takes secure connections alone; None for one that takes plain ones.
    is_shared : bool
        Whether other processes accept on it, too.
    """

    host: str
    number: int
    tls: ServerTls | None = None
    is_shared: bool = False


class BoundedRequestHandler(RequestHandler):  # type: ignore[misc]
    """Makes an association of an accepted connection."""

    def _create_association(self) -> DirectAssociation:
        # As in pynetdicom, but with our association, and with supported contexts shared instead of copied
        # deeply for each association: negotiation only reads them.
        server: BoundedAssociationServer = self.server
        association = DirectAssociation(self.ae, self.request, server.limits, server.storage, server.services)
        association._server = server
        association.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = server.contexts
        association.requestor.address_info = self.remote
        for event, handlers in server._handlers.items():
            if event.is_intervention:
                association.bind(event, *handlers)
            else:
                for handler, arguments in handlers:
                    association.bind(event, handler, arguments)
        return association


class BoundedAssociationServer(ThreadedAssociationServer):  # type: ignore[misc]
    """Accepts connections for the listener.

    Parameters
    ----------
    *arguments, **named
        What pynetdicom makes a server of.
    limits : ListenerLimits
        The bounds of its associations.
    storage : StorageHandler
        Stores objects.
    services : mapping of str to Service
        What is offered besides storage and verification, by abstract syntax.
    handshakes : Handshakes or None
        What makes its connections secure; None on a plain port.
    shares_port : bool
        Whether other processes accept on the port, too.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        *arguments: Any,
        limits: ListenerLimits,
        storage: StorageHandler,
        services: Mapping[str, Service],
        handshakes: Handshakes | None,
        shares_port: bool,
        **named: Any,
    ) -> None:
        self.limits = limits
        self.storage = storage
        self.services = services
        self.handshakes = handshakes
        self._shares_port = shares_port
        self._told_at = -math.inf
        super().__init__(*arguments, **named)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; where this machine has no room for one more, wait a moment before the next."""
        try:
            accepted: tuple[socket.socket, tuple[str, int]] = super().get_request()
        except OSError as error:
            if error.errno in _NO_ROOM:
                # It stays in the queue: to look again at once would keep a core busy and change nothing.
                self._tell_no_room(error)
                time.sleep(_ACCEPT_AGAIN_S)
            raise
        return accepted

    def _tell_no_room(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._told_at >= _TELL_AGAIN_S:
            self._told_at = now
            _log.error("listener.cannot_accept", reason=error.strerror, advice=_NO_ROOM_ADVICE)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection may become an association: not when its peer holds too many silent ones."""
        associations = self.active_associations
        silent = [each for each in associations if not each.is_established]
        from_peer = sum(each.requestor.address == client_address[0] for each in silent)
        running = 0
        if self.handshakes is not None:
            from_peer += self.handshakes.running_from(client_address[0])
            running = self.handshakes.running
        return (
            len(associations) + running < self.limits.max_connections
            and from_peer < self.limits.max_silent_connections
        )

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make an association of a connection; behind a handshake's wait in a thread of its own."""
        if self.handshakes is None:
            # Nothing here waits for the peer: its association is a thread itself.
            self.process_request_thread(request, client_address)
            return
        self.handshakes.expect(client_address[0])
        try:
            super().process_request(request, client_address)
        except BaseException:
            # No thread could be started, so none will do the handshake.
            self.handshakes.forget(client_address[0])
            raise

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Make an association of a connection, after its handshake on a secure port."""
        if self.handshakes is not None:
            request = self.handshakes.secure(request, client_address[0])
            if request is None:
                return
        super().finish_request(request, client_address)

    def server_bind(self) -> None:
        """Bind the port, together with other processes where it is shared."""
        if self._shares_port:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def shutdown(self) -> None:
        """Accept nothing more and close the listening socket; associations go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that became no association, without its traceback's values."""
        _log.warning("listener.connection_failed", exc_info=True)
