"""One TLS connection that ends by agreement, and tells whether it did.

The protocol runs in memory, apart from the connection: only so is it certain that our close_notify is on its
way before the peer's is looked at. :meth:`ssl.SSLSocket.unwrap` does both at once; it cannot tell a quick
answer from a peer that was closing already, and in some versions of Python not even from a plain end.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable

_PIECE_BYTES = 64 * 1024


class TlsConversation:
    """The client's side of a connection, its handshake done.

    Parameters
    ----------
    connection : socket.socket
        Connected; closed by whoever opened it.
    context : ssl.SSLContext
        What is trusted and shown.
    server_name : str
        What the peer's certificate must name.
    timeout_s : float
        For all of it.

    Raises
    ------
    OSError
        As every method: the handshake fails, the connection is lost, or the time is over.
    """

    def __init__(
        self, connection: socket.socket, context: ssl.SSLContext, server_name: str, timeout_s: float
    ) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + timeout_s
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        try:
            self._until_done(self._tls.do_handshake)
        except ssl.SSLError:
            # The alert that tells the peer why.
            with contextlib.suppress(OSError):
                self._send_what_waits()
            raise

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._until_done(lambda: self._tls.write(data))

    def end(self) -> bool:
        """Say close_notify, and return whether the peer says it after that, instead of merely going away."""
        self._connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self._take_in()
        if self._has_ended():
            # It was closing before it had been told of the end: what it read by then, nobody knows.
            return False
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._send_what_waits()
        try:
            while not self._has_ended():
                self._receive()
        except ssl.SSLZeroReturnError:
            return True
        return False

    def _has_ended(self) -> bool:
        """Pass over what the peer said so far, which asks for no answer; return whether it ended."""
        try:
            while self._tls.read(_PIECE_BYTES):
                """Not expected, and of no meaning."""
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLEOFError:
            return True
        return True

    def _until_done(self, step: Callable[[], object]) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self._send_what_waits()
                self._receive()
            else:
                self._send_what_waits()
                return

    def _send_what_waits(self) -> None:
        self._connection.settimeout(self._left_s())
        self._connection.sendall(self._outgoing.read())

    def _receive(self) -> None:
        self._connection.settimeout(self._left_s())
        self._take_in()

    def _take_in(self) -> None:
        if received := self._connection.recv(_PIECE_BYTES):
            self._incoming.write(received)
        else:
            self._incoming.write_eof()

    def _left_s(self) -> float:
        return max(self._deadline - time.monotonic(), 0.001)
