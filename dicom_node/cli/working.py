"""A worker's process: what does each kind of job, and the loops that claim them."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from db.lifecycle import JobKind
from db.session import Database
from dicom_node import installation
from dicom_node.cli.wiring import (
    node_identity,
    open_database,
    process_name,
    start_process,
    worker_terms,
)
from dicom_node.settings import Settings
from workers.claim_loop import ClaimLoop, Handler, Terms


def run(settings: Settings, kinds: tuple[JobKind, ...]) -> None:
    """Do jobs of these kinds until SIGTERM."""
    from workers.runner import run_embedded, run_with_broker

    start_process("work")
    name = process_name("+".join(kind.value for kind in kinds))
    with open_database(settings, upgrade=True) as database:
        loops: dict[JobKind, ClaimLoop] = {}
        handlers = _handlers(settings, database, kinds, lambda: any(x.is_stopping for x in loops.values()))
        terms = worker_terms(settings)
        for kind, handler in handlers.items():
            loops[kind] = ClaimLoop(database, kind, handler, terms=terms_of(kind, terms), owner=name)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: _stop(loops))
        if settings.broker_url is None:
            run_embedded(database, loops, name=name)
        else:
            url = settings.broker_url.get_secret_value()
            run_with_broker(database, loops, name=name, broker_url=url, key_prefix=settings.ae_title)


def terms_of(kind: JobKind, terms: Terms) -> Terms:
    """Return the terms of one kind: training may take hours, in a child that can be ended at any moment."""
    return replace(terms, hard_limit_s=None) if kind is JobKind.TRAIN else terms


def _stop(loops: Mapping[JobKind, ClaimLoop]) -> None:
    for loop in loops.values():
        loop.stop()


def _handlers(
    settings: Settings, database: Database, kinds: tuple[JobKind, ...], is_stopping: Callable[[], bool]
) -> dict[JobKind, Handler]:
    """Make what does each kind of job; heavy parts are loaded for the kinds that need them alone."""
    makers: dict[JobKind, Callable[[], Handler]] = {
        JobKind.SCORE: lambda: _scorer(settings, database),
        JobKind.DELIVER: lambda: _sender(settings, database),
        JobKind.TRAIN: lambda: _trainer(settings, database, is_stopping),
    }
    return {kind: makers[kind]() for kind in kinds}


def _scorer(settings: Settings, database: Database) -> Handler:
    from dicom_node.cli.bundles import deploy_demonstration
    from dicom_node.images import DecodeLimits, ImageReader
    from dicom_node.spool import Spool
    from models.store import BundleStore
    from workers.classifier_cache import ClassifierCache
    from workers.pipeline import Reporting, Scorer

    deploy_demonstration(settings, database, actor=process_name("score"))
    classifiers = ClassifierCache(
        BundleStore(settings.bundles_dir).path_of,
        device=settings.scoring.device,
        threads=settings.scoring.threads,
    )
    classifiers.warm(database, settings.tasks)
    # What is loaded now stays; looking through it for garbage again and again slows the building of results.
    gc.freeze()
    return Scorer(
        database,
        spool=Spool(settings.spool_dir),
        results=Spool(settings.results_dir),
        reader=ImageReader(
            DecodeLimits(
                memory_bytes=settings.scoring.decode_memory_bytes, cpu_s=settings.scoring.decode_cpu_s
            )
        ),
        classifiers=classifiers,
        reporting=Reporting(
            node=node_identity(settings),
            routes=settings.routes,
            default_zone=settings.default_zone,
        ),
    ).score


def _sender(settings: Settings, database: Database) -> Handler:
    from dicom_node.delivery.dimse import DeliveryTimeouts
    from dicom_node.spool import Spool
    from workers.sending import Sender

    return Sender(
        database,
        Spool(settings.results_dir).path_of,
        calling_ae_title=settings.ae_title,
        timeouts=DeliveryTimeouts(
            connect_s=settings.delivery.connect_timeout_s,
            acse_s=settings.delivery.acse_timeout_s,
            dimse_s=settings.delivery.dimse_timeout_s,
        ),
    ).deliver


def _trainer(settings: Settings, database: Database, is_stopping: Callable[[], bool]) -> Handler:
    from workers.training_run import Trainer

    def add_bundle(folder: Path) -> str:
        from dicom_node.cli.bundles import add_bundle

        return add_bundle(settings, database, folder, actor=process_name("train"))

    return Trainer(
        database,
        command=installation.console_script(),
        output_dir=settings.data_dir / "training",
        add_bundle=add_bundle,
        is_stopping=is_stopping,
    ).train
