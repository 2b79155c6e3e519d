"""Rows of deliveries are held against the trail: who marks a result as delivered by hand is found."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy import delete, text

from db import commitments, deliveries, jobs, queueing
from db.audit import guards
from db.audit.agreement import Disagreement, compare_with_tables
from db.audit.trail import AUDIT_TABLE
from db.jobs import Claim
from db.lifecycle import DeliveryEvent, DeliveryState, JobKind
from db.scoring import DeliveryOrder, OrderedObject
from db.tables import Delivery, Job, ResultObject
from tests.steered_node import ARCHIVE, PACS, WORKER, SteeredNode, four_views, mammogram, result_object

FATES = (
    ("committed", DeliveryEvent.ACCEPTED, 0x0000),
    ("missing", DeliveryEvent.ACCEPTED, 0xB000),
    ("unanswered", DeliveryEvent.NO_ANSWER, None),
    ("unanswered", DeliveryEvent.NO_ANSWER, None),
    ("retried", DeliveryEvent.REFUSE, 0xC001),
    ("without_room", DeliveryEvent.TURNED_AWAY, 0xA700),
    ("without_room", DeliveryEvent.TURNED_AWAY, 0xA700),
    ("passed_over", DeliveryEvent.PASS_OVER, None),
)
"""What becomes of each result at the PACS; one more is not touched: the archive is to get that one alone."""
NAMES = (*dict.fromkeys(name for name, _, _ in FATES), "untouched")
OF = "WHERE result_id = :{} AND destination = '" + PACS + "'"


@dataclass(frozen=True)
class Hospital:
    """A node that has delivered.

    Attributes
    ----------
    node : SteeredNode
        Its database.
    uids : dict
        SOP Instance UID by what became of the result at the PACS; ``note`` withdraws the committed one.
    """

    node: SteeredNode
    uids: dict[str, str]

    def deliver(self) -> None:
        """Send to the PACS; a person tries again what it refused."""
        (job,) = self.node.rows(Job, Job.kind == JobKind.DELIVER, Job.destination == PACS)
        sending = self.node.claim(JobKind.DELIVER, job_id=job.id)
        assert sending is not None
        with self.node.reading() as session:
            items = {o.sop_instance_uid: o.delivery_id for o in deliveries.outgoing(session, sending)}
        for name, event, status in FATES:
            with self.node.transaction(WORKER) as tx:
                deliveries.record(tx, sending, items[self.uids[name]], event, status=status, detail="why")
        with self.node.transaction(WORKER) as tx:
            jobs.give_up(tx, sending, code="UNDELIVERABLE", reason="C001")
            commitments.queue_request(tx, sending)
        with self.node.transaction("anna") as tx:
            queueing.retry(tx, sending.job_id)

    def report(self) -> None:
        """Let the PACS commit one object, and miss the other that it had taken."""
        asking: Claim = self.node.claimed(JobKind.COMMIT)
        with self.node.reading() as session:
            asked = commitments.standing(session, asking).delivered
        committed = frozenset(each for each in asked if each[1] == self.uids["committed"])
        with self.node.transaction(WORKER) as tx:
            commitments.note_request(tx, asking, "2.25.7", objects=len(asked))
        told = commitments.Report("2.25.7", committed, {self.uids["missing"]: 0x0112}, "PACS")
        with self.node.transaction("listen@host:1") as tx:
            commitments.record_report(tx, told)

    def change(self, statement: str) -> None:
        """Change one row past the node, as a hand does; ``:NAME`` is the id of the result of that name."""
        ids = {row.sop_instance_uid: row.id for row in self.node.rows(ResultObject)}
        clause = text(statement)
        named = {name: ids[uid] for name, uid in self.uids.items() if f":{name}" in statement}
        with self.node.database.engine.begin() as connection:
            changed = connection.execute(clause, named)
        assert changed.rowcount == 1

    def found(self) -> tuple[Disagreement, ...]:
        """Hold all rows against the trail."""
        return compare_with_tables(self.node.database).disagreements


@pytest.fixture
def hospital(node: SteeredNode) -> Hospital:
    """A study whose results stand in every state at the PACS, and a later revision that withdraws one."""
    results = {name: result_object(n) for n, name in enumerate(NAMES)}
    note = result_object(0, kind="rejection_note")
    made = Hospital(node, {name: r.sop_instance_uid for name, r in [*results.items(), ("note", note)]})
    node.receive(*four_views())
    to_archive = DeliveryOrder(ARCHIVE, (OrderedObject(made.uids["untouched"]),))
    node.finish_scoring(node.claimed(), results=list(results.values()), orders=[to_archive])
    made.deliver()
    made.report()
    (withdrawn,) = node.rows(Delivery, Delivery.state == DeliveryState.COMMITTED)
    node.receive(mammogram("R", "ML"))
    node.complete()
    uid = note.sop_instance_uid
    order = DeliveryOrder(PACS, (OrderedObject(uid),), note=uid, withdrawn=(withdrawn.id,))
    node.finish_scoring(node.claimed(), results=[note], destinations=(), orders=[order])
    return made


def test_no_delivery_of_the_node_differs_from_what_the_trail_says(hospital: Hospital) -> None:
    states = {delivery.state for delivery in hospital.node.rows(Delivery)}
    assert states == {"committed", "pending", "unknown", "not_needed"}

    agreement = compare_with_tables(hospital.node.database)

    assert (agreement.deliveries, agreement.disagreements) == (len(NAMES) + 2, ())


@pytest.mark.parametrize(
    ("change", "name", "problem", "told_by"),
    [
        ("UPDATE delivery SET state = 'committed'", "unanswered", "another state", "result.no_answer"),
        ("UPDATE delivery SET state = 'delivered'", "untouched", "another state", "job.queued"),
        ("UPDATE delivery SET state = 'delivered'", "missing", "another state", "result.missing"),
        ("UPDATE delivery SET state = 'pending'", "committed", "another state", "result.committed"),
        ("UPDATE delivery SET state = 'refused'", "retried", "another state", "job.retried"),
        ("UPDATE delivery SET last_status = 0", "retried", "another status", "job.retried"),
        ("UPDATE delivery SET last_status = NULL", "without_room", "another status", "result.turned_away"),
        ("UPDATE delivery SET withdrawn_by = NULL", "committed", "another withdrawal", "result.withdrawn"),
        ("UPDATE delivery SET destination = 'X@y:1'", "missing", "another destination", "result.missing"),
        ("DELETE FROM delivery", "untouched", "is missing", "job.queued"),
        ("DELETE FROM delivery", "passed_over", "is missing", "result.pass_over"),
    ],
)
def test_a_delivery_that_a_hand_changed_is_named_with_the_event_that_says_otherwise(
    hospital: Hospital, change: str, name: str, problem: str, told_by: str
) -> None:
    hospital.change(f"{change} {OF.format(name)}")

    (found,) = hospital.found()

    (event,) = [event for event in hospital.node.audited() if event.seq == found.seq]
    assert event.action == told_by
    assert f"the delivery of result {hospital.uids[name]} to {PACS}" in found.problem
    assert problem in found.problem


def test_a_delivery_that_no_job_was_to_do_is_named(hospital: Hospital) -> None:
    hospital.change(
        "INSERT INTO delivery (job_id, result_id, destination, state, attempts, updated_at) "
        f"SELECT job_id, :missing, destination, 'delivered', 1, updated_at FROM delivery "
        f"WHERE result_id = :untouched AND destination = '{ARCHIVE}'"
    )

    (found,) = hospital.found()

    expected = f"no event tells of the delivery of result {hospital.uids['missing']} to {ARCHIVE}"
    assert (found.seq, found.problem) == (None, expected)


def test_a_delivery_whose_job_nobody_queued_is_named(hospital: Hospital) -> None:
    hospital.change(
        'INSERT INTO job (id, kind, revision_id, task, parent_job_id, destination, "order", state, attempts, '
        "next_try_at, created_at) SELECT 'f', kind, revision_id, task, parent_job_id, 'X@y:1', '{}', 'done', "
        f"1, next_try_at, created_at FROM job WHERE kind = 'deliver' AND destination = '{ARCHIVE}'"
    )
    hospital.change(
        "INSERT INTO delivery (job_id, result_id, destination, state, attempts, updated_at) "
        f"SELECT 'f', :missing, 'X@y:1', 'delivered', 1, updated_at FROM delivery {OF.format('missing')}"
    )

    (found,) = hospital.found()

    expected = f"no event tells of the delivery of result {hospital.uids['missing']} to X@y:1"
    assert (found.seq, found.problem) == (None, expected)


def test_a_result_that_is_marked_as_withdrawn_by_hand_is_named(hospital: Hospital) -> None:
    hospital.change(f"UPDATE delivery SET withdrawn_by = :note {OF.format('missing')}")

    (found,) = hospital.found()

    of = f"the delivery of result {hospital.uids['missing']} to {PACS}"
    assert (found.seq, found.problem) == (None, f"no event tells of a withdrawal of {of}")


def test_a_job_of_an_earlier_version_which_did_not_tell_what_it_was_to_send_is_compared(
    hospital: Hospital,
) -> None:
    (result,) = hospital.node.rows(ResultObject, ResultObject.sop_instance_uid == hospital.uids["missing"])
    with hospital.node.transaction(WORKER) as tx:
        scored = tx.session.get_one(Job, result.job_id)
        job = queueing.queue_after(tx, scored, JobKind.DELIVER, "OLD@x:1")
        of_job = {"job_id": job.id, "result_id": result.id, "destination": "OLD@x:1"}
        tx.session.add(Delivery(state=DeliveryState.PENDING, attempts=0, updated_at=tx.now, **of_job))
        jobs.audit_job(tx, job, "job.queued", {"destination": "OLD@x:1"})
    assert hospital.found() == ()

    hospital.change("UPDATE delivery SET state = 'delivered' WHERE destination = 'OLD@x:1'")

    (found,) = hospital.found()
    assert found.problem.endswith("to OLD@x:1 has another state in its table")


def test_what_was_told_before_the_beginning_that_was_removed_is_not_missed(hospital: Hospital) -> None:
    with hospital.node.transaction("anna") as tx:
        tx.audit("audit.verified")
    newest = hospital.node.audited()[-1].seq
    with hospital.node.database.engine.begin() as connection, guards.lifted(connection):
        connection.execute(delete(AUDIT_TABLE).where(AUDIT_TABLE.c.seq < newest))

    assert hospital.found() == ()
