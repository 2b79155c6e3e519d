"""Several listener processes on one port: started, started again, and stopped together.

Each child has a listening socket of its own with SO_REUSEPORT, and the kernel spreads new connections over
them; so a child that dies takes its own connections along and no others, and no socket is inherited that one
could shut down for all.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from dicom_node import installation
from dicom_node.cli.processes.supervisor import Part, Supervisor
from dicom_node.cli.wiring import open_database, start_process
from dicom_node.errors import PortUnavailableError
from dicom_node.settings import Settings


def run_together(settings: Settings, where: Sequence[str]) -> int:
    """Run ``listener.processes`` listeners until SIGTERM.

    Parameters
    ----------
    settings : Settings
        The node's.
    where : sequence of str
        The options that tell a child where its settings are.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    PortUnavailableError
        If another program has the port.
    """
    start_process("listen")
    with open_database(settings, upgrade=True):
        pass  # tables and keys exist before the first child starts
    with ExitStack() as stack:
        port, tls = settings.port, settings.listener.tls
        # Held without listening: no other program gets a port while children come and go.
        if settings.listener.plain:
            port = stack.enter_context(_held(settings.host, port)).getsockname()[1]
        if tls.files is not None:
            stack.enter_context(_held(settings.host, tls.port))
        command = [*installation.console_script(), "listen", *where, "--shared-port", str(port)]
        count = settings.listener.processes
        supervisor = Supervisor([Part(f"listen-{number}", command) for number in range(1, count + 1)])
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        return supervisor.run()


def _held(host: str, port: int) -> socket.socket:
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # Without the option to share it first: only that fails when a stranger listens with the option, too.
        probe.bind((host, port))
        port = probe.getsockname()[1]
        probe.close()
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        raise PortUnavailableError(host, port, error, choices="--port, listener.tls.port") from error
    return held
