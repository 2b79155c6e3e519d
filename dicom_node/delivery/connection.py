"""One TCP connection to a destination that carries whole PDUs, with a deadline on every wait.

A socket time-out alone bounds one ``recv``, not a PDU that comes a byte at a time; here whole exchanges
have a deadline. Which PDU may follow which is not known here: that is :mod:`dicom_node.delivery.association`.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time

from dicom_node.delivery.destination import Destination
from dicom_node.errors import DestinationUnavailableError
from dicom_node.tls import handshake_failure

# PS3.8 9.3: PDU types.
A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = 2, 3, 4, 5, 6, 7

LARGEST_RECEIVED_PDU_BYTES = 65536
"""A longer PDU than any answer to this node needs is not read."""

_ABORT_S = 0.2


class Deadline:
    """A moment after which nothing waits any longer.

    Parameters
    ----------
    seconds : float
        From now to that moment.
    longest_wait_s : float, optional
        Bound of each single wait; by default all that is left.
    """

    def __init__(self, seconds: float, longest_wait_s: float | None = None) -> None:
        self._end = time.monotonic() + seconds
        self._longest_wait_s = seconds if longest_wait_s is None else longest_wait_s

    def apply(self, line: socket.socket) -> None:
        """Let the next call on the socket wait as long as is left.

        Raises
        ------
        TimeoutError
            If nothing is left.
        """
        left_s = self._end - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        line.settimeout(min(left_s, self._longest_wait_s))


class Connection:
    """Bytes and PDUs out and in, until the first fault.

    Parameters
    ----------
    line : socket.socket
        Connected; owned and in the end closed by this object.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.is_usable = True
        """False after the first fault, release or abort: nothing more may be asked."""

    def send(self, encoded: bytes, deadline: Deadline) -> None:
        """Hand all bytes over to the operating system.

        Raises
        ------
        DestinationUnavailableError
            If not all of them could be handed over.
        """
        try:
            deadline.apply(self._line)
            self._line.sendall(encoded)
        except TimeoutError as exc:
            raise self.fault("stopped taking bytes") from exc
        except OSError as exc:
            raise self.fault("dropped the connection") from exc

    def receive_pdu(self, deadline: Deadline) -> tuple[int, bytes]:
        """Read one whole PDU.

        Returns
        -------
        kind : int
            The PDU's type.
        pdu : bytes
            All of it, header included.

        Raises
        ------
        DestinationUnavailableError
            If none came in time, it is no PDU, or it is an A-ABORT.
        """
        header = self._receive(6, deadline)
        kind, length = struct.unpack(">BxI", header)
        if not A_ASSOCIATE_AC <= kind <= A_ABORT or length > LARGEST_RECEIVED_PDU_BYTES:
            raise self.fault("sent bytes that are no DICOM PDU")
        body = self._receive(length, deadline)
        if kind == A_ABORT:
            raise self.fault("aborted the association")
        return kind, header + body

    def has_input(self, seconds: float) -> bool:
        """Wait until something can be read, or the peer closed; return False where nothing came in time."""
        if isinstance(self._line, ssl.SSLSocket) and self._line.pending():
            return True
        waiting = select.poll()  # takes descriptors of any number, which select.select does not
        waiting.register(self._line, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def abort(self) -> None:
        """Tell the peer, if it listens, that the association is over; never waits long."""
        self.is_usable = False
        try:
            self._line.settimeout(_ABORT_S)
            self._line.sendall(struct.pack(">BxIxxBB", A_ABORT, 4, 0, 0))
        except OSError:
            # The peer has gone already; closing is all that is left to do.
            return

    def close(self) -> None:
        """Give the socket back."""
        self._line.close()

    def fault(self, what: str) -> DestinationUnavailableError:
        """Make the error for what the destination did; nothing more may be asked on this connection."""
        self.is_usable = False
        return DestinationUnavailableError(f"the destination {what}")

    def _acknowledge_quickly(self) -> None:
        # A peer with Nagle's algorithm on sends the second half of its answer only when the first is
        # acknowledged, which else takes 40 ms per answer. Linux alone has the option, and forgets it.
        if hasattr(socket, "TCP_QUICKACK"):
            self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _receive(self, count: int, deadline: Deadline) -> bytes:
        received = bytearray()
        while len(received) < count:
            try:
                deadline.apply(self._line)
                self._acknowledge_quickly()
                chunk = self._line.recv(count - len(received))
            except TimeoutError as exc:
                raise self.fault("did not answer in time") from exc
            except ssl.SSLError as exc:
                # In TLS 1.3 the acceptor judges this node's certificate after the handshake.
                advice = "see its log, and whether it trusts this node's certificate"
                raise self.fault(f"ended the secure connection ({handshake_failure(exc)}); {advice}") from exc
            except OSError as exc:
                raise self.fault("dropped the connection") from exc
            if not chunk:
                raise self.fault("closed the connection without an answer")
            received += chunk
        return bytes(received)


def connect(destination: Destination, connect_s: float, tls: ssl.SSLContext | None = None) -> Connection:
    """Open a TCP connection, secured before anything is said on it where there is a context for that.

    Parameters
    ----------
    destination : Destination
        Host and port; each of the host's addresses is tried.
    connect_s : float
        Bound of the whole call in seconds, the resolver's own time apart.
    tls : ssl.SSLContext, optional
        The destination's certificate must name its host.

    Raises
    ------
    DestinationUnavailableError
        If nobody answers there, or the one who does is not who it should be.
    """
    deadline = Deadline(connect_s)
    try:
        addresses = socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise DestinationUnavailableError("the destination's host name cannot be resolved") from exc
    failure: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        line = socket.socket(family, kind, protocol)
        try:
            deadline.apply(line)
            line.connect(address)
            # Else the last, short PDU of a message waits for the acknowledgement of the one before.
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            line.close()
            failure = exc
        else:
            return Connection(line if tls is None else _secured(line, tls, destination.host, deadline))
    raise DestinationUnavailableError(_connection_failure(failure, connect_s)) from failure


def _secured(line: socket.socket, tls: ssl.SSLContext, host: str, deadline: Deadline) -> ssl.SSLSocket:
    secured = line
    try:
        secured = tls.wrap_socket(line, server_hostname=host, do_handshake_on_connect=False)
        deadline.apply(secured)
        secured.do_handshake()
    except OSError as exc:
        secured.close()
        raise DestinationUnavailableError(
            f"no secure connection to the destination ({handshake_failure(exc)}); see that it takes TLS on "
            "this port, that its certificate names its host, and that each side trusts the other's authority"
        ) from exc
    return secured


def _connection_failure(failure: OSError | None, connect_s: float) -> str:
    if isinstance(failure, ConnectionRefusedError):
        return "the destination refused the connection; is it running, and is the port right?"
    if isinstance(failure, TimeoutError):
        return f"no connection to the destination within {connect_s:g} s; is the address right?"
    reason = failure.strerror if failure is not None else "it has no address"
    return f"no connection to the destination: {reason}"
