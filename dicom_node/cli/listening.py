"""The listener's process: from its settings to its last answer."""

from __future__ import annotations

import signal
import threading
from functools import partial

import structlog

from db import handoff, processes
from db.errors import DatabaseError
from db.session import Database
from dicom_node.cli.sweep import sweep
from dicom_node.cli.wiring import (
    completeness,
    open_database,
    process_name,
    start_process,
)
from dicom_node.errors import PortUnavailableError
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.registration import Registrar
from dicom_node.listener.server import Listener
from dicom_node.settings import Settings
from dicom_node.spool import Spool

STOP_DEADLINE_S = 20.0
SIGN_OF_LIFE_S = 10.0


def run(settings: Settings) -> None:
    """Receive until SIGTERM, then finish what is in hand."""
    start_process("listen")
    name = process_name("listen")
    log = structlog.get_logger(__name__)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with open_database(settings, upgrade=True) as database:
        spool = Spool(settings.spool_dir)
        with database.reading() as session:
            sweep(spool, partial(handoff.known_spool_names, session))
        registrar = Registrar(database, completeness(settings), spool=spool, actor=name)
        listener = Listener(
            settings.ae_title,
            settings.host,
            settings.port,
            spool=spool,
            register=registrar.register,
            limits=_limits(settings),
            on_event=registrar.on_event,
            allowed_callers={title: frozenset() for title in settings.listener.allowed_ae_titles} or None,
            require_called_ae_title=settings.listener.require_called_ae_title,
        )
        _start(listener, settings)
        log.info("listener.ready", ae_title=settings.ae_title, host=settings.host, port=listener.port)
        while True:
            _sign(database, name)
            if stopping.wait(SIGN_OF_LIFE_S):
                break
        listener.stop(STOP_DEADLINE_S)
        with database.transaction(name) as tx:
            processes.goodbye(tx, name)


def _start(listener: Listener, settings: Settings) -> None:
    try:
        listener.start()
    except OSError as error:
        raise PortUnavailableError(
            f"port {settings.port} of {settings.host} cannot be listened on ({error.strerror}); end the "
            "program that has it, or choose another with --port"
        ) from error


def _limits(settings: Settings) -> ListenerLimits:
    listener = settings.listener
    return ListenerLimits(
        max_associations=listener.max_associations,
        max_pdu_bytes=listener.max_pdu_bytes,
        max_message_bytes=listener.max_object_bytes,
        min_free_bytes=listener.minimum_free_bytes,
        acse_timeout_s=listener.acse_timeout_s,
        message_timeout_s=listener.message_timeout_s,
        network_timeout_s=listener.network_timeout_s,
    )


def _sign(database: Database, name: str) -> None:
    try:
        with database.transaction(name) as tx:
            processes.sign_of_life(tx, name, "listen")
    except DatabaseError as error:
        structlog.get_logger(__name__).warning("listener.database_away", reason=str(error))
