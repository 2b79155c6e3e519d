"""Fixtures that every test folder shares."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import hypothesis
import pytest
from pynetdicom.transport import AssociationSocket

from tests.captured_log import log
from tests.databases import (
    audit_key,
    database,
    database_kind,
    database_url,
    empty_database_url,
    new_database_url,
    postgres_server,
    sqlite_template,
)
from tests.steered_node import node

__all__ = [
    "audit_key",
    "database",
    "database_kind",
    "database_url",
    "empty_database_url",
    "log",
    "new_database_url",
    "node",
    "postgres_server",
    "sqlite_template",
]

# How long an example takes says more about what else the machine does than about the code.
hypothesis.settings.register_profile("node", deadline=None)
hypothesis.settings.load_profile("node")


@pytest.fixture(autouse=True, scope="session")
def closed_sockets_of_simulators() -> None:
    """Let pynetdicom, which plays other makes of systems, close its sockets also where the peer left first.

    Its own way skips the close when the shutdown before it fails; the garbage collector then blames whichever
    test runs later.
    """

    def shut_down(self: Any) -> None:
        line = self.socket  # another thread may take it away meanwhile
        if line is not None:
            with contextlib.closing(line), contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    AssociationSocket._shutdown_socket = shut_down
