"""All processes of a node on one machine: what must hold before they start, which they are, and their end."""

from __future__ import annotations

import signal
import socket
from functools import partial

import structlog

from db import jobs
from db.errors import DatabaseError
from dicom_node import installation
from dicom_node.cli.processes.supervisor import Part, Supervisor
from dicom_node.cli.wiring import (
    asked_tasks,
    audit_checkpoints,
    open_database,
    process_name,
    start_process,
)
from dicom_node.errors import PortUnavailableError
from dicom_node.settings import Settings
from dicom_node.tls import ServerTls

LEASES_LOCK_TIMEOUT_S = 2.0  # meanwhile nobody looks after the other parts


def require_startable(settings: Settings) -> None:
    """Refuse at once what a part would refuse after everything else has started.

    Parameters
    ----------
    settings : Settings
        The node's.

    Raises
    ------
    SettingsError
        If a task is unknown, or the certificates of the listener cannot be used.
    PortUnavailableError
        If another program has one of the node's ports.
    """
    asked_tasks(settings)
    tls, metrics = settings.listener.tls, settings.metrics
    if tls.files is not None:
        ServerTls(tls.files)
    places = [(settings.host, settings.port)] if settings.listener.plain else []
    places += [(settings.host, tls.port)] if tls.files is not None else []
    places += [(metrics.host, metrics.port)] if metrics.port is not None else []
    for host, port in places:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                choices = "--port, listener.tls.port, metrics.port"
                raise PortUnavailableError(host, port, error, choices=choices) from error


def run(settings: Settings) -> int:
    """Run all parts of the node until SIGTERM.

    Parameters
    ----------
    settings : Settings
        The node's.

    Returns
    -------
    int
        The exit status.
    """
    start_process("serve")
    with open_database(settings, upgrade=True):
        pass  # tables and keys exist before the first part starts
    supervisor = Supervisor(_parts(settings), partial(_end_leases, settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    status = supervisor.run()
    _sign_the_end(settings)
    return status


def _sign_the_end(settings: Settings) -> None:
    """Sign a last audit checkpoint, so that nothing before a clean stop can be cut off unseen."""
    try:
        with open_database(settings) as database:
            audit_checkpoints(settings, database)()
    except DatabaseError as error:
        structlog.get_logger(__name__).warning("audit.no_checkpoint", reason=str(error))


def _end_leases(settings: Settings, part: Part, pid: int) -> bool:
    """Let another worker have a dead one's job at once; return False where the database is away or busy."""
    if part.queue is None:
        return True
    worker = process_name(part.queue, pid)
    try:
        with (
            open_database(settings, lock_timeout_s=LEASES_LOCK_TIMEOUT_S) as database,
            database.transaction(process_name("serve")) as tx,
        ):
            ended = jobs.end_leases(tx, worker)
    except DatabaseError as error:
        structlog.get_logger(__name__).warning("part.leases_not_ended", part=part.name, reason=str(error))
        return False
    if ended:
        structlog.get_logger(__name__).info("part.leases_ended", part=part.name, jobs=ended)
    return True


def _parts(settings: Settings) -> list[Part]:
    """Return the processes of a node; each finds its settings by the data directory."""
    command = [*installation.console_script()]
    where = ["--data-dir", str(settings.data_dir)]
    parts = [Part("listen", [*command, "listen", *where]), Part("dispatch", [*command, "dispatch", *where])]
    for queue, count in (
        ("score", settings.scoring.workers),
        ("deliver", settings.delivery.workers),
        # Beside the deliver workers, so that waiting for a report holds no delivery up.
        ("commit", int(settings.uses_commitment)),
        ("train", settings.training.workers),
    ):
        parts += [
            Part(f"{queue}-{number}", [*command, "work", "--queues", queue, *where], queue)
            for number in range(1, count + 1)
        ]
    if settings.metrics.port is not None:
        parts.append(Part("metrics", [*command, "metrics", *where]))
    return parts
