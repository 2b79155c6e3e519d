"""Answers Prometheus over HTTP; a peer that asks for nothing, or does not read, is not waited for."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

SILENCE_S = 10.0

_log = structlog.get_logger(__name__)


@contextmanager
def answering_scrapes(
    host: str, port: int, registry: CollectorRegistry, *, silence_s: float = SILENCE_S
) -> Iterator[int]:
    """Answer scrapes in threads of their own while the block runs.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one.
    registry : prometheus_client.CollectorRegistry
        What is told.
    silence_s : float
        Seconds after which a peer that neither asks nor reads loses its connection: a line that was cut
        without a word would hold a thread and an open file for as long as the process lives.

    Yields
    ------
    int
        The port.

    Raises
    ------
    OSError
        If the port cannot be listened on.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    handler = type("Handler", (_Handler,), {"timeout": silence_s})
    with type("Server", (_Server,), {"address_family": family})(address[:2], handler) as server:
        server.set_app(make_wsgi_app(registry))
        thread = threading.Thread(target=server.serve_forever, name="scrapes", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes come every few seconds: they are not told."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of a peer that left before it had its answer, in one line."""
        _log.info("metrics.scrape_cut_off", reason=type(sys.exception()).__name__)
