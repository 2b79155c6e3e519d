"""Signed statements of where the audit chain stood, kept outside the database.

The chain alone cannot show that its tail was cut, the table emptied, an old backup restored, or everything
rewritten by someone who holds the audit key. A checkpoint can: ``{seq, mac, count, at, node}`` signed with
Ed25519 and appended to a file in a folder that should lie on another mount or host than the database. Events
after the newest checkpoint are protected by the chain alone.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.audit.keys import CheckpointKey
from db.audit.statements import append_statement, file_of_node, read_statements
from db.audit.trail import AUDIT_TABLE, TIME_FORMAT, read_head
from db.canonical import canonical_json
from db.session import Database


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
    """

    seq: int
    mac: str
    count: int
    at: str
    node: str

    def message(self) -> bytes:
        """Return the bytes that the signature covers."""
        return canonical_json(asdict(self)).encode()


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
        # What is signed must not go with the power, and come back as another event.
        database.sync_commits()
        at = datetime.now(UTC).strftime(TIME_FORMAT)
        checkpoint = Checkpoint(head.seq, head.mac, count, at, self._node)
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


def read_checkpoints(folder: Path, public_key: str) -> list[Checkpoint]:
    """Read the checkpoints of every node, in the chain's order.

    Parameters
    ----------
    folder : pathlib.Path
        Where the files lie; a folder that does not exist holds none.
    public_key : str
        The checkpoint key's public half, base64; known from elsewhere, never from the files.

    Raises
    ------
    db.errors.AuditError
        If a line was not signed with this key, or is not a checkpoint.
    """
    checkpoints = read_statements(folder, "checkpoints", Checkpoint, public_key)
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.seq)
