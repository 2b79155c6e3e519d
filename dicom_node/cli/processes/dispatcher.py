"""The dispatcher's process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from db import handoff, scoring
from db.audit.keys import CheckpointKey
from db.retention import RECEIVED, RESULTS
from db.session import Database
from dicom_node.cli.processes.journals import recover_journals
from dicom_node.cli.processes.stopping import when_told_to_stop
from dicom_node.cli.processes.sweep import sweep
from dicom_node.cli.security import audit_exceptions, audit_sink
from dicom_node.cli.wiring import (
    audit_checkpoints,
    audit_configuration,
    completeness,
    open_database,
    process_name,
    start_process,
    worker_terms,
)
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from workers.audit_forwarder import AuditForwarder
from workers.dispatcher import Dispatcher
from workers.housekeeping import Chore, Housekeeper
from workers.mending import Mending
from workers.retention import Retention
from workers.trail_watch import TrailWatch

STOP_DEADLINE_S = 20.0
PERIOD_S = 0.5
MENDING_PERIOD_S = 15.0
RETENTION_PERIOD_S = 3600.0
SWEEP_PERIOD_S = 6 * 3600.0  # it looks at every file that there is
TRAIL_PERIOD_S = 3600.0  # between two looks at whether the whole trail is due
PERIOD_WITH_BROKER_S = 0.1  # doorbells are rung by the sweep: its period is part of every study's latency


def run(settings: Settings) -> None:
    """Sweep until SIGTERM."""
    start_process("dispatch")
    name = process_name("dispatch")
    ring = None
    if settings.broker_url is not None:
        from workers import app

        celery = app.create_app(settings.broker_url.get_secret_value(), key_prefix=settings.ae_title)
        ring = partial(app.ring, celery)
    with open_database(settings, upgrade=True) as database:
        audit_configuration(settings, database, name)
        audit_exceptions(settings, database, name)
        recover_journals(settings, database, name)
        dispatcher = Dispatcher(
            database,
            completeness(settings),
            max_attempts=worker_terms(settings).max_attempts,
            ring=ring,
            checkpoint=audit_checkpoints(settings, database),
            name=name,
        )
        when_told_to_stop(dispatcher.stop, deadline_s=STOP_DEADLINE_S)
        forwarder = _forwarder(settings, database, name)
        if forwarder is not None:
            forwarder.start()
        housekeeper = _housekeeper(settings, database, name)
        housekeeper.start()
        dispatcher.run(PERIOD_WITH_BROKER_S if ring else PERIOD_S)
        housekeeper.stop()
        if forwarder is not None:
            forwarder.stop()


def _forwarder(settings: Settings, database: Database, name: str) -> AuditForwarder | None:
    """Return what hands the audit trail to a syslog sink, where one is configured."""
    sink = audit_sink(settings)
    if sink is None:
        return None
    return AuditForwarder(database, sink, name=name, ae_title=settings.ae_title, site=settings.institution)


def _housekeeper(settings: Settings, database: Database, name: str) -> Housekeeper:
    """Return what looks after files: those that are whole again, that a crash left, and that are too old."""
    spool, results = Spool(settings.spool_dir), Spool(settings.results_dir)
    housekeeper = Housekeeper()
    housekeeper.add(Chore("mending", Mending(database, spool, name).look, MENDING_PERIOD_S))
    for folder, known in ((spool, handoff.known_spool_names), (results, scoring.known_file_names)):
        tidy = partial(sweep, folder, partial(_asked, database, known))
        housekeeper.add(Chore(f"sweep of {folder.root.name}", tidy, SWEEP_PERIOD_S))
    watch = TrailWatch(
        database,
        settings.checkpoint_dir,
        CheckpointKey.load_or_create(settings.checkpoint_key_file).public_key,
        name,
        is_stopping=lambda: housekeeper.is_stopping,
    )
    housekeeper.add(Chore("audit trail", watch.look, TRAIL_PERIOD_S))
    for kind, folder, days in (
        (RECEIVED, spool, settings.retention.received_days),
        (RESULTS, results, settings.retention.results_days),
    ):
        if days is not None:
            retention = Retention(database, kind, folder, name, is_stopping=lambda: housekeeper.is_stopping)
            remove = partial(retention.remove_older_than, days)
            housekeeper.add(Chore(f"retention of {folder.root.name}", remove, RETENTION_PERIOD_S))
    return housekeeper


def _asked(database: Database, known: Callable[..., set[str]], names: Sequence[str]) -> set[str]:
    """Ask which names the database knows, in a reading of its own: SQLite's log grows while one lasts."""
    with database.reading() as session:
        return known(session, names)
