"""One association as requestor (SCU), driven by the calling thread alone.

pynetdicom's association engine is not used: inside ``recv`` none of its time-outs apply, so half a
response holds the caller for ever; a response to another request counts as an answer; and its two polling
threads may outlive the call.

This module knows nothing of objects' states or of retries.
"""

from __future__ import annotations

import os
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from dicom_node.delivery import command_set, connection
from dicom_node.delivery.connection import Connection, Deadline
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.negotiation import (
    Acceptance,
    Context,
    decoded_acceptance,
    encoded_request,
    rejection_reason,
)
from dicom_node.errors import DestinationAwayError, DestinationUnavailableError

SLOWEST_LINE_BYTES_PER_S = 125_000
"""An object has the DIMSE time-out plus the time that its bytes take at this rate (1 Mbit/s)."""

_LARGEST_FRAGMENT_BYTES = 65536
_RELEASE_S = 1.0
_COMMAND_FRAGMENT, _LAST_FRAGMENT = 1, 2


@dataclass(frozen=True)
class DeliveryTimeouts:
    """How long to wait for a destination, in seconds.

    Parameters
    ----------
    connect_s : float
        For the TCP connection.
    acse_s : float
        For the answer to the association request.
    dimse_s : float
        For one object and the answer to it, to which :data:`SLOWEST_LINE_BYTES_PER_S` adds the time that
        the object's bytes may take. A destination that takes no byte for this long is given up at once.
    """

    connect_s: float
    acse_s: float
    dimse_s: float


def _without_tls(_destination: Destination) -> None:
    return None


@dataclass(frozen=True)
class Requestor:
    """Who requests associations, and on what terms (PS3.8 7.1.1.1: the association-requestor).

    Parameters
    ----------
    ae_title : str
        The calling AE title.
    timeouts : DeliveryTimeouts
        Bounds of every network wait.
    tls_for : callable
        The TLS context of a destination, see :meth:`dicom_node.tls.TlsFiles.client_context`; None for one
        that is reached without. Raises :class:`DestinationUnavailableError` where it should be reached over
        TLS and cannot be now.
    """

    ae_title: str
    timeouts: DeliveryTimeouts
    tls_for: Callable[[Destination], ssl.SSLContext | None] = _without_tls


class Association:
    """An established association; leaving its ``with`` block releases or aborts it and closes the socket.

    Made by :func:`request_association`.
    """

    def __init__(self, line: Connection, timeouts: DeliveryTimeouts) -> None:
        self._line = line
        self._timeouts = timeouts
        self._deadline = Deadline(timeouts.acse_s)
        self._acceptance = Acceptance({}, {}, 0)
        self._fragment_bytes = _LARGEST_FRAGMENT_BYTES
        self._message_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.is_usable:
                self._release()
            else:
                self._line.abort()
        finally:
            self._line.close()

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent: false after the first fault."""
        return self._line.is_usable

    def accepts(self, context: Context) -> bool:
        """Tell whether objects of this class in this transfer syntax can be sent."""
        return context in self._acceptance.context_ids

    def reason_against(self, context: Context) -> str:
        """Return why the acceptor rejected this presentation context, in the standard's words."""
        return self._acceptance.reasons[context]

    def negotiate(self, request: bytes, contexts: Sequence[Context]) -> None:
        """Send the encoded association request and read the answer to it.

        Raises
        ------
        DestinationUnavailableError
            If the acceptor rejects, aborts, keeps silent or answers nonsense.
        """
        self._line.send(request, self._deadline)
        kind, pdu = self._line.receive_pdu(self._deadline)
        if kind == connection.A_ASSOCIATE_RJ:
            advice = "check its AE title here, and this node's AE title and address there"
            raise self._line.fault(f"rejected the association {rejection_reason(pdu)}; {advice}")
        if kind != connection.A_ASSOCIATE_AC:
            raise self._line.fault("answered the association request with something else")
        try:
            self._acceptance = decoded_acceptance(pdu, contexts)
        except ValueError as exc:
            raise self._line.fault("accepted the association in a way that cannot be read") from exc
        self._take_maximum_length(self._acceptance.maximum_length)

    def begin_store(self, context: Context, sop_instance_uid: str, data_set: BinaryIO) -> None:
        """Send a C-STORE request with the data set's bytes as they are.

        Parameters
        ----------
        context : (str, str)
            The object's SOP class and transfer syntax, accepted by the peer.
        sop_instance_uid : str
            The object's UID.
        data_set : BinaryIO
            Seekable, at the first byte of the encoded data set, which ends with the file.

        Raises
        ------
        DestinationUnavailableError
            If not all of it could be handed over: the acceptor cannot have the object.
        """
        start = data_set.tell()
        size = data_set.seek(0, os.SEEK_END) - start
        data_set.seek(start)
        context_id = self._acceptance.context_ids[context]
        self._begin_request(self._timeouts.dimse_s + size / SLOWEST_LINE_BYTES_PER_S)
        command = command_set.encoded_c_store_rq(self._message_id, context[0], sop_instance_uid)
        self._send_command(context_id, command)
        self._send_data_set(context_id, data_set, size)

    def store_status(self, context: Context) -> int:
        """Wait for the answer to the C-STORE request just sent.

        Returns
        -------
        int
            Status (0000,0900), 0x0000 to 0xFFFF.

        Raises
        ------
        DestinationUnavailableError
            If no valid answer to this very request came: whether the acceptor has the object is not known.
        """
        return self._response_status(self._acceptance.context_ids[context], command_set.C_STORE_RSP)

    def echo_status(self, context: Context) -> int:
        """Send a C-ECHO request and return the status of the answer to it.

        Raises
        ------
        DestinationUnavailableError
            If no valid answer came in time.
        """
        context_id = self._acceptance.context_ids[context]
        self._begin_request(self._timeouts.dimse_s)
        self._send_command(context_id, command_set.encoded_c_echo_rq(self._message_id, context[0]))
        return self._response_status(context_id, command_set.C_ECHO_RSP)

    def _take_maximum_length(self, maximum_length: int) -> None:
        if maximum_length == 0:
            # PS3.8 D.1: no maximum length is specified.
            return
        # The maximum counts the PDV's own 6 byte header; fragments are of even length.
        self._fragment_bytes = min((maximum_length - 6) & ~1, _LARGEST_FRAGMENT_BYTES)
        if self._fragment_bytes <= 0:
            raise self._line.fault(f"takes P-DATA of at most {maximum_length} bytes, which holds nothing")

    def _begin_request(self, seconds: float) -> None:
        self._deadline = Deadline(seconds, longest_wait_s=self._timeouts.dimse_s)
        self._message_id = self._message_id % 0xFFFF + 1

    def _release(self) -> None:
        # Every answer is in: a slow or silent release changes nothing, so it is not waited for long.
        deadline = Deadline(min(self._timeouts.acse_s, _RELEASE_S))
        try:
            self._line.send(struct.pack(">BxI4x", connection.A_RELEASE_RQ, 4), deadline)
            kind, _ = self._line.receive_pdu(deadline)
            if kind != connection.A_RELEASE_RP:
                self._line.abort()
        except DestinationUnavailableError:
            self._line.abort()

    def _send_command(self, context_id: int, command: bytes) -> None:
        for start in range(0, len(command), self._fragment_bytes):
            fragment = command[start : start + self._fragment_bytes]
            is_last = start + len(fragment) == len(command)
            self._send_fragment(context_id, _COMMAND_FRAGMENT | is_last * _LAST_FRAGMENT, fragment)

    def _send_data_set(self, context_id: int, data_set: BinaryIO, size: int) -> None:
        left = size
        while left:
            try:
                fragment = data_set.read(min(self._fragment_bytes, left))
            except OSError as exc:
                raise self._line.fault(
                    "was sent a part only: reading the file failed; look at the disk"
                ) from exc
            if not fragment:
                raise self._line.fault("was sent a part only: the file became shorter; look at the disk")
            left -= len(fragment)
            self._send_fragment(context_id, 0 if left else _LAST_FRAGMENT, fragment)

    def _send_fragment(self, context_id: int, flags: int, fragment: bytes) -> None:
        size = len(fragment)
        header = struct.pack(">BxIIBB", connection.P_DATA_TF, size + 6, size + 2, context_id, flags)
        self._line.send(header + fragment, self._deadline)

    def _response_status(self, context_id: int, command_field: int) -> int:
        """Read one response and check that it answers the last request."""
        return self._status_in(self._receive_command(context_id), command_field)

    def _status_in(self, encoded: bytes, command_field: int) -> int:
        """Check that a command set answers the last request, and return its status."""
        try:
            response = command_set.decoded_response(encoded)
        except ValueError as exc:
            raise self._line.fault("answered with a damaged command set") from exc
        if response.command_field != command_field:
            raise self._line.fault("answered with another command")
        # PS3.7 9.3.1.2: the response names the request that it answers.
        if response.message_id_being_responded_to != self._message_id:
            raise self._line.fault("answered with a wrong Message ID")
        if response.status is None:
            raise self._line.fault("answered without a status")
        return response.status

    def _receive_command(self, context_id: int) -> bytes:
        command = b""
        while len(command) <= connection.LARGEST_RECEIVED_PDU_BYTES:
            kind, pdu = self._line.receive_pdu(self._deadline)
            if kind != connection.P_DATA_TF:
                raise self._line.fault("answered with something that is no response")
            for fragment_context_id, flags, fragment in self._fragments(pdu):
                if fragment_context_id != context_id or not flags & _COMMAND_FRAGMENT:
                    raise self._line.fault("answered with something that is no response")
                command += fragment
                if flags & _LAST_FRAGMENT:
                    return command
        raise self._line.fault("answered with a command set without end")

    def _fragments(self, pdu: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Take a P-DATA-TF PDU apart into (presentation context id, flags, bytes) (PS3.8 9.3.5)."""
        start = 6
        while start < len(pdu):
            if start + 6 > len(pdu):
                raise self._line.fault("answered with a damaged PDU")
            length, context_id, flags = struct.unpack_from(">IBB", pdu, start)
            end = start + 4 + length
            if length < 2 or end > len(pdu):
                raise self._line.fault("answered with a damaged PDU")
            yield context_id, flags, pdu[start + 6 : end]
            start = end


_Kind = TypeVar("_Kind", bound=Association)


def request_association(
    destination: Destination, requestor: Requestor, contexts: Sequence[Context]
) -> Association:
    """Connect and negotiate, one presentation context per pair.

    With several transfer syntaxes in one context the acceptor picks one, and objects in the others could
    not be sent without a change of their bytes.

    Parameters
    ----------
    destination : Destination
        The acceptor.
    requestor : Requestor
        This node; its ``connect_s`` and ``acse_s`` bound this call.
    contexts : sequence of (str, str)
        Distinct (SOP class UID, transfer syntax UID), 1 to 128.

    Returns
    -------
    Association
        Which of the contexts were accepted is asked of it.

    Raises
    ------
    DestinationAwayError
        If no association could be established.
    """
    request = encoded_request(destination, requestor.ae_title, contexts)
    return opened(Association, request, destination, requestor, contexts)


def opened(
    kind: type[_Kind],
    request: bytes,
    destination: Destination,
    requestor: Requestor,
    contexts: Sequence[Context],
) -> _Kind:
    """Connect and negotiate with an encoded request; see :func:`request_association`."""
    try:
        line = connection.connect(destination, requestor.timeouts.connect_s, requestor.tls_for(destination))
        try:
            association = kind(line, requestor.timeouts)
            association.negotiate(request, contexts)
        except BaseException:
            line.abort()
            line.close()
            raise
    except DestinationUnavailableError as exc:
        raise DestinationAwayError(str(exc)) from exc
    return association
