"""Whether the tables still say what the trail says: who sent what, what was scored, which results were made.

The chain protects the trail alone. Whoever writes into the database past the node may leave it as it is and
change a score instead; the trail holds each score and each digest a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from db.audit.reading import AuditRow, rows_of
from db.audit.trail import AUDIT_TABLE, is_of_action
from db.canonical import canonical_json
from db.session import Database
from db.tables import INSTANCE_STORED, Analysis, Instance, ResultObject, Study

SCORED = "job.scored"
_AT_ONCE = 500
_SHOWN = 1000


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
    disagreements : tuple of Disagreement
        The first thousand of what differs.
    """

    instances: int
    scores: int
    disagreements: tuple[Disagreement, ...]


def compare_with_tables(database: Database) -> Agreement:
    """Hold instances, analyses and result objects against the events that tell of them.

    The trail must have been verified: what it says is taken for true here.
    """
    found: list[Disagreement] = []
    counts = {INSTANCE_STORED: 0, SCORED: 0}
    for action, compare in ((INSTANCE_STORED, _instances), (SCORED, _scores)):
        after = 0
        while True:
            with database.reading() as session:
                page = rows_of(session, is_of_action(action), AUDIT_TABLE.c.seq > after, limit=_AT_ONCE)
                found += compare(session, page)
            if not page:
                break
            after = page[-1].seq
            counts[action] += len(page)
    with database.reading() as session:
        found += _untold(session)
    return Agreement(counts[INSTANCE_STORED], counts[SCORED], tuple(found[:_SHOWN]))


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


def _differing(seq: int, of: str, said: Mapping[str, tuple[Any, Any]]) -> Iterator[Disagreement]:
    for name, (row, event) in said.items():
        if row != event:
            yield Disagreement(seq, f"{of} has another {name} in its table")


def _untold(session: Session) -> Iterator[Disagreement]:
    """Find analyses that no event tells of, where no beginning of the trail was removed."""
    t = AUDIT_TABLE.c
    if session.scalars(select(t.seq).order_by(t.seq).limit(1)).one_or_none() != 1:
        return
    told = exists().where(t.job_id == Analysis.job_id, is_of_action(SCORED))
    for job_id in session.scalars(select(Analysis.job_id).where(~told).limit(_SHOWN)):
        yield Disagreement(None, f"no event tells of the analysis of job {job_id}")
