"""Ports for servers that tests start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

# The system's own randomness: a test that seeds Python's would make all workers choose alike.
_RANDOM = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on, this process's own until it ends.

    It lies below those that the kernel gives to outgoing connections: no other test gets it, also while what
    listens on it is started again.
    """
    for port in _RANDOM.sample(range(20_000, 32_000), 1000):
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            # The byte of this number in a file that all test processes share; the kernel frees it at the end.
            fcntl.lockf(_register(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
    raise AssertionError("no free port; end what holds thousands of them")


@cache
def _register() -> int:
    path = Path(tempfile.gettempdir()) / f"dicom-node-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
