"""Which received files are old enough to go: those of studies with which nothing is left to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.audit.trail import AUDIT_TABLE, is_of_action
from db.lifecycle import JobState, RevisionState
from db.session import Transaction
from db.tables import Instance, Job, ResultObject, Revision, Study

FILES_REMOVED = "study.files_removed"
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class OldStudy:
    """A study whose files may go.

    Attributes
    ----------
    study_instance_uid : str
        The study.
    last_received_at : datetime.datetime
        When its newest instance came, aware UTC.
    spool_names : tuple of str
        The files of all of its instances, conflicting ones included.
    """

    study_instance_uid: str
    last_received_at: datetime
    spool_names: tuple[str, ...]


def studies_of_files(session: Session, spool_names: Sequence[str]) -> set[int]:
    """Return the ids of the studies to which files of the spool belong."""
    found: set[int] = set()
    for start in range(0, len(spool_names), _AT_ONCE):
        chunk = spool_names[start : start + _AT_ONCE]
        found.update(session.scalars(select(Instance.study_id).where(Instance.spool_name.in_(chunk))))
    return found


def old_study(session: Session, study_id: int, *, before: datetime) -> OldStudy | None:
    """Return a study if its files may go; None where anything is left to do, or an instance is younger.

    Every revision must be complete, and every job of it done: one that failed waits for a person.
    """
    received = session.execute(
        select(Instance.spool_name, Instance.received_at)
        .where(Instance.study_id == study_id)
        .order_by(Instance.id)
    ).all()
    newest = max((row.received_at for row in received), default=None)
    if newest is None or newest >= before:
        return None
    is_open = select(Revision.id).where(
        Revision.study_id == study_id, Revision.state != RevisionState.COMPLETE
    )
    is_unfinished = (
        select(Job.id)
        .join(Revision, Job.revision_id == Revision.id)
        .where(Revision.study_id == study_id, Job.state != JobState.DONE)
    )
    if any(session.scalars(query.limit(1)).first() is not None for query in (is_open, is_unfinished)):
        return None
    uid = session.scalars(select(Study.study_instance_uid).where(Study.id == study_id)).one()
    return OldStudy(uid, newest, tuple(row.spool_name for row in received))


def confirm(tx: Transaction, study_id: int, *, before: datetime) -> OldStudy | None:
    """Return the study as :func:`old_study` does, locked until the commit: no instance joins it meanwhile."""
    tx.session.execute(select(Study.id).where(Study.id == study_id).with_for_update())
    return old_study(tx.session, study_id, before=before)


def audit_removal(tx: Transaction, study: OldStudy, *, files: int, size_bytes: int) -> None:
    """Record that files of a study are removed, before they are."""
    tx.audit(
        FILES_REMOVED,
        study_instance_uid=study.study_instance_uid,
        detail={
            "files": files,
            "bytes": size_bytes,
            "last_received_at": study.last_received_at.isoformat(),
        },
    )


def with_files_removed(session: Session, study_instance_uids: Iterable[str]) -> set[str]:
    """Return those of some studies whose files were removed at some time."""
    uid = AUDIT_TABLE.c.study_instance_uid
    told = select(uid).where(is_of_action(FILES_REMOVED), uid.in_(list(study_instance_uids)))
    return set(session.scalars(told.distinct()))


def instances_after(
    session: Session, instance_id: int, *, study_instance_uid: str | None = None
) -> list[tuple[str, Instance]]:
    """Return the next instances by their ids, each with its study: a page of a walk through all of them."""
    query = select(Study.study_instance_uid, Instance).join(Study, Instance.study_id == Study.id)
    if study_instance_uid is not None:
        query = query.where(Study.study_instance_uid == study_instance_uid)
    page = query.where(Instance.id > instance_id).order_by(Instance.id).limit(_AT_ONCE)
    return [(uid, instance) for uid, instance in session.execute(page)]


def results_after(
    session: Session, result_id: int, *, study_instance_uid: str | None = None
) -> list[tuple[str, ResultObject]]:
    """Return the next result objects by their ids, each with its study, as instances_after does."""
    query = (
        select(Study.study_instance_uid, ResultObject)
        .join(Job, ResultObject.job_id == Job.id)
        .join(Revision, Job.revision_id == Revision.id)
        .join(Study, Revision.study_id == Study.id)
    )
    if study_instance_uid is not None:
        query = query.where(Study.study_instance_uid == study_instance_uid)
    page = query.where(ResultObject.id > result_id).order_by(ResultObject.id).limit(_AT_ONCE)
    return [(uid, result) for uid, result in session.execute(page)]
