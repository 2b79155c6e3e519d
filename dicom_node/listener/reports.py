"""Reports that the node owes on an association: sent by its own thread, between the peer's messages."""

from __future__ import annotations

import time
from collections import deque

from dicom_node.listener.command import ReportAnswer, encoded_data_set, encoded_report_request
from dicom_node.listener.services import Promise
from dicom_node.listener.wire import Wire

_ANSWERED_WITHIN_S = 10.0


class Reports:
    """What services promised: one report after the other.

    Parameters
    ----------
    wire : Wire
        The association's connection.
    longest_pdu_bytes : int
        The longest P-DATA-TF PDU that the peer takes (PS3.8 D.1); 0 says that there is none.
    """

    def __init__(self, wire: Wire, longest_pdu_bytes: int) -> None:
        self._wire = wire
        self._longest_pdu_bytes = longest_pdu_bytes
        self._promised: deque[tuple[Promise, int, float]] = deque()
        self._message_id = 0
        self._unanswered: Promise | None = None
        self._answer_until = 0.0

    def promise(self, promise: Promise, context_id: int, may_leave_s: float) -> None:
        """Report in a presentation context, after a silence of so many seconds."""
        self._promised.append((promise, context_id, may_leave_s))

    def keep_promises(self) -> None:
        """Send what is owed and wait for its answers, until the peer says something of its own."""
        while self._promised or self._unanswered:
            if self._unanswered is not None:
                if not self._wire.is_silent_for(max(self._answer_until - time.monotonic(), 0.0)):
                    return
                self._settle(None)
            elif self._wire.is_silent_for(self._promised[0][2]):
                self._send_next()
            else:
                return

    def take_answer(self, answer: ReportAnswer) -> None:
        """Take the peer's answer to the report that was sent last; others are nobody's."""
        if answer.message_id == self._message_id:
            self._settle(answer.status)

    def end(self) -> None:
        """Give up what is still owed: the association is over."""
        self._settle(None)
        while self._promised:
            self._promised.popleft()[0].ended(None)

    def _send_next(self) -> None:
        promise, context_id, _ = self._promised.popleft()
        self._unanswered = promise
        report = promise.report()
        if report is None:
            self._settle(None)
            return
        self._message_id = self._message_id % 0xFFFF + 1
        self._answer_until = time.monotonic() + _ANSWERED_WITHIN_S
        request = encoded_report_request(
            self._message_id, report.sop_class_uid, report.sop_instance_uid, report.event_type, context_id
        )
        self._wire.send(request + encoded_data_set(report.content, context_id, self._longest_pdu_bytes))

    def _settle(self, status: int | None) -> None:
        promise, self._unanswered = self._unanswered, None
        if promise is not None:
            promise.ended(status)
