"""Which studies a bundle scored, for the day on which it is recalled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session, aliased

from db.deployments import champion
from db.errors import RecallRefusedError, UnknownRecordError
from db.handoff import Completeness, complete_for_recall
from db.lifecycle import CompletionReason, DeliveryState, JobKind, JobState
from db.session import Transaction
from db.tables import Analysis, BundleRecord, Delivery, Job, ResultObject, Revision, Study

Row = dict[str, Any]
_THERE = (DeliveryState.DELIVERED, DeliveryState.COMMITTED, DeliveryState.UNKNOWN)


def scored_by(
    session: Session, digest: str, *, since: datetime | None = None, until: datetime | None = None
) -> list[Row]:
    """Return a row per study revision that a bundle scored, oldest first.

    Parameters
    ----------
    session : Session
        Where to look.
    digest : str
        The bundle.
    since, until : datetime.datetime, optional
        Only what was scored from then on, and before then; aware.

    Returns
    -------
    list of dict
        With patient ID and accession number, for the reader who must look again. ``delivered`` counts the
        objects that destinations hold or may hold and that nothing has withdrawn; ``recalled`` tells whether
        a later revision of the study was made for a recall.
    """
    recalled, later = aliased(Revision), aliased(Revision)
    is_recalled = exists().where(
        recalled.study_id == Revision.study_id,
        recalled.number > Revision.number,
        recalled.complete_reason == CompletionReason.RECALL,
    )
    is_superseded = exists().where(later.study_id == Revision.study_id, later.number > Revision.number)
    query = (
        select(Study, Revision.number, Job, Analysis, is_recalled, is_superseded)
        .join(Revision, Revision.study_id == Study.id)
        .join(Job, Job.revision_id == Revision.id)
        .join(Analysis, Analysis.job_id == Job.id)
        .where(Job.kind == JobKind.SCORE, Job.state == JobState.DONE, Job.bundle_digest == digest)
        .order_by(Job.finished_at, Job.id)
    )
    if since is not None:
        query = query.where(Job.finished_at >= since)
    if until is not None:
        query = query.where(Job.finished_at < until)
    return [
        {
            "study_instance_uid": study.study_instance_uid,
            "revision": number,
            "patient_id": study.patient_id,
            "accession_number": study.accession_number,
            "task": job.task,
            "job_id": job.id,
            "scored_at": job.finished_at and job.finished_at.isoformat(),
            "outcome": analysis.outcome,
            "study_probability": analysis.study_probability,
            **_whereabouts(session, job.id),
            "superseded": superseded,
            "recalled": recalled_already,
        }
        for study, number, job, analysis, recalled_already, superseded in session.execute(query)
    ]


def _whereabouts(session: Session, job_id: str) -> Row:
    rows = session.execute(
        select(Delivery.destination, func.count())
        .join(ResultObject, Delivery.result_id == ResultObject.id)
        .where(ResultObject.job_id == job_id, Delivery.state.in_(_THERE), Delivery.withdrawn_by.is_(None))
        .group_by(Delivery.destination)
        .order_by(Delivery.destination)
    ).all()
    return {"delivered": sum(count for _, count in rows), "destinations": [name for name, _ in rows]}


def require_recallable(session: Session, digest: str) -> str:
    """Return the task of a bundle whose studies another bundle can score now.

    Raises
    ------
    UnknownRecordError
        If no such bundle was added.
    RecallRefusedError
        If the bundle still answers, none answers, or a job is still running with it.
    """
    record = session.get(BundleRecord, digest)
    if record is None:
        raise UnknownRecordError(f"no bundle {digest[:12]} was added; 'dicom-node model list' shows what was")
    present = champion(session, record.task)
    if present == digest:
        raise RecallRefusedError(
            f"{digest[:12]} still answers for {record.task}; first run 'dicom-node model rollback' or "
            "'dicom-node model activate' with another bundle"
        )
    if present is None:
        raise RecallRefusedError(
            f"no bundle answers for {record.task}; run 'dicom-node model activate' first"
        )
    running = and_(Job.kind == JobKind.SCORE, Job.state == JobState.RUNNING, Job.bundle_digest == digest)
    if session.scalars(select(Job.id).where(running).limit(1)).first() is not None:
        raise RecallRefusedError(
            f"a job still scores with {digest[:12]}; run the command again when it ended"
        )
    return record.task


def recall_study(tx: Transaction, study_instance_uid: str, digest: str, rules: Completeness) -> int:
    """Queue the withdrawal and the new scoring of one study; return the revision's number.

    The rejection notes are made and sent with the new results.
    """
    task = require_recallable(tx.session, digest)
    number = complete_for_recall(tx, study_instance_uid, task, rules)
    tx.audit(
        "study.recalled", study_instance_uid=study_instance_uid, bundle=digest, detail={"revision": number}
    )
    return number


def studies_to_recall(rows: Sequence[Row]) -> list[str]:
    """Return the studies of some rows that no recall has touched yet, in the rows' order, each once."""
    return list(dict.fromkeys(row["study_instance_uid"] for row in rows if not row["recalled"]))
