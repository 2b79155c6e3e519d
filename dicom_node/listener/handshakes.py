"""TLS handshakes of accepted connections: in the connection's own thread, with a deadline.

A handshake in the loop that accepts lets one silent peer lock out all others.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from dicom_node.tls import ServerTls, certificate_names, handshake_failure

_LINGER_S = 0.5
_LINGER_BYTES = 65536


class Handshakes:
    """Turns accepted connections into secure ones.

    Parameters
    ----------
    tls : ServerTls
        The certificates.
    deadline_s : float
        From the connection to the end of its handshake.
    on_event : callable
        Told of every failure: ``on_event("security.tls_refused", detail)``.
    """

    def __init__(
        self, tls: ServerTls, deadline_s: float, on_event: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self._tls = tls
        self._deadline_s = deadline_s
        self._on_event = on_event
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def running_from(self, address: str) -> int:
        """Return how many connections of a network address are in their handshake."""
        with self._lock:
            return self._running[address]

    @property
    def running(self) -> int:
        """How many connections are in their handshake."""
        with self._lock:
            return self._running.total()

    def expect(self, address: str) -> None:
        """Count a connection before its thread starts, so that a flood is seen while it comes."""
        with self._lock:
            self._running[address] += 1

    def forget(self, address: str) -> None:
        """Count a connection no more."""
        with self._lock:
            self._running[address] -= 1
            if self._running[address] <= 0:
                del self._running[address]

    def secure(self, connection: socket.socket, address: str) -> ssl.SSLSocket | None:
        """Do the handshake of an expected connection.

        Returns
        -------
        ssl.SSLSocket or None
            None where there was none: the connection is closed, and the audit trail told.
        """
        secured: ssl.SSLSocket | None = None
        try:
            timeout = connection.gettimeout()
            secured = self._tls.context().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            # One deadline for the whole handshake, whatever the pace of its bytes.
            secured.settimeout(self._deadline_s)
            secured.do_handshake()
            secured.settimeout(timeout)
        except OSError as error:
            _close_after_alert(secured or connection)
            detail = {"peer_address": address, "reason": handshake_failure(error)}
            self._on_event("security.tls_refused", detail)
            return None
        finally:
            self.forget(address)
        return secured


def _close_after_alert(connection: socket.socket) -> None:
    """Close so that the peer can read why: what it still sends would make the kernel reset the connection."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_LINGER_S)
        connection.recv(_LINGER_BYTES)
    connection.close()


def names_of(connection: object) -> frozenset[str] | None:
    """Return the names of a connection's verified certificate; None where it is not secure."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    return certificate_names(connection.getpeercert() or {})
