"""A storage SCU that can say anything: written against the standard, not with the node's code."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tests.simulators.pdu_bytes import elements, item

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_C_STORE_RQ = 0x0001
_C_ECHO_RQ = 0x0030
_PATIENCE_S = 60  # an answer waits for several syncs of a disk that may be slow


class AssociationRejectedError(Exception):
    """The peer answered with A-ASSOCIATE-RJ: (result, source, reason)."""


class AssociationEndedError(Exception):
    """The peer sent A-ABORT or closed the connection."""


@dataclass(frozen=True)
class Proposal:
    """One presentation context to propose."""

    abstract_syntax: str
    transfer_syntax: str


class RawScu:
    """One association, opened by its constructor.

    Parameters
    ----------
    port : int
        Port on the loopback interface.
    proposals : Proposal
        One presentation context each.
    calling, called : str
        AE titles.
    source : str
        Own network address.
    tls : ssl.SSLContext, optional
        Speak TLS, whoever the node is.
    user : (str, str), optional
        User name and passcode of a user identity item (PS3.7 D.3.3.7).
    """

    def __init__(
        self,
        port: int,
        *proposals: Proposal,
        calling: str = "RAWSCU",
        called: str = "NODE",
        source: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        user: tuple[str, str] | None = None,
    ) -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=_PATIENCE_S, source_address=(source, 0)
        )
        self.results: list[int] = []
        self._message_id = 0
        try:
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
            self._request(associate_request(proposals, calling, called, user))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> RawScu:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _request(self, encoded: bytes) -> None:
        self.socket.sendall(encoded)
        kind, body = self.read_pdu()
        if kind == 0x03:
            raise AssociationRejectedError(tuple(body[1:4]))
        assert kind == 0x02, f"PDU type {kind} instead of A-ASSOCIATE-AC"
        self.results = _context_results(body)

    def store(
        self, data: bytes | None, sop_class_uid: str, sop_instance_uid: str, *, context_id: int = 1
    ) -> int:
        """Send one object and wait for its status."""
        self.send_command(_C_STORE_RQ, sop_class_uid, sop_instance_uid, context_id, has_data=data is not None)
        if data is not None:
            self.send_data(data, context_id)
        return self.read_status()

    def echo(self, context_id: int = 1) -> int:
        """Send one C-ECHO and wait for its status."""
        self.send_command(_C_ECHO_RQ, VERIFICATION, None, context_id, has_data=False)
        return self.read_status()

    def send_command(
        self,
        field: int,
        sop_class_uid: str,
        sop_instance_uid: str | None,
        context_id: int = 1,
        *,
        has_data: bool = True,
        more: Mapping[int, bytes] | None = None,
    ) -> None:
        """Send a command set in one PDU; with more elements, which come last."""
        self._message_id += 1
        values: dict[int, bytes] = {
            0x0002: _padded(sop_class_uid),
            0x0100: struct.pack("<H", field),
            0x0110: struct.pack("<H", self._message_id),
            0x0700: struct.pack("<H", 0),
            0x0800: struct.pack("<H", 0x0001 if has_data else 0x0101),
        }
        if sop_instance_uid is not None:
            values[0x1000] = _padded(sop_instance_uid)
        values.update(more or {})
        body = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in values.items())
        self.socket.sendall(p_data(struct.pack("<HHII", 0, 0, 4, len(body)) + body, context_id, 0x03))

    def send_data(self, data: bytes, context_id: int = 1, *, is_whole: bool = True) -> None:
        """Send a data set, in PDUs of at most 32 KiB."""
        step = 32 * 1024 - 12
        for start in range(0, max(len(data), 1), step):
            is_last = is_whole and start + step >= len(data)
            self.socket.sendall(p_data(data[start : start + step], context_id, 0x02 if is_last else 0x00))

    def read_status(self) -> int:
        """Wait for a response."""
        kind, body = self.read_pdu()
        assert kind == 0x04, f"PDU type {kind} instead of a response"
        return int(struct.unpack("<H", elements(body[6:])[0x0900])[0])

    def release(self) -> None:
        """Release the association and wait for the answer."""
        self.socket.sendall(struct.pack(">BxIxxxx", 0x05, 4))
        kind, _ = self.read_pdu()
        assert kind == 0x06, f"PDU type {kind} instead of A-RELEASE-RP"
        self.socket.close()

    def abort(self) -> None:
        """Send A-ABORT and close."""
        self.socket.sendall(struct.pack(">BxIxxBB", 0x07, 4, 0, 0))
        self.socket.close()

    def read_pdu(self) -> tuple[int, bytes]:
        """Wait for one PDU.

        Raises
        ------
        AssociationEndedError
            If the peer aborts or closes.
        """
        try:
            kind, length = struct.unpack(">BxI", self._read(6))
            body = self._read(length)
        except ConnectionError as error:
            raise AssociationEndedError from error
        if kind == 0x07:
            raise AssociationEndedError
        return kind, body

    def wait_for_end(self) -> None:
        """Read until the peer aborts or closes; fail when it goes on talking."""
        try:
            kind, _ = self.read_pdu()
        except AssociationEndedError:
            return
        raise AssertionError(f"the peer sent a PDU of type {kind}")

    def _read(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            chunk = self.socket.recv(length - len(received))
            if not chunk:
                raise ConnectionResetError
            received += chunk
        return received


def associate_request(
    proposals: tuple[Proposal, ...], calling: str, called: str, user: tuple[str, str] | None = None
) -> bytes:
    """Encode an A-ASSOCIATE-RQ PDU (PS3.8 9.3.2)."""
    contexts = b"".join(
        item(
            0x20,
            struct.pack(">Bxxx", 2 * index + 1)
            + item(0x30, proposal.abstract_syntax.encode())
            + item(0x40, proposal.transfer_syntax.encode()),
        )
        for index, proposal in enumerate(proposals)
    )
    about = item(0x51, struct.pack(">I", 65536)) + item(0x52, b"1.2.3.4")
    if user is not None:
        name, passcode = (part.encode() for part in user)
        fields = struct.pack(">H", len(name)) + name + struct.pack(">H", len(passcode)) + passcode
        about += item(0x58, struct.pack(">BB", 2, 0) + fields)
    body = (
        struct.pack(">Hxx16s16s32x", 1, called.ljust(16).encode(), calling.ljust(16).encode())
        + item(0x10, _APPLICATION_CONTEXT)
        + contexts
        + item(0x50, about)
    )
    return struct.pack(">BxI", 0x01, len(body)) + body


def p_data(fragment: bytes, context_id: int, control: int) -> bytes:
    """Encode a P-DATA-TF PDU with one fragment (PS3.8 9.3.5)."""
    head = struct.pack(">BxIIBB", 0x04, len(fragment) + 6, len(fragment) + 2, context_id, control)
    return head + fragment


def _context_results(body: bytes) -> list[int]:
    results, start = [], 68
    while start < len(body):
        kind, length = struct.unpack_from(">BxH", body, start)
        if kind == 0x21:
            results.append(body[start + 6])
        start += 4 + length
    return results


def _padded(uid: str) -> bytes:
    encoded = uid.encode("utf-8")
    return encoded + b"\0" * (len(encoded) % 2)
