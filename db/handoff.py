"""When a study revision is complete, why, and which jobs that makes: decided in one transaction.

A received instance joins its study's open revision. The revision is complete by the first of: every standard
view of the protocol arrived, an explicit command, the end of the quiet period. Instances that arrive later
open the next revision, which is scored again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from db import registry
from db.errors import UnknownRecordError
from db.lifecycle import (
    REVISION_TRANSITIONS,
    CompletionReason,
    JobKind,
    RevisionState,
    next_state,
)
from db.registry import AcceptedFile, Joining, LatestRevision
from db.registry import ReceivedInstance as ReceivedInstance
from db.session import Transaction
from db.tables import Instance, Revision, Study


class Registration(StrEnum):
    """What became of a received instance."""

    NEW = "new"  # registered; it joined a revision
    DUPLICATE = "duplicate"  # the same bytes are here already; nothing changed
    CONFLICT = "conflict"  # other bytes under a known UID: kept apart, never scored
    RESTORED = "restored"  # the same bytes were registered, but their file was gone: this one takes its place


@dataclass(frozen=True, slots=True)
class Route:
    """Which studies a task wants: those with at least one instance of these SOP classes."""

    task: str
    sop_class_uids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Completeness:
    """The protocol that tells when a revision is complete.

    Attributes
    ----------
    standard_views : frozenset of (str, str)
        Pairs of laterality and view that make a study complete at once; empty switches the rule off.
    quiet_period_s : float
        Seconds without a new instance after which a revision is complete anyway.
    routes : tuple of Route
        The tasks that are asked of complete studies.
    """

    standard_views: frozenset[tuple[str, str]]
    quiet_period_s: float
    routes: tuple[Route, ...]


def register_instance(
    tx: Transaction,
    received: ReceivedInstance,
    rules: Completeness,
    *,
    is_whole: Callable[[AcceptedFile], bool] = lambda _file: True,
) -> Registration:
    """Register a durable instance; complete its revision when it was the last standard view.

    Parameters
    ----------
    tx : Transaction
        The listener's.
    received : ReceivedInstance
        The instance and its file.
    rules : Completeness
        When a study is complete.
    is_whole : callable
        Whether the spool still holds the file of an accepted instance as it came; asked of the first file
        when the same bytes come again.

    Returns
    -------
    Registration
        For ``DUPLICATE`` the caller may remove its file: the same bytes are stored already. A file that is
        registered again, because nobody knew of its commit, is none.
    """
    return register_instances(tx, [received], rules, is_whole=is_whole)[0]


def register_instances(
    tx: Transaction,
    received: Sequence[ReceivedInstance],
    rules: Completeness,
    *,
    is_whole: Callable[[AcceptedFile], bool] = lambda _file: True,
) -> list[Registration]:
    """Register several durable instances in one transaction, as if they came one after the other.

    A study whose standard views are complete with them is completed once, with all of them.

    Parameters
    ----------
    tx, rules, is_whole
        As for :func:`register_instance`.
    received : sequence of ReceivedInstance
        The instances and their files.

    Returns
    -------
    list of Registration
        What became of each.
    """
    # In one order of studies: two listeners that lock several would wait for each other for ever.
    order = sorted(range(len(received)), key=lambda index: received[index].study_instance_uid)
    batch = _Batch(tx, [received[index] for index in order], rules, is_whole)
    outcomes = dict(zip(order, batch.register(), strict=True))
    return [outcomes[index] for index in range(len(received))]


@dataclass(slots=True)
class _Arriving:
    """A study of a batch, whose lock is held: its newest revision, and what is still to be written of it."""

    id: int
    revision: LatestRevision | None
    has_joined: bool = False
    has_new_view: bool = False
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class _Batch:
    """Instances that are registered in one transaction, in the order of their studies.

    What they need is read at once and their rows are written at once, so that each costs little.
    """

    def __init__(
        self,
        tx: Transaction,
        received: Sequence[ReceivedInstance],
        rules: Completeness,
        is_whole: Callable[[AcceptedFile], bool],
    ) -> None:
        self._tx = tx
        self._received = received
        self._rules = rules
        self._is_whole = is_whole
        study_ids = _studies(tx, received)
        uids = {each.sop_instance_uid for each in received}
        self._first_of = registry.accepted(tx.connection, uids)
        # Resends alone join no revision.
        is_any_new = len(self._first_of) < len(uids)
        latest = registry.latest_revisions(tx.connection, study_ids.values()) if is_any_new else {}
        self._studies = {uid: _Arriving(id, latest.get(id)) for uid, id in study_ids.items()}
        self._joining: dict[str, Joining] = {}

    def register(self) -> list[Registration]:
        """Write rows and events; return what became of each."""
        tx = self._tx
        outcomes = [self._outcome_of(each) for each in self._received]
        if self._joining:
            registry.insert_instances(tx.connection, self._joining.values(), tx.now)
            joined = [
                study.revision.id for study in self._studies.values() if study.has_joined and study.revision
            ]
            registry.prolong(tx.connection, joined, tx.now, _due_at(tx, self._rules))
        # As if the studies came one after the other: the next one's events follow this one's completion.
        for uid, study in self._studies.items():
            for action, detail in study.events:
                tx.audit(action, study_instance_uid=uid, detail=detail)
            # Nothing else than a view can complete them.
            if study.has_new_view:
                self._complete_if_all_views(uid, study)
        return outcomes

    def _outcome_of(self, each: ReceivedInstance) -> Registration:
        study = self._studies[each.study_instance_uid]
        first = self._first_of.get(each.sop_instance_uid)
        if first is None:
            self._join(study, each)
            return Registration.NEW
        if first.spool_name == each.spool_name:
            # Asked again after a commit of which nobody knew: this is its row, not another's.
            return Registration.NEW
        if not first.has_bytes_of(each):
            return self._keep_apart(study, each)
        if self._is_whole(first):
            return Registration.DUPLICATE
        self._restore(study, each)
        return Registration.RESTORED

    def _join(self, study: _Arriving, each: ReceivedInstance) -> None:
        """Let an instance join the open revision of its study, or open the next one."""
        revision = study.revision
        if revision is None or not revision.is_open:
            number = 0 if revision is None else revision.number
            revision = study.revision = _next_revision(self._tx, study.id, number, self._rules)
        study.has_joined = True
        study.has_new_view = study.has_new_view or each.for_presentation
        uid = each.sop_instance_uid
        self._first_of[uid] = AcceptedFile(
            each.sha256, each.transfer_syntax_uid, each.spool_name, each.size_bytes
        )
        self._joining[uid] = Joining(each, study.id, revision.number)
        _audit_later(study, "instance.stored", each, bytes=each.size_bytes, revision=revision.number)

    def _keep_apart(self, study: _Arriving, each: ReceivedInstance) -> Registration:
        """Store other bytes under a known UID where nobody scores them, once per content."""
        known = select(Instance.spool_name).where(
            Instance.sop_instance_uid == each.sop_instance_uid,
            Instance.conflict == 1,
            Instance.sha256 == each.sha256,
            Instance.transfer_syntax_uid == each.transfer_syntax_uid,
        )
        tx = self._tx
        if (name := tx.session.scalars(known.limit(1)).first()) is not None:
            return Registration.CONFLICT if name == each.spool_name else Registration.DUPLICATE
        registry.insert_instances(tx.connection, [Joining(each, study.id, 0)], tx.now, conflict=True)
        _audit_later(study, "instance.conflict", each)
        return Registration.CONFLICT

    def _restore(self, study: _Arriving, each: ReceivedInstance) -> None:
        """Let a resent file take the place of one that was lost from the disk."""
        uid = each.sop_instance_uid
        self._first_of[uid] = self._first_of[uid]._replace(spool_name=each.spool_name)
        joining = self._joining.get(uid)
        if joining is None:
            registry.move_file(self._tx.connection, uid, each.spool_name)
        else:  # its row is not written yet
            received = replace(joining.received, spool_name=each.spool_name)
            self._joining[uid] = joining._replace(received=received)
        _audit_later(study, "instance.restored", each)

    def _complete_if_all_views(self, uid: str, study: _Arriving) -> None:
        """Complete the study's open revision if the standard views are there with it, and were not before."""
        tx, revision = self._tx, study.revision
        assert revision is not None  # something joined it
        if _views_just_completed(tx.connection, study.id, revision.number, self._rules):
            _complete(tx, uid, study.id, revision, CompletionReason.ALL_VIEWS, self._rules)


def _audit_later(study: _Arriving, action: str, each: ReceivedInstance, **more: Any) -> None:
    """Note an event of an instance, to be told together with its study's."""
    detail = {
        "sop_instance_uid": each.sop_instance_uid,
        "sha256": each.sha256,
        "calling_ae_title": each.calling_ae_title,
        **({} if each.peer_address is None else {"peer_address": each.peer_address}),
        **more,
    }
    study.events.append((action, detail))


def complete_study(tx: Transaction, study_instance_uid: str, rules: Completeness) -> int:
    """Complete a study's open revision by command.

    Returns
    -------
    int
        The revision's number.

    Raises
    ------
    UnknownRecordError
        If there is no such study or nothing of it is open.
    """
    study_id, revision = _locked_study(tx.connection, study_instance_uid)
    if study_id is None or revision is None or not revision.is_open:
        raise UnknownRecordError(
            "no open revision of that study; 'dicom-node study list' shows what is open and what is complete"
        )
    _complete(tx, study_instance_uid, study_id, revision, CompletionReason.COMMAND, rules)
    return revision.number


def complete_for_recall(tx: Transaction, study_instance_uid: str, task: str, rules: Completeness) -> int:
    """Have a study scored again because the bundle that scored it was recalled.

    Instances that wait in an open revision are scored along; without any, a revision of the same instances is
    opened and complete at once.

    Returns
    -------
    int
        Number of the revision that is scored.

    Raises
    ------
    UnknownRecordError
        If there is no such study.
    """
    study_id, revision = _locked_study(tx.connection, study_instance_uid)
    if study_id is None or revision is None:
        raise UnknownRecordError("no such study; 'dicom-node study list' shows all")
    if not revision.is_open:
        # Nothing new arrived, so no other task has anything new to say.
        rules = replace(rules, routes=tuple(route for route in rules.routes if route.task == task))
        revision = _next_revision(tx, study_id, revision.number, rules)
    _complete(tx, study_instance_uid, study_id, revision, CompletionReason.RECALL, rules)
    return revision.number


def complete_quiet_studies(tx: Transaction, rules: Completeness, *, limit: int = 100) -> int:
    """Complete every open revision whose quiet period has ended; return how many there were.

    A study whose lock a listener holds is passed over: it is receiving an instance at this moment.
    """
    rows = tx.session.execute(
        select(Study.study_instance_uid, Study.id, Revision.id, Revision.number)
        .join(Revision, Revision.study_id == Study.id)
        .where(Revision.state == RevisionState.OPEN, Revision.due_at <= tx.now)
        .order_by(Revision.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=(Study, Revision))
    ).all()
    for uid, study_id, revision_id, number in rows:
        revision = LatestRevision(revision_id, number, is_open=True)
        _complete(tx, uid, study_id, revision, CompletionReason.QUIET_PERIOD, rules)
    return len(rows)


def has_quiet_study(session: Session, now: datetime) -> bool:
    """Whether any open revision's quiet period has ended; a cheap look before a writing transaction."""
    due = select(Revision.id).where(Revision.state == RevisionState.OPEN, Revision.due_at <= now).limit(1)
    return session.scalars(due).first() is not None


def _studies(tx: Transaction, received: Sequence[ReceivedInstance]) -> dict[str, int]:
    """Lock the studies of instances until the commit, in the instances' order; return their ids."""
    first_of_study: dict[str, ReceivedInstance] = {}
    for each in received:
        first_of_study.setdefault(each.study_instance_uid, each)
    if len(first_of_study) > 1:
        known = registry.locked_studies(tx.connection, list(first_of_study))
        if known is not None:
            return {uid: known[uid] for uid in first_of_study}
    return {uid: _study(tx, first) for uid, first in first_of_study.items()}


def _study(tx: Transaction, received: ReceivedInstance) -> int:
    """Return the id of the instance's study, created at its first instance and locked until the commit."""
    uid = received.study_instance_uid
    known = registry.locked_study(tx.connection, uid)
    if known is not None:
        return known
    registry.insert_study(tx.connection, received, tx.now)
    study_id = registry.locked_study(tx.connection, uid)
    assert study_id is not None  # inserted above, by us or by another; rows of studies are never removed
    return study_id


def _locked_study(
    connection: Connection, study_instance_uid: str
) -> tuple[int | None, LatestRevision | None]:
    """Lock a study until the commit; return its id and, looked at after that, its newest revision."""
    study_id = registry.locked_study(connection, study_instance_uid)
    if study_id is None:
        return None, None
    return study_id, registry.latest_revisions(connection, [study_id]).get(study_id)


def _next_revision(tx: Transaction, study_id: int, latest_number: int, rules: Completeness) -> LatestRevision:
    return registry.open_revision(tx.connection, study_id, latest_number + 1, tx.now, _due_at(tx, rules))


def _due_at(tx: Transaction, rules: Completeness) -> datetime:
    """Return when the quiet period ends that begins now."""
    return tx.now + timedelta(seconds=rules.quiet_period_s)


def _views_just_completed(
    connection: Connection, study_id: int, revision_number: int, rules: Completeness
) -> bool:
    """Whether the standard views are all there and were not when the previous revision was completed.

    A late extra image of a study whose views were complete already must not fire at once: more may follow.
    """
    if not rules.standard_views:
        return False
    rows = registry.views(connection, study_id)
    now = {(laterality, view) for laterality, view, _ in rows}
    before = {(laterality, view) for laterality, view, number in rows if number < revision_number}
    return now >= rules.standard_views and not before >= rules.standard_views


def _complete(
    tx: Transaction,
    study_instance_uid: str,
    study_id: int,
    revision: LatestRevision,
    reason: CompletionReason,
    rules: Completeness,
) -> None:
    """Complete a revision and make its jobs."""
    before = RevisionState.OPEN if revision.is_open else RevisionState.COMPLETE
    after = next_state(REVISION_TRANSITIONS, before, reason)
    registry.complete_revision(tx.connection, revision.id, after, reason, tx.now)
    sop_classes = registry.sop_classes(tx.connection, study_id, revision.number)
    tasks = [route.task for route in rules.routes if route.sop_class_uids & sop_classes]
    tx.audit(
        "study.complete",
        study_instance_uid=study_instance_uid,
        detail={"revision": revision.number, "reason": reason.value, "tasks": tasks},
    )
    task_of_job = {uuid.uuid4().hex: task for task in tasks}
    registry.insert_score_jobs(tx.connection, revision.id, task_of_job, tx.now)
    for job_id, task in task_of_job.items():
        tx.audit(
            "job.queued",
            study_instance_uid=study_instance_uid,
            job_id=job_id,
            detail={"kind": JobKind.SCORE.value, "task": task, "revision": revision.number},
        )


def known_spool_names(session: Session, names: Sequence[str]) -> set[str]:
    """Return which of the spool's file names belong to a registered instance."""
    known: set[str] = set()
    for start in range(0, len(names), 500):
        chunk = names[start : start + 500]
        known.update(session.scalars(select(Instance.spool_name).where(Instance.spool_name.in_(chunk))))
    return known
