"""Which bundle answers for which task: a row, never a file name or an environment variable."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.errors import UnknownRecordError
from db.session import Transaction, insert_if_absent
from db.tables import BundleRecord, Deployment

CHAMPION = "champion"


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
    record = tx.session.get(BundleRecord, digest)
    if record is None:
        raise UnknownRecordError(f"no bundle {digest[:12]} was added; 'dicom-node model list' shows what was")
    _lock_task(tx.session, record.task)
    replaced = champion(tx.session, record.task)
    if replaced == digest:
        return digest
    _deploy(tx, record.task, digest)
    detail = {"task": record.task, "replaces": replaced, "name": record.name, "version": record.version}
    tx.audit("bundle.activated", bundle=digest, detail=detail)
    return replaced


def rollback(tx: Transaction, task: str) -> str:
    """Let the bundle that answered before the present one answer again; return its digest.

    Raises
    ------
    UnknownRecordError
        If no other bundle ever answered for the task.
    """
    _lock_task(tx.session, task)
    present = champion(tx.session, task)
    before = tx.session.scalars(
        select(Deployment.bundle_digest)
        .where(Deployment.task == task, Deployment.role == CHAMPION, Deployment.until.is_not(None))
        .where(Deployment.bundle_digest != present)
        .order_by(Deployment.id.desc())
        .limit(1)
    ).one_or_none()
    if present is None or before is None:
        raise UnknownRecordError(f"no earlier bundle answered for {task!r}; nothing to roll back to")
    _deploy(tx, task, before)
    tx.audit("bundle.rolled_back", bundle=before, detail={"task": task, "replaces": present})
    return before


def champion(session: Session, task: str) -> str | None:
    """Return the digest of the bundle that answers for a task now."""
    return session.scalars(
        select(Deployment.bundle_digest).where(
            Deployment.task == task, Deployment.role == CHAMPION, Deployment.until.is_(None)
        )
    ).one_or_none()


def _lock_task(session: Session, task: str) -> None:
    """Let two people who change one task's bundle do so one after the other."""
    rows = select(BundleRecord.digest).where(BundleRecord.task == task).order_by(BundleRecord.digest)
    session.execute(rows.with_for_update())


def task_of(session: Session, digest: str) -> str:
    """Return the task that a known bundle answers."""
    return session.get_one(BundleRecord, digest).task


def _deploy(tx: Transaction, task: str, digest: str) -> None:
    tx.session.execute(
        update(Deployment)
        .where(Deployment.task == task, Deployment.role == CHAMPION, Deployment.until.is_(None))
        .values(until=tx.now)
    )
    tx.session.add(
        Deployment(task=task, role=CHAMPION, bundle_digest=digest, since=tx.now, deployed_by=tx.actor)
    )
    tx.session.flush()
