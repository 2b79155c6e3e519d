"""What the registering of an instance reads and writes, as statements that are built once.

A listener does this for every object that it receives. Mapped objects would cost several times the processor
time of the statements themselves; whoever does not come for every object uses them, see :mod:`db.handoff`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Table, bindparam, insert, select, update

from db.driver_statements import DriverStatement
from db.lifecycle import RevisionState
from db.tables import Instance, Revision, Study

_STUDY: Table = Study.__table__  # type: ignore[assignment]  # declared as the wider FromClause
_REVISION: Table = Revision.__table__  # type: ignore[assignment]
_INSTANCE: Table = Instance.__table__  # type: ignore[assignment]

_LOCKED_STUDY = DriverStatement(
    select(_STUDY.c.id)
    .where(_STUDY.c.study_instance_uid == bindparam("study_instance_uid"))
    .with_for_update()
)
_LATEST_REVISION = DriverStatement(
    select(_REVISION.c.id, _REVISION.c.number, _REVISION.c.state)
    .where(_REVISION.c.study_id == bindparam("study_id"))
    .order_by(_REVISION.c.number.desc())
    .limit(1)
)
_PROLONG = DriverStatement(
    update(_REVISION)
    .where(_REVISION.c.id == bindparam("revision_id"))
    .values(last_instance_at=bindparam("now"), due_at=bindparam("due"))
)
_ACCEPTED = select(
    _INSTANCE.c.sop_instance_uid,
    _INSTANCE.c.sha256,
    _INSTANCE.c.transfer_syntax_uid,
    _INSTANCE.c.spool_name,
    _INSTANCE.c.size_bytes,
).where(_INSTANCE.c.conflict == 0)
_ACCEPTED_ONE = DriverStatement(_ACCEPTED.where(_INSTANCE.c.sop_instance_uid == bindparam("uid")))
_ACCEPTED_AMONG = _ACCEPTED.where(_INSTANCE.c.sop_instance_uid.in_(bindparam("uids", expanding=True)))
_INSERT_INSTANCES = DriverStatement(
    insert(_INSTANCE).inline(), [column.name for column in _INSTANCE.c if column.name != "id"]
)
_MOVE_FILE = (
    update(_INSTANCE)
    .where(_INSTANCE.c.sop_instance_uid == bindparam("uid"), _INSTANCE.c.conflict == 0)
    .values(spool_name=bindparam("name"))
)
_VIEWS = DriverStatement(
    select(_INSTANCE.c.laterality, _INSTANCE.c.view, _INSTANCE.c.revision_number).where(
        _INSTANCE.c.study_id == bindparam("study_id"),
        _INSTANCE.c.conflict == 0,
        _INSTANCE.c.for_presentation == 1,
    )
)


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """One instance whose file is already durable in the spool.

    Attributes
    ----------
    sop_instance_uid, sop_class_uid, study_instance_uid, series_instance_uid, transfer_syntax_uid : str
        Its identity, from the data set (and checked against the command).
    patient_id, accession_number : str
        For the auditor's queries; empty where absent.
    modality : str
        Modality (0008,0060).
    laterality, view : str or None
        ``"R"``/``"L"`` and ``"CC"``/``"MLO"``; None where it is no standard view.
    for_presentation : bool
        Whether Presentation Intent Type says FOR PRESENTATION.
    spool_name : str
        The spool's random name of the file.
    sha256 : str
        Hex digest of the data set's bytes as received.
    size_bytes : int
        Number of those bytes.
    calling_ae_title : str
        Who sent it.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    patient_id: str
    accession_number: str
    modality: str
    laterality: str | None
    view: str | None
    for_presentation: bool
    spool_name: str
    sha256: str
    size_bytes: int
    calling_ae_title: str


class LatestRevision(NamedTuple):
    """A study's newest revision."""

    id: int
    number: int
    is_open: bool


class AcceptedFile(NamedTuple):
    """The content that a SOP Instance UID stands for, and its file."""

    sha256: str
    transfer_syntax_uid: str
    spool_name: str
    size_bytes: int

    def has_bytes_of(self, received: ReceivedInstance) -> bool:
        """Whether an instance of the same UID is the same."""
        return (self.sha256, self.transfer_syntax_uid) == (received.sha256, received.transfer_syntax_uid)


def locked_study(connection: Connection, study_instance_uid: str) -> int | None:
    """Lock a study until the commit, so that all who decide about it do so one after the other.

    Whoever decides looks at the revisions after this, never before.

    Returns
    -------
    int or None
        The id of its row.
    """
    rows = _LOCKED_STUDY.rows(connection, {"study_instance_uid": study_instance_uid})
    return rows[0][0] if rows else None


def latest_revision(connection: Connection, study_id: int) -> LatestRevision | None:
    """Return the newest revision of a study."""
    for revision_id, number, state in _LATEST_REVISION.rows(connection, {"study_id": study_id}):
        return LatestRevision(revision_id, number, state == RevisionState.OPEN)
    return None


def prolong(connection: Connection, revision_id: int, now: datetime, due_at: datetime) -> None:
    """Let the quiet period of a revision begin again."""
    _PROLONG.execute(connection, [{"revision_id": revision_id, "now": now, "due": due_at}])


def accepted(connection: Connection, sop_instance_uids: Collection[str]) -> dict[str, AcceptedFile]:
    """Return which of these UIDs are known, and with which content; conflicts are nobody's content."""
    if len(sop_instance_uids) == 1:
        rows = _ACCEPTED_ONE.rows(connection, {"uid": next(iter(sop_instance_uids))})
    else:
        found = connection.execute(_ACCEPTED_AMONG, {"uids": list(sop_instance_uids)})
        rows = [tuple(row) for row in found]
    return {row[0]: AcceptedFile(*row[1:]) for row in rows}


def insert_instances(
    connection: Connection,
    study_id: int,
    revision_number: int,
    received: Sequence[ReceivedInstance],
    now: datetime,
    *,
    conflict: bool = False,
) -> None:
    """Insert rows of instances."""
    rows = [
        {
            "study_id": study_id,
            "revision_number": revision_number,
            "sop_instance_uid": each.sop_instance_uid,
            "sop_class_uid": each.sop_class_uid,
            "series_instance_uid": each.series_instance_uid,
            "transfer_syntax_uid": each.transfer_syntax_uid,
            "modality": each.modality,
            "laterality": each.laterality,
            "view": each.view,
            "for_presentation": int(each.for_presentation),
            "conflict": int(conflict),
            "spool_name": each.spool_name,
            "sha256": each.sha256,
            "size_bytes": each.size_bytes,
            "calling_ae_title": each.calling_ae_title,
            "received_at": now,
        }
        for each in received
    ]
    _INSERT_INSTANCES.execute(connection, rows)


def move_file(connection: Connection, sop_instance_uid: str, spool_name: str) -> None:
    """Let another file hold the content of an accepted instance."""
    connection.execute(_MOVE_FILE, [{"uid": sop_instance_uid, "name": spool_name}])


def views(connection: Connection, study_id: int) -> list[tuple[str | None, str | None, int]]:
    """Return laterality, view and revision number of every instance for presentation of a study."""
    return [
        (laterality, view, number)
        for laterality, view, number in _VIEWS.rows(connection, {"study_id": study_id})
    ]
