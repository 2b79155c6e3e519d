"""Ask for storage commitment, and answer it, when the doorbell of the ``commit`` queue rings."""

from __future__ import annotations

from celery import Celery

from db.lifecycle import JobKind
from workers.app import TASK_OF
from workers.claim_loop import ClaimLoop


def register(app: Celery, loop: ClaimLoop) -> None:
    """Answer doorbells by claiming: the named job first, then whatever is due."""

    @app.task(name=TASK_OF[JobKind.COMMIT], ignore_result=True)
    def answer(job_id: str) -> None:
        loop.drain(job_id)
