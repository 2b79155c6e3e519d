"""An accepted association, from its request to its end, in one blocking thread.

pynetdicom stays the authority of the protocol: it decodes the request, negotiates, rejects, aborts and tells
its events. The messages of an open association are read and answered by :mod:`dicom_node.listener.hot_path`,
without pynetdicom's reactor and its objects.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from pynetdicom import evt
from pynetdicom.association import MODE_ACCEPTOR, Association

from dicom_node.listener.handlers import StorageHandler
from dicom_node.listener.hot_path import Messages
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.services import Service
from dicom_node.listener.upper_layer import PROVIDER_ABORT, DirectUpperLayer, decoded_association_request
from dicom_node.listener.wire import (
    PDU_HEADER,
    LimitExceededError,
    PeerLeftError,
    ProtocolError,
    Wire,
    words_of,
)

_A_ASSOCIATE_RQ = 0x01


class DirectAssociation(Association):  # type: ignore[misc]
    """An accepted association that is served in its own thread.

    Parameters
    ----------
    ae : pynetdicom.AE
        The node.
    connection : socket.socket
        Accepted, and secured where the port is.
    limits : ListenerLimits
        The bounds.
    handler : StorageHandler
        Stores objects.
    services : mapping of str to Service
        What is offered besides storage and verification, by abstract syntax.

    Attributes
    ----------
    has_place : bool
        Whether it counts as one of the associations that are served; set by who admits it.
    end_reason : str
        Why it was aborted, for the audit trail; nothing in it is the peer's.
    """

    dul: Any
    is_established: bool

    def __init__(
        self,
        ae: Any,
        connection: socket.socket,
        limits: ListenerLimits,
        handler: StorageHandler,
        services: Mapping[str, Service],
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._wire = Wire(connection, limits)
        self._limits = limits
        self._handler = handler
        self._services = services
        self.has_place = False
        self.end_reason = "by the peer, or by the protocol's rules"
        self.dul = DirectUpperLayer(self._wire)

    def run_reactor(self) -> None:
        """Serve the association; called by its thread."""
        try:
            self._serve()
        finally:
            self.has_place = False

    def _serve(self) -> None:
        try:
            encoded = self._read_request()
            request, refusal = decoded_association_request(encoded)
        except PeerLeftError:
            # Nothing was asked for: so does whoever looks whether the port is open.
            self._wire.close()
            return
        except OSError as error:
            self._abort_as_provider(words_of(error))
            return
        except Exception:  # noqa: BLE001 - whatever pynetdicom makes of a stranger's bytes
            self._abort_as_provider("an association request that cannot be decoded")
            return
        try:
            self._negotiate(request, refusal)
            if self.is_established:
                Messages(self, self._wire, self._limits, self._handler, self._services).serve()
        finally:
            self.has_place = self.is_established = False
            self._wire.close()

    def _read_request(self) -> bytes:
        self._wire.begin_request()
        kind, length = self._wire.next_pdu(self._limits.acse_timeout_s)
        if kind != _A_ASSOCIATE_RQ:
            raise ProtocolError("the first PDU is no association request")
        if length > self._limits.max_request_pdu_bytes:
            raise LimitExceededError("an association request is longer than the node reads")
        body = self._wire.read(length)
        self._wire.end_message()
        return PDU_HEADER.pack(kind, length) + body

    def _negotiate(self, request: Any, refusal: tuple[int, int, int] | None) -> None:
        self.requestor.primitive = request
        if refusal is not None:
            self.acse.send_reject(*refusal)
            return
        evt.trigger(self, evt.EVT_REQUESTED, {})
        # A handler may have rejected or aborted it.
        if not self.is_aborted and not self.is_rejected:
            self.acse.negotiate_association()

    def _abort_as_provider(self, reason: str) -> None:
        self.end_reason = reason
        with contextlib.suppress(OSError):
            self._wire.send(PROVIDER_ABORT)
        self._wire.close()
        evt.trigger(self, evt.EVT_ABORTED, {})
