"""Signs of life of the node's processes."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.row_changes import insert_if_absent
from db.session import Database, Transaction
from db.tables import Process

FORGET_AFTER = timedelta(days=1)
SILENT_FOR_S = 30.0
"""A process that gave no sign for this many seconds is taken for dead."""


def sign_of_life(tx: Transaction, name: str, kind: str, *, is_start: bool = False) -> None:
    """Note that a process is alive; the first sign records its start and forgets processes long gone.

    Parameters
    ----------
    name : str
        Unique among the processes that live.
    kind : str
        What it does.
    is_start : bool
        Whether this is its first sign: a container that starts again has the name of its dead predecessor.
    """
    if is_start:
        tx.session.execute(delete(Process).where(Process.name == name))
    first = insert_if_absent(
        tx.session, Process, {"name": name, "kind": kind, "started_at": tx.now, "seen_at": tx.now}
    )
    if first:
        tx.session.execute(delete(Process).where(Process.seen_at < tx.now - FORGET_AFTER))
        tx.audit("process.started", detail={"process": name, "kind": kind})
    else:
        tx.session.get_one(Process, name).seen_at = tx.now


class SignsOfLife:
    """The signs of the process that holds this: the first that the database takes is its start.

    Parameters
    ----------
    database : Database
        Takes them.
    name, kind : str
        As for :func:`sign_of_life`.
    """

    def __init__(self, database: Database, name: str, kind: str) -> None:
        self._database = database
        self._name = name
        self._kind = kind
        self._has_started = False

    def give(self) -> None:
        """Note that the process is alive.

        Raises
        ------
        db.errors.DatabaseError
            If the database does not take it.
        """
        with self._database.transaction(self._name) as tx:
            sign_of_life(tx, self._name, self._kind, is_start=not self._has_started)
        self._has_started = True


def goodbye(tx: Transaction, name: str) -> None:
    """Note that a process ends in good order."""
    tx.session.execute(delete(Process).where(Process.name == name))
    tx.audit("process.stopped", detail={"process": name})


def alive(
    session: Session, now: datetime, *, silent_for_s: float = SILENT_FOR_S
) -> tuple[list[Process], list[Process]]:
    """Return the processes heard of lately, and those that fell silent without a goodbye.

    One that fell silent and was started again by whoever keeps it running is not missed: each process of its
    kind and host that started after its last sign stands for one.
    """
    rows = session.scalars(select(Process).order_by(Process.kind, Process.name)).all()
    limit = now - timedelta(seconds=silent_for_s)
    heard = [each for each in rows if each.seen_at >= limit]
    starts = [(_place(each), each.started_at) for each in heard]
    missed = []
    # The last to fall silent first: what may stand for it may stand for those before it, too.
    for each in sorted(
        (row for row in rows if row.seen_at < limit), key=lambda row: row.seen_at, reverse=True
    ):
        standing = [start for start in starts if start[0] == _place(each) and start[1] > each.seen_at]
        if standing:
            starts.remove(standing[0])
        else:
            missed.append(each)
    return heard, sorted(missed, key=lambda row: (row.kind, row.name))


def _place(process: Process) -> tuple[str, str]:
    """Kind and host."""
    return process.kind, process.name.partition("@")[2].rpartition(":")[0]
