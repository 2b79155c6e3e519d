"""The dispatcher's process."""

from __future__ import annotations

import signal
from functools import partial

from db import scoring
from dicom_node.cli.sweep import sweep
from dicom_node.cli.wiring import (
    audit_checkpoints,
    completeness,
    open_database,
    process_name,
    start_process,
    worker_terms,
)
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from workers.dispatcher import Dispatcher

PERIOD_S = 0.5
PERIOD_WITH_BROKER_S = 0.1  # doorbells are rung by the sweep: its period is part of every study's latency


def run(settings: Settings) -> None:
    """Sweep until SIGTERM."""
    start_process("dispatch")
    ring = None
    if settings.broker_url is not None:
        from workers import app

        celery = app.create_app(settings.broker_url.get_secret_value(), key_prefix=settings.ae_title)
        ring = partial(app.ring, celery)
    with open_database(settings, upgrade=True) as database:
        with database.reading() as session:
            sweep(Spool(settings.results_dir), partial(scoring.known_file_names, session))
        dispatcher = Dispatcher(
            database,
            completeness(settings),
            max_attempts=worker_terms(settings).max_attempts,
            ring=ring,
            checkpoint=audit_checkpoints(settings, database),
            name=process_name("dispatch"),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: dispatcher.stop())
        dispatcher.run(PERIOD_WITH_BROKER_S if ring else PERIOD_S)
