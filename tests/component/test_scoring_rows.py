"""What a score job reads from the database and what it leaves there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from db import deliveries, listing
from db.errors import DatabaseError, LeaseLostError
from db.handoff import Route, complete_study
from db.jobs import Claim, bind_bundle, give_up
from db.lifecycle import DeliveryEvent, JobKind
from db.queueing import is_replaced
from db.scoring import ScoreInput, score_input
from db.tables import Analysis, Delivery, Job, ResultObject, Revision
from tests.steered_node import (
    ARCHIVE,
    BUNDLE,
    LEASE_S,
    MG_FOR_PRESENTATION,
    OTHER_WORKER,
    PACS,
    RULES,
    STUDY,
    WORKER,
    SteeredNode,
    four_views,
    mammogram,
    result_object,
)


def read_input(node: SteeredNode, claimed: Claim) -> ScoreInput:
    with node.reading() as session:
        return score_input(session, claimed)


def uids(found: ScoreInput) -> list[str]:
    return [instance.sop_instance_uid for instance in found.instances]


def test_a_job_reads_its_revision_in_the_order_of_the_uids(node: SteeredNode) -> None:
    views = four_views()
    node.receive(*views)

    found = read_input(node, node.claimed())

    assert (found.study_instance_uid, found.revision) == (STUDY, 1)
    assert uids(found) == sorted(view.sop_instance_uid for view in views)
    assert found.predecessors == ()


def test_a_conflict_is_never_scored(node: SteeredNode) -> None:
    first, *others = four_views()
    node.receive(first, replace(first, sha256="0" * 64, spool_name="impostor"), *others)

    found = read_input(node, node.claimed())

    assert len(found.instances) == 4
    assert "impostor" not in {instance.spool_name for instance in found.instances}


def test_another_studys_instances_are_not_read(node: SteeredNode) -> None:
    node.receive(mammogram(study="1.2.9"))
    node.receive(*four_views())

    assert len(read_input(node, node.claimed()).instances) == 4


def test_revision_2_reads_the_instances_of_both_and_revision_1_its_own(node: SteeredNode) -> None:
    views, late = four_views(), mammogram("R", "ML")
    node.receive(*views, late)
    node.complete()

    first = node.claimed()
    assert uids(read_input(node, first)) == sorted(view.sop_instance_uid for view in views)
    node.finish_scoring(first)
    second = node.claimed()
    assert uids(read_input(node, second)) == sorted(i.sop_instance_uid for i in [*views, late])


def test_revision_2_names_the_results_that_it_replaces(node: SteeredNode) -> None:
    node.receive(*four_views())
    first = node.claimed()
    replaced = [result_object(0), result_object(1)]
    node.finish_scoring(first, results=replaced)
    node.receive(mammogram("R", "ML"))
    node.complete()

    found = read_input(node, node.claimed())

    assert [p.sop_instance_uid for p in found.predecessors] == [r.sop_instance_uid for r in replaced]


def test_revision_3_names_the_results_of_revision_2_alone(node: SteeredNode) -> None:
    node.receive(*four_views())
    for laterality in "RL":
        node.finish_scoring(node.claimed(), results=[last := result_object()])
        node.receive(mammogram(laterality, "ML"))
        node.complete()

    found = read_input(node, node.claimed())

    assert found.revision == 3
    assert [p.sop_instance_uid for p in found.predecessors] == [last.sop_instance_uid]


def test_revision_3_replaces_the_last_revision_that_was_scored(node: SteeredNode) -> None:
    node.receive(*four_views())
    scored = result_object()
    node.finish_scoring(node.claimed(), results=[scored])
    node.receive(mammogram("R", "ML"))
    node.complete()
    failed = node.claimed()
    with node.transaction(WORKER) as tx:
        give_up(tx, failed, code="INPUT", reason="x")
    node.receive(mammogram("L", "ML"))
    node.complete()

    found = read_input(node, node.claimed())

    assert found.revision == 3
    assert [p.sop_instance_uid for p in found.predecessors] == [scored.sop_instance_uid]


def test_the_tasks_of_a_study_neither_wait_for_nor_replace_each_other(node: SteeredNode) -> None:
    tasks = ("first", "second")
    rules = replace(RULES, routes=tuple(Route(task, frozenset({MG_FOR_PRESENTATION})) for task in tasks))
    node.receive(*four_views(), mammogram("R", "ML"), rules=rules)
    with node.transaction("anna") as tx:
        complete_study(tx, STUDY, rules)
    jobs = {(job.task, job.revision_id): job for job in node.jobs()}
    earlier, later = (row.id for row in node.rows(Revision))
    scored: dict[str, str] = {}
    waiting: dict[str, Claim] = {}

    for task in tasks:  # while the other one's job of the first revision is not done
        claimed = node.claim(job_id=jobs[task, earlier].id)
        assert claimed is not None
        node.finish_scoring(claimed, results=[result := result_object()])
        scored[task] = result.sop_instance_uid
        next_claim = node.claim(job_id=jobs[task, later].id)
        assert next_claim is not None
        waiting[task] = next_claim

    for task in tasks:
        found = read_input(node, waiting[task])
        assert [p.sop_instance_uid for p in found.predecessors] == [scored[task]]
        assert [s.result.sop_instance_uid for s in found.superseded] == [scored[task]]
    node.finish_scoring(waiting["first"])
    with node.reading() as session:
        replaced = {task: is_replaced(session, jobs[task, earlier]) for task in tasks}
    assert replaced == {"first": True, "second": False}


@pytest.mark.parametrize(
    ("events", "is_superseded"),
    [
        ((), True),
        ((DeliveryEvent.NO_ANSWER,), True),
        ((DeliveryEvent.ACCEPTED,), True),
        ((DeliveryEvent.ACCEPTED, DeliveryEvent.COMMIT), True),
        ((DeliveryEvent.REFUSE,), False),
        ((DeliveryEvent.PASS_OVER,), False),
    ],
    ids=str,
)
def test_a_later_revision_supersedes_what_a_destination_has_or_may_come_to_have_but_no_note(
    node: SteeredNode, events: tuple[DeliveryEvent, ...], is_superseded: bool
) -> None:
    node.receive(*four_views())
    results = [report := result_object(0), result_object(1, kind="rejection_note")]
    node.finish_scoring(node.claimed(), results=results)
    sending = node.claimed(JobKind.DELIVER)
    with node.transaction(WORKER) as tx:
        for item in deliveries.outgoing(tx.session, sending):
            for event in events:
                deliveries.record(tx, sending, item.delivery_id, event, status=None, detail="")
    node.receive(mammogram("R", "ML"))
    node.complete()

    found = read_input(node, node.claimed())

    assert [p.sop_instance_uid for p in found.predecessors if p.kind == "rejection_note"] == []
    superseded = [each.result.sop_instance_uid for each in found.superseded]
    assert superseded == [report.sop_instance_uid] * is_superseded


def test_finishing_stores_analysis_results_and_a_deliver_job_per_destination(node: SteeredNode) -> None:
    node.receive(*four_views())
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        bind_bundle(tx, claimed, BUNDLE)
    results = [result_object(0), result_object(1, kind="segmentation")]

    node.finish_scoring(claimed, results=results, destinations=[PACS, ARCHIVE])

    (analysis,) = node.rows(Analysis)
    assert (analysis.job_id, analysis.outcome, analysis.study_probability) == (claimed.job_id, "scored", 0.25)
    assert analysis.document == '{"probability":0.25,"threshold":0.5}'
    stored = node.rows(ResultObject)
    assert [r.sop_instance_uid for r in stored] == [r.sop_instance_uid for r in results]
    assert [(r.sha256, r.file_name, r.job_id) for r in stored] == [
        (r.sha256, r.file_name, claimed.job_id) for r in results
    ]
    delivers = node.jobs(JobKind.DELIVER)
    assert {job.destination for job in delivers} == {PACS, ARCHIVE}
    assert {job.parent_job_id for job in delivers} == {claimed.job_id}
    assert {job.bundle_digest for job in delivers} == {BUNDLE}
    assert {(job.state, job.attempts, job.next_try_at) for job in delivers} == {
        ("queued", 0, node.clock.time)
    }
    assert [(d.destination, d.state) for d in node.rows(Delivery)] == [
        (PACS, "pending"),
        (PACS, "pending"),
        (ARCHIVE, "pending"),
        (ARCHIVE, "pending"),
    ]
    assert node.job(claimed).state == "done"


def test_the_audit_trail_holds_what_was_found_the_digest_of_each_result_and_what_goes_where(
    node: SteeredNode,
) -> None:
    node.receive(*four_views())
    claimed, result = node.claimed(), result_object()

    node.finish_scoring(claimed, results=[result])

    scored, queued = node.audited()[-2:]
    assert (scored.action, queued.action) == ("job.scored", "job.queued")
    assert (scored.study_instance_uid, scored.job_id, scored.bundle) == (STUDY, claimed.job_id, BUNDLE)
    detail = json.loads(scored.detail)
    assert detail["results"] == [{"sop_instance_uid": result.sop_instance_uid, "sha256": result.sha256}]
    assert detail["analysis"] == {"threshold": 0.5, "probability": 0.25}
    assert (detail["outcome"], detail["attempt"]) == ("scored", 1)
    assert json.loads(queued.detail) == {
        "kind": "deliver",
        "destination": PACS,
        "objects": [result.sop_instance_uid],
    }


def test_without_destinations_the_results_are_kept_and_nothing_is_sent(node: SteeredNode) -> None:
    node.receive(*four_views())

    node.finish_scoring(node.claimed(), destinations=[])

    assert len(node.rows(ResultObject)) == 1
    assert node.jobs(JobKind.DELIVER) == []
    assert node.rows(Delivery) == []


def test_a_worker_without_the_lease_leaves_nothing(node: SteeredNode) -> None:
    node.receive(*four_views())
    stale = node.claimed()
    node.clock.advance(LEASE_S)
    node.claimed(worker=OTHER_WORKER)
    before = node.actions()

    with pytest.raises(LeaseLostError):
        node.finish_scoring(stale)

    assert node.rows(Analysis) == node.rows(ResultObject) == node.rows(Delivery) == []
    assert node.jobs(JobKind.DELIVER) == []
    assert node.actions() == before


def test_a_result_under_a_known_uid_is_refused_with_all_that_came_with_it(node: SteeredNode) -> None:
    known = result_object()
    node.receive(*four_views(), *four_views("1.2.9"))
    node.finish_scoring(node.claimed(), results=[known])
    before = node.actions()
    claimed = node.claimed()

    with pytest.raises(DatabaseError):
        node.finish_scoring(claimed, results=[result_object(0), replace(known, file_name="other")])

    assert node.job(claimed).state == "running"
    assert [r.sop_instance_uid for r in node.rows(ResultObject)] == [known.sop_instance_uid]
    assert len(node.rows(Job, Job.kind == JobKind.DELIVER)) == 1
    assert node.actions() == [*before, "job.claimed"]


def test_the_analysis_is_found_by_its_job(node: SteeredNode) -> None:
    node.receive(*four_views())
    claimed = node.claimed()
    node.finish_scoring(claimed)

    with node.reading() as session:
        assert listing.analysis(session, claimed.job_id) == '{"probability":0.25,"threshold":0.5}'
        assert listing.analysis(session, "0" * 32) is None
