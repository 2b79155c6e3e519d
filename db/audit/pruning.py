"""Removing the oldest events of the trail after their retention, so that what stays still verifies.

The events go to an archive file first. Then where the chain was cut is signed with the checkpoint key and
kept beside the checkpoints: :mod:`db.audit.verification` lets a trail begin after such a cut, and after
nothing else. The removal is itself an event, with the archive's digest.
"""

from __future__ import annotations

import hashlib
import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from db.audit import guards, sink_cursor
from db.audit.cuts import Cut
from db.audit.keys import CheckpointKey, sync_directory
from db.audit.reading import export
from db.audit.statements import append_statement, file_of_node
from db.audit.trail import AUDIT_TABLE, TIME_FORMAT, lock_chain
from db.errors import AuditError
from db.session import Database

LEAST_RETENTION_YEARS = 6
DAYS_A_YEAR = 366  # a leap day too long rather than one too short


def check_retention(before: datetime, now: datetime, *, years: int) -> None:
    """Refuse to remove what must still be kept.

    Raises
    ------
    db.errors.AuditError
        If ``before`` is younger than the retention.
    """
    latest = now - timedelta(days=DAYS_A_YEAR * max(years, LEAST_RETENTION_YEARS))
    if before > latest:
        raise AuditError(
            f"audit events are kept for {max(years, LEAST_RETENTION_YEARS)} years (audit.retention_years); "
            f"those before {latest:%Y-%m-%d} may be removed now"
        )


def prune(
    database: Database,
    *,
    before: datetime,
    archive: Path,
    folder: Path,
    key: CheckpointKey,
    node: str,
    actor: str,
    sink: str | None = None,
) -> Cut | None:
    """Remove the events before a time; the retention and the chain were checked before.

    Parameters
    ----------
    database : Database
        On PostgreSQL as the role that owns the tables.
    before : datetime.datetime
        Aware. Nothing from the first event on that is younger is removed, whatever later events' clocks say.
    archive : pathlib.Path
        File for the events, JSON lines; it must not exist.
    folder : pathlib.Path
        Of the checkpoints.
    key : CheckpointKey
        Signs the cut.
    node, actor : str
        The node's name, and who does it.
    sink : str, optional
        A sink that must have the events first.

    Returns
    -------
    Cut or None
        None where no event is so old.

    Raises
    ------
    db.errors.AuditError
        If the archive exists or cannot be written, the sink lacks events, or the role may not.
    """
    with database.reading() as session:
        last = _last_before(session, before)
        if last is None:
            return None
        _refuse_if_not_allowed(session, last[0], sink)
    digest = _write_archive(database, archive, last[0])
    at = datetime.now(UTC).strftime(TIME_FORMAT)
    cut = Cut(*last, at, node, digest)
    # Signed before the rows go: a crash in between leaves a cut that nothing needs yet.
    append_statement(file_of_node(folder, "cuts", node), cut, key)
    with database.transaction(actor) as tx:
        connection = tx.connection
        lock_chain(connection)
        with guards.lifted(connection):
            connection.execute(delete(AUDIT_TABLE).where(AUDIT_TABLE.c.seq <= cut.seq))
        detail = {"up_to_seq": cut.seq, "mac": cut.mac, "archive_sha256": digest}
        tx.audit("audit.pruned", detail=detail)
    return cut


def _last_before(session: Session, before: datetime) -> tuple[int, str] | None:
    """Return number and mac of the last event of the oldest ones."""
    t = AUDIT_TABLE.c
    spelled = before.astimezone(UTC).strftime(TIME_FORMAT)
    first_kept = session.scalars(select(func.min(t.seq)).where(t.at >= spelled)).one()
    older = select(t.seq, t.mac).order_by(t.seq.desc()).limit(1)
    if first_kept is not None:
        older = older.where(t.seq < first_kept)
    row = session.execute(older).one_or_none()
    return None if row is None else (row.seq, row.mac)


def _refuse_if_not_allowed(session: Session, seq: int, sink: str | None) -> None:
    if not guards.may_lift(session.connection()):
        raise AuditError(
            "the database's role may not remove audit events; run this as the role that owns the tables "
            "(DICOM_NODE_DATABASE_URL)"
        )
    if sink is not None and sink_cursor.position(session, sink) < seq:
        raise AuditError(f"the {sink} sink does not have these events yet; see 'dicom-node doctor'")


def _write_archive(database: Database, archive: Path, seq: int) -> str:
    """Write the events durably; return the file's SHA-256."""
    try:
        descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AuditError(
            f"the archive {archive} cannot be made ({error.strerror}); name a new file"
        ) from error
    with io.TextIOWrapper(os.fdopen(descriptor, "wb"), encoding="utf-8") as stream:
        export(database, stream, up_to_seq=seq)
        stream.flush()
        os.fsync(descriptor)
    sync_directory(archive.absolute().parent)
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
