"""Answering a broker's doorbells: one solo Celery worker, as one process owns one device.

A doorbell names a job, but the loop that hears it claims what the database says is due.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging, task_postrun, worker_ready, worker_shutting_down
from celery.worker import state

from db.lifecycle import JobKind
from db.session import Database
from dicom_node.errors import NodeError
from workers.app import TASK_OF, create_app
from workers.claim_loop import ClaimLoop
from workers.recycling import Recycling
from workers.runner import SignOfLife, StopDeadline

log = structlog.get_logger(__name__)


class CeleryEndedError(NodeError):
    """Celery ended though nobody told it to stop; find out who else writes to the broker."""


def run_with_broker(
    database: Database,
    loops: Mapping[JobKind, ClaimLoop],
    *,
    name: str,
    broker_url: str,
    key_prefix: str,
    stop_deadline_s: float,
    recycling: Recycling | None = None,
) -> None:
    """Answer doorbells until stopped.

    Parameters
    ----------
    database : Database
        The queue of record.
    loops : mapping
        What to work on, by queue.
    name : str
        This process; also its Celery node name.
    broker_url, key_prefix : str
        See :func:`workers.app.create_app`.
    stop_deadline_s, recycling
        As for :func:`workers.runner.run_embedded`.

    Raises
    ------
    CeleryEndedError
        If nobody told it to stop.
    """
    app = create_app(broker_url, key_prefix=key_prefix)
    for kind, loop in loops.items():
        _answer(app, kind, loop)
    _keep_logs()
    _stop_together(loops)
    if recycling is not None:
        _end_where_recycled(recycling)
    _tell_when_ready(loops)
    worker = _solo_worker(app, loops, name)
    living = SignOfLife(database, loops, name, rung=True, recycling=recycling)
    with StopDeadline(loops.values(), stop_deadline_s), living:
        for loop in loops.values():
            loop.drain()  # what waited long is seldom rung for
        if not _is_stopping(loops):
            worker.start()
            if not _is_stopping(loops):
                raise CeleryEndedError(
                    "Celery ended by itself, as it does over what is no message: find out who else writes to "
                    "the broker"
                )


def _is_stopping(loops: Mapping[JobKind, ClaimLoop]) -> bool:
    return any(loop.is_stopping for loop in loops.values())


def _answer(app: Celery, kind: JobKind, loop: ClaimLoop) -> None:
    """Answer the doorbells of a queue by claiming: the named job first, then whatever is due."""

    @app.task(name=TASK_OF[kind], ignore_result=True)
    def answer(job_id: str) -> None:
        loop.drain(job_id)


def _keep_logs() -> None:
    """Keep the level of every logger, which Celery would set; it tells of itself in warnings alone."""

    @setup_logging.connect(weak=False)
    def keep(**_: object) -> None:
        for library in ("celery", "kombu"):
            logging.getLogger(library).setLevel(logging.WARNING)


def _stop_together(loops: Mapping[JobKind, ClaimLoop]) -> None:
    """Let the loops claim nothing more once Celery was told to stop."""

    @worker_shutting_down.connect(weak=False)
    def stop(**_: object) -> None:
        for loop in loops.values():
            loop.stop()


def _end_where_recycled(recycling: Recycling) -> None:
    """Stop Celery after the job that was the last one of this process."""

    @task_postrun.connect(weak=False)
    def end(**_: object) -> None:
        if recycling.reason is not None:
            state.should_stop = os.EX_OK  # as a signal would; Celery looks when the message is acknowledged


def _tell_when_ready(loops: Mapping[JobKind, ClaimLoop]) -> None:
    @worker_ready.connect(weak=False)
    def tell(**_: object) -> None:
        log.info("worker.ready", queues=[kind.value for kind in loops])


def _solo_worker(app: Celery, loops: Mapping[JobKind, ClaimLoop], name: str) -> Any:
    return app.Worker(
        pool="solo",
        concurrency=1,
        queues=[kind.value for kind in loops],
        hostname=name,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
