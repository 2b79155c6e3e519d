"""Which files are old enough to go: those of studies with which nothing is left to do.

Files go, rows stay. That they went stands in the audit trail, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import BindParameter, Select, bindparam, func, literal, select
from sqlalchemy.orm import Session

from db.audit.trail import AUDIT_TABLE, TIME_FORMAT, is_of_action
from db.lifecycle import DeliveryState, JobState, RevisionState
from db.session import Transaction
from db.tables import Delivery, Instance, Job, ResultObject, Revision, Study

FILES_REMOVED = "study.files_removed"
RESULTS_REMOVED = "study.results_removed"
_ARRIVED = (DeliveryState.DELIVERED, DeliveryState.COMMITTED, DeliveryState.NOT_NEEDED)
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class FileKind:
    """Files that go after a time of their own.

    Attributes
    ----------
    setting : str
        The setting that says after how many days.
    action : str
        The event that tells of their removal.
    since : str
        What their age is counted from, as events and rows name it.
    studies : sqlalchemy.Select
        The studies to which ``names`` of files belong.
    files : sqlalchemy.Select
        Each file of the study ``study_id``: its name, since when it ages, and whether it may go.
    """

    setting: str
    action: str
    since: str
    studies: Select[int]
    files: Select[str, datetime, bool]


_NAMES: BindParameter[list[str]] = bindparam("names", expanding=True)
_STUDY_ID: BindParameter[int] = bindparam("study_id")

RECEIVED = FileKind(
    setting="retention.received_days",
    action=FILES_REMOVED,
    since="last_received_at",
    studies=select(Instance.study_id).where(Instance.spool_name.in_(_NAMES)),
    files=select(Instance.spool_name, Instance.received_at, literal(True))
    .where(Instance.study_id == _STUDY_ID)
    .order_by(Instance.id),
)
"""Received objects."""

RESULTS = FileKind(
    setting="retention.results_days",
    action=RESULTS_REMOVED,
    since="last_delivered_at",
    studies=select(Revision.study_id)
    .join(Job, Job.revision_id == Revision.id)
    .join(ResultObject, ResultObject.job_id == Job.id)
    .where(ResultObject.file_name.in_(_NAMES)),
    # What was sent to nobody has no delivery: the node has the only copy, and keeps it.
    files=select(
        ResultObject.file_name,
        func.coalesce(Delivery.updated_at, ResultObject.created_at),
        func.coalesce(Delivery.state, "").in_(_ARRIVED),
    )
    .join(Job, ResultObject.job_id == Job.id)
    .join(Revision, Job.revision_id == Revision.id)
    .outerjoin(Delivery, Delivery.result_id == ResultObject.id)
    .where(Revision.study_id == _STUDY_ID)
    .order_by(ResultObject.id),
)
"""Result objects."""


@dataclass(frozen=True, slots=True)
class OldStudy:
    """A study whose files of a kind may go.

    Attributes
    ----------
    study_instance_uid : str
        The study.
    newest_at : datetime.datetime
        Since when the youngest of them ages, aware UTC.
    names : tuple of str
        The files, those of conflicting instances included.
    """

    study_instance_uid: str
    newest_at: datetime
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """That files of a study were removed.

    Attributes
    ----------
    at : datetime.datetime
        When, aware UTC.
    rule : str
        The setting, or the command, by which they were.
    newest_at : datetime.datetime
        Since when the youngest of them aged, by the clock of the rows.
    """

    at: datetime
    rule: str
    newest_at: datetime

    def __str__(self) -> str:
        return f"removed on {self.at:%Y-%m-%d} ({self.rule})"


def studies_of_files(session: Session, kind: FileKind, names: Sequence[str]) -> set[int]:
    """Return the ids of the studies to which files belong."""
    found: set[int] = set()
    for start in range(0, len(names), _AT_ONCE):
        found.update(session.scalars(kind.studies, {"names": names[start : start + _AT_ONCE]}))
    return found


def old_study(session: Session, kind: FileKind, study_id: int, *, before: datetime) -> OldStudy | None:
    """Return a study if its files may go; None where anything is left to do, or one is younger.

    Every revision must be complete, and every job of it done: one that failed waits for a person. Results
    must have arrived at every destination of theirs, and at one at least. Where storage commitment is asked
    for, a job waits until the destination has committed.
    """
    files = session.execute(kind.files, {"study_id": study_id}).all()
    newest = max((since for _, since, _ in files), default=None)
    if newest is None or newest >= before or not all(may_go for _, _, may_go in files):
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
    return OldStudy(uid, newest, tuple(dict.fromkeys(name for name, _, _ in files)))


def confirm(tx: Transaction, kind: FileKind, study_id: int, *, before: datetime) -> OldStudy | None:
    """Return the study as :func:`old_study` does, locked until the commit: no instance joins it meanwhile."""
    tx.session.execute(select(Study.id).where(Study.id == study_id).with_for_update())
    return old_study(tx.session, kind, study_id, before=before)


def audit_removal(
    tx: Transaction, kind: FileKind, study: OldStudy, *, files: int, size_bytes: int, rule: str
) -> None:
    """Record that files of a study are removed, before they are.

    Parameters
    ----------
    kind : FileKind
        Which of its files.
    study : OldStudy
        As it was confirmed.
    files, size_bytes : int
        How many there are still, and their length together.
    rule : str
        The setting, or the command, that says so.
    """
    tx.audit(
        kind.action,
        study_instance_uid=study.study_instance_uid,
        detail={
            "files": files,
            "bytes": size_bytes,
            kind.since: study.newest_at.isoformat(),
            "rule": rule,
        },
    )


def removals(session: Session, kind: FileKind, study_instance_uids: Collection[str]) -> dict[str, Removed]:
    """Return when files of some studies were removed last; studies that kept theirs are left out."""
    t = AUDIT_TABLE.c
    uids, found = list(study_instance_uids), dict[str, Removed]()
    for start in range(0, len(uids), _AT_ONCE):
        of_these = t.study_instance_uid.in_(uids[start : start + _AT_ONCE])
        told = select(t.study_instance_uid, t.at, t.detail).where(is_of_action(kind.action), of_these)
        for uid, spelled_at, text in session.execute(told.order_by(t.seq)):
            at, detail = datetime.strptime(spelled_at, TIME_FORMAT).replace(tzinfo=UTC), json.loads(text)
            rule = detail.get("rule", kind.setting)  # events of earlier versions name none
            found[uid] = Removed(at, rule, datetime.fromisoformat(detail[kind.since]))
    return found


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
