"""The node asks destinations to keep what they took, and believes nothing but their report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from db import commitments, deliveries, jobs, queueing
from db.deliveries import OutgoingObject
from db.jobs import Claim
from db.lifecycle import DeliveryEvent, JobKind, JobState
from db.tables import CommitmentRequest, Delivery, Job
from dicom_node.cli.health.commitment import check_commitment
from dicom_node.cli.health.findings import Verdict
from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor
from dicom_node.listener.commitment import CommitmentService
from dicom_node.settings import Settings
from tests.listening import Node, listening
from tests.simulators.committing_pacs import Commitment, CommittingPacs, Request
from tests.simulators.pacs import SimulatedPacs
from tests.steered_node import STUDY, WORKER, SteeredNode, four_views, held_up, result_object
from tests.stored_results import score_a_study
from workers.claim_loop import ClaimLoop, Terms
from workers.committing import CommitmentTerms, Committer
from workers.lease import Lease
from workers.retry import Policy
from workers.sending import Sender

PATIENCE_S = 60.0
TIMEOUTS = DeliveryTimeouts(connect_s=PATIENCE_S, acse_s=PATIENCE_S, dimse_s=PATIENCE_S)
ASK_AGAIN_S = 3600.0
NEVER_S = 3600.0
"""Who waits so long for a report hangs."""


def deliver(node: SteeredNode, destination: str) -> None:
    """Let the destination take everything that waits for it, and the node want it committed."""
    claimed = node.claimed(JobKind.DELIVER)
    node.deliver(claimed)
    with node.transaction(claimed.owner) as tx:
        commitments.queue_request(tx, claimed)
    assert claimed.destination == destination


def outgoing(node: SteeredNode, claimed: Claim) -> tuple[OutgoingObject, ...]:
    with node.reading() as session:
        return deliveries.outgoing(session, claimed)


def delivered_to(node: SteeredNode, pacs: CommittingPacs, objects: int = 2, *, study: str = STUDY) -> None:
    """Score a study and deliver its results."""
    node.receive(*four_views(study))
    results = [result_object(n) for n in range(objects)]
    node.finish_scoring(node.claimed(), results=results, destinations=[str(pacs.destination)])
    deliver(node, str(pacs.destination))


def committer_of(node: SteeredNode, *, wait_s: float = PATIENCE_S, most_missing: int = 3) -> Committer:
    terms = CommitmentTerms(wait_s, ASK_AGAIN_S, most_missing)
    return Committer(node.database, Path, Requestor("NODE", TIMEOUTS), terms=terms)


def work(
    node: SteeredNode,
    committer: Committer | None = None,
    *,
    wait_s: float = PATIENCE_S,
    most_missing: int = 3,
) -> None:
    """Do the commit jobs that are due."""
    committer = committer or committer_of(node, wait_s=wait_s, most_missing=most_missing)
    terms = Terms(30, None, Policy(5, 300))
    ClaimLoop(node.database, JobKind.COMMIT, committer.commit, terms=terms, owner="commit@host:1").drain()


@contextmanager
def reported_to(node: SteeredNode, folder: Path) -> Iterator[Node]:
    """Run the listener that takes reports."""
    service = CommitmentService(
        node.database,
        Path,
        actor="listen@host:1",
        on_event=lambda _action, _detail: None,
        answers_to={},
        answers_requests=False,
    )
    with listening(folder, services=[service.service]) as listener:
        yield listener


def states(node: SteeredNode) -> list[str]:
    return [row.state for row in node.rows(Delivery)]


def commit_job(node: SteeredNode) -> Job:
    (job,) = node.jobs(JobKind.COMMIT)
    return job


def test_a_report_on_the_same_association_commits_everything(node: SteeredNode) -> None:
    with CommittingPacs(Commitment.AT_ONCE) as pacs:
        delivered_to(node, pacs)
        assert states(node) == ["delivered", "delivered"]
        work(node)

        assert pacs.answered.wait(PATIENCE_S)
        assert pacs.statuses == [0x0000]
    assert states(node) == ["committed", "committed"]
    assert commit_job(node).state == JobState.DONE
    (request,) = node.rows(CommitmentRequest)
    assert (request.objects, request.committed, request.missing) == (2, 2, 0)
    assert request.transaction_uid == pacs.requests[0].transaction_uid
    told = [event for event in node.audited() if event.action.startswith(("commitment", "result.committed"))]
    assert [event.action for event in told] == [
        "commitment.requested",
        "result.committed",
        "result.committed",
        "commitment.reported",
    ]
    assert json.loads(told[-1].detail)["reporter"] == "PACS"


def test_a_report_on_a_new_association_commits_everything(node: SteeredNode, tmp_path: Path) -> None:
    with CommittingPacs() as pacs, reported_to(node, tmp_path) as listener:
        delivered_to(node, pacs)
        work(node, wait_s=0.05)
        assert states(node) == ["delivered", "delivered"]
        assert commit_job(node).state == JobState.QUEUED

        assert pacs.report_to(listener.port, pacs.requests[0]) == 0x0000

    assert states(node) == ["committed", "committed"]
    work(node)
    assert commit_job(node).state == JobState.DONE
    assert len(pacs.requests) == 1, "nothing was asked twice"


def test_a_destination_seen_to_report_on_associations_of_its_own_is_not_waited_for(
    node: SteeredNode, tmp_path: Path
) -> None:
    committer = committer_of(node, wait_s=NEVER_S)
    with CommittingPacs() as pacs, reported_to(node, tmp_path) as listener:
        pacs.before_answering = lambda request: pacs.report_to(listener.port, request)
        delivered_to(node, pacs)
        work(node, committer)
        assert commit_job(node).state == JobState.DONE, "the wait ended with the report"

        pacs.before_answering = lambda _request: None
        for number in range(3):
            delivered_to(node, pacs, study=f"1.2.{number}")
        work(node, committer)
        waiting = [job for job in node.jobs(JobKind.COMMIT) if job.state != JobState.DONE]
        assert [(job.state, job.error_code) for job in waiting] == [("queued", "COMMITMENT_AWAITED")] * 3
        for request in pacs.requests[1:]:
            assert pacs.report_to(listener.port, request) == 0x0000
        work(node, committer)

    assert len(pacs.requests) == 4, "each was asked for once"
    assert set(states(node)) == {"committed"}
    assert {job.state for job in node.jobs(JobKind.COMMIT)} == {JobState.DONE}


def test_a_destination_whose_report_came_long_after_the_wait_is_not_waited_for_again(
    node: SteeredNode, tmp_path: Path
) -> None:
    committer = committer_of(node, wait_s=NEVER_S)
    with CommittingPacs() as pacs, reported_to(node, tmp_path) as listener:
        delivered_to(node, pacs)
        work(node, wait_s=0.05)
        assert pacs.report_to(listener.port, pacs.requests[0]) == 0x0000
        work(node, committer)
        delivered_to(node, pacs, study="1.2.9")

        work(node, committer)

    assert {job.state for job in node.jobs(JobKind.COMMIT)} == {JobState.DONE, JobState.QUEUED}
    assert len(pacs.requests) == 2


def test_a_destination_that_changes_to_the_association_of_the_request_is_heard_when_it_is_asked_again(
    node: SteeredNode, tmp_path: Path
) -> None:
    committer = committer_of(node)
    with CommittingPacs() as pacs, reported_to(node, tmp_path) as listener:
        pacs.before_answering = lambda request: pacs.report_to(listener.port, request)
        delivered_to(node, pacs)
        work(node, committer)
        pacs.before_answering, pacs.behaviour = (lambda _request: None), Commitment.AT_ONCE
        delivered_to(node, pacs, study="1.2.9")
        work(node, committer)
        node.clock.advance(ASK_AGAIN_S + 1)
        work(node, committer)
        delivered_to(node, pacs, study="1.2.10")
        work(node, committer)

    assert set(states(node)) == {"committed"}
    assert len(pacs.requests) == 4, "one was asked for again, the last one was waited for"


def test_a_report_that_comes_while_its_job_is_put_back_makes_it_due(node: SteeredNode) -> None:
    with CommittingPacs() as pacs:
        delivered_to(node, pacs)
    asking = node.claimed(JobKind.COMMIT)
    with node.reading() as session:
        objects = commitments.standing(session, asking).delivered
    with node.transaction(asking.owner) as tx:
        commitments.note_request(tx, asking, "2.25.7", objects=len(objects))
    told = commitments.Report("2.25.7", frozenset(objects), {}, "PACS")

    def report() -> None:
        with node.transaction("listen@host:1") as tx:
            commitments.record_report(tx, told)

    with ThreadPoolExecutor(1) as listener:
        with node.transaction(asking.owner) as tx:
            jobs.held(tx, asking)
            reporting = held_up(node, listener.submit(report))
            jobs.try_later(tx, asking, delay_s=ASK_AGAIN_S, code="COMMITMENT_AWAITED", reason="x")
        reporting.result(PATIENCE_S)

    assert states(node) == ["committed", "committed"]
    assert commit_job(node).next_try_at == node.clock.time


def test_what_is_delivered_while_other_objects_are_asked_for_is_asked_for_at_once(node: SteeredNode) -> None:
    with CommittingPacs() as pacs:
        node.receive(*four_views())
        results = [result_object(n) for n in range(2)]
        node.finish_scoring(node.claimed(), results=results, destinations=[str(pacs.destination)])
        delivery = node.claimed(JobKind.DELIVER)
        taken, refused = outgoing(node, delivery)
        with node.transaction(WORKER) as tx:
            for item, event in ((taken, DeliveryEvent.ACCEPTED), (refused, DeliveryEvent.REFUSE)):
                deliveries.record(tx, delivery, item.delivery_id, event, status=None, detail="")
            jobs.give_up(tx, delivery, code="UNDELIVERABLE", reason="x")
            commitments.queue_request(tx, delivery)

        def deliver_the_other(_request: Request) -> None:
            pacs.before_answering = lambda _request: None
            with node.transaction("anna") as tx:
                queueing.retry(tx, delivery.job_id)
            deliver(node, str(pacs.destination))

        pacs.before_answering = deliver_the_other
        work(node, wait_s=0.05)

    assert [len(request.objects) for request in pacs.requests] == [1, 2]
    assert commit_job(node).state == JobState.QUEUED


def test_commitments_of_a_destination_that_is_away_wait_together_and_nothing_counts_as_asked(
    node: SteeredNode,
) -> None:
    with CommittingPacs() as pacs:
        for number in range(3):
            delivered_to(node, pacs, study=f"1.2.{number}")
    work(node)

    waiting = node.jobs(JobKind.COMMIT)
    assert [job.error_code for job in waiting] == ["DESTINATION_AWAY"] * 3
    assert sorted(job.attempts for job in waiting) == [0, 0, 1], "one of them asked"
    assert node.rows(CommitmentRequest) == []


def test_a_late_report_on_an_earlier_request_counts_and_a_repeated_one_changes_nothing(
    node: SteeredNode, tmp_path: Path
) -> None:
    with CommittingPacs() as pacs, reported_to(node, tmp_path) as listener:
        delivered_to(node, pacs)
        work(node, wait_s=0.05)
        node.clock.advance(ASK_AGAIN_S + 1)
        work(node, wait_s=0.05)
        first, second = pacs.requests
        assert first.transaction_uid != second.transaction_uid
        assert first.objects == second.objects

        assert pacs.report_to(listener.port, first) == 0x0000
        before = node.actions()
        assert pacs.report_to(listener.port, first) == 0x0000
        assert pacs.report_to(listener.port, second, missing=[first.objects[0][1]]) == 0x0000

    assert states(node) == ["committed", "committed"]
    assert node.actions() == before


def test_a_destination_that_never_reports_is_asked_again_seldomer_each_time(node: SteeredNode) -> None:
    with CommittingPacs() as pacs:
        delivered_to(node, pacs)
        pauses = []
        for _ in range(3):
            work(node, wait_s=0.05)
            pauses.append((commit_job(node).next_try_at - node.clock.time).total_seconds())
            node.clock.advance(pauses[-1] + 1)

    assert pauses == [ASK_AGAIN_S, 2 * ASK_AGAIN_S, 4 * ASK_AGAIN_S]
    assert len({request.transaction_uid for request in pacs.requests}) == 3
    assert states(node) == ["delivered", "delivered"]


def test_what_is_reported_missing_is_sent_again_and_asked_for_again(node: SteeredNode) -> None:
    with CommittingPacs(Commitment.SOME_MISSING) as pacs:
        delivered_to(node, pacs)
        work(node)
        assert states(node) == ["committed", "pending"]
        assert node.rows(Delivery)[1].detail == "reported missing by storage commitment: 0112"

        deliver(node, str(pacs.destination))
        assert states(node) == ["committed", "delivered"]
        pacs.behaviour = Commitment.AT_ONCE
        work(node)

    assert states(node) == ["committed", "committed"]
    first, second = pacs.requests
    assert second.objects == first.objects[-1:], "the same object, and no other"
    assert [row.attempts for row in node.rows(Delivery)] == [1, 2]


def test_a_destination_that_keeps_missing_what_it_took_needs_a_person(node: SteeredNode) -> None:
    with CommittingPacs(Commitment.SOME_MISSING) as pacs:
        delivered_to(node, pacs, objects=1)
        for _ in range(2):
            work(node, most_missing=2)
            node.clock.advance(3600)
            deliver(node, str(pacs.destination))
        work(node, most_missing=2)

        assert commit_job(node).state == JobState.FAILED
        assert commit_job(node).error_code == "NOT_COMMITTED"
        assert len(pacs.requests) == 2
        with node.transaction("anna") as tx:
            queueing.retry(tx, commit_job(node).id)
        pacs.behaviour = Commitment.AT_ONCE
        work(node, most_missing=2)

    assert states(node) == ["committed"]


@pytest.mark.parametrize("behaviour", [Commitment.OTHER_TRANSACTION, Commitment.GARBAGE])
def test_a_report_that_names_no_request_changes_nothing(node: SteeredNode, behaviour: Commitment) -> None:
    with CommittingPacs(behaviour) as pacs:
        delivered_to(node, pacs)
        work(node)
        assert pacs.answered.wait(PATIENCE_S)
        assert pacs.statuses == [0x0115]
    assert states(node) == ["delivered", "delivered"]
    assert commit_job(node).state == JobState.QUEUED
    assert not any("ZZCANARY" in event.detail for event in node.audited())


@pytest.mark.parametrize("behaviour", [Commitment.REFUSE, Commitment.DROP])
def test_a_request_that_is_turned_away_is_made_again_soon(node: SteeredNode, behaviour: Commitment) -> None:
    with CommittingPacs(behaviour) as pacs:
        delivered_to(node, pacs)
        work(node)
        assert states(node) == ["delivered", "delivered"]
        assert (commit_job(node).next_try_at - node.clock.time).total_seconds() < 2

        pacs.behaviour = Commitment.AT_ONCE
        node.clock.advance(10)
        work(node)
    assert states(node) == ["committed", "committed"]


def test_a_destination_that_does_not_offer_it_is_named_and_keeps_its_deliveries(node: SteeredNode) -> None:
    with CommittingPacs(offers_commitment=False) as pacs:
        delivered_to(node, pacs)
        work(node)
    assert states(node) == ["delivered", "delivered"]
    assert "does not accept storage commitment" in str(commit_job(node).error)


def test_the_same_report_twice_on_one_association_commits_once(node: SteeredNode) -> None:
    with CommittingPacs(Commitment.AT_ONCE_TWICE) as pacs:
        delivered_to(node, pacs)
        work(node)
        assert pacs.answered.wait(PATIENCE_S)
        assert pacs.statuses[0] == 0x0000
    assert node.actions().count("result.committed") == 2


def test_a_report_of_a_class_that_was_not_sent_commits_nothing(node: SteeredNode, tmp_path: Path) -> None:
    with CommittingPacs() as pacs, reported_to(node, tmp_path) as listener:
        delivered_to(node, pacs)
        work(node, wait_s=0.05)
        (request,) = pacs.requests
        other = tuple(("1.2.840.10008.5.1.4.1.1.2", uid) for _, uid in request.objects)

        assert pacs.report_to(listener.port, Request(request.transaction_uid, other)) == 0x0000

    assert states(node) == ["delivered", "delivered"]


def test_a_report_that_comes_while_a_delivery_ends_waits_for_it_and_holds_nothing_up(
    node: SteeredNode,
) -> None:
    with CommittingPacs(Commitment.SOME_MISSING) as pacs:
        delivered_to(node, pacs)
        work(node)
        (request,) = pacs.requests
        ending = node.claimed(JobKind.DELIVER)
        (item,) = outgoing(node, ending)
    with node.transaction(ending.owner) as tx:
        deliveries.record(tx, ending, item.delivery_id, DeliveryEvent.ACCEPTED, status=0x0000, detail="")
    told = commitments.Report(request.transaction_uid, frozenset(request.objects), {}, "PACS")

    def report() -> None:
        with node.transaction("listen@host:1") as tx:
            commitments.record_report(tx, told)

    with ThreadPoolExecutor(1) as listener:
        with node.transaction(ending.owner) as tx:
            jobs.finish(tx, ending)
            reporting = held_up(node, listener.submit(report))
            commitments.queue_request(tx, ending)
        reporting.result(PATIENCE_S)

    assert states(node) == ["committed", "committed"]
    assert node.job(ending).state == JobState.DONE


def test_results_that_a_later_revision_replaced_are_asked_for_no_more(node: SteeredNode) -> None:
    with CommittingPacs() as pacs:
        delivered_to(node, pacs)
        work(node, wait_s=0.05)
        assert len(pacs.requests) == 1
        extra = replace(four_views()[0], sop_instance_uid="2.25.99", sha256="9" * 64, spool_name="9" * 32)
        node.receive(extra)
        node.complete()
        node.finish_scoring(node.claimed(), destinations=[])
        node.clock.advance(ASK_AGAIN_S + 1)
        work(node)
    assert len(pacs.requests) == 1
    assert commit_job(node).state == JobState.DONE
    assert states(node) == ["delivered", "delivered"]


@pytest.mark.parametrize("commits", [True, False])
def test_a_delivery_is_followed_by_asking_where_the_destination_commits(
    node: SteeredNode, tmp_path: Path, commits: bool
) -> None:
    with SimulatedPacs() as pacs:
        destination = str(pacs.destination)
        score_a_study(node, tmp_path, destination)
        claimed = node.claimed(JobKind.DELIVER)
        sender = Sender(
            node.database,
            tmp_path.joinpath,
            Requestor("NODE", TIMEOUTS),
            commits=lambda asked: commits and asked == destination,
        )
        sender.deliver(claimed, Lease(node.database, claimed, lease_s=30, hard_limit_s=None))

    assert node.job(claimed).state == JobState.DONE
    assert set(states(node)) == {"delivered"}
    assert [job.parent_job_id for job in node.jobs(JobKind.COMMIT)] == [claimed.job_id] * commits


def test_doctor_tells_of_deliveries_that_nobody_commits(node: SteeredNode) -> None:
    with CommittingPacs() as pacs:
        settings = Settings(destinations=[f"{pacs.destination}+commitment"])
        delivered_to(node, pacs)
        work(node, wait_s=0.05)
        (fine,) = check_commitment(settings, node.database)
        node.clock.advance(86400 + 1)
        (waiting,) = check_commitment(settings, node.database)

    assert (fine.verdict, waiting.verdict) == (Verdict.OK, Verdict.WARNING)
    assert waiting.found.startswith("1 deliveries wait")
    assert waiting.advice
    assert list(check_commitment(Settings(), node.database)) == []
