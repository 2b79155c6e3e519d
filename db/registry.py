"""What the registering of an instance reads and writes, as statements that are built once.

A listener does this for every object that it receives. Mapped objects would cost several times the processor
time of the statements themselves; whoever does not come for every object uses them, see :mod:`db.handoff`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Connection,
    Dialect,
    Integer,
    String,
    Table,
    Text,
    any_,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from db.driver_statements import DriverStatement
from db.lifecycle import CompletionReason, JobKind, JobState, RevisionState
from db.tables import Instance, Job, Revision, Study

_STUDY: Table = Study.__table__  # type: ignore[assignment]  # declared as the wider FromClause
_REVISION: Table = Revision.__table__  # type: ignore[assignment]
_INSTANCE: Table = Instance.__table__  # type: ignore[assignment]
_JOB: Table = Job.__table__  # type: ignore[assignment]


class _Listed(TypeDecorator[Sequence[Any]]):
    """Several values as one parameter, so that the statement's text does not depend on their number."""

    impl = Text
    cache_ok = True

    def __init__(self, item: type[String] | type[Integer]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the parameter's type of a dialect."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(self.item))

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> Any:
        """Write them as the dialect reads them."""
        return json.dumps(value) if dialect.name == "sqlite" else value


def _is_among(column: ColumnElement[Any], name: str, dialect: str) -> ColumnElement[bool]:
    """Whether a column's value is one of those that a parameter lists."""
    listed = bindparam(name, type_=_Listed(Integer if isinstance(column.type, Integer) else String))
    if dialect == "sqlite":
        return column.in_(select(func.json_each(listed).table_valued("value").c.value))
    return column == any_(listed)


_DIALECTS = ("sqlite", "postgresql")

_LOCKED_STUDY = DriverStatement(
    select(_STUDY.c.id)
    .where(_STUDY.c.study_instance_uid == bindparam("study_instance_uid"))
    .with_for_update(),
    ["study_instance_uid"],
)
_KNOWN_STUDIES = DriverStatement(
    {
        dialect: select(_STUDY.c.study_instance_uid, _STUDY.c.id).where(
            _is_among(_STUDY.c.study_instance_uid, "uids", dialect)
        )
        for dialect in _DIALECTS
    },
    ["uids"],
)
_LOCK_STUDIES = DriverStatement(
    {
        # Rows are locked as they come out of the sorting. By the codes of the characters, as Python sorts.
        "postgresql": select(_STUDY.c.id)
        .where(_is_among(_STUDY.c.study_instance_uid, "uids", "postgresql"))
        .order_by(_STUDY.c.study_instance_uid.collate("C"))
        .with_for_update()
    },
    ["uids"],
)
_STUDY_COLUMNS = [column.name for column in _STUDY.c if column.name != "id"]
_INSERT_STUDY = DriverStatement(
    {
        "sqlite": sqlite.insert(_STUDY).on_conflict_do_nothing().inline(),
        "postgresql": postgresql.insert(_STUDY).on_conflict_do_nothing().inline(),
    },
    _STUDY_COLUMNS,
)

_REVISION_COLUMNS = (_REVISION.c.study_id, _REVISION.c.id, _REVISION.c.number, _REVISION.c.state)
_LATEST_REVISION = DriverStatement(
    select(*_REVISION_COLUMNS)
    .where(_REVISION.c.study_id == bindparam("study_id"))
    .order_by(_REVISION.c.number.desc())
    .limit(1),
    ["study_id"],
)
_OTHER = _REVISION.alias()
_LATEST_REVISIONS = DriverStatement(
    {
        dialect: select(*_REVISION_COLUMNS).where(
            _is_among(_REVISION.c.study_id, "study_ids", dialect),
            _REVISION.c.number
            == select(func.max(_OTHER.c.number))
            .where(_OTHER.c.study_id == _REVISION.c.study_id)
            .scalar_subquery(),
        )
        for dialect in _DIALECTS
    },
    ["study_ids"],
)
_OPENED_COLUMNS = ["study_id", "number", "state", "opened_at", "last_instance_at", "due_at"]
_OPEN_REVISION = DriverStatement(insert(_REVISION).returning(_REVISION.c.id), _OPENED_COLUMNS)
_PROLONG = DriverStatement(
    update(_REVISION)
    .where(_REVISION.c.id == bindparam("revision_id"))
    .values(last_instance_at=bindparam("now"), due_at=bindparam("due")),
    ["revision_id", "now", "due"],
)

# Literally: SQLite makes a new plan at each execution when a parameter decides whether an index serves.
_IS_ACCEPTED = _INSTANCE.c.conflict == literal_column("0")
_ACCEPTED = select(
    _INSTANCE.c.sop_instance_uid,
    _INSTANCE.c.sha256,
    _INSTANCE.c.transfer_syntax_uid,
    _INSTANCE.c.spool_name,
    _INSTANCE.c.size_bytes,
).where(_IS_ACCEPTED)
_ACCEPTED_ONE = DriverStatement(_ACCEPTED.where(_INSTANCE.c.sop_instance_uid == bindparam("uid")), ["uid"])
_ACCEPTED_AMONG = DriverStatement(
    {
        dialect: _ACCEPTED.where(_is_among(_INSTANCE.c.sop_instance_uid, "uids", dialect))
        for dialect in _DIALECTS
    },
    ["uids"],
)
_INSTANCE_COLUMNS = [column.name for column in _INSTANCE.c if column.name != "id"]
_INSERT_INSTANCES = DriverStatement(insert(_INSTANCE).inline(), _INSTANCE_COLUMNS)
_MOVE_FILE = (
    update(_INSTANCE)
    .where(_INSTANCE.c.sop_instance_uid == bindparam("uid"), _INSTANCE.c.conflict == 0)
    .values(spool_name=bindparam("name"))
)
_VIEWS = DriverStatement(
    select(_INSTANCE.c.laterality, _INSTANCE.c.view, _INSTANCE.c.revision_number).where(
        _INSTANCE.c.study_id == bindparam("study_id"), _IS_ACCEPTED, _INSTANCE.c.for_presentation == 1
    ),
    ["study_id"],
)
_SOP_CLASSES = DriverStatement(
    select(_INSTANCE.c.sop_class_uid)
    .where(
        _INSTANCE.c.study_id == bindparam("study_id"),
        _IS_ACCEPTED,
        _INSTANCE.c.revision_number <= bindparam("number"),
    )
    .distinct(),
    ["study_id", "number"],
)

_COMPLETE_REVISION = DriverStatement(
    update(_REVISION)
    .where(_REVISION.c.id == bindparam("revision_id"))
    .values(state=bindparam("next"), complete_reason=bindparam("reason"), completed_at=bindparam("now")),
    ["revision_id", "next", "reason", "now"],
)
_INSERT_SCORE_JOBS = DriverStatement(
    insert(_JOB).inline(),
    ["id", "kind", "revision_id", "task", "order", "state", "attempts", "next_try_at", "created_at"],
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
    peer_address : str or None
        From where; None where a recovery after a crash registers it, which cannot know.
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
    peer_address: str | None = None


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


class Joining(NamedTuple):
    """An instance and the revision that it joins."""

    received: ReceivedInstance
    study_id: int
    revision_number: int


def locked_study(connection: Connection, study_instance_uid: str) -> int | None:
    """Lock a study until the commit, so that all who decide about it do so one after the other.

    Whoever decides looks at the revisions after this, never before.

    Returns
    -------
    int or None
        The id of its row.
    """
    rows = _LOCKED_STUDY.rows(connection, study_instance_uid)
    return rows[0][0] if rows else None


def locked_studies(connection: Connection, study_instance_uids: Sequence[str]) -> dict[str, int] | None:
    """Lock several studies, given in their order, as one after the other; none unless all are known.

    Returns
    -------
    dict of str to int, or None
        The ids of their rows by their UIDs.
    """
    # Rows of studies are never removed: what is known stays so.
    known: dict[str, int] = dict(_KNOWN_STUDIES.rows(connection, study_instance_uids))
    if len(known) < len(study_instance_uids):
        return None
    if connection.dialect.name == "postgresql":
        _LOCK_STUDIES.rows(connection, study_instance_uids)
    return known


def insert_study(connection: Connection, received: ReceivedInstance, now: datetime) -> None:
    """Insert the study of an instance unless it is there."""
    row = (received.study_instance_uid, received.patient_id, received.accession_number, now)
    _INSERT_STUDY.execute(connection, [row])


def latest_revisions(connection: Connection, study_ids: Collection[int]) -> dict[int, LatestRevision]:
    """Return the newest revision of each study that has one, by the study's id."""
    if len(study_ids) == 1:
        rows = _LATEST_REVISION.rows(connection, *study_ids)
    else:
        rows = _LATEST_REVISIONS.rows(connection, list(study_ids))
    return {
        study_id: LatestRevision(revision_id, number, state == RevisionState.OPEN)
        for study_id, revision_id, number, state in rows
    }


def open_revision(
    connection: Connection, study_id: int, number: int, now: datetime, due_at: datetime
) -> LatestRevision:
    """Open a revision of a study whose lock is held."""
    row = (study_id, number, RevisionState.OPEN.value, now, now, due_at)
    ((revision_id,),) = _OPEN_REVISION.rows(connection, *row)
    return LatestRevision(revision_id, number, is_open=True)


def prolong(connection: Connection, revision_ids: Iterable[int], now: datetime, due_at: datetime) -> None:
    """Let the quiet period of revisions begin again."""
    _PROLONG.execute(connection, [(revision_id, now, due_at) for revision_id in revision_ids])


def accepted(connection: Connection, sop_instance_uids: Collection[str]) -> dict[str, AcceptedFile]:
    """Return which of these UIDs are known, and with which content; conflicts are nobody's content."""
    if len(sop_instance_uids) == 1:
        rows = _ACCEPTED_ONE.rows(connection, *sop_instance_uids)
    else:
        rows = _ACCEPTED_AMONG.rows(connection, list(sop_instance_uids))
    return {row[0]: AcceptedFile(*row[1:]) for row in rows}


def insert_instances(
    connection: Connection, joining: Iterable[Joining], now: datetime, *, conflict: bool = False
) -> None:
    """Insert rows of instances."""
    rows = [
        (
            study_id,
            revision_number,
            each.sop_instance_uid,
            each.sop_class_uid,
            each.series_instance_uid,
            each.transfer_syntax_uid,
            each.modality,
            each.laterality,
            each.view,
            int(each.for_presentation),
            int(conflict),
            each.spool_name,
            each.sha256,
            each.size_bytes,
            each.calling_ae_title,
            now,
        )
        for each, study_id, revision_number in joining
    ]
    _INSERT_INSTANCES.execute(connection, rows)


def move_file(connection: Connection, sop_instance_uid: str, spool_name: str) -> None:
    """Let another file hold the content of an accepted instance."""
    connection.execute(_MOVE_FILE, [{"uid": sop_instance_uid, "name": spool_name}])


def views(connection: Connection, study_id: int) -> list[tuple[str | None, str | None, int]]:
    """Return laterality, view and revision number of every instance for presentation of a study."""
    return [(laterality, view, number) for laterality, view, number in _VIEWS.rows(connection, study_id)]


def sop_classes(connection: Connection, study_id: int, revision_number: int) -> set[str]:
    """Return the SOP classes of a revision's instances."""
    return {uid for (uid,) in _SOP_CLASSES.rows(connection, study_id, revision_number)}


def complete_revision(
    connection: Connection, revision_id: int, state: RevisionState, reason: CompletionReason, now: datetime
) -> None:
    """Give a revision, whose study's lock is held, the state of a complete one."""
    _COMPLETE_REVISION.execute(connection, [(revision_id, state.value, reason.value, now)])


def insert_score_jobs(
    connection: Connection, revision_id: int, task_of_job: Mapping[str, str], now: datetime
) -> None:
    """Queue the jobs of a complete revision: the task of each by its id."""
    kind, state = JobKind.SCORE.value, JobState.QUEUED.value
    rows = [(id, kind, revision_id, task, "{}", state, 0, now, now) for id, task in task_of_job.items()]
    _INSERT_SCORE_JOBS.execute(connection, rows)
