"""An association for services on normalised objects: requests with a data set both ways (PS3.7 section 10).

The requestor asks by N-ACTION and may be told by N-EVENT-REPORT on the same association; or it is itself the
one who tells, in the role of the provider.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO

from dicom_node.delivery import command_set, connection
from dicom_node.delivery.association import Association, Requestor, opened
from dicom_node.delivery.command_set import ReportRequest
from dicom_node.delivery.connection import Deadline
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.negotiation import Context, encoded_request

_LARGEST_MESSAGE_BYTES = 4 << 20
_COMMAND_FRAGMENT, _LAST_FRAGMENT = 1, 2
_RELEASE_RESPONSE = struct.pack(">BxI4x", connection.A_RELEASE_RP, 4)


@dataclass(frozen=True, slots=True)
class EventReport:
    """An N-EVENT-REPORT request with its data set's bytes."""

    request: ReportRequest
    information: bytes


class NormalizedAssociation(Association):
    """An established association with one presentation context; made by :func:`request_normalized`."""

    def action_status(
        self, context: Context, sop_instance_uid: str, action_type: int, information: bytes
    ) -> int:
        """Send an N-ACTION request and return the status of the answer to it.

        Raises
        ------
        DestinationUnavailableError
            If no valid answer came in time: whether the peer acts is not known.
        """
        self._begin_request(self._timeouts.dimse_s)
        command = command_set.encoded_n_action_rq(self._message_id, context[0], sop_instance_uid, action_type)
        return self._asked(context, command, information, command_set.N_ACTION_RSP)

    def event_report_status(
        self, context: Context, sop_instance_uid: str, event_type: int, information: bytes
    ) -> int:
        """Send an N-EVENT-REPORT request and return the status of the answer to it.

        Raises
        ------
        DestinationUnavailableError
            If no valid answer came in time: whether the peer heard it is not known.
        """
        self._begin_request(self._timeouts.dimse_s)
        command = command_set.encoded_n_event_report_rq(
            self._message_id, context[0], sop_instance_uid, event_type
        )
        return self._asked(context, command, information, command_set.N_EVENT_REPORT_RSP)

    def next_report(self, context: Context, seconds: float) -> EventReport | None:
        """Wait for an N-EVENT-REPORT request of the peer.

        Returns
        -------
        EventReport or None
            None where none came in time, or where the peer released the association instead.

        Raises
        ------
        DestinationUnavailableError
            If something else came.
        """
        if not self._line.has_input(seconds):
            return None
        self._deadline = Deadline(self._timeouts.dimse_s)
        message = self._receive_message(self._acceptance.context_ids[context])
        if message is None:
            return None
        try:
            return EventReport(command_set.decoded_report_request(message[0]), message[1])
        except ValueError as exc:
            raise self._line.fault("sent a request that is no report") from exc

    def answer_report(self, context: Context, report: EventReport, status: int) -> None:
        """Send the response to an N-EVENT-REPORT request."""
        self._deadline = Deadline(self._timeouts.dimse_s)
        command = command_set.encoded_n_event_report_rsp(report.request, status)
        self._send_command(self._acceptance.context_ids[context], command)

    def _asked(self, context: Context, command: bytes, information: bytes, response_field: int) -> int:
        context_id = self._acceptance.context_ids[context]
        self._send_command(context_id, command)
        self._send_data_set(context_id, BytesIO(information), len(information))
        message = self._receive_message(context_id)
        if message is None:
            raise self._line.fault("released the association instead of answering")
        return self._status_in(message[0], response_field)

    def _receive_message(self, context_id: int) -> tuple[bytes, bytes] | None:
        """Read a command set and the data set that follows it; None where the peer releases instead."""
        command, data_set, has_data_set, is_started = b"", bytearray(), None, False
        while has_data_set is None or has_data_set:
            kind, pdu = self._line.receive_pdu(self._deadline)
            if kind == connection.A_RELEASE_RQ and not is_started:
                self._line.send(_RELEASE_RESPONSE, self._deadline)
                self._line.is_usable = False
                return None
            if kind != connection.P_DATA_TF:
                raise self._line.fault("sent something that is no message")
            is_started = True
            for fragment_context_id, flags, fragment in self._fragments(pdu):
                is_command = bool(flags & _COMMAND_FRAGMENT)
                if fragment_context_id != context_id or is_command != (has_data_set is None):
                    raise self._line.fault("sent something that is no message")
                if len(command) + len(data_set) + len(fragment) > _LARGEST_MESSAGE_BYTES:
                    raise self._line.fault("sent a message without end")
                if is_command:
                    command += fragment
                    if flags & _LAST_FRAGMENT:
                        has_data_set = self._announces_data_set(command)
                else:
                    data_set += fragment
                    if flags & _LAST_FRAGMENT:
                        has_data_set = False
        return command, bytes(data_set)

    def _announces_data_set(self, command: bytes) -> bool:
        try:
            return command_set.decoded_response(command).has_data_set
        except ValueError as exc:
            raise self._line.fault("answered with a damaged command set") from exc


def request_normalized(
    destination: Destination, requestor: Requestor, context: Context, *, as_provider: bool = False
) -> NormalizedAssociation:
    """Connect and negotiate one presentation context; as its provider where that is said.

    Raises
    ------
    DestinationAwayError
        If no association could be established.
    """
    request = encoded_request(destination, requestor.ae_title, [context], as_provider=as_provider)
    return opened(NormalizedAssociation, request, destination, requestor, [context])
