"""Ports for servers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket

# The system's own randomness: a test that seeds Python's would make all workers choose alike.
_RANDOM = random.SystemRandom()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on.

    It lies below those that the kernel gives to outgoing connections: none of another test gets it meanwhile.
    """
    for port in _RANDOM.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port; end what holds thousands of them")
