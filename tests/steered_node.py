"""A node's database whose time only the test moves, and the studies that are sent to it."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from db import deliveries
from db.deliveries import OutgoingObject
from db.handoff import (
    Completeness,
    ReceivedInstance,
    Registration,
    Route,
    complete_study,
    register_instance,
)
from db.jobs import Claim, claim, finish
from db.lifecycle import DeliveryEvent, JobKind
from db.scoring import DeliveryOrder, NewResult, OrderedObject, finish_scoring
from db.session import Database, Transaction
from db.tables import AuditEvent, Base, Job, Revision

MG_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"

TASK = "mammography_malignancy"
FOUR_VIEWS = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"))
RULES = Completeness(
    standard_views=frozenset(FOUR_VIEWS),
    quiet_period_s=60,
    routes=(Route(TASK, frozenset({MG_FOR_PRESENTATION})),),
)
STUDY = "1.2.826.0.1.3680043.10.1"
LISTENER = "listener@host-a:11"
WORKER, OTHER_WORKER = "worker@host-a:12", "worker@host-b:13"
PACS, ARCHIVE = "PACS@pacs.example:11112", "ARCHIVE@archive.example:104"
BUNDLE = "b" * 64
LEASE_S = 30.0

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize(
    "database_kind", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)

Answer = TypeVar("Answer")


class SteeredClock:
    """Stands still until the test advances it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)

    def now(self, connection: Connection, *, may_write: bool) -> datetime:
        """Return the time that the test chose."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


class SteeredNode:
    """What a test does with a node's database, in the words of the tests."""

    def __init__(self, database: Database) -> None:
        self.clock = SteeredClock()
        url = database.engine.url.render_as_string(hide_password=False)
        self.database = Database(url, database.trail, clock=self.clock)
        with self.reading() as session:
            self._audited_before = session.scalars(select(func.coalesce(func.max(AuditEvent.seq), 0))).one()

    def transaction(self, actor: str = LISTENER) -> AbstractContextManager[Transaction]:
        """Open a writing transaction."""
        return self.database.transaction(actor)

    def reading(self) -> AbstractContextManager[Session]:
        """Open a reading session."""
        return self.database.reading()

    def receive(self, *instances: ReceivedInstance, rules: Completeness = RULES) -> list[Registration]:
        """Register instances, each in a transaction of its own as a listener does."""
        answers = []
        for instance in instances:
            with self.transaction() as tx:
                answers.append(register_instance(tx, instance, rules))
        return answers

    def complete(self, study_instance_uid: str = STUDY) -> int:
        """Complete a study by command."""
        with self.transaction("anna") as tx:
            return complete_study(tx, study_instance_uid, RULES)

    def claim(
        self,
        kind: JobKind = JobKind.SCORE,
        worker: str = WORKER,
        *,
        job_id: str | None = None,
        max_attempts: int | None = 5,
    ) -> Claim | None:
        """Claim a job for a worker."""
        with self.transaction(worker) as tx:
            return claim(tx, kind, lease_s=LEASE_S, max_attempts=max_attempts, job_id=job_id)

    def claimed(self, kind: JobKind = JobKind.SCORE, worker: str = WORKER) -> Claim:
        """Claim a job that must be there."""
        found = self.claim(kind, worker)
        assert found is not None, f"no {kind} job is due"
        return found

    def finish_scoring(
        self,
        claimed: Claim,
        *,
        results: Sequence[NewResult] | None = None,
        destinations: Sequence[str] = (PACS,),
        orders: Sequence[DeliveryOrder] = (),
    ) -> None:
        """Commit a score job's outcome; destinations get every result, beside what is ordered."""
        results = [result_object()] if results is None else results
        with self.transaction(claimed.owner) as tx:
            finish_scoring(
                tx,
                claimed,
                bundle=BUNDLE,
                outcome="scored",
                study_probability=0.25,
                document={"threshold": 0.5, "probability": 0.25},
                results=results,
                deliveries=[*orders, *(every(results, destination) for destination in destinations)],
            )

    def deliver(
        self, claimed: Claim, event: DeliveryEvent = DeliveryEvent.ACCEPTED
    ) -> tuple[OutgoingObject, ...]:
        """Let the same become of all that a deliver job sends, and end the job; return what it sent."""
        with self.transaction(claimed.owner) as tx:
            sent = deliveries.outgoing(tx.session, claimed)
            for item in sent:
                deliveries.record(tx, claimed, item.delivery_id, event, status=0x0000, detail="")
            finish(tx, claimed)
        return sent

    def rows(self, table: type[Base], *where: Any) -> list[Any]:
        """Return the rows of a table in the order of their primary key."""
        with self.reading() as session:
            return list(session.scalars(select(table).where(*where).order_by(*table.__table__.primary_key)))

    def jobs(self, kind: JobKind = JobKind.SCORE) -> list[Job]:
        """Return the jobs of a kind, oldest first."""
        return sorted(self.rows(Job, Job.kind == kind), key=lambda job: job.created_at)

    def job(self, claimed: Claim) -> Job:
        """Return a claimed job's row as it is now."""
        (job,) = self.rows(Job, Job.id == claimed.job_id)
        return job

    def revisions(self) -> list[tuple[int, str, str | None]]:
        """Return number, state and reason of every revision."""
        return [(r.number, r.state, r.complete_reason) for r in self.rows(Revision)]

    def audited(self) -> list[AuditEvent]:
        """Return the audit events since this object was made."""
        return self.rows(AuditEvent, AuditEvent.seq > self._audited_before)

    def actions(self) -> list[str]:
        """Return the actions of the audit events since this object was made."""
        return [event.action for event in self.audited()]


@pytest.fixture
def node(database: Database) -> Iterator[SteeredNode]:
    """A node's database, once on SQLite and once on PostgreSQL, whose time the test moves."""
    steered = SteeredNode(database)
    yield steered
    steered.database.close()


def mammogram(
    laterality: str | None = "R", view: str | None = "CC", *, study: str = STUDY, **changes: Any
) -> ReceivedInstance:
    """Return a received instance; the same arguments give the same identity and bytes."""
    digest = hashlib.sha256(f"{study} {laterality} {view} {sorted(changes.items())}".encode()).hexdigest()
    usual = ReceivedInstance(
        sop_instance_uid=f"2.25.{int(digest[:30], 16)}",
        sop_class_uid=MG_FOR_PRESENTATION,
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
        patient_id="P-4711",
        accession_number="A-0815",
        modality="MG",
        laterality=laterality,
        view=view,
        for_presentation=True,
        spool_name=uuid.uuid4().hex,
        sha256=digest,
        size_bytes=1000,
        calling_ae_title="MAMMO1",
    )
    return replace(usual, **changes)


def four_views(study: str = STUDY) -> list[ReceivedInstance]:
    """Return the standard views of a screening study."""
    return [mammogram(*view, study=study) for view in FOUR_VIEWS]


def result_object(ordinal: int = 0, **changes: Any) -> NewResult:
    """Return a new result object of its own identity."""
    name = uuid.uuid4()
    usual = NewResult(
        kind="measurement_report",
        ordinal=ordinal,
        sop_class_uid=COMPREHENSIVE_SR,
        sop_instance_uid=f"2.25.{name.int}",
        series_instance_uid="2.25.7",
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
        file_name=name.hex,
        sha256=hashlib.sha256(name.bytes).hexdigest(),
        size_bytes=2000,
    )
    return replace(usual, **changes)


def every(results: Sequence[NewResult], destination: str) -> DeliveryOrder:
    """Order every result for a destination."""
    return DeliveryOrder(destination, tuple(OrderedObject(result.sop_instance_uid) for result in results))


def at_the_same_time(*calls: Callable[[], Answer]) -> list[Answer]:
    """Run calls in a thread each, started together; return their answers in the order of the calls."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Answer]) -> Answer:
        start.wait(timeout=60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=120) for future in [pool.submit(run, call) for call in calls]]


def held_up(node: SteeredNode, call: Future[Answer]) -> Future[Answer]:
    """Wait until a call in another thread is held up by a lock of the caller's open transaction."""
    # On SQLite the call cannot even begin; on PostgreSQL its first statements run before it is held up.
    if not node.database.is_sqlite:
        _until(lambda: _someone_waits(node) or call.done())
    return call


def _someone_waits(node: SteeredNode) -> bool:
    with node.reading() as session:
        return bool(session.connection().exec_driver_sql("SELECT 1 FROM pg_locks WHERE NOT granted").all())


def _until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    # The server tells nobody that a lock is waited for; asking again is the only way.
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.01)
