"""Requests on normalised objects, against a peer that says what is written for it, byte for byte."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import pytest

from dicom_node.commitment.references import PUSH_MODEL, PUSH_MODEL_INSTANCE, TRANSFER_SYNTAX
from dicom_node.delivery.association import DeliveryTimeouts, Requestor
from dicom_node.delivery.command_set import ReportRequest
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.normalized import EventReport, NormalizedAssociation, request_normalized
from dicom_node.errors import DestinationUnavailableError
from tests.simulators.conversations import command_set
from tests.simulators.pdu_bytes import associate_acceptance, elements

PATIENCE_S = 40.0
TIMEOUTS = DeliveryTimeouts(connect_s=PATIENCE_S, acse_s=PATIENCE_S, dimse_s=PATIENCE_S)
CONTEXT = (PUSH_MODEL, TRANSFER_SYNTAX)
CONTEXT_ID, OTHER_CONTEXT_ID = 1, 3
DATA_SET, COMMAND, LAST = 0, 1, 2
INFORMATION = b"information" * 5000
RELEASE, RELEASED, ABORT = (struct.pack(">BxI4x", kind, 4) for kind in (5, 6, 7))
MIB = 1 << 20


def fragments(*values: tuple[int, bytes], context_id: int = CONTEXT_ID) -> bytes:
    """Encode one P-DATA-TF PDU with (flags, bytes) of each fragment (PS3.8 9.3.5)."""
    body = b"".join(struct.pack(">IBB", len(v) + 2, context_id, flags) + v for flags, v in values)
    return struct.pack(">BxI", 4, len(body)) + body


def response(status: int = 0, *, field: int = 0x8130, has_data_set: bool = False) -> bytes:
    """Encode the command set of the answer to the first request."""
    return command_set(
        {
            0x0100: struct.pack("<H", field),
            0x0120: struct.pack("<H", 1),
            0x0800: struct.pack("<H", 0x0001 if has_data_set else 0x0101),
            0x0900: struct.pack("<H", status),
        }
    )


def report_request(message_id: int = 9) -> bytes:
    return command_set(
        {
            0x0002: PUSH_MODEL.encode(),
            0x0100: struct.pack("<H", 0x0100),
            0x0110: struct.pack("<H", message_id),
            0x0800: struct.pack("<H", 0x0001),
            0x1000: PUSH_MODEL_INSTANCE.encode(),
            0x1002: struct.pack("<H", 2),
        }
    )


class Peer:
    """Accepts one association; says its lines, each after one whole message of the node."""

    def __init__(self, *lines: bytes, speaks_first: bool = False) -> None:
        self._lines = list(lines)
        self._speaks_first = speaks_first
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._converse)
        self.port = self._listener.getsockname()[1]
        self.messages: list[tuple[bytes, bytes]] = []
        """Command set and data set of each message that the node sent."""
        self.pdus: list[bytes] = []
        """All that the node sent."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(PATIENCE_S)
        self._listener.close()

    def _converse(self) -> None:
        line, _ = self._listener.accept()
        with line, line.makefile("rb") as coming:
            self._read_pdu(coming)
            line.sendall(associate_acceptance((CONTEXT_ID, 0, TRANSFER_SYNTAX)))
            if self._speaks_first:
                line.sendall(self._lines.pop(0))
            command, data_set = b"", b""
            while pdu := self._read_pdu(coming):
                if pdu[0] == 5:
                    line.sendall(RELEASED)
                if pdu[0] != 4:
                    continue
                flags, value = pdu[11], pdu[12:]
                command, data_set = (
                    (command + value, data_set) if flags & COMMAND else (command, data_set + value)
                )
                expects_more = flags & COMMAND and elements(command)[0x0800] != struct.pack("<H", 0x0101)
                if flags & LAST and not expects_more:
                    self.messages.append((command, data_set))
                    command, data_set = b"", b""
                    if self._lines:
                        line.sendall(self._lines.pop(0))

    def _read_pdu(self, coming: object) -> bytes:
        header = coming.read(6)  # type: ignore[attr-defined]
        if len(header) < 6:
            return b""
        self.pdus.append(header + coming.read(int.from_bytes(header[2:], "big")))  # type: ignore[attr-defined]
        return self.pdus[-1]


@contextmanager
def associated(peer: Peer, *, dimse_s: float = PATIENCE_S) -> Iterator[NormalizedAssociation]:
    timeouts = DeliveryTimeouts(connect_s=PATIENCE_S, acse_s=PATIENCE_S, dimse_s=dimse_s)
    destination = Destination("PACS", "127.0.0.1", peer.port)
    with request_normalized(destination, Requestor("DICOM_NODE", timeouts), CONTEXT) as association:
        yield association


def asked(peer: Peer) -> int:
    with peer, associated(peer) as association:
        return association.action_status(CONTEXT, PUSH_MODEL_INSTANCE, 1, INFORMATION)


def test_a_request_arrives_whole_and_its_answer_is_its_status() -> None:
    peer = Peer(fragments((COMMAND | LAST, response(0x0213))))

    assert asked(peer) == 0x0213

    ((command, data_set),) = peer.messages
    assert data_set == INFORMATION
    found = elements(command)
    assert found[0x0110] == struct.pack("<H", 1)
    assert found[0x0003].rstrip(b"\0").decode() == PUSH_MODEL
    assert found[0x1001].rstrip(b"\0").decode() == PUSH_MODEL_INSTANCE
    assert found[0x1008] == struct.pack("<H", 1)
    assert peer.pdus[-1] == RELEASE, "it was released"


def test_an_event_report_arrives_whole_and_its_answer_is_its_status() -> None:
    peer = Peer(fragments((COMMAND | LAST, response(0x0110, field=0x8100))))

    with peer, associated(peer) as association:
        assert association.event_report_status(CONTEXT, PUSH_MODEL_INSTANCE, 2, INFORMATION) == 0x0110

    ((command, data_set),) = peer.messages
    assert data_set == INFORMATION
    assert elements(command)[0x1002] == struct.pack("<H", 2)
    assert elements(command)[0x0002].rstrip(b"\0").decode() == PUSH_MODEL
    assert elements(command)[0x1000].rstrip(b"\0").decode() == PUSH_MODEL_INSTANCE


@pytest.mark.parametrize("in_one_pdu", [True, False])
def test_an_answer_in_pieces_with_a_data_set_is_put_together(in_one_pdu: bool) -> None:
    whole = response(0x0000, has_data_set=True)
    pieces = [(COMMAND, whole[:20]), (COMMAND | LAST, whole[20:]), (DATA_SET, b"ab"), (LAST, b"cd")]
    said = fragments(*pieces) if in_one_pdu else b"".join(fragments(piece) for piece in pieces)

    assert asked(Peer(said)) == 0x0000


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (fragments((COMMAND | LAST, response(field=0x8100))), "another command"),
        (fragments((LAST, b"ab"), (COMMAND | LAST, response())), "no message"),
        (fragments((COMMAND | LAST, response()), context_id=OTHER_CONTEXT_ID), "no message"),
        (
            fragments((COMMAND | LAST, response(has_data_set=True)))
            + fragments((LAST, b"ab"), context_id=OTHER_CONTEXT_ID),
            "no message",
        ),
        (
            fragments((COMMAND | LAST, response(has_data_set=True)), (COMMAND | LAST, response())),
            "no message",
        ),
        (fragments((COMMAND, response()[:20])) + RELEASE, "no message"),
        (associate_acceptance((CONTEXT_ID, 0, TRANSFER_SYNTAX)), "no message"),
        (fragments((COMMAND | LAST, response()[:-1])), "damaged command set"),
        (RELEASE, "released the association"),
        (ABORT, "aborted"),
    ],
    ids=[
        "the answer to another kind of request",
        "a data set first",
        "another context",
        "another context in the middle",
        "a command instead of a data set",
        "a release in the middle",
        "a second acceptance",
        "half an element",
        "a release",
        "an abort",
    ],
)
def test_what_is_no_answer_is_no_status(answer: bytes, words: str) -> None:
    with pytest.raises(DestinationUnavailableError, match=words):
        asked(Peer(answer))


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    piece = fragments((DATA_SET, bytes(60_000)))
    first = fragments((COMMAND | LAST, response(has_data_set=True)))
    peer = Peer(first + piece * (4 * MIB // 60_000 + 1))
    with pytest.raises(DestinationUnavailableError, match="without end"):
        asked(peer)


def test_the_longest_answer_is_read() -> None:
    command = response(has_data_set=True)
    left = 4 * MIB - len(command)
    pieces = [bytes(60_000)] * (left // 60_000)
    said = b"".join(fragments((DATA_SET, piece)) for piece in pieces)
    said += fragments((LAST, bytes(left % 60_000)))

    assert asked(Peer(fragments((COMMAND | LAST, command)) + said)) == 0x0000


def test_a_report_is_heard_and_answered_on_the_association_of_the_request() -> None:
    report = fragments((COMMAND | LAST, report_request(9)), (LAST, b"what is kept"))
    with Peer(report, speaks_first=True) as peer, associated(peer) as association:
        heard = association.next_report(CONTEXT, PATIENCE_S)
        assert heard == EventReport(ReportRequest(9, PUSH_MODEL, PUSH_MODEL_INSTANCE, 2), b"what is kept")
        association.answer_report(CONTEXT, heard, 0x0115)

    ((command, _),) = peer.messages
    assert elements(command)[0x0100] == struct.pack("<H", 0x8100)
    assert elements(command)[0x0120] == struct.pack("<H", 9)
    assert elements(command)[0x0900] == struct.pack("<H", 0x0115)


def test_a_report_that_does_not_come_in_time_is_none_and_the_association_goes_on() -> None:
    with Peer(fragments((COMMAND | LAST, response()))) as peer, associated(peer) as association:
        assert association.next_report(CONTEXT, 0.01) is None
        assert association.is_usable
        assert association.action_status(CONTEXT, PUSH_MODEL_INSTANCE, 1, INFORMATION) == 0x0000


def test_a_peer_that_releases_instead_of_reporting_is_let_go() -> None:
    with Peer(RELEASE, speaks_first=True) as peer, associated(peer) as association:
        assert association.next_report(CONTEXT, PATIENCE_S) is None
        assert not association.is_usable
    assert RELEASED in peer.pdus, "its release was answered"


def test_a_request_that_is_no_report_ends_the_association() -> None:
    asks = fragments((COMMAND | LAST, response(has_data_set=True)), (LAST, b"ab"))
    with Peer(asks, speaks_first=True) as peer, associated(peer) as association:
        with pytest.raises(DestinationUnavailableError, match="no report"):
            association.next_report(CONTEXT, PATIENCE_S)
        assert not association.is_usable
