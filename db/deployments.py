"""Which bundle answers for which task: a row, never a file name or an environment variable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from db.errors import TransitionRefusedError, UnknownRecordError
from db.lifecycle import DeploymentRole, JobKind, JobState
from db.row_changes import insert_if_absent
from db.session import Transaction
from db.tables import BundleRecord, Deployment, Job

_SHARES = 10_000  # a study's place among so many decides whether a canary answers for it


@dataclass(frozen=True, slots=True)
class Answering:
    """The bundle that answers for one study, and in which role."""

    digest: str
    role: DeploymentRole


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """A bundle as the database remembers it."""

    digest: str
    name: str
    version: str
    task: str
    demonstration: bool


def add_bundle(tx: Transaction, facts: BundleFacts) -> bool:
    """Remember a verified bundle; return False where it was known already."""
    new = insert_if_absent(
        tx.session,
        BundleRecord,
        {
            "digest": facts.digest,
            "name": facts.name,
            "version": facts.version,
            "task": facts.task,
            "demonstration": int(facts.demonstration),
            "added_at": tx.now,
            "added_by": tx.actor,
        },
    )
    if new:
        detail = {"name": facts.name, "version": facts.version, "task": facts.task}
        tx.audit("bundle.added", bundle=facts.digest, detail=detail)
    return new


def activate(tx: Transaction, digest: str) -> str | None:
    """Let a bundle answer for its task from the next claimed job on; return the digest that it replaces.

    Raises
    ------
    UnknownRecordError
        If no such bundle was added.
    """
    record = _record(tx.session, digest)
    replaced = champion(tx.session, record.task)
    if replaced == digest:
        return digest
    _deploy(tx, record.task, digest)
    detail = {"task": record.task, "replaces": replaced, "name": record.name, "version": record.version}
    tx.audit("bundle.activated", bundle=digest, detail=detail)
    return replaced


def promote(
    tx: Transaction, digest: str, *, champion_was: str, approver: str, evidence: Mapping[str, Any]
) -> None:
    """Let a challenger answer, on what was measured against the champion, with who approved it.

    Parameters
    ----------
    tx : Transaction
        Where.
    digest : str
        The challenger.
    champion_was : str
        The champion that it was compared with.
    approver : str
        Who approved.
    evidence : Mapping
        Verdict, reasons and, where the verdict was overridden, why; goes into the audit trail.

    Raises
    ------
    UnknownRecordError
        If no such bundle was added.
    TransitionRefusedError
        If another bundle answers than the one that it was compared with.
    """
    record = _record(tx.session, digest)
    present = champion(tx.session, record.task)
    if present != champion_was or present == digest:
        raise TransitionRefusedError(
            f"{str(present)[:12]} answers now, not {champion_was[:12]}: compare with it, then promote"
        )
    _deploy(tx, record.task, digest, approved_by=approver)
    detail = {"task": record.task, "replaces": present, "approver": approver, **evidence}
    tx.audit("bundle.promoted", bundle=digest, detail=detail)


def shadow(tx: Transaction, digest: str) -> str | None:
    """Let a bundle score what the champion scores, unseen; return the digest that it replaces.

    Nothing is changed where it does so already; its own digest is returned then.

    Raises
    ------
    UnknownRecordError
        If no such bundle was added.
    TransitionRefusedError
        If it is the one that answers.
    """
    if in_shadow(tx.session, _record(tx.session, digest).task) == digest:
        return digest
    return _assist(tx, digest, DeploymentRole.SHADOW, None)


def canary(tx: Transaction, digest: str, percent: int) -> str | None:
    """Let a bundle answer for a share of its task's studies; return the digest that it replaces.

    Parameters
    ----------
    tx : Transaction
        Where.
    digest : str
        The bundle.
    percent : int
        1..99 of the studies, always the same ones; a larger share includes those of a smaller one.

    Raises
    ------
    UnknownRecordError
        If no such bundle was added.
    TransitionRefusedError
        If it is the one that answers, or the share is out of range.
    """
    if not 1 <= percent <= 99:
        raise TransitionRefusedError("a canary answers for 1 to 99 percent; 'model promote' gives it all")
    return _assist(tx, digest, DeploymentRole.CANARY, percent)


def retire(tx: Transaction, digest: str) -> DeploymentRole:
    """End a bundle's term in shadow or as canary; return which it was.

    Raises
    ------
    UnknownRecordError
        If no such bundle was added.
    TransitionRefusedError
        If it is neither; a champion is replaced by another bundle.
    """
    record = _record(tx.session, digest)
    terms = _terms(tx.session, record.task)
    roles = [
        term.role for term in terms if term.bundle_digest == digest and term.role != DeploymentRole.CHAMPION
    ]
    if not roles:
        raise TransitionRefusedError(
            f"{digest[:12]} is neither in shadow nor a canary; a champion ends when another one is activated"
        )
    _end_terms(tx, record.task, digest=digest)
    role = DeploymentRole(roles[0])
    tx.audit("bundle.retired", bundle=digest, detail={"task": record.task, "role": role.value})
    return role


def rollback(tx: Transaction, task: str, *, reason: str | None = None) -> str:
    """Let the bundle that answered before the present one answer again; return its digest.

    A canary's term ends, too: what is rolled back from is not to be trusted with any study.

    Parameters
    ----------
    tx : Transaction
        Where.
    task : str
        The task.
    reason : str, optional
        Why, where no person decided it; without patient data.

    Raises
    ------
    UnknownRecordError
        If no other bundle ever answered for the task.
    """
    _lock_task(tx.session, task)
    present = champion(tx.session, task)
    before = _champion_before(tx.session, task, present)
    if present is None or before is None:
        raise UnknownRecordError(f"no earlier bundle answered for {task!r}; nothing to roll back to")
    _end_terms(tx, task, role=DeploymentRole.CANARY)
    _deploy(tx, task, before)
    why = {} if reason is None else {"reason": reason}
    tx.audit("bundle.rolled_back", bundle=before, detail={"task": task, "replaces": present, **why})
    return before


def take_back(tx: Transaction, digest: str, *, reason: str) -> bool:
    """End the role of a bundle that failed before it answered for any study; return whether it has none now.

    As canary its term ends; as champion it is rolled back from, to one that has answered. A bundle that has
    answered keeps its role: what fails then is more likely the machine that asks it.

    Parameters
    ----------
    tx : Transaction
        Where.
    digest : str
        The bundle.
    reason : str
        How it failed; without patient data.
    """
    task = _record(tx.session, digest).task
    role = next((term.role for term in _terms(tx.session, task) if term.bundle_digest == digest), None)
    if role not in (DeploymentRole.CHAMPION, DeploymentRole.CANARY):
        return True
    if _has_answered(tx.session, digest):
        return False
    if role == DeploymentRole.CANARY:
        _end_terms(tx, task, digest=digest)
        tx.audit("bundle.retired", bundle=digest, detail={"task": task, "role": role, "reason": reason})
        return True
    before = _champion_before(tx.session, task, digest)
    if before is None or not _has_answered(tx.session, before):
        return False
    rollback(tx, task, reason=reason)
    return True


def champion(session: Session, task: str) -> str | None:
    """Return the digest of the bundle that answers for a task now."""
    return _in_role(session, task, DeploymentRole.CHAMPION)


def in_shadow(session: Session, task: str) -> str | None:
    """Return the digest of the bundle that scores unseen for a task now."""
    return _in_role(session, task, DeploymentRole.SHADOW)


def answering(session: Session, task: str, study_instance_uid: str) -> Answering | None:
    """Return the bundle that answers for one study now: the canary for its share, else the champion."""
    present = {term.role: term for term in _terms(session, task)}
    canary_term = present.get(DeploymentRole.CANARY)
    if canary_term is not None and is_in_share(study_instance_uid, canary_term.percent or 0):
        return Answering(canary_term.bundle_digest, DeploymentRole.CANARY)
    term = present.get(DeploymentRole.CHAMPION)
    return None if term is None else Answering(term.bundle_digest, DeploymentRole.CHAMPION)


def is_in_share(study_instance_uid: str, percent: int) -> bool:
    """Whether a canary for `percent` of the studies answers for this one; the same answer for ever."""
    place = int(hashlib.sha256(study_instance_uid.encode("ascii", "replace")).hexdigest(), 16) % _SHARES
    return place * 100 < percent * _SHARES


def task_of(session: Session, digest: str) -> str:
    """Return the task that a known bundle answers."""
    return session.get_one(BundleRecord, digest).task


def _in_role(session: Session, task: str, role: DeploymentRole) -> str | None:
    return next((term.bundle_digest for term in _terms(session, task) if term.role == role), None)


def _champion_before(session: Session, task: str, present: str | None) -> str | None:
    """Return the digest of the bundle that answered before the present one."""
    return session.scalars(
        select(Deployment.bundle_digest)
        .where(Deployment.task == task, Deployment.role == DeploymentRole.CHAMPION)
        .where(Deployment.until.is_not(None), Deployment.bundle_digest != present)
        .order_by(Deployment.id.desc())
        .limit(1)
    ).one_or_none()


def _has_answered(session: Session, digest: str) -> bool:
    scored = Job.bundle_digest == digest, Job.kind == JobKind.SCORE, Job.state == JobState.DONE
    return bool(session.scalars(select(exists().where(*scored))).one())


def _terms(session: Session, task: str) -> list[Deployment]:
    """Return the present terms of a task's bundles."""
    query = select(Deployment).where(Deployment.task == task, Deployment.until.is_(None))
    return list(session.scalars(query))


def _record(session: Session, digest: str) -> BundleRecord:
    """Return a known bundle, with its task locked."""
    record = session.get(BundleRecord, digest)
    if record is None:
        raise UnknownRecordError(f"no bundle {digest[:12]} was added; 'dicom-node model list' shows what was")
    _lock_task(session, record.task)
    return record


def _lock_task(session: Session, task: str) -> None:
    """Let two people who change one task's bundle do so one after the other."""
    rows = select(BundleRecord.digest).where(BundleRecord.task == task).order_by(BundleRecord.digest)
    session.execute(rows.with_for_update())


def _assist(tx: Transaction, digest: str, role: DeploymentRole, percent: int | None) -> str | None:
    record = _record(tx.session, digest)
    if champion(tx.session, record.task) == digest:
        raise TransitionRefusedError(
            f"{digest[:12]} answers already for {record.task!r}; name another bundle"
        )
    replaced = _in_role(tx.session, record.task, role)
    _end_terms(tx, record.task, role=role)
    _end_terms(tx, record.task, digest=digest)
    _begin_term(tx, record.task, digest, role, percent=percent)
    detail = {"task": record.task, "replaces": replaced, "percent": percent}
    event = "bundle.shadowed" if role is DeploymentRole.SHADOW else "bundle.canary"
    tx.audit(event, bundle=digest, detail={name: v for name, v in detail.items() if v is not None})
    return replaced


def _deploy(tx: Transaction, task: str, digest: str, *, approved_by: str | None = None) -> None:
    """Let a bundle answer; whatever else it did for the task ends."""
    _end_terms(tx, task, role=DeploymentRole.CHAMPION)
    _end_terms(tx, task, digest=digest)
    _begin_term(tx, task, digest, DeploymentRole.CHAMPION, approved_by=approved_by)


def _end_terms(
    tx: Transaction, task: str, *, role: DeploymentRole | None = None, digest: str | None = None
) -> None:
    ending = update(Deployment).where(Deployment.task == task, Deployment.until.is_(None))
    if role is not None:
        ending = ending.where(Deployment.role == role)
    if digest is not None:
        ending = ending.where(Deployment.bundle_digest == digest)
    tx.session.execute(ending.values(until=tx.now))


def _begin_term(
    tx: Transaction,
    task: str,
    digest: str,
    role: DeploymentRole,
    *,
    percent: int | None = None,
    approved_by: str | None = None,
) -> None:
    tx.session.add(
        Deployment(
            task=task,
            role=role,
            percent=percent,
            bundle_digest=digest,
            since=tx.now,
            deployed_by=tx.actor,
            approved_by=approved_by,
        )
    )
    tx.session.flush()
