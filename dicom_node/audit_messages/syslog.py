"""The way to a syslog sink: RFC 5424 messages over TLS (RFC 5425) or UDP (RFC 5426); PS3.15 A.6 and A.7.

Syslog has no acknowledgement. Over TLS the sender says that it is done (close_notify) and waits until the
sink says so, too: RFC 5425 section 4.4 obliges it to answer, and it can answer no sooner than it has read
everything. A sink that vanished instead gets the same messages again. Over UDP nothing is known of what
arrived.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol

from dicom_node.audit_messages.host_lookup import HostLookup
from dicom_node.audit_messages.message import AuditMessage
from dicom_node.audit_messages.tls_conversation import TlsConversation
from dicom_node.errors import SinkUnavailableError
from dicom_node.tls import handshake_failure

FACILITY = 10  # security and authorisation messages
NOTICE, WARNING = 5, 4
APP_NAME = "dicom-node"
MESSAGE_ID = "DICOM+RFC3881"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # RFC 5424 section 6.4: what follows is UTF-8


class Sink(Protocol):
    """Takes messages."""

    def send(self, messages: Sequence[bytes]) -> None:
        """Hand messages over, in this order, all or none.

        Raises
        ------
        SinkUnavailableError
            If it cannot be told whether the sink took them; hand them over again.
        """


def syslog_message(message: AuditMessage, *, source: str, site: str = "") -> bytes:
    """Return a message in the form of RFC 5424.

    Parameters
    ----------
    message : AuditMessage
        Its content.
    source, site : str
        See :meth:`~dicom_node.audit_messages.message.AuditMessage.xml`.
    """
    priority = FACILITY * 8 + (WARNING if message.is_warning else NOTICE)
    header = f"<{priority}>1 {message.at} {_host_name()} {APP_NAME} {os.getpid()} {MESSAGE_ID} - "
    return header.encode("ascii") + _BYTE_ORDER_MARK + message.xml(source, site)


class TlsSink:
    """A sink over TLS with octet counting (RFC 5425 section 4.3).

    Parameters
    ----------
    host, port : str, int
        Where it listens; its certificate must name the host.
    context : callable
        Returns the TLS context; called for each connection, so that new certificates need no restart.
    wait_for_close : bool
        Whether messages count as taken only when the sink answers close_notify; otherwise also when it closes
        the connection in order.
    timeout_s : float
        For looking its name up, for the connection to each of its addresses, and for everything after it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: Callable[[], ssl.SSLContext],
        *,
        wait_for_close: bool = True,
        timeout_s: float = 10.0,
    ) -> None:
        self._host = host
        self._port = port
        self._lookup = HostLookup(host, port, socket.SOCK_STREAM, timeout_s=timeout_s)
        self._context = context
        self._wait_for_close = wait_for_close
        self._timeout_s = timeout_s

    def send(self, messages: Sequence[bytes]) -> None:
        """Hand messages over in one connection."""
        context = self._context()
        try:
            with self._connected() as connection:
                conversation = TlsConversation(connection, context, self._host, self._timeout_s)
                for message in messages:
                    conversation.write(b"%d %s" % (len(message), message))
                if not conversation.end() and self._wait_for_close:
                    raise ConnectionAbortedError(errno.ECONNABORTED, "closed without close_notify")
        except OSError as error:
            why = handshake_failure(error) if isinstance(error, ssl.SSLError) else _words(error)
            raise SinkUnavailableError(
                f"the syslog sink {self._host}:{self._port} did not take the audit messages ({why}); "
                "they wait; check that it runs, and audit.syslog"
            ) from error

    def _connected(self) -> socket.socket:
        failure: OSError | None = None
        for *_, address in self._lookup.addresses():
            try:
                return socket.create_connection(address[:2], self._timeout_s)
            except OSError as error:
                failure = failure or error
        raise failure or ConnectionError(errno.EADDRNOTAVAIL, "it has no address")


class UdpSink:
    """A sink over UDP, one message a datagram.

    Parameters
    ----------
    host, port : str, int
        Where it listens.
    timeout_s : float
        For looking its name up.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float = 10.0) -> None:
        self._host = host
        self._port = port
        self._lookup = HostLookup(host, port, socket.SOCK_DGRAM, timeout_s=timeout_s)

    def send(self, messages: Sequence[bytes]) -> None:
        """Hand messages over to the network."""
        try:
            family, kind, protocol, address = self._lookup.addresses()[0]
            with socket.socket(family, kind, protocol) as sender:
                for message in messages:
                    sender.sendto(message, address)
        except OSError as error:
            raise SinkUnavailableError(
                f"the syslog sink {self._host}:{self._port} cannot be reached ({_words(error)}); the audit "
                "messages wait; check audit.syslog"
            ) from error


def _host_name() -> str:
    """Return this machine's name in the characters that RFC 5424 section 6 allows, - for none."""
    return "".join(c for c in socket.gethostname() if "!" <= c <= "~")[:255] or "-"


def _words(error: OSError) -> str:
    return "it took too long" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__
