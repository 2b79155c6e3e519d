"""What peers ask this node to commit, as rows: kept until it is answered, and what is stored under a UID.

A request of a peer is a job of the kind ``commit`` without a parent; its order is what the peer asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import jobs
from db.canonical import canonical_json
from db.errors import TransitionRefusedError
from db.jobs import Claim, audit_job
from db.lifecycle import JobKind, JobState
from db.queueing import queue, reopen
from db.session import Transaction
from db.tables import Instance, Job

TASK = "storage_commitment"
"""Task of the jobs that answer."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the node has under one SOP Instance UID.

    Attributes
    ----------
    sop_class_uid, spool_name, sha256 : str
        Of the accepted object.
    size_bytes : int
        Of its data set.
    has_conflict : bool
        Whether the same UID came with other bytes, too.
    """

    sop_class_uid: str
    spool_name: str
    sha256: str
    size_bytes: int
    has_conflict: bool


def queue_answer(
    tx: Transaction,
    *,
    asker: str,
    transaction_uid: str,
    objects: Sequence[tuple[str, str]],
    destination: str | None,
    most_waiting: int,
) -> str:
    """Keep what a peer asks to commit until it is answered; return the job's id.

    The same request again is the same job, and is answered again.

    Parameters
    ----------
    asker : str
        The peer's AE title.
    transaction_uid : str
        Its name for the request.
    objects : sequence of (str, str)
        SOP class and instance UID.
    destination : str or None
        ``AE@HOST:PORT`` where the asker takes reports; None where that is not known.
    most_waiting : int
        How many requests may wait for their answer.

    Raises
    ------
    TransitionRefusedError
        If so many wait, or if the transaction UID was used for another request.
    """
    order = canonical_json(
        {"asker": asker, "transaction_uid": transaction_uid, "objects": [list(each) for each in objects]}
    )
    job_id = hashlib.sha256(f"answer {asker} {transaction_uid}".encode()).hexdigest()[:32]
    job = tx.session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is not None:
        if job.order != order:
            raise TransitionRefusedError("the transaction UID names another request already")
        if job.state in (JobState.DONE, JobState.FAILED):
            reopen(tx, job, after_s=0)
        return job_id
    waiting = select(Job.id).where(
        Job.kind == JobKind.COMMIT,
        Job.state.in_((JobState.QUEUED, JobState.RUNNING)),
        Job.parent_job_id.is_(None),
    )
    if tx.session.scalars(select(func.count()).select_from(waiting.limit(most_waiting).subquery())).one() >= (
        most_waiting
    ):
        raise TransitionRefusedError("too many requests for storage commitment wait for their answer")
    job = queue(tx, JobKind.COMMIT, task=TASK, job_id=job_id, destination=destination, order=order)
    detail = {"asker": asker, "transaction_uid": transaction_uid, "objects": len(objects)}
    audit_job(tx, job, "commitment.asked", detail)
    return job_id


def asked(claim: Claim) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Return asker, transaction UID and objects of a job that answers."""
    order = json.loads(claim.order)
    return order["asker"], order["transaction_uid"], tuple((c, i) for c, i in order["objects"])


def stored(session: Session, sop_instance_uids: Sequence[str]) -> dict[str, Stored]:
    """Return what the node registered under these UIDs; those that it does not know are absent."""
    found: dict[str, Stored] = {}
    for start in range(0, len(sop_instance_uids), 500):
        rows = session.scalars(
            select(Instance)
            .where(Instance.sop_instance_uid.in_(sop_instance_uids[start : start + 500]))
            .order_by(Instance.conflict, Instance.id)
        ).all()
        in_conflict = {row.sop_instance_uid for row in rows if row.conflict}
        for row in rows:
            found.setdefault(
                row.sop_instance_uid,
                Stored(
                    row.sop_class_uid,
                    row.spool_name,
                    row.sha256,
                    row.size_bytes,
                    row.sop_instance_uid in in_conflict,
                ),
            )
    return found


def finish(
    tx: Transaction, claim: Claim, *, transaction_uid: str, committed: int, failed: int, status: int
) -> None:
    """End a job that answers: the asker heard how many objects the node keeps, and how many not.

    Parameters
    ----------
    status : int
        What the asker answered to that.
    """
    detail = {
        "transaction_uid": transaction_uid,
        "committed": committed,
        "failed": failed,
        "status": f"{status:04X}",
    }
    tx.audit("commitment.answered", job_id=claim.job_id, detail=detail)
    jobs.finish(tx, claim, detail=detail)
