"""A worker's process: what does each kind of job, and the loops that claim them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from db.lifecycle import JobKind
from db.session import Database
from dicom_node import installation
from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.processes.journals import recover_journals
from dicom_node.cli.processes.stopping import when_told_to_stop
from dicom_node.cli.wiring import (
    audit_configuration,
    node_identity,
    open_database,
    process_name,
    requestor,
    start_process,
    worker_terms,
)
from dicom_node.settings import Settings
from workers.claim_loop import ClaimLoop, Handler, Terms


def run(settings: Settings, kinds: tuple[JobKind, ...]) -> int:
    """Do jobs of these kinds until SIGTERM, or until a fresh process is to take this one's place.

    Parameters
    ----------
    settings : Settings
        The node's.
    kinds : tuple of JobKind
        What to work on.

    Returns
    -------
    int
        The exit status, which tells the two ends apart.
    """
    from workers.exit_statuses import WorkerExit
    from workers.recycling import Limits, Recycling
    from workers.runner import run_embedded

    start_process("work")
    name = process_name("+".join(kind.value for kind in kinds))
    with open_database(settings, upgrade=True) as database:
        audit_configuration(settings, database, name)
        recover_journals(settings, database, name)
        loops: dict[JobKind, ClaimLoop] = {}
        handlers = _handlers(settings, database, kinds, lambda: any(x.is_stopping for x in loops.values()))
        terms = worker_terms(settings)
        limits = Limits(settings.scoring.recycle_after_jobs, settings.scoring.recycle_above_bytes)
        recycling = Recycling(limits, partial(_stop, loops))
        for kind, handler in handlers.items():
            loops[kind] = ClaimLoop(
                database,
                kind,
                handler,
                terms=terms_of(kind, terms),
                owner=name,
                after_job=recycling.after_job if kind is JobKind.SCORE else None,
            )
        when_told_to_stop(partial(_stop, loops))
        deadline_s = settings.jobs.stop_deadline_s
        if settings.broker_url is None:
            run_embedded(database, loops, name=name, stop_deadline_s=deadline_s, recycling=recycling)
        else:
            from workers.doorbells import run_with_broker

            run_with_broker(
                database,
                loops,
                name=name,
                broker_url=settings.broker_url.get_secret_value(),
                key_prefix=settings.ae_title,
                stop_deadline_s=deadline_s,
                recycling=recycling,
            )
    return ExitCode.OK if recycling.reason is None else WorkerExit.RECYCLED


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
        JobKind.COMMIT: lambda: _committer(settings, database),
    }
    return {kind: makers[kind]() for kind in kinds}


def _scorer(settings: Settings, database: Database) -> Handler:
    from dicom_node.cli.bundles.stored import deploy_demonstration
    from dicom_node.images.decoder_process import DecodeLimits
    from dicom_node.images.reader import ImageReader
    from dicom_node.spool import Spool
    from models.store import BundleStore
    from workers.classifier_cache import ClassifierCache
    from workers.pipeline import Reporting, Scorer

    deploy_demonstration(settings, database, actor=process_name("score"))
    classifiers = ClassifierCache(
        BundleStore(settings.bundles_dir).path_of,
        device=settings.scoring.device,
        threads=settings.scoring.threads,
        backend=settings.scoring.backend,
    )
    classifiers.warm(database, settings.tasks, actor=process_name("score"))
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
            shadowed_devices=tuple(settings.scoring.shadowed_devices),
        ),
    ).score


def _sender(settings: Settings, database: Database) -> Handler:
    from dicom_node.spool import Spool
    from workers.sending import Sender

    return Sender(
        database,
        Spool(settings.results_dir).path_of,
        requestor(settings),
        commits=settings.committing_destinations.__contains__,
        refused_tries=settings.delivery.refused_tries,
    ).deliver


def _committer(settings: Settings, database: Database) -> Handler:
    from dicom_node.spool import Spool
    from workers.committing import CommitmentTerms, Committer

    return Committer(
        database,
        Spool(settings.spool_dir).path_of,
        requestor(settings),
        terms=CommitmentTerms(
            report_wait_s=settings.delivery.commitment_wait_s,
            ask_again_s=settings.delivery.commitment_ask_again_s,
            most_missing=settings.jobs.attempts,
        ),
    ).commit


def _trainer(settings: Settings, database: Database, is_stopping: Callable[[], bool]) -> Handler:
    from workers.training_run import Trainer

    def add_bundle(folder: Path) -> str:
        from dicom_node.cli.bundles.stored import add_bundle

        return add_bundle(settings, database, folder, actor=process_name("train"))

    return Trainer(
        database,
        command=installation.console_script(),
        output_dir=settings.data_dir / "training",
        add_bundle=add_bundle,
        is_stopping=is_stopping,
    ).train
