"""pynetdicom's negotiation without its reactor: primitives become PDUs at once, in the association's thread.

pynetdicom's association hands every primitive to an upper layer service provider, which is a second thread
that polls the connection and the first thread's queue. Here that provider encodes with pynetdicom's own PDU
classes and sends.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

from pynetdicom.pdu import (
    A_ABORT_RQ,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
)
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE

from dicom_node.listener.wire import Wire

# PS3.8 9.3.8: A-ABORT from the service provider, reason "invalid PDU parameter value".
PROVIDER_ABORT = struct.pack(">BxLxxBB", 0x07, 4, 2, 6)
_PROTOCOL_VERSION = 1
# PS3.8 9.3.4: rejected for good, by the service provider (ACSE), protocol version not supported.
_WRONG_VERSION = (1, 2, 2)


class DirectSocket:
    """The association's connection as the listener sees it; stands where pynetdicom has its own socket.

    Attributes
    ----------
    is_idle : bool
        Whether no request is half-received and none waits for its answer.
    is_closing : bool
        Whether nothing new is taken.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.is_idle = True
        self.is_closing = False

    @property
    def socket(self) -> socket.socket:
        """The accepted connection."""
        return self._wire.connection

    def read_no_further(self) -> None:
        """Finish what is in hand and take nothing new."""
        self.is_closing = True
        if self.is_idle:
            # A request that begins at this moment is cut off and gets no Success, so its sender keeps it.
            self._wire.wake(socket.SHUT_RD)

    def cut_off(self) -> None:
        """End the association now; its own thread tells the peer."""
        self.is_closing = True
        self._wire.cut_off()

    def _shutdown_socket(self) -> None:
        self._wire.wake(socket.SHUT_RDWR)


class DirectUpperLayer:
    """Sends what pynetdicom's association control wants sent.

    Parameters
    ----------
    wire : Wire
        The connection.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.socket = DirectSocket(wire)

    def send_pdu(self, primitive: Any) -> None:
        """Encode a primitive and send it; a peer that left is noticed at the next read."""
        with contextlib.suppress(OSError):
            self._wire.send(_pdu_of(primitive).encode())

    def is_alive(self) -> bool:
        """Whether there is a thread to wait for: there is none."""
        return False

    def kill_dul(self) -> None:
        """Nothing to end."""


def decoded_association_request(encoded: bytes) -> tuple[A_ASSOCIATE, tuple[int, int, int] | None]:
    """Decode an A-ASSOCIATE-RQ PDU by pynetdicom.

    Returns
    -------
    tuple of (A_ASSOCIATE, tuple or None)
        The primitive; and result, source and reason where the upper layer itself must reject it.

    Raises
    ------
    Exception
        Whatever pynetdicom raises for bytes that are no request.
    """
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(encoded)
    return pdu.to_primitive(), None if pdu.protocol_version == _PROTOCOL_VERSION else _WRONG_VERSION


def _pdu_of(primitive: Any) -> Any:
    if isinstance(primitive, A_ASSOCIATE):
        return A_ASSOCIATE_AC(primitive) if primitive.result == 0 else A_ASSOCIATE_RJ(primitive)
    if isinstance(primitive, A_RELEASE):
        return A_RELEASE_RP(primitive)
    if isinstance(primitive, A_ABORT | A_P_ABORT):
        return A_ABORT_RQ(primitive)
    raise TypeError(f"{type(primitive).__name__} is nothing that an acceptor sends")
