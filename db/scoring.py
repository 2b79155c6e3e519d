"""What a score job reads and what it leaves behind: its analysis, its result objects, its deliveries."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.canonical import canonical_json
from db.jobs import Claim, audit_job, end_attempt
from db.lifecycle import DeliveryState, JobEvent, JobKind, JobState
from db.session import Transaction
from db.tables import Analysis, Delivery, Instance, Job, ResultObject, Revision


@dataclass(frozen=True, slots=True)
class NewResult:
    """A result object whose bytes are already durable."""

    kind: str
    ordinal: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    file_name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ScoreInput:
    """What a score job reads: a revision's instances, and the reports that this one will replace."""

    study_instance_uid: str
    revision: int
    instances: tuple[Instance, ...]
    predecessors: tuple[ResultObject, ...]


def score_input(session: Session, claim: Claim) -> ScoreInput:
    """Load the input of a claimed score job.

    The instances come in the order of their SOP Instance UIDs, so that every attempt sees the same. The
    predecessors are the result objects of the latest earlier revision of the study that was scored.
    """
    revision = session.get_one(Revision, claim.revision_id)
    instances = session.scalars(
        select(Instance)
        .where(
            Instance.study_id == revision.study_id,
            Instance.conflict == 0,
            Instance.revision_number <= revision.number,
        )
        .order_by(Instance.sop_instance_uid)
    ).all()
    earlier = session.scalars(
        select(Job.id)
        .join(Revision, Job.revision_id == Revision.id)
        .where(
            Revision.study_id == revision.study_id,
            Revision.number < revision.number,
            Job.kind == JobKind.SCORE,
            Job.task == claim.task,
            Job.state == JobState.DONE,
        )
        .order_by(Revision.number.desc())
        .limit(1)
    ).one_or_none()
    predecessors = session.scalars(
        select(ResultObject).where(ResultObject.job_id == earlier).order_by(ResultObject.id)
    ).all()
    return ScoreInput(
        revision.study.study_instance_uid, revision.number, tuple(instances), tuple(predecessors)
    )


def finish_scoring(
    tx: Transaction,
    claim: Claim,
    *,
    bundle: str,
    outcome: str,
    study_probability: float | None,
    document: Mapping[str, Any],
    results: Sequence[NewResult],
    destinations: Sequence[str],
) -> None:
    """Commit what a score job found, its result objects, and the jobs that deliver them.

    Raises
    ------
    LeaseLostError
        If the lease ended meanwhile; nothing is written then.
    """
    job = end_attempt(tx, claim, JobEvent.FINISH, finished_at=tx.now)
    session = tx.session
    session.add(
        Analysis(
            job_id=job.id,
            outcome=outcome,
            study_probability=study_probability,
            document=canonical_json(document),
        )
    )
    rows = [ResultObject(job_id=job.id, created_at=tx.now, **asdict(result)) for result in results]
    session.add_all(rows)
    session.flush()
    audit_job(
        tx,
        job,
        "job.scored",
        {
            "outcome": outcome,
            "study_probability": study_probability,
            "attempt": claim.fence,
            "results": [{"sop_instance_uid": r.sop_instance_uid, "sha256": r.sha256} for r in results],
            "analysis": document,
        },
        bundle=bundle,
    )
    for destination in destinations:
        _queue_delivery(tx, job, rows, destination)


def _queue_delivery(
    tx: Transaction, score_job: Job, results: Sequence[ResultObject], destination: str
) -> None:
    job = Job(
        id=uuid.uuid4().hex,
        kind=JobKind.DELIVER,
        revision_id=score_job.revision_id,
        task=score_job.task,
        parent_job_id=score_job.id,
        destination=destination,
        state=JobState.QUEUED,
        attempts=0,
        next_try_at=tx.now,
        created_at=tx.now,
        bundle_digest=score_job.bundle_digest,
    )
    tx.session.add(job)
    tx.session.flush()
    tx.session.add_all(
        Delivery(
            job_id=job.id,
            result_id=result.id,
            destination=destination,
            state=DeliveryState.PENDING,
            attempts=0,
            updated_at=tx.now,
        )
        for result in results
    )
    audit_job(tx, job, "job.queued", {"kind": JobKind.DELIVER.value, "destination": destination})


def known_file_names(session: Session, names: Sequence[str]) -> set[str]:
    """Return which of the result folder's file names belong to a committed result object."""
    known: set[str] = set()
    for start in range(0, len(names), 500):
        chunk = names[start : start + 500]
        known.update(session.scalars(select(ResultObject.file_name).where(ResultObject.file_name.in_(chunk))))
    return known
