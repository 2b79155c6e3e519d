"""The listener's side of a TCP connection: bounds on size and time that pynetdicom does not have.

pynetdicom believes every length that a peer states, waits for ever for the rest of a PDU, and queues
requests without end. The socket here reads nothing that is over a limit, gives each PDU and each message a
deadline, and does not read on while enough requests wait for an answer.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import time
from datetime import UTC, datetime
from typing import Any

import structlog
from pynetdicom.association import MODE_ACCEPTOR, Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicom_node.listener.limits import ListenerLimits

_PDU_HEADER = struct.Struct(">BxL")
_P_DATA = 0x04
# PS3.8 9.3.8: A-ABORT from the service provider, reason "invalid PDU parameter value".
_ABORT = struct.pack(">BxLxxBB", 0x07, 4, 2, 6)
# Idle: bytes that came with the connection are read before its first event is handled.
_BEFORE_REQUEST = ("Sta1", "Sta2")
_ESTABLISHED = "Sta6"

_log = structlog.get_logger(__name__)


class BoundedAssociationSocket(AssociationSocket):  # type: ignore[misc]
    """An association's socket that keeps to :class:`ListenerLimits`.

    Parameters
    ----------
    assoc : pynetdicom.association.Association
        Whose socket it is.
    client_socket : socket.socket
        The accepted connection.
    limits : ListenerLimits
        The bounds.
    """

    def __init__(self, assoc: Association, client_socket: Any, limits: ListenerLimits) -> None:
        self._limits = limits
        self._requests = 0
        self._responses = 0
        self._message_bytes = 0
        self._message_deadline = 0.0
        self._pdu_deadline = 0.0
        self._is_closing = False
        super().__init__(assoc, client_socket=client_socket)

    @property
    def is_idle(self) -> bool:
        """Whether no request is half-received and none waits for its answer."""
        return self._requests == self._responses and self._assoc.dimse.message is None

    def note_request(self) -> None:
        """Count a request that was received whole."""
        self._requests += 1

    def read_no_further(self) -> None:
        """Finish what is in hand and take nothing new."""
        self._is_closing = True

    @property
    def ready(self) -> bool:
        """Whether there is something to read now."""
        # Back-pressure: what the kernel's buffer holds stays there, and the peer has to wait.
        if self._requests - self._responses >= self._limits.max_pipelined:
            return False
        if self._is_closing and self.is_idle:
            return False
        if self._is_overdue():
            self._send_abort()
            self.close()
            return False
        return bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes, or fewer when the peer closes.

        Raises
        ------
        OSError
            If a limit or a deadline is exceeded; the connection is of no more use.
        """
        is_header = nr_bytes == _PDU_HEADER.size
        if is_header:
            self._pdu_deadline = time.monotonic() + self._limits.pdu_timeout_s
        try:
            received = self._read(nr_bytes)
            if is_header and len(received) == nr_bytes:
                self._check_pdu(*_PDU_HEADER.unpack(received))
        except OSError:
            self._send_abort()
            self._stop_waiting()
            raise
        if len(received) < nr_bytes:
            self._stop_waiting()
        return received

    def send(self, bytestream: bytes) -> None:
        """Send one PDU; a P-DATA-TF PDU is the answer to one request."""
        super().send(bytestream)
        if bytestream[0] == _P_DATA:
            self._responses += 1

    def _shutdown_socket(self) -> None:
        # pynetdicom does not close a connection that cannot be shut down because its peer left first.
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    def _read(self, nr_bytes: int) -> bytearray:
        received = bytearray(nr_bytes)
        view, filled = memoryview(received), 0
        connection = self.socket
        if connection is None:
            raise OSError("the connection is closed")
        try:
            while filled < nr_bytes:
                connection.settimeout(max(self._pdu_deadline - time.monotonic(), 0.001))
                count = connection.recv_into(view[filled:])
                if count == 0:
                    break
                filled += count
        finally:
            view.release()
            # A peer that does not read its answers must not hold the thread either.
            connection.settimeout(self._limits.network_timeout_s)
        del received[filled:]
        return received

    def _check_pdu(self, kind: int, length: int) -> None:
        limits = self._limits
        is_established = self._assoc.dul.state_machine.current_state == _ESTABLISHED
        if length > (limits.max_any_pdu_bytes if is_established else limits.max_request_pdu_bytes):
            raise OSError("a PDU is longer than the node reads")
        if kind == _P_DATA:
            self._check_message(length)

    def _check_message(self, length: int) -> None:
        message = self._assoc.dimse.message
        if message is None:
            self._message_bytes = 0
            self._message_deadline = time.monotonic() + self._limits.message_timeout_s
        elif message.encoded_command_set.tell() > self._limits.max_command_bytes:
            raise OSError("a command set is longer than the node reads")
        self._message_bytes += length
        if self._message_bytes > self._limits.max_message_bytes:
            raise OSError("a message is longer than the node reads")

    def _is_overdue(self) -> bool:
        return self._assoc.dimse.message is not None and time.monotonic() > self._message_deadline

    def _send_abort(self) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.sendall(_ABORT)

    def _stop_waiting(self) -> None:
        # An association whose peer left before it requested anything waits out its time-out otherwise, and
        # takes the place of others for so long. None is what a time-out gives.
        if self._assoc.dul.state_machine.current_state in _BEFORE_REQUEST:
            self._assoc.dul.to_user_queue.put(None)


class BoundedRequestHandler(RequestHandler):  # type: ignore[misc]
    """Makes an association of an accepted connection."""

    def _create_association(self) -> Association:
        # As in pynetdicom, but with our socket, and with supported contexts shared instead of copied deeply
        # for each association: negotiation only reads them.
        server: BoundedAssociationServer = self.server
        association = Association(self.ae, MODE_ACCEPTOR)
        association._server = server
        association.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        association.set_socket(BoundedAssociationSocket(association, self.request, server.limits))
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

    Attributes
    ----------
    limits : ListenerLimits
        The bounds of its associations; set before it serves.
    """

    request_queue_size = 128
    daemon_threads = True
    limits = ListenerLimits()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection may become an association: not when its peer holds too many silent ones."""
        associations = self.active_associations
        silent = [each for each in associations if not each.is_established]
        from_peer = [each for each in silent if each.requestor.address == client_address[0]]
        return (
            len(associations) < self.limits.max_associations + 4 * self.limits.max_silent_connections
            and len(from_peer) < self.limits.max_silent_connections
        )

    def shutdown(self) -> None:
        """Accept nothing more and close the listening socket; associations go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that became no association, without its traceback's values."""
        _log.warning("connection failed", exc_info=True)
