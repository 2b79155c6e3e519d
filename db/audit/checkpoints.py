"""Signed statements of where the audit chain stood, kept outside the database.

The chain alone cannot show that its tail was cut, the table emptied, an old backup restored, or everything
rewritten by someone who holds the audit key. A checkpoint can: it is signed with Ed25519 and appended to a
file in a folder that should lie on another mount or host than the database. Events after the newest
checkpoint are protected by the chain alone.

A checkpoint also holds a digest of the events since the one before it, which needs no key: so whoever has an
exported trail, the checkpoints and their public key can check it elsewhere (:mod:`db.audit.exports`).
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.audit.keys import CheckpointKey
from db.audit.statements import append_statement, fields_of, file_of_node, last_line, read_statements
from db.audit.trail import AUDIT_TABLE, TIME_FORMAT, read_head
from db.canonical import canonical_json
from db.session import Database

_BATCH_ROWS = 5000


@dataclass(frozen=True)
class Checkpoint:
    """Where the chain stood.

    Attributes
    ----------
    seq, mac : int, str
        The last event's number and mac.
    count : int
        Events up to then, as counted by who wrote it; equals ``seq`` in an unharmed trail.
    at : str
        UTC wall time, microseconds.
    node : str
        Who wrote it.
    after : int or None
        The number of the event before the first that the digest covers; None in checkpoints of before there
        was one.
    sha256 : str or None
        Of :func:`digestible` of the events after that one up to ``seq``, in their order.
    """

    seq: int
    mac: str
    count: int
    at: str
    node: str
    after: int | None = None
    sha256: str | None = None

    def message(self) -> bytes:
        """Return the bytes that the signature covers."""
        return canonical_json(fields_of(self)).encode()


def digestible(mac: str, payload: str) -> bytes:
    """Return what of an event goes into a checkpoint's digest."""
    return f"{mac} {payload}\n".encode()


class CheckpointWriter:
    """Appends this node's checkpoints to its file.

    Parameters
    ----------
    folder : pathlib.Path
        Where checkpoint files lie; made when absent.
    key : CheckpointKey
        Signs.
    node : str
        The node's name, such as its AE title.
    """

    def __init__(self, folder: Path, key: CheckpointKey, node: str) -> None:
        self.path = file_of_node(folder, "checkpoints", node)
        self._key = key
        self._node = node
        self._last: Checkpoint | None = None
        self._last_s: float | None = None

    def is_due(self, database: Database, *, every_events: int, every_s: float) -> bool:
        """Whether enough events or, with any event at all, enough time passed since the last checkpoint.

        The first call of a process asks for one as soon as the trail holds an event.
        """
        with database.reading() as session:
            new_events = read_head(session.connection()).seq - (self._last.seq if self._last else 0)
        if new_events == 0:
            return False
        return (
            self._last_s is None or new_events >= every_events or time.monotonic() - self._last_s >= every_s
        )

    def write(self, database: Database) -> Checkpoint | None:
        """Sign where the chain stands and append it durably; None when the trail is empty.

        Raises
        ------
        db.errors.AuditError
            If the file cannot be written.
        """
        with database.reading() as session:
            head = read_head(session.connection())
            if head.seq == 0:
                return None
            count = self._counted(session, head.seq)
            after = self._last_signed(session, head.seq)
            sha256 = _digest(session, after, head.seq)
        # What is signed must not go with the power, and come back as another event.
        database.sync_commits()
        at = datetime.now(UTC).strftime(TIME_FORMAT)
        checkpoint = Checkpoint(head.seq, head.mac, count, at, self._node, after, sha256)
        append_statement(self.path, checkpoint, self._key)
        self._last, self._last_s = checkpoint, time.monotonic()
        return checkpoint

    def _counted(self, session: Session, seq: int) -> int:
        """Count the events up to one: all of them once, then those since the last checkpoint.

        A trail of years is not read again every few seconds, by a process that has studies to complete.
        """
        t = AUDIT_TABLE.c
        if self._last is not None:
            since = select(func.count()).where(t.seq > self._last.seq, t.seq <= seq)
            return self._last.count + session.scalars(since).one()
        count, first = session.execute(select(func.count(), func.min(t.seq)).where(t.seq <= seq)).one()
        # Events that were removed after their retention count as there: verification knows the cut.
        return int(first - 1 + count)

    def _last_signed(self, session: Session, seq: int) -> int:
        """Return up to where this node's checkpoints cover the trail; before its first event where none does.

        After a start its file tells, so that a trail of years is not digested again. What a line there says
        is not believed by whoever verifies: digests that leave a gap show.
        """
        begin = (session.scalars(select(func.min(AUDIT_TABLE.c.seq))).one() or 1) - 1
        last = self._last.seq if self._last is not None else _seq_of(last_line(self.path))
        return last if last is not None and begin <= last <= seq else begin


def _seq_of(line: bytes) -> int | None:
    """Return the event that a checkpoint's line names, whoever signed it."""
    try:
        return int(json.loads(line)["seq"])
    except (ValueError, TypeError, KeyError):
        return None


def _digest(session: Session, after: int, seq: int) -> str:
    t = AUDIT_TABLE.c
    events = select(t.mac, t.payload).where(t.seq > after, t.seq <= seq).order_by(t.seq)
    digest = hashlib.sha256()
    for mac, payload in session.execute(events.execution_options(yield_per=_BATCH_ROWS)):
        digest.update(digestible(mac, payload))
    return digest.hexdigest()


def read_checkpoints(folder: Path, public_key: str, *, since: int = 0) -> list[Checkpoint]:
    """Read the checkpoints of every node, in the chain's order.

    Parameters
    ----------
    folder : pathlib.Path
        Where the files lie; a folder that does not exist holds none.
    public_key : str
        The checkpoint key's public half, base64; known from elsewhere, never from the files.
    since : int
        Leave out those of earlier events, whoever signed them.

    Raises
    ------
    db.errors.AuditError
        If a line was not signed with this key, or is not a checkpoint.
    """
    checkpoints = read_statements(folder, "checkpoints", Checkpoint, public_key, since=since)
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.seq)
