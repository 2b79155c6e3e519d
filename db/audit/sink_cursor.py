"""How far the audit trail was handed to a sink outside the node.

One process at a time hands events over, under a lease, so that they leave in the chain's order. The cursor
moves after the sink took them: what is handed over when a process dies is handed over again, and nothing is
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from db.audit.reading import AuditRow, rows_of
from db.audit.trail import AUDIT_TABLE, read_head
from db.errors import LeaseLostError
from db.row_changes import changed_rows, insert_if_absent
from db.session import Transaction
from db.tables import AuditCursor


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a sink does not have yet.

    Attributes
    ----------
    events : int
        How many.
    oldest_at : datetime.datetime or None
        When the first of them was written, aware UTC.
    """

    events: int
    oldest_at: datetime | None


def take(tx: Transaction, sink: str, *, lease_s: float) -> int | None:
    """Take the cursor for the acting process.

    Returns
    -------
    int or None
        The last event that the sink has, 0 for none; None while another process hands events over.
    """
    insert_if_absent(tx.session, AuditCursor, {"sink": sink, "seq": 0, "moved_at": tx.now})
    is_free = or_(
        AuditCursor.owner.is_(None), AuditCursor.owner == tx.actor, AuditCursor.lease_until <= tx.now
    )
    taken = tx.session.execute(
        update(AuditCursor)
        .where(AuditCursor.sink == sink, is_free)
        .values(owner=tx.actor, lease_until=tx.now + timedelta(seconds=lease_s))
        .execution_options(synchronize_session=False)
    )
    return position(tx.session, sink) if changed_rows(taken) == 1 else None


def advance(tx: Transaction, sink: str, seq: int) -> None:
    """Note that the sink has every event up to this one.

    Raises
    ------
    LeaseLostError
        If another process hands events over meanwhile.
    """
    moved = tx.session.execute(
        update(AuditCursor)
        .where(AuditCursor.sink == sink, AuditCursor.owner == tx.actor)
        .values(seq=seq, moved_at=tx.now)
        .execution_options(synchronize_session=False)
    )
    if changed_rows(moved) != 1:
        raise LeaseLostError(f"another process hands the audit trail to {sink}")


def release(tx: Transaction, sink: str) -> None:
    """Let another process go on at once."""
    tx.session.execute(
        update(AuditCursor)
        .where(AuditCursor.sink == sink, AuditCursor.owner == tx.actor)
        .values(owner=None, lease_until=None)
        .execution_options(synchronize_session=False)
    )


def position(session: Session, sink: str) -> int:
    """Return the last event that the sink has; 0 for none."""
    return session.scalars(select(AuditCursor.seq).where(AuditCursor.sink == sink)).one_or_none() or 0


def has_more(session: Session, sink: str) -> bool:
    """Whether the trail holds events that the sink does not have; a cheap look."""
    return read_head(session.connection()).seq > position(session, sink)


def events_after(session: Session, seq: int, *, limit: int) -> Sequence[AuditRow]:
    """Return the next events in the chain's order."""
    return rows_of(session, AUDIT_TABLE.c.seq > seq, limit=limit)


def backlog(session: Session, sink: str) -> Backlog:
    """Return what the sink does not have yet."""
    missing = AUDIT_TABLE.c.seq > position(session, sink)
    count = session.scalars(select(func.count()).select_from(AUDIT_TABLE).where(missing)).one()
    oldest = session.scalars(
        select(AUDIT_TABLE.c.at).where(missing).order_by(AUDIT_TABLE.c.seq).limit(1)
    ).one_or_none()
    return Backlog(count, None if oldest is None else datetime.fromisoformat(oldest))
