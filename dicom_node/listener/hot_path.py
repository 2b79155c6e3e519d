"""The messages of an open association: C-STORE, C-ECHO, and what a service offers besides.

::

    [ command set --> data set --> answer ]... --> release
                         |
            IncomingObject (reception) --> StorageHandler.finish
            or bytes --> Service.requested --> a report that is owed (reports)
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pynetdicom import evt

from dicom_node.listener.command import (
    C_ECHO_RQ,
    C_STORE_RQ,
    N_EVENT_REPORT_RQ,
    P_DATA,
    MalformedCommandError,
    ReportAnswer,
    Request,
    decoded_command,
    encoded_response,
)
from dicom_node.listener.contexts import NOTHING_ACCEPTED, VERIFICATION
from dicom_node.listener.handlers import StorageHandler, StoreRequest
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.part10 import Origin
from dicom_node.listener.reception import IncomingObject, Reception
from dicom_node.listener.reports import Reports
from dicom_node.listener.services import Peer, Service
from dicom_node.listener.status import Status
from dicom_node.listener.upper_layer import PROVIDER_ABORT
from dicom_node.listener.wire import (
    PDU_HEADER,
    PDV_HEADER,
    LimitExceededError,
    ProtocolError,
    Wire,
    words_of,
)

_A_RELEASE_RQ = 0x05
_A_ABORT = 0x07
_RELEASE_RESPONSE = struct.pack(">BxLxxxx", 0x06, 4)
_IS_COMMAND = 0x01
_IS_LAST = 0x02
_TWO_HEADERS = PDU_HEADER.size + PDV_HEADER.size


@dataclass(frozen=True, slots=True)
class _Context:
    """An accepted presentation context, and in which roles this node is in it."""

    abstract_syntax: str
    transfer_syntax: str
    is_user: bool
    is_provider: bool


class Messages:
    """Reads and answers the messages of an established association.

    Parameters
    ----------
    association : dicom_node.listener.association.DirectAssociation
        Whose they are: negotiated, told how it ended.
    wire : Wire
        Its connection.
    limits : ListenerLimits
        The bounds.
    handler : StorageHandler
        Stores objects.
    services : mapping of str to Service
        What is offered besides storage and verification, by abstract syntax.
    """

    def __init__(
        self,
        association: Any,
        wire: Wire,
        limits: ListenerLimits,
        handler: StorageHandler,
        services: Mapping[str, Service],
    ) -> None:
        self._association = association
        self._wire = wire
        self._side = association.dul.socket
        self._limits = limits
        self._handler = handler
        self._contexts = {
            context.context_id: _Context(
                str(context.abstract_syntax),
                str(context.transfer_syntax[0]),
                bool(context.as_scu),
                bool(context.as_scp),
            )
            for context in association.accepted_contexts
        }
        requestor = association.requestor
        # PS3.5 6.2: leading and trailing spaces of an AE title are not significant.
        self._peer = Peer(str(requestor.primitive.calling_ae_title).strip(), requestor.address)
        self._called_ae_title = str(requestor.primitive.called_ae_title).strip()
        self._reception: Reception | None = None
        self._command = bytearray()
        self._message_bytes = 0
        self._request: Request | None = None
        self._context_id = 0
        self._store: StoreRequest | None = None
        self._incoming: IncomingObject | None = None
        self._has_stored = False
        self._services = services
        self._content: bytearray | None = None
        self._reports = Reports(wire, requestor.maximum_length)

    def serve(self) -> None:
        """Serve until the association is released, aborted or lost."""
        try:
            while not (self._side.is_closing and self._side.is_idle):
                if self._request is None and not self._command:
                    self._reports.keep_promises()
                kind, length = self._wire.next_pdu(self._limits.network_timeout_s)
                if not self._serve_pdu(kind, length):
                    return
            self._association.abort(block=False)
        except OSError as error:
            reason = "the node stops" if self._side.is_closing else words_of(error)
            self._end_aborted(reason, tell_peer=True)
        except Exception:
            self._end_aborted("an error of the node; the log tells which", tell_peer=True)
            raise
        finally:
            self._discard()
            if self._reception is not None:
                self._reception.close()
            self._reports.end()

    def _serve_pdu(self, kind: int, length: int) -> bool:
        """Serve one PDU; return whether the association goes on."""
        if length > self._limits.max_any_pdu_bytes:
            raise LimitExceededError("a PDU is longer than the node reads")
        if kind == P_DATA:
            self._side.is_idle = False
            self._message_bytes += length
            if self._message_bytes > self._limits.max_message_bytes:
                raise LimitExceededError("a message is longer than the node reads")
            self._take_fragments(length)
            return True
        if kind == _A_RELEASE_RQ and self._is_between_messages:
            self._wire.read(length)
            self._release()
            return False
        if kind == _A_ABORT:
            self._end_aborted("by the peer", tell_peer=False)
            return False
        raise ProtocolError("a PDU that has no place in an established association")

    @property
    def _is_between_messages(self) -> bool:
        return self._request is None and not self._command

    def _take_fragments(self, left: int) -> None:
        while left:
            if left < PDV_HEADER.size:
                raise ProtocolError("a presentation data value item is cut short")
            length, context_id, control = self._wire.unpacked(PDV_HEADER)
            size = length - 2
            left -= PDV_HEADER.size + size
            if size < 0 or left < 0:
                raise ProtocolError("a presentation data value item is longer than its PDU")
            if control & _IS_COMMAND:
                self._take_command(size, context_id, is_last=bool(control & _IS_LAST))
            else:
                self._take_data(size, context_id, is_last=bool(control & _IS_LAST), left=left)

    def _take_command(self, size: int, context_id: int, *, is_last: bool) -> None:
        if self._request is not None:
            raise ProtocolError("a command in the middle of a data set")
        if len(self._command) + size > self._limits.max_command_bytes:
            raise LimitExceededError("a command set is longer than the node reads")
        if not self._command:
            self._wire.begin_message()
        encoded: memoryview | bytearray = self._wire.take(size)
        if self._command or not is_last:
            self._command += encoded
            encoded = self._command
        if not is_last:
            return
        try:
            message = decoded_command(encoded)
        except MalformedCommandError as error:
            raise ProtocolError(str(error)) from None
        self._command.clear()
        context = self._contexts.get(context_id)
        if context is None:
            raise ProtocolError("a message in a presentation context that was not accepted")
        if isinstance(message, ReportAnswer):
            self._reports.take_answer(message)
            self._end_message()
            self._side.is_idle = not self._wire.has_bytes
            return
        self._request, self._context_id = message, context_id
        if message.field == C_ECHO_RQ:
            is_offered = context.abstract_syntax == VERIFICATION
            self._answer(Status.SUCCESS if is_offered else Status.SOP_CLASS_NOT_SUPPORTED)
        elif message.field == C_STORE_RQ:
            self._begin_object(message, context.abstract_syntax, context.transfer_syntax)
        else:
            self._begin_service(message, context)

    def _begin_service(self, request: Request, context: _Context) -> None:
        is_our_role = context.is_user if request.field == N_EVENT_REPORT_RQ else context.is_provider
        if context.abstract_syntax not in self._services or not is_our_role:
            raise ProtocolError("a request that this node does not serve")
        self._content = bytearray()
        if not request.has_data_set:
            self._ask_service()

    def _ask_service(self) -> None:
        assert self._request is not None and self._content is not None  # a whole request came
        # What was answered with Success on this association is known to the service.
        self._settle()
        service = self._services[self._contexts[self._context_id].abstract_syntax]
        context_id, content = self._context_id, bytes(self._content)
        answer = service.requested(self._peer, self._request, content)
        if answer.promise is not None:
            # Before the answer: the promise has to end also where the peer has left.
            self._reports.promise(answer.promise, context_id, service.may_leave_s)
        self._answer(answer.status)

    def _begin_object(self, request: Request, abstract_syntax: str, transfer_syntax: str) -> None:
        if self._reception is None:
            self._reception = Reception()
        origin = Origin(
            sop_class_uid=request.sop_class_uid.decode("ascii"),
            sop_instance_uid=request.sop_instance_uid.decode("ascii"),
            transfer_syntax_uid=transfer_syntax,
            calling_ae_title=self._peer.calling_ae_title,
            called_ae_title=self._called_ae_title,
        )
        self._store = StoreRequest(origin, abstract_syntax, self._peer.address)
        self._incoming = self._handler.begin(self._store, self._reception)

    def _take_data(self, size: int, context_id: int, *, is_last: bool, left: int) -> None:
        incoming = self._incoming
        if context_id != self._context_id or (incoming is None and self._content is None):
            raise ProtocolError("a data set that belongs to no request")
        if incoming is None:
            self._take_content(size, is_last=is_last)
            return
        # What is not the last fragment is followed by another: its headers come with the same system call.
        ahead = 0 if is_last else (PDV_HEADER.size if left else _TWO_HEADERS)
        while size:
            room = incoming.room()[:size]
            size -= len(room)
            self._wire.fill(room, ahead=0 if size else ahead)
            incoming.took(len(room))
        if is_last:
            assert self._store is not None  # it came with the incoming object
            self._has_stored = True
            self._answer(*self._handler.finish(self._store, incoming))

    def _take_content(self, size: int, *, is_last: bool) -> None:
        assert self._content is not None  # a request of a service is half-received
        service = self._services[self._contexts[self._context_id].abstract_syntax]
        if len(self._content) + size > service.largest_content_bytes:
            raise LimitExceededError("a data set is longer than the service reads")
        self._content += self._wire.read(size)
        if is_last:
            self._ask_service()

    def _answer(self, status: int, comment: str = "") -> None:
        assert self._request is not None  # only a request is answered
        response = encoded_response(self._request, status, self._context_id, comment)
        self._end_message()
        self._wire.send(response)
        self._side.is_idle = not self._wire.has_bytes

    def _end_message(self) -> None:
        self._request = self._store = self._incoming = self._content = None
        self._message_bytes = 0
        self._wire.end_message()

    def _release(self) -> None:
        association = self._association
        # Who left politely finds all that it sent wherever it looks next.
        self._settle()
        self._wire.send(_RELEASE_RESPONSE)
        association.is_released = True
        association.is_established = False
        evt.trigger(association, evt.EVT_RELEASED, {})

    def _settle(self) -> None:
        # Who stored nothing does not wait for the rows of others.
        if self._has_stored:
            self._handler.settle()

    def _discard(self) -> None:
        """Leave nothing of an object that did not come in whole."""
        if self._incoming is not None:
            self._incoming.discard()

    def _end_aborted(self, reason: str, *, tell_peer: bool) -> None:
        association = self._association
        association.end_reason = reason if self._contexts else NOTHING_ACCEPTED
        # Who hears of the end finds nothing left; a disk that refuses must not keep it from anybody.
        with contextlib.suppress(OSError):
            self._discard()
        if tell_peer:
            with contextlib.suppress(OSError):
                self._wire.send(PROVIDER_ABORT)
        was_told = association.is_aborted
        association.is_aborted = True
        association.is_established = False
        if not was_told:
            evt.trigger(association, evt.EVT_ABORTED, {})
