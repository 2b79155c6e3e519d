"""Whether the tables still say what the trail says: who sent what, what was scored, made, sent and withdrawn.

The chain protects the trail alone. Whoever writes into the database past the node may leave it as it is and
change a score instead; the trail holds each score, each digest and each destination's answer a second time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, exists, select
from sqlalchemy.orm import Session, aliased

from db.audit.reading import AuditRow, rows_of
from db.audit.told_deliveries import QUEUED, WITHDRAWN, ToldDeliveries
from db.audit.trail import AUDIT_TABLE, is_of_action
from db.canonical import canonical_json
from db.session import Database
from db.tables import INSTANCE_STORED, Analysis, Delivery, Instance, ResultObject, Study

SCORED = "job.scored"
_AT_ONCE = 500
_SHOWN = 1000
_DeliveryRow = Row[str, str, str, str, int | None]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row that is not what the trail says.

    Attributes
    ----------
    seq : int or None
        The event that says otherwise; None where no event tells of the row.
    problem : str
        What differs, for a person; no patient data.
    """

    seq: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a comparison of tables and trail found.

    Attributes
    ----------
    instances, scores : int
        How many events were held against the tables.
    deliveries : int
        How many rows of deliveries were held against the last event that speaks of each.
    disagreements : tuple of Disagreement
        The first thousand of what differs.
    """

    instances: int
    scores: int
    deliveries: int
    disagreements: tuple[Disagreement, ...]


def compare_with_tables(database: Database) -> Agreement:
    """Hold instances, analyses, result objects and deliveries against the events that tell of them.

    Row and event are of one transaction: neither a crash nor what the node does meanwhile makes them differ.
    The trail must have been verified: what it says is taken for true here.
    """
    instances = scores = deliveries = 0
    found: list[Disagreement] = []
    for session, events in _pages(database, INSTANCE_STORED):
        instances += len(events)
        found += _instances(session, events)
    for session, events in _pages(database, SCORED):
        scores += len(events)
        found += _scores(session, events)
    for session, events in _pages(database, QUEUED):
        rows = _rows_of_deliveries(session, events)
        deliveries += len(rows)
        found += _deliveries(rows, ToldDeliveries(session, events))
    with database.reading(at_one_moment=True) as session:
        found += _withdrawals(session)
        found += _untold(session)
    return Agreement(instances, scores, deliveries, tuple(found[:_SHOWN]))


def _pages(database: Database, action: str) -> Iterator[tuple[Session, list[AuditRow]]]:
    """Yield the events of an action with a session that sees no later ones."""
    after = 0
    while True:
        with database.reading(at_one_moment=True) as session:
            page = rows_of(session, is_of_action(action), AUDIT_TABLE.c.seq > after, limit=_AT_ONCE)
            if not page:
                return
            yield session, page
        after = page[-1].seq


def _instances(session: Session, events: Sequence[AuditRow]) -> Iterator[Disagreement]:
    wanted = [event.detail.get("sop_instance_uid") for event in events]
    rows = session.execute(
        select(
            Instance.sop_instance_uid, Instance.sha256, Instance.calling_ae_title, Study.study_instance_uid
        )
        .join(Study, Instance.study_id == Study.id)
        .where(Instance.sop_instance_uid.in_(wanted), Instance.conflict == 0)
    )
    stored = {row.sop_instance_uid: row for row in rows}
    for event in events:
        uid = event.detail.get("sop_instance_uid")
        row = stored.get(str(uid))
        if row is None:
            yield Disagreement(event.seq, f"the row of instance {uid} is missing")
            continue
        said = {
            "study": (row.study_instance_uid, event.study_instance_uid),
            "sha256": (row.sha256, event.detail.get("sha256")),
            "calling AE title": (row.calling_ae_title, event.detail.get("calling_ae_title")),
        }
        yield from _differing(event.seq, f"instance {uid}", said)


def _scores(session: Session, events: Sequence[AuditRow]) -> Iterator[Disagreement]:
    jobs = [event.job_id for event in events]
    analyses = {row.job_id: row for row in session.scalars(select(Analysis).where(Analysis.job_id.in_(jobs)))}
    results: dict[str, dict[str, str]] = {}
    made = select(ResultObject.job_id, ResultObject.sop_instance_uid, ResultObject.sha256)
    for job_id, uid, sha256 in session.execute(made.where(ResultObject.job_id.in_(jobs))):
        results.setdefault(job_id, {})[uid] = sha256
    for event in events:
        job = str(event.job_id)
        row = analyses.get(job)
        if row is None:
            yield Disagreement(event.seq, f"the analysis of job {job} is missing")
            continue
        told = {each["sop_instance_uid"]: each["sha256"] for each in event.detail.get("results", [])}
        said = {
            "outcome": (row.outcome, event.detail.get("outcome")),
            "score": (row.study_probability, event.detail.get("study_probability")),
            "document": (row.document, canonical_json(event.detail.get("analysis", {}))),
            "list of results": (results.get(job, {}), told),
        }
        yield from _differing(event.seq, f"the analysis of job {job}", said)


def _rows_of_deliveries(session: Session, queued: Sequence[AuditRow]) -> Sequence[_DeliveryRow]:
    columns = Delivery.job_id, Delivery.destination, Delivery.state, Delivery.last_status
    return session.execute(
        select(ResultObject.sop_instance_uid, *columns)
        .join(Delivery, Delivery.result_id == ResultObject.id)
        .where(Delivery.job_id.in_([event.job_id for event in queued]))
    ).all()


def _deliveries(rows: Sequence[_DeliveryRow], told: ToldDeliveries) -> Iterator[Disagreement]:
    present = {(row.job_id, row.sop_instance_uid) for row in rows}
    for key, delivery in told.by_object.items():
        if key not in present:
            yield Disagreement(delivery.seq, f"{_delivery(key[1], delivery.destination)} is missing")
    for row in rows:
        about = told.about(row.job_id, row.sop_instance_uid)
        if about is None:
            yield _untold_delivery(row.sop_instance_uid, row.destination)
            continue
        said = {
            "destination": (row.destination, about.destination),
            "state": (row.state, about.state),
            "status": (None if row.last_status is None else f"{row.last_status:04X}", about.status),
        }
        yield from _differing(about.seq, _delivery(row.sop_instance_uid, about.destination), said)


def _delivery(sop_instance_uid: str, destination: str) -> str:
    return f"the delivery of result {sop_instance_uid} to {destination}"


def _untold_delivery(sop_instance_uid: str, destination: str) -> Disagreement:
    return Disagreement(None, f"no event tells of {_delivery(sop_instance_uid, destination)}")


def _withdrawals(session: Session) -> Iterator[Disagreement]:
    """Compare which rejection note withdraws what; few results are ever withdrawn."""
    note = aliased(ResultObject)
    marked = session.execute(
        select(ResultObject.sop_instance_uid, Delivery.destination, note.sop_instance_uid)
        .join(Delivery, Delivery.result_id == ResultObject.id)
        .outerjoin(note, Delivery.withdrawn_by == note.id)
        .where(Delivery.withdrawn_by.is_not(None))
    )
    rows = {(uid, destination): by for uid, destination, by in marked}
    t = AUDIT_TABLE.c
    events = session.execute(select(t.seq, t.detail).where(is_of_action(WITHDRAWN)).order_by(t.seq))
    for seq, detail in events:
        said = json.loads(detail)
        key = said["sop_instance_uid"], said["destination"]
        yield from _differing(
            seq, _delivery(*key), {"withdrawal": (rows.pop(key, None), said["withdrawn_by"])}
        )
    if _is_uncut(session):
        yield from (
            Disagreement(None, f"no event tells of a withdrawal of {_delivery(*key)}") for key in rows
        )


def _differing(seq: int, of: str, said: Mapping[str, tuple[Any, Any]]) -> Iterator[Disagreement]:
    for name, (row, event) in said.items():
        if row != event:
            yield Disagreement(seq, f"{of} has another {name} in its table")


def _untold(session: Session) -> Iterator[Disagreement]:
    """Find analyses and deliveries that no event tells of, where no beginning of the trail was removed."""
    if not _is_uncut(session):
        return
    t = AUDIT_TABLE.c
    told = exists().where(t.job_id == Analysis.job_id, is_of_action(SCORED))
    for job_id in session.scalars(select(Analysis.job_id).where(~told).limit(_SHOWN)):
        yield Disagreement(None, f"no event tells of the analysis of job {job_id}")
    jobs = select(Delivery.job_id).distinct().subquery()
    told = exists().where(t.job_id == jobs.c.job_id, is_of_action(QUEUED))
    untold = (
        select(ResultObject.sop_instance_uid, Delivery.destination)
        .join(Delivery, Delivery.result_id == ResultObject.id)
        .where(Delivery.job_id.in_(select(jobs.c.job_id).where(~told)))
        .limit(_SHOWN)
    )
    for uid, destination in session.execute(untold):
        yield _untold_delivery(uid, destination)


def _is_uncut(session: Session) -> bool:
    t = AUDIT_TABLE.c
    return session.scalars(select(t.seq).order_by(t.seq).limit(1)).one_or_none() == 1
