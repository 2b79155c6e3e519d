"""A status that refuses an object is heard a few times until it is believed: the trouble may pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from db import queueing
from db.lifecycle import DeliveryState, JobKind, JobState
from db.tables import Delivery, Job, Refusal, ResultObject
from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor
from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from tests import results_contexts as given
from tests.simulators.pacs import Behaviour, SimulatedPacs
from tests.steered_node import SteeredNode, on_sqlite
from tests.stored_results import score_a_study
from workers.claim_loop import ClaimLoop, Terms
from workers.retry import Policy
from workers.sending import Sender

TIMEOUTS = DeliveryTimeouts(connect_s=30, acse_s=30, dimse_s=30)
TRIES = 3
LONGEST_WAIT_S = 300
CANNOT_UNDERSTAND, OUT_OF_RESOURCES = 0xC001, 0xA700
PENDING, DELIVERED, REFUSED = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.REFUSED


@dataclass(frozen=True)
class Ward:
    """A node whose time the test moves, and the PACS that it reports to."""

    node: SteeredNode
    pacs: SimulatedPacs
    folder: Path
    refused_tries: int = TRIES

    def score(self, study: str = "1.2.3", said: ResultContext | None = None) -> list[str]:
        """Score a study; return the UIDs of its results, in the order in which they are sent."""
        destination = str(self.pacs.destination)
        results = score_a_study(self.node, self.folder, destination, study=study, said=said)
        return [result.sop_instance_uid for result in results]

    def work(self) -> int:
        """Let a new worker do the deliver jobs that are due; return how many it did."""
        requestor = Requestor("AI_NODE", TIMEOUTS)
        sender = Sender(self.node.database, self.folder.joinpath, requestor, refused_tries=self.refused_tries)
        terms = Terms(lease_s=30, hard_limit_s=None, policy=Policy(5, LONGEST_WAIT_S))
        loop = ClaimLoop(
            self.node.database, JobKind.DELIVER, sender.deliver, terms=terms, owner="deliver@host:1"
        )
        return loop.drain()

    def work_often(self, times: int) -> None:
        """Let a job be tried so often, with the longest wait before each."""
        for _ in range(times):
            self.node.clock.advance(2 * LONGEST_WAIT_S)
            assert self.work() == 1

    @property
    def deliveries(self) -> dict[str, Delivery]:
        """The rows of the deliveries, by UID."""
        uids = {row.id: row.sop_instance_uid for row in self.node.rows(ResultObject)}
        return {uids[row.result_id]: row for row in self.node.rows(Delivery)}

    @property
    def job(self) -> Job:
        """The deliver job's row."""
        (job,) = self.node.jobs(JobKind.DELIVER)
        return job

    def told_of(self, uid: str) -> list[dict[str, Any]]:
        """What the audit trail tells of one result object, with the events' actions."""
        events = [(event.action, json.loads(event.detail)) for event in self.node.audited()]
        return [
            {"action": action, **{key: detail[key] for key in ("state", "status", "attempt")}}
            for action, detail in events
            if action.startswith("result.") and detail["sop_instance_uid"] == uid
        ]


@pytest.fixture
def ward(node: SteeredNode, tmp_path: Path) -> Iterator[Ward]:
    with SimulatedPacs() as pacs:
        yield Ward(node, pacs, tmp_path)
        assert pacs.violations == []


def test_an_object_that_is_refused_twice_and_then_accepted_is_delivered_once(ward: Ward) -> None:
    refused, *others = ward.score()
    ward.pacs.statuses[refused] = CANNOT_UNDERSTAND
    ward.work_often(2)
    doubted = ward.deliveries[refused]
    assert (doubted.state, doubted.attempts, doubted.last_status) == (PENDING, 2, CANNOT_UNDERSTAND)
    assert doubted.detail == "C001: cannot understand; refused 2 of 3 times, and sent again"
    assert (ward.job.state, ward.job.error_code) == (JobState.QUEUED, "REFUSAL_DOUBTED")
    assert str(doubted.detail) in str(ward.job.error)

    ward.pacs.statuses.clear()
    ward.work_often(1)

    assert ward.job.state == JobState.DONE
    assert {d.state for d in ward.deliveries.values()} == {DELIVERED}
    assert ward.deliveries[refused].attempts == 3
    stored = [each.sop_instance_uid for each in ward.pacs.stored]
    assert stored == [*others, refused], "what was accepted is sent no more"
    assert ward.told_of(refused) == [
        {"action": "result.turned_away", "state": "pending", "status": "C001", "attempt": 1},
        {"action": "result.turned_away", "state": "pending", "status": "C001", "attempt": 2},
        {"action": "result.accepted", "state": "delivered", "status": "0000", "attempt": 3},
    ]
    assert [event["action"] for uid in others for event in ward.told_of(uid)] == ["result.accepted"] * len(
        others
    )
    assert ward.node.actions().count("job.retried_later") == 2


@on_sqlite
@pytest.mark.parametrize("status", [0x0117, 0x0122, 0x0124, 0xA900, 0xC000, 0xC001, 0xD000])
def test_an_object_that_is_refused_each_time_waits_for_a_person_after_the_last_try(
    ward: Ward, status: int
) -> None:
    refused, *others = ward.score()
    ward.pacs.statuses[refused] = status
    ward.work_often(TRIES - 1)
    assert ward.deliveries[refused].state == PENDING
    ward.work_often(1)

    row = ward.deliveries[refused]
    assert (row.state, row.attempts, row.last_status) == (REFUSED, TRIES, status)
    assert (ward.job.state, ward.job.error_code) == (JobState.FAILED, "UNDELIVERABLE")
    assert f"{status:04X}" in str(ward.job.error)
    assert "refused 3 times" in str(ward.job.error)
    assert {ward.deliveries[uid].state for uid in others} == {DELIVERED}
    assert [event["action"] for event in ward.told_of(refused)] == [
        "result.turned_away",
        "result.turned_away",
        "result.refuse",
    ]
    associations = len(ward.pacs.proposed)
    ward.node.clock.advance(86400)
    assert ward.work() == 0
    assert len(ward.pacs.proposed) == associations == TRIES


@on_sqlite
def test_where_one_try_is_set_the_first_refusal_is_believed(node: SteeredNode, tmp_path: Path) -> None:
    with SimulatedPacs() as pacs:
        ward = Ward(node, pacs, tmp_path, refused_tries=1)
        refused, *others = ward.score()
        pacs.statuses[refused] = CANNOT_UNDERSTAND
        ward.work_often(1)

    row = ward.deliveries[refused]
    assert (row.state, row.attempts, row.detail) == (REFUSED, 1, "C001: cannot understand")
    assert {ward.deliveries[uid].state for uid in others} == {DELIVERED}
    assert ward.job.state == JobState.FAILED


@on_sqlite
def test_a_destination_without_room_is_asked_without_limit(ward: Ward) -> None:
    uids = ward.score()
    ward.pacs.behave(Behaviour.ACCEPT, status=OUT_OF_RESOURCES)
    ward.work_often(4 * TRIES)
    assert {(d.state, d.last_status) for d in ward.deliveries.values()} == {(PENDING, OUT_OF_RESOURCES)}
    ward.pacs.behave(Behaviour.ACCEPT)
    ward.work_often(1)

    assert {d.state for d in ward.deliveries.values()} == {DELIVERED}
    assert [each.sop_instance_uid for each in ward.pacs.stored] == uids


@on_sqlite
def test_attempts_at_which_the_destination_was_away_or_without_room_are_no_refusals(ward: Ward) -> None:
    refused, *_ = ward.score()
    ward.pacs.behave(Behaviour.REFUSE_CONNECTION)
    ward.work_often(TRIES + 1)
    ward.pacs.behave(Behaviour.ACCEPT, status=OUT_OF_RESOURCES)
    ward.work_often(TRIES + 1)
    ward.pacs.behave(Behaviour.ACCEPT)
    ward.pacs.statuses[refused] = CANNOT_UNDERSTAND
    ward.work_often(TRIES - 1)
    assert ward.deliveries[refused].state == PENDING
    ward.work_often(1)

    assert ward.deliveries[refused].state == REFUSED


@on_sqlite
def test_a_refused_object_is_given_up_though_another_one_of_its_study_still_waits(ward: Ward) -> None:
    refused, waiting, *_ = ward.score()
    ward.pacs.statuses.update({refused: CANNOT_UNDERSTAND, waiting: OUT_OF_RESOURCES})
    ward.work_often(TRIES + 2)

    assert (ward.deliveries[refused].state, ward.deliveries[refused].attempts) == (REFUSED, TRIES)
    assert (ward.deliveries[waiting].state, ward.deliveries[waiting].attempts) == (PENDING, TRIES + 2)
    assert ward.job.state == JobState.QUEUED


@on_sqlite
def test_a_doubted_refusal_waits_half_a_minute_and_then_twice_as_long(ward: Ward) -> None:
    refused, *_ = ward.score()
    ward.pacs.statuses[refused] = CANNOT_UNDERSTAND
    assert ward.work() == 1
    waits = [(ward.job.next_try_at - ward.node.clock.time).total_seconds()]
    ward.node.clock.advance(waits[0] - 0.01)
    assert ward.work() == 0
    ward.node.clock.advance(0.01)
    assert ward.work() == 1
    waits.append((ward.job.next_try_at - ward.node.clock.time).total_seconds())

    assert 27 <= waits[0] <= 33
    assert 54 <= waits[1] <= 66


@on_sqlite
def test_the_object_that_was_refused_most_often_says_how_long_its_study_waits(ward: Ward) -> None:
    often, once, *_ = ward.score()
    ward.pacs.statuses[often] = CANNOT_UNDERSTAND
    ward.pacs.statuses[once] = OUT_OF_RESOURCES
    ward.work_often(1)
    ward.pacs.statuses[once] = CANNOT_UNDERSTAND
    ward.work_often(1)

    assert (ward.job.next_try_at - ward.node.clock.time).total_seconds() >= 54


@on_sqlite
def test_a_doubted_refusal_holds_no_other_study_up_and_none_of_them_shortens_its_wait(ward: Ward) -> None:
    refused, *_ = ward.score("1.2.3")
    ward.pacs.statuses[refused] = CANNOT_UNDERSTAND
    assert ward.work() == 1
    next_try_at = ward.job.next_try_at
    ward.node.clock.advance(1)
    others = ward.score("1.2.4", given.negative(bundle=replace(given.BUNDLE, digest="cd34" * 16)))

    assert ward.work() == 1

    assert {ward.deliveries[uid].state for uid in others} == {DELIVERED}
    assert ward.deliveries[refused].state == PENDING
    doubted, done = ward.node.jobs(JobKind.DELIVER)
    assert (doubted.state, doubted.next_try_at) == (JobState.QUEUED, next_try_at)
    assert done.state == JobState.DONE


@on_sqlite
def test_a_class_that_the_destination_never_accepts_is_believed_at_once(ward: Ward) -> None:
    segmentations = {item.sop_class_uid for item in build_all(given.positive()) if "seg" in item.kind}
    reports = {item.sop_class_uid for item in build_all(given.positive())} - segmentations
    assert segmentations
    ward.pacs.sop_class_uids = frozenset(reports)
    ward.score()
    ward.work_often(1)

    refused = [d for d in ward.deliveries.values() if d.state == REFUSED]
    assert refused
    assert {(d.attempts, d.last_status) for d in refused} == {(1, None)}
    assert ward.job.state == JobState.FAILED


@on_sqlite
def test_after_a_person_asked_again_refusals_are_counted_anew(ward: Ward) -> None:
    refused, *_ = ward.score()
    ward.pacs.statuses[refused] = CANNOT_UNDERSTAND
    ward.work_often(TRIES)
    assert ward.deliveries[refused].state == REFUSED
    with ward.node.transaction("anna") as tx:
        queueing.retry(tx, ward.job.id)
    ward.work_often(TRIES - 1)
    assert ward.deliveries[refused].state == PENDING
    ward.work_often(1)

    assert (ward.deliveries[refused].state, ward.deliveries[refused].attempts) == (REFUSED, 2 * TRIES)


def test_a_person_who_ends_the_wait_of_a_doubted_refusal_begins_its_count_anew(ward: Ward) -> None:
    refused, waiting, *_ = ward.score()
    ward.pacs.statuses.update({refused: CANNOT_UNDERSTAND, waiting: CANNOT_UNDERSTAND})
    ward.work_often(TRIES - 1)
    assert ward.job.state == JobState.QUEUED
    with ward.node.transaction("anna") as tx:
        queueing.retry(tx, ward.job.id)
    del ward.pacs.statuses[waiting]

    assert ward.work() == 1, "nothing is waited for"

    assert ward.deliveries[waiting].state == DELIVERED
    doubted = ward.deliveries[refused]
    assert (doubted.state, doubted.attempts) == (PENDING, TRIES)
    assert doubted.detail == "C001: cannot understand; refused 1 of 3 times, and sent again"
    assert 27 <= (ward.job.next_try_at - ward.node.clock.time).total_seconds() <= 33
    ward.work_often(TRIES - 1)
    assert ward.deliveries[refused].state == REFUSED


@on_sqlite
def test_a_person_who_asks_for_one_study_leaves_the_count_of_another_as_it_is(ward: Ward) -> None:
    ward.pacs.behave(Behaviour.ACCEPT, status=CANNOT_UNDERSTAND)
    ward.score("1.2.3")
    ward.score("1.2.4", given.negative(bundle=replace(given.BUNDLE, digest="cd34" * 16)))
    assert ward.work() == 2
    counted = len(ward.node.rows(Refusal))
    asked_for, other = ward.node.jobs(JobKind.DELIVER)

    with ward.node.transaction("anna") as tx:
        queueing.retry(tx, asked_for.id)

    left = {refusal.delivery_id for refusal in ward.node.rows(Refusal)}
    assert left == {d.id for d in ward.deliveries.values() if d.job_id == other.id}
    assert 0 < len(left) < counted


@on_sqlite
def test_once_an_object_was_delivered_the_refusals_before_count_no_more(ward: Ward) -> None:
    refused, *_ = ward.score()
    ward.pacs.statuses[refused] = CANNOT_UNDERSTAND
    ward.work_often(1)
    assert len(ward.node.rows(Refusal)) == 1
    ward.pacs.statuses.clear()
    ward.work_often(1)

    assert ward.deliveries[refused].state == DELIVERED
    assert ward.node.rows(Refusal) == []
