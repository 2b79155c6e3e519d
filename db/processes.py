"""Signs of life of the node's processes."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.session import Transaction, insert_if_absent
from db.tables import Process

FORGET_AFTER = timedelta(days=1)


def sign_of_life(tx: Transaction, name: str, kind: str) -> None:
    """Note that a process is alive; the first sign records its start and forgets processes long gone."""
    first = insert_if_absent(
        tx.session, Process, {"name": name, "kind": kind, "started_at": tx.now, "seen_at": tx.now}
    )
    if first:
        tx.session.execute(delete(Process).where(Process.seen_at < tx.now - FORGET_AFTER))
        tx.audit("process.started", detail={"process": name, "kind": kind})
    else:
        tx.session.get_one(Process, name).seen_at = tx.now


def goodbye(tx: Transaction, name: str) -> None:
    """Note that a process ends in good order."""
    tx.session.execute(delete(Process).where(Process.name == name))
    tx.audit("process.stopped", detail={"process": name})


def alive(session: Session, now: datetime, *, silent_for_s: float) -> tuple[list[Process], list[Process]]:
    """Return the processes heard of lately, and those that fell silent without a goodbye."""
    rows = session.scalars(select(Process).order_by(Process.kind, Process.name)).all()
    limit = now - timedelta(seconds=silent_for_s)
    return [p for p in rows if p.seen_at >= limit], [p for p in rows if p.seen_at < limit]
