"""A bundle is recalled: which studies it scored, and that they are scored again and withdrawn."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from db import deliveries, jobs, listing, recall
from db.deployments import BundleFacts, activate, add_bundle
from db.errors import RecallRefusedError, UnknownRecordError
from db.jobs import Claim, bind_bundle
from db.lifecycle import CompletionReason, DeliveryEvent, JobKind
from db.scoring import DeliveryOrder, NewResult, OrderedObject, ScoreInput, finish_scoring, score_input
from db.tables import Delivery
from tests.steered_node import (
    ARCHIVE,
    BUNDLE,
    PACS,
    RULES,
    STUDY,
    TASK,
    WORKER,
    SteeredNode,
    four_views,
    mammogram,
    result_object,
)

NEXT_BUNDLE = "c" * 64
OTHER_STUDY = "1.2.826.0.1.3680043.10.2"


def deploy(node: SteeredNode, *digests: str) -> None:
    """Let the last of some bundles answer."""
    for digest in digests:
        with node.transaction("anna") as tx:
            add_bundle(tx, BundleFacts(digest, "n", digest[:3], TASK, demonstration=False))
            activate(tx, digest)


def score(node: SteeredNode, bundle: str = BUNDLE, *destinations: str) -> list[NewResult]:
    """Score the due job with a bundle; return its results."""
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        bind_bundle(tx, claimed, bundle)
    results = [result_object(0), result_object(1, kind="segmentation")]
    node.finish_scoring(claimed, results=results, destinations=destinations or (PACS,))
    return results


def deliver(node: SteeredNode, event: DeliveryEvent = DeliveryEvent.ACCEPTED) -> None:
    """Deliver the due job's objects."""
    node.deliver(node.claimed(JobKind.DELIVER), event)


def input_of(node: SteeredNode, claimed: Claim) -> ScoreInput:
    with node.reading() as session:
        return score_input(session, claimed)


def recalled(node: SteeredNode, study: str = STUDY, digest: str = BUNDLE) -> int:
    with node.transaction("anna") as tx:
        return recall.recall_study(tx, study, digest, RULES)


def rows(node: SteeredNode, **limits: object) -> list[recall.Row]:
    with node.reading() as session:
        return recall.scored_by(session, BUNDLE, **limits)  # type: ignore[arg-type]


def test_every_revision_that_the_bundle_scored_is_listed_with_where_it_is(node: SteeredNode) -> None:
    node.receive(*four_views())
    score(node, BUNDLE, PACS, ARCHIVE)
    deliver(node)
    node.receive(*four_views(OTHER_STUDY))
    score(node, NEXT_BUNDLE)

    (row,) = rows(node)

    assert (row["study_instance_uid"], row["revision"], row["task"]) == (STUDY, 1, TASK)
    assert (row["patient_id"], row["accession_number"]) == ("P-4711", "A-0815")
    assert row["delivered"] == 2
    assert row["destinations"] in ([PACS], [ARCHIVE])
    assert (row["superseded"], row["recalled"]) == (False, False)


def test_the_list_is_limited_to_when_the_bundle_scored(node: SteeredNode) -> None:
    node.receive(*four_views())
    at = node.clock.time
    score(node)
    assert len(rows(node, since=at, until=at + timedelta(seconds=1))) == 1
    assert rows(node, until=at) == []
    assert rows(node, since=at + timedelta(seconds=1)) == []


def test_a_recalled_study_is_scored_again_from_the_same_instances(node: SteeredNode) -> None:
    node.receive(*four_views())
    results = score(node)
    deliver(node)
    deploy(node, BUNDLE, NEXT_BUNDLE)

    assert recalled(node) == 2

    claimed = node.claimed()
    found = input_of(node, claimed)
    assert (found.revision, found.reason, len(found.instances)) == (2, CompletionReason.RECALL, 4)
    assert [p.sop_instance_uid for p in found.predecessors] == [r.sop_instance_uid for r in results]
    assert [(s.destination, s.result.sop_instance_uid) for s in found.superseded] == [
        (PACS, result.sop_instance_uid) for result in results
    ]
    assert [(row["superseded"], row["recalled"]) for row in rows(node)] == [(True, True)]
    (event,) = [e for e in node.audited() if e.action == "study.recalled"]
    assert (event.actor, event.study_instance_uid, event.bundle) == ("anna", STUDY, BUNDLE)
    assert json.loads(event.detail) == {"revision": 2}


def test_a_study_is_recalled_once(node: SteeredNode) -> None:
    node.receive(*four_views())
    score(node)
    deploy(node, BUNDLE, NEXT_BUNDLE)
    assert recall.studies_to_recall(rows(node)) == [STUDY]
    recalled(node)
    assert recall.studies_to_recall(rows(node)) == []


def test_images_that_wait_are_scored_along(node: SteeredNode) -> None:
    node.receive(*four_views())
    score(node)
    node.receive(mammogram("R", "ML"))
    deploy(node, BUNDLE, NEXT_BUNDLE)

    assert recalled(node) == 2

    assert node.revisions() == [(1, "complete", "all_views"), (2, "complete", "recall")]
    assert len(input_of(node, node.claimed()).instances) == 5


def test_a_task_whose_bundle_was_not_recalled_is_not_asked_again(node: SteeredNode) -> None:
    rules = replace(RULES, routes=(*RULES.routes, replace(RULES.routes[0], task="other")))
    node.receive(*four_views(), rules=rules)
    (job,) = [job for job in node.jobs() if job.task == TASK]
    claimed = node.claim(job_id=job.id)
    assert claimed is not None
    with node.transaction(WORKER) as tx:
        bind_bundle(tx, claimed, BUNDLE)
    node.finish_scoring(claimed)
    deploy(node, BUNDLE, NEXT_BUNDLE)

    with node.transaction("anna") as tx:
        assert recall.recall_study(tx, STUDY, BUNDLE, rules) == 2

    assert sorted(job.task for job in node.jobs()) == sorted([TASK, TASK, "other"])


def test_what_a_note_withdrew_is_not_withdrawn_again_and_refused_objects_never(node: SteeredNode) -> None:
    node.receive(*four_views())
    first = score(node)
    deliver(node)
    node.receive(mammogram("R", "ML"))
    node.complete()
    second, claimed = result_object(0), node.claimed()
    found = input_of(node, claimed)
    note = result_object(1, kind="rejection_note")
    ids = tuple(item.delivery_id for item in found.superseded)
    order = DeliveryOrder(
        PACS,
        (OrderedObject(second.sop_instance_uid), OrderedObject(note.sop_instance_uid)),
        note.sop_instance_uid,
        ids,
    )
    with node.transaction(WORKER) as tx:
        bind_bundle(tx, claimed, BUNDLE)
        finish_scoring(
            tx,
            claimed,
            bundle=BUNDLE,
            outcome="scored",
            study_probability=0.5,
            document={},
            results=[second, note],
            deliveries=[order],
        )
    withdrawn = [d for d in node.rows(Delivery) if d.withdrawn_by is not None]
    assert [d.id for d in withdrawn] == list(ids)
    told = [json.loads(e.detail) for e in node.audited() if e.action == "result.withdrawn"]
    assert [(t["sop_instance_uid"], t["destination"], t["withdrawn_by"]) for t in told] == [
        (r.sop_instance_uid, PACS, note.sop_instance_uid) for r in first
    ]
    with node.reading() as session:
        listed = {row["sop_instance_uid"]: row["withdrawn_by"] for row in listing.results(session)}
    assert {listed[r.sop_instance_uid] for r in first} == {note.sop_instance_uid}
    assert {listed[r.sop_instance_uid] for r in (second, note)} == {None}
    assert [row["delivered"] for row in rows(node)] == [0, 0]
    deliver(node, DeliveryEvent.REFUSE)
    deploy(node, BUNDLE, NEXT_BUNDLE)
    recalled(node)

    third = input_of(node, node.claimed())

    assert third.superseded == ()
    assert [p.sop_instance_uid for p in third.predecessors] == [second.sop_instance_uid]
    assert {r.sop_instance_uid for r in first}.isdisjoint(p.sop_instance_uid for p in third.predecessors)


def test_a_note_is_not_sent_before_what_it_withdraws(node: SteeredNode) -> None:
    node.receive(*four_views())
    score(node)
    node.receive(mammogram("R", "ML"))
    node.complete()
    claimed = node.claimed()
    note = result_object(kind="rejection_note")
    node.finish_scoring(claimed, results=[note], destinations=[PACS, ARCHIVE])

    due = [node.claimed(JobKind.DELIVER), node.claimed(JobKind.DELIVER)]
    assert node.claim(JobKind.DELIVER) is None
    assert {claim.destination for claim in due} == {PACS, ARCHIVE}
    for claim in due:
        with node.transaction(WORKER) as tx:
            jobs.finish(tx, claim)
    assert node.claimed(JobKind.DELIVER).destination == PACS


def test_a_report_without_a_note_waits_for_nobody(node: SteeredNode) -> None:
    node.receive(*four_views())
    score(node)
    node.receive(mammogram("R", "ML"))
    node.complete()
    node.finish_scoring(node.claimed(), results=[result_object()], destinations=[PACS])
    assert node.claimed(JobKind.DELIVER) != node.claimed(JobKind.DELIVER)


def two_classes(node: SteeredNode) -> tuple[str, str, Claim]:
    """Score a study whose report goes out in one of two classes; return both UIDs and the deliver job."""
    node.receive(*four_views())
    claimed, results = node.claimed(), [result_object(0), result_object(1, kind="measurement_report_2d")]
    preferred, fallback = (result.sop_instance_uid for result in results)
    order = DeliveryOrder(PACS, (OrderedObject(preferred), OrderedObject(fallback, preferred)))
    with node.transaction(WORKER) as tx:
        finish_scoring(
            tx,
            claimed,
            bundle=BUNDLE,
            outcome="scored",
            study_probability=0.5,
            document={},
            results=results,
            deliveries=[order],
        )
    return preferred, fallback, node.claimed(JobKind.DELIVER)


def test_a_fallback_is_known_to_be_needless_once_the_other_class_was_delivered(node: SteeredNode) -> None:
    preferred, fallback, sending = two_classes(node)
    with node.transaction(WORKER) as tx:
        first, second = deliveries.outgoing(tx.session, sending)
        assert (first.fallback_for, second.fallback_for) == (None, preferred)
        assert (first.is_needless, second.is_needless) == (False, False)
        deliveries.record(tx, sending, first.delivery_id, DeliveryEvent.ACCEPTED, status=0, detail="")
        (left,) = deliveries.outgoing(tx.session, sending)
        assert (left.sop_instance_uid, left.is_needless) == (fallback, True)
        deliveries.record(tx, sending, left.delivery_id, DeliveryEvent.PASS_OVER, status=None, detail="")
        assert deliveries.outgoing(tx.session, sending) == ()
    node.receive(mammogram("R", "ML"))
    node.complete()
    found = input_of(node, node.claimed())
    assert [p.sop_instance_uid for p in found.predecessors] == [preferred]
    with node.reading() as session:
        shown = {row["sop_instance_uid"] for row in listing.results(session)}
        everything = {row["sop_instance_uid"] for row in listing.results(session, needless=True)}
    assert (shown, everything) == ({preferred}, {preferred, fallback})


def test_a_fallback_that_is_sent_and_not_yet_taken_is_shown_and_replaced_as_any_other_result(
    node: SteeredNode,
) -> None:
    preferred, fallback, sending = two_classes(node)

    def shown() -> set[str]:
        with node.reading() as session:
            return {row["sop_instance_uid"] for row in listing.results(session)}

    assert shown() == {preferred}, "no association told yet which is sent"
    with node.transaction(WORKER) as tx:
        first, second = deliveries.outgoing(tx.session, sending)
        deliveries.record(tx, sending, first.delivery_id, DeliveryEvent.PASS_OVER, status=None, detail="")
        event = DeliveryEvent.TURNED_AWAY
        deliveries.record(
            tx, sending, second.delivery_id, event, status=0xC001, detail="refused", is_doubted=True
        )
    assert shown() == {fallback}
    node.receive(mammogram("R", "ML"))
    node.complete()
    assert [p.sop_instance_uid for p in input_of(node, node.claimed()).predecessors] == [fallback]


@pytest.mark.parametrize("deployed", [(), (NEXT_BUNDLE, BUNDLE)])
def test_a_bundle_that_answers_or_has_no_successor_cannot_be_recalled(
    node: SteeredNode, deployed: tuple[str, ...]
) -> None:
    node.receive(*four_views())
    score(node)
    with node.transaction("anna") as tx:
        add_bundle(tx, BundleFacts(BUNDLE, "n", "1", TASK, demonstration=False))
    deploy(node, *deployed)
    before = node.revisions()

    with pytest.raises(RecallRefusedError, match="activate"):
        recalled(node)

    assert node.revisions() == before


def test_a_job_that_still_scores_with_the_bundle_must_end_first(node: SteeredNode) -> None:
    node.receive(*four_views())
    with node.transaction(WORKER) as tx:
        claimed = jobs.claim(tx, JobKind.SCORE, lease_s=30, max_attempts=5)
        assert claimed is not None
        bind_bundle(tx, claimed, BUNDLE)
    deploy(node, BUNDLE, NEXT_BUNDLE)
    with pytest.raises(RecallRefusedError, match="still scores with"):
        recalled(node)


def test_unknown_bundles_and_studies_are_refused(node: SteeredNode) -> None:
    with pytest.raises(UnknownRecordError, match="no bundle"):
        recalled(node)
    deploy(node, BUNDLE, NEXT_BUNDLE)
    with pytest.raises(UnknownRecordError, match="no such study"):
        recalled(node)
