"""The worker tasks: one file each, one line here."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from db.lifecycle import JobKind
from workers.claim_loop import ClaimLoop
from workers.tasks import commit, deliver, score, train

REGISTRATIONS: dict[JobKind, Callable[[Celery, ClaimLoop], None]] = {
    JobKind.SCORE: score.register,
    JobKind.DELIVER: deliver.register,
    JobKind.TRAIN: train.register,
    JobKind.COMMIT: commit.register,
}
"""What makes a process answer the doorbells of a queue."""
