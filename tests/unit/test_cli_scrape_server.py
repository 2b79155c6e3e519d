"""Numbers are told to whoever asks; whoever holds a connection and says nothing does not keep it."""

from __future__ import annotations

import socket
import struct
import threading
import urllib.request

from prometheus_client import CollectorRegistry, Gauge

from dicom_node.cli.processes.scrape_server import answering_scrapes


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("answers", "A number.", registry=made).set(42)
    return made


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def test_a_scrape_is_answered_beside_a_peer_that_says_nothing() -> None:
    with (
        answering_scrapes("127.0.0.1", 0, registry()) as port,
        connected(port),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer,
    ):
        assert b"answers 42.0" in answer.read()


def test_a_peer_that_asks_for_nothing_loses_its_connection_and_holds_no_thread() -> None:
    before = set(threading.enumerate())
    with answering_scrapes("127.0.0.1", 0, registry(), silence_s=0.05) as port:
        silent, halfway = connected(port), connected(port)
        halfway.sendall(b"GET /metrics HTTP/1.1\r\n")
        with silent, halfway:
            assert (silent.recv(1), halfway.recv(1)) == (b"", b"")
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_a_peer_that_leaves_before_its_answer_costs_nobody_else_theirs() -> None:
    with answering_scrapes("127.0.0.1", 0, registry()) as port:
        with connected(port) as left:
            left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            left.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert answer.status == 200
