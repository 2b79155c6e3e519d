"""The listener's process: from its settings to its last answer."""

from __future__ import annotations

import gc
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import structlog

from db.session import Database
from dicom_node.cli.processes.database_file import DatabaseFile
from dicom_node.cli.processes.journals import open_journal, recover_journals
from dicom_node.cli.processes.presence import SIGN_OF_LIFE_S, Presence
from dicom_node.cli.processes.stopping import when_told_to_stop
from dicom_node.cli.security import admission, listener_tls
from dicom_node.cli.wiring import (
    audit_configuration,
    completeness,
    open_database,
    process_name,
    start_process,
)
from dicom_node.errors import PortUnavailableError
from dicom_node.listener.backlog import Backlog
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.owed_rows import Journaling, OwedRows
from dicom_node.listener.quarantine import Quarantine, Quarantining
from dicom_node.listener.registration import Registrar
from dicom_node.listener.server import Listener, Storing
from dicom_node.listener.services import Service
from dicom_node.listener.transport import Port
from dicom_node.settings import Settings
from dicom_node.spool import Spool

STOP_DEADLINE_S = 20.0
ABORT_S = 1.0  # for the peers that are told of the end
GOODBYE_S = 4.0  # after STOP_DEADLINE_S; 'serve' kills what is left after 30 s
LOOK_EVERY_S = 0.5
STOPPING_THREAD = "listener-stop"
_FILES_OF_A_CONNECTION = 3  # its socket, the object that comes, the folder that is synced
_OTHER_FILES = 128

_log = structlog.get_logger(__name__)


def run(settings: Settings, *, shared_port: int | None = None) -> None:
    """Receive until SIGTERM, then finish what is in hand.

    Parameters
    ----------
    settings : Settings
        The node's.
    shared_port : int, optional
        The port, where other processes accept on it, too.
    """
    if shared_port is not None:
        settings = settings.model_copy(update={"port": shared_port})
    start_process("listen")
    stopping = threading.Event()
    when_told_to_stop(stopping.set, deadline_s=STOP_DEADLINE_S + GOODBYE_S)
    name = process_name("listen")
    with ExitStack() as stack:
        database = stack.enter_context(open_database(settings, upgrade=True))
        audit_configuration(settings, database, name)
        recover_journals(settings, database, name)
        file, spool = DatabaseFile(settings), Spool(settings.spool_dir)
        registrar = Registrar(database, completeness(settings), spool=spool, actor=name)
        journaling = stack.enter_context(_journaling(settings, database, file, spool))
        quarantining = _quarantining(settings)
        backlog = Backlog(database, settings.listener.max_waiting_jobs)
        limits, admits = listener_limits(settings), admission(settings)
        services = [_commitment(settings, database, spool, registrar)] if settings.uses_commitment else []
        listeners = [
            Listener(
                settings.ae_title,
                port,
                Storing(spool, file.relied_on_by(registrar.register), journaling, quarantining),
                limits=limits,
                on_event=registrar.on_event,
                admission=admits,
                services=services,
                is_congested=backlog.is_too_long,
            )
            for port in _ports(settings, are_shared=shared_port is not None)
        ]
        _claim_open_files(len(listeners) * limits.max_connections)
        for listener in listeners:
            _start(listener, settings)
        # In a thread of its own: this one may wait for the database when the signal comes.
        ending = threading.Thread(target=_stop_when_told, args=(stopping, listeners), daemon=True)
        ending.start()
        presence = Presence(database, name, "listen")
        # What is loaded now stays; to look through it for garbage stops all associations for a while.
        gc.freeze()
        _look_around(stopping, file, presence, backlog)
        ending.join()
        presence.say_goodbye()


@contextmanager
def _journaling(
    settings: Settings, database: Database, file: DatabaseFile, spool: Spool
) -> Iterator[Journaling | None]:
    """Open what makes small objects durable; at its end their rows are committed. None where it is off."""
    if not settings.listener.journal:
        yield None
        return
    with open_journal(settings, database, spool) as (journal, late_synced):
        if journal is None:
            yield None
            return
        registrar = Registrar(late_synced, completeness(settings), spool=spool, actor=process_name("listen"))
        rows = OwedRows(journal, spool, file.relied_on_by(registrar.register_together))
        with closing(rows):
            yield Journaling(journal, rows)


def _quarantining(settings: Settings) -> Quarantining | None:
    """Return what keeps faulty objects; None where it is off."""
    if not settings.listener.quarantine_bytes:
        return None
    return Quarantining(Quarantine(settings.quarantine_dir), settings.listener.quarantine_bytes)


def _ports(settings: Settings, *, are_shared: bool) -> list[Port]:
    """Return where to listen: the plain port, and the secure one where it is configured."""
    ports = []
    if settings.listener.plain:
        ports.append(Port(settings.host, settings.port, is_shared=are_shared))
    tls = listener_tls(settings)
    if tls is not None:
        ports.append(Port(settings.host, settings.listener.tls.port, tls, is_shared=are_shared))
    return ports


def _look_around(stopping: threading.Event, file: DatabaseFile, presence: Presence, backlog: Backlog) -> None:
    """Until the process stops, see whether its database is still the node's and whether work piles up."""
    sign_due_at = 0.0
    while not stopping.is_set():
        file.require_for_good()
        if time.monotonic() >= sign_due_at:
            presence.sign()
            backlog.look()
            sign_due_at = time.monotonic() + SIGN_OF_LIFE_S
        stopping.wait(LOOK_EVERY_S)


def _commitment(settings: Settings, database: Database, spool: Spool, registrar: Registrar) -> Service:
    from dicom_node.listener.commitment import CommitmentService

    return CommitmentService(
        database,
        spool.path_of,
        actor=process_name("listen"),
        on_event=registrar.on_event,
        answers_to=settings.commitment_addresses,
        answers_requests=settings.listener.commitment,
        lease_s=settings.jobs.lease_s,
    ).service


def _stop_when_told(stopping: threading.Event, listeners: Sequence[Listener]) -> None:
    stopping.wait()
    stop_together(listeners, STOP_DEADLINE_S)


def stop_together(listeners: Sequence[Listener], deadline_s: float) -> None:
    """Stop all listeners at once, so that the objects in hand of one do not take the time of another's.

    Returns at the deadline at the latest, give or take a second: what is left of the associations then ends
    with the process.
    """
    stopping = [
        threading.Thread(target=each.stop, args=(deadline_s,), name=STOPPING_THREAD, daemon=True)
        for each in listeners
    ]
    for thread in stopping:
        thread.start()
    deadline = time.monotonic() + deadline_s + ABORT_S
    for thread in stopping:
        thread.join(max(0.0, deadline - time.monotonic()))


def _claim_open_files(connections: int) -> None:
    """Let this process have as many files open as its connections may need, where its user may.

    A shell lets a process have 1024, which a thousand associations exceed.
    """
    needed = _FILES_OF_A_CONNECTION * connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    if most < needed:
        _log.warning(
            "listener.few_open_files",
            has=most,
            needs=needed,
            advice="raise the limit (LimitNOFILE, ulimit -n), or lower listener.max_associations",
        )


def _start(listener: Listener, settings: Settings) -> None:
    try:
        listener.start()
    except OSError as error:
        choices = "--port, listener.tls.port"
        raise PortUnavailableError(settings.host, listener.port, error, choices=choices) from error


def listener_limits(settings: Settings) -> ListenerLimits:
    """Return how much a peer may ask of the listener."""
    listener = settings.listener
    return ListenerLimits(
        max_associations=listener.max_associations,
        max_associations_per_peer=listener.max_associations_per_peer,
        # A router may open all that it may have at the same moment: the last must not look like a flood.
        max_silent_connections=max(
            listener.max_associations_per_peer, ListenerLimits().max_silent_connections
        ),
        max_pdu_bytes=listener.max_pdu_bytes,
        max_message_bytes=listener.max_object_bytes,
        min_free_bytes=listener.minimum_free_bytes,
        acse_timeout_s=listener.acse_timeout_s,
        message_timeout_s=listener.message_timeout_s,
        network_timeout_s=listener.network_timeout_s,
    )
