"""What people and programs ask of the database: rows for the ``list`` and ``show`` commands.

Each function returns plain mappings whose keys are a promise to programs (``--json``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, func, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from db.census import UNFINISHED
from db.deliveries import is_spare
from db.lifecycle import DeliveryState, JobKind, JobState, RevisionState
from db.tables import (
    Analysis,
    BundleRecord,
    Delivery,
    Deployment,
    Instance,
    Job,
    ResultObject,
    Revision,
    Study,
)

Row = dict[str, Any]


def studies(
    session: Session,
    *,
    study_instance_uid: str | None = None,
    patient_id: str | None = None,
    accession_number: str | None = None,
    limit: int = 1000,
) -> list[Row]:
    """Return a row per study revision, newest first; what is given must match exactly."""
    instances = (
        select(func.count())
        .where(
            Instance.study_id == Revision.study_id,
            Instance.conflict == 0,
            Instance.revision_number <= Revision.number,
        )
        .correlate(Revision)
        .scalar_subquery()
    )
    query = (
        select(Study, Revision, instances)
        .join(Revision, Revision.study_id == Study.id)
        .order_by(Revision.id.desc())
        .limit(limit)
    )
    wanted = {
        Study.study_instance_uid: study_instance_uid,
        Study.patient_id: patient_id,
        Study.accession_number: accession_number,
    }
    query = query.where(*(column == value for column, value in wanted.items() if value is not None))
    return [
        {
            "study_instance_uid": study.study_instance_uid,
            "revision": revision.number,
            "state": revision.state,
            "complete_reason": revision.complete_reason,
            "instances": count,
            "last_instance_at": revision.last_instance_at.isoformat(),
            "completed_at": revision.completed_at and revision.completed_at.isoformat(),
        }
        for study, revision, count in session.execute(query)
    ]


def instances(session: Session, study_instance_uid: str) -> list[Row]:
    """Return a row per instance of a study, in the order of arrival."""
    query = (
        select(Instance)
        .join(Study, Instance.study_id == Study.id)
        .where(Study.study_instance_uid == study_instance_uid)
        .order_by(Instance.id)
    )
    return [
        {
            "sop_instance_uid": i.sop_instance_uid,
            "sop_class_uid": i.sop_class_uid,
            "transfer_syntax_uid": i.transfer_syntax_uid,
            "modality": i.modality,
            "laterality": i.laterality,
            "view": i.view,
            "first_revision": i.revision_number or None,
            "conflict": bool(i.conflict),
            "sha256": i.sha256,
            "bytes": i.size_bytes,
            "calling_ae_title": i.calling_ae_title,
            "received_at": i.received_at.isoformat(),
            "file": i.spool_name,
        }
        for i in session.scalars(query)
    ]


def jobs(
    session: Session,
    *,
    kind: JobKind | None = JobKind.SCORE,
    state: JobState | None = None,
    study_instance_uid: str | None = None,
    job_id: str | None = None,
    limit: int = 1000,
) -> list[Row]:
    """Return a row per job, newest first; ``kind=None`` for every kind."""
    kinds = tuple(JobKind) if kind is None else (kind,)
    if job_id is not None:
        wanted: Select[Any] | CompoundSelect[Any] = select(Job.id).where(Job.id == job_id)
    elif study_instance_uid is not None:
        wanted = select(Job.id).join(Revision, Job.revision_id == Revision.id).join(Study)
        wanted = wanted.where(Study.study_instance_uid == study_instance_uid)
    else:
        wanted = _among(kinds, state, limit)
    # As expressions: SQLite would take an index of kinds or states rather than the few jobs that are wanted.
    conditions: list[ColumnElement[bool]] = [Job.id.in_(wanted), Job.kind.concat("").in_(kinds)]
    if state is not None:
        conditions.append(Job.state.concat("") == state)
    query = (
        select(Job, Revision.number, Study.study_instance_uid, Analysis.outcome, Analysis.study_probability)
        .outerjoin(Revision, Job.revision_id == Revision.id)
        .outerjoin(Study, Revision.study_id == Study.id)
        .outerjoin(Analysis, Analysis.job_id == Job.id)
        .where(*conditions)
        .order_by(Job.created_at.desc(), Job.id)
        .limit(limit)
    )
    return [
        {
            "job_id": job.id,
            "study_instance_uid": study,
            "revision": number,
            "task": job.task,
            "state": job.state,
            "attempts": job.attempts,
            "bundle": job.bundle_digest,
            "error": None if job.error_code is None else f"{job.error_code}: {job.error}",
            "kind": job.kind,
            "destination": job.destination,
            "outcome": outcome,
            "study_probability": probability,
            "next_try_at": job.next_try_at.isoformat() if job.state == JobState.QUEUED else None,
            "created_at": job.created_at.isoformat(),
            "finished_at": job.finished_at and job.finished_at.isoformat(),
        }
        for job, number, study, outcome, probability in session.execute(query)
    ]


def _among(kinds: Sequence[JobKind], state: JobState | None, limit: int) -> CompoundSelect[str]:
    """SQL: the jobs among which the newest are, found in an index of each kind.

    Next to all jobs are done: of those, and where no state is asked for, the newest of each kind. Of the
    others all: walking back in time for a few that failed would read all that there ever was.
    """
    of_kinds = [select(Job.id).where(Job.kind == kind) for kind in kinds]
    if state in UNFINISHED:
        return union_all(*(each.where(Job.state == state) for each in of_kinds))
    if state is JobState.DONE:
        of_kinds = [each.where(Job.state.not_in(UNFINISHED)) for each in of_kinds]
    newest = (each.order_by(Job.created_at.desc(), Job.id).limit(limit).subquery() for each in of_kinds)
    return union_all(*(select(each.c.id) for each in newest))


def analysis(session: Session, job_id: str) -> str | None:
    """Return a score job's analysis document, canonical JSON."""
    return session.scalars(select(Analysis.document).where(Analysis.job_id == job_id)).one_or_none()


def results(
    session: Session,
    *,
    study_instance_uid: str | None = None,
    job_id: str | None = None,
    needless: bool = False,
    limit: int | None = None,
) -> list[Row]:
    """Return a row per result object and destination, newest first; all of them without a limit.

    Of two objects with the same content in two classes only the one that was or would first be sent is there,
    unless ``needless``.
    """
    conditions: list[ColumnElement[bool]] = []
    if not needless:
        conditions.append(or_(Delivery.id.is_(None), ~is_spare()))
    if study_instance_uid is not None:
        conditions.append(Study.study_instance_uid == study_instance_uid)
    if job_id is not None:
        conditions.append(ResultObject.job_id == job_id)
    note = aliased(ResultObject)
    query = (
        select(ResultObject, Delivery, Study.study_instance_uid, Revision.number, note.sop_instance_uid)
        .join(Job, ResultObject.job_id == Job.id)
        .join(Revision, Job.revision_id == Revision.id)
        .join(Study, Revision.study_id == Study.id)
        .outerjoin(Delivery, Delivery.result_id == ResultObject.id)
        .outerjoin(note, Delivery.withdrawn_by == note.id)
        .where(*conditions)
        .order_by(ResultObject.id.desc(), Delivery.id)
        .limit(limit)
    )
    return [
        {
            "sop_instance_uid": result.sop_instance_uid,
            "job_id": result.job_id,
            "kind": result.kind,
            "destination": delivery.destination if delivery else None,
            "delivery_state": delivery.state if delivery else None,
            "sha256": result.sha256,
            "study_instance_uid": study,
            "revision": number,
            "sop_class_uid": result.sop_class_uid,
            "attempts": delivery.attempts if delivery else None,
            "last_status": f"{delivery.last_status:04X}"
            if delivery and delivery.last_status is not None
            else None,
            "detail": delivery.detail if delivery else None,
            "updated_at": delivery.updated_at.isoformat() if delivery else None,
            "withdrawn": withdrawn_by is not None,
            "withdrawn_by": withdrawn_by,
            "file": result.file_name,
        }
        for result, delivery, study, number, withdrawn_by in session.execute(query)
    ]


def bundles(session: Session) -> list[Row]:
    """Return a row per bundle, newest first, with the role that it has now."""
    present = aliased(Deployment)
    query = (
        select(BundleRecord, present)
        .outerjoin(present, (present.bundle_digest == BundleRecord.digest) & present.until.is_(None))
        .order_by(BundleRecord.added_at.desc(), BundleRecord.digest)
    )
    return [
        {
            "digest": bundle.digest,
            "name": bundle.name,
            "version": bundle.version,
            "task": bundle.task,
            "demonstration": bool(bundle.demonstration),
            "role": term and term.role,
            "percent": term and term.percent,
            "since": term and term.since.isoformat(),
            "deployed_by": term and term.deployed_by,
            "added_at": bundle.added_at.isoformat(),
            "added_by": bundle.added_by,
        }
        for bundle, term in session.execute(query)
    ]


def waiting_score_jobs(session: Session, *, at_most: int) -> int:
    """Return how many score jobs wait for a worker; counting ends at ``at_most``."""
    waiting = select(Job.id).where(Job.state == JobState.QUEUED, Job.kind == JobKind.SCORE).limit(at_most)
    return session.scalars(select(func.count()).select_from(waiting.subquery())).one()


def counts(session: Session) -> dict[str, dict[str, int]]:
    """Return how many revisions, jobs and deliveries there are in each state, and the number of instances.

    Reads all of them: seconds on a node of years. :func:`db.census.unfinished` does not.
    """

    def by(column: Any, members: Sequence[Any], *where: ColumnElement[bool]) -> dict[str, int]:
        rows = session.execute(select(column, func.count()).where(*where).group_by(column))
        found: dict[str, int] = {row[0]: row[1] for row in rows}
        return {member.value: found.get(member.value, 0) for member in members}

    conflicts = session.scalars(select(func.count()).where(Instance.conflict == 1)).one()
    stored = session.scalars(select(func.count()).where(Instance.conflict == 0)).one()
    return {
        "instances": {"stored": stored, "conflicts": conflicts},
        "revisions": by(Revision.state, list(RevisionState)),
        "score_jobs": by(Job.state, list(JobState), Job.kind == JobKind.SCORE),
        "deliver_jobs": by(Job.state, list(JobState), Job.kind == JobKind.DELIVER),
        "train_jobs": by(Job.state, list(JobState), Job.kind == JobKind.TRAIN),
        "commit_jobs": by(Job.state, list(JobState), Job.kind == JobKind.COMMIT),
        "deliveries": by(Delivery.state, list(DeliveryState)),
    }
