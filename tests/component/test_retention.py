"""Files go when they are old and all is done; what is unfinished or younger stays, as do rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from db import commitments, deliveries, jobs
from db.commitments import Report
from db.jobs import Claim
from db.lifecycle import DeliveryEvent, JobKind
from db.retention import RECEIVED, RESULTS
from db.tables import Delivery, Instance, ResultObject
from dicom_node.spool import Spool
from tests.steered_node import (
    ARCHIVE,
    PACS,
    STUDY,
    WORKER,
    SteeredNode,
    four_views,
    mammogram,
    result_object,
)
from workers.retention import Removal, Retention

DAY_S = 86_400.0
KEPT_DAYS = 100
DISPATCHER = "dispatch@host-a:15"
OTHER_STUDY = f"{STUDY}.2"


@dataclass
class OldNode:
    """A node whose files have the ages that its clock says."""

    steered: SteeredNode
    spool: Spool
    results: Spool
    retention: Retention
    results_retention: Retention

    def receive(self, study: str = STUDY, views: int = 4) -> list[Path]:
        """Receive a study now; return its files."""
        files = []
        for instance in four_views(study)[:views]:
            file = self.spool.write(b"data set", preface=b"head")
            self.steered.receive(replace(instance, spool_name=file.name))
            files.append(self.spool.path_of(file.name))
        self.age(files)
        return files

    def age(self, files: Sequence[Path]) -> None:
        """Let files have been written now."""
        now = self.steered.clock.time.timestamp()
        for file in files:
            os.utime(file, (now, now))

    def make(self, *destinations: str) -> list[Path]:
        """Score what waits, with two results for each destination; return their files."""
        results, files = [], []
        for ordinal in range(2):
            file = self.results.write(b"report")
            result = result_object(
                ordinal, file_name=file.name, sha256=file.sha256, size_bytes=file.size_bytes
            )
            results.append(result)
            files.append(self.results.path_of(file.name))
        self.steered.finish_scoring(self.steered.claimed(), results=results, destinations=destinations)
        self.age(files)
        return files

    def deliver(self, event: DeliveryEvent = DeliveryEvent.ACCEPTED) -> Claim:
        """Send what is due to one destination, and end the job."""
        claimed = self.steered.claimed(JobKind.DELIVER)
        with self.steered.transaction(WORKER) as tx:
            for item in deliveries.outgoing(tx.session, claimed):
                deliveries.record(tx, claimed, item.delivery_id, event, status=0, detail="")
            jobs.finish(tx, claimed)
        return claimed

    def score(self) -> list[Path]:
        """Score and deliver what waits; return the results' files."""
        files = self.make(PACS)
        self.deliver()
        return files

    def pass_days(self, days: float) -> None:
        self.steered.clock.advance(days * DAY_S)

    def removed(self) -> int:
        return self.retention.remove_older_than(KEPT_DAYS)

    def results_removed(self) -> int:
        return self.results_retention.remove_older_than(KEPT_DAYS)


@pytest.fixture
def node(node: SteeredNode, tmp_path: Path) -> Iterator[OldNode]:
    spool, results = Spool(tmp_path / "spool"), Spool(tmp_path / "results")
    yield OldNode(
        node,
        spool,
        results,
        Retention(node.database, RECEIVED, spool, DISPATCHER),
        Retention(node.database, RESULTS, results, DISPATCHER),
    )


def there(files: Sequence[Path]) -> list[bool]:
    return [file.exists() for file in files]


def test_the_files_of_a_study_go_after_their_days_and_all_rows_stay(node: OldNode) -> None:
    files = node.receive()
    node.score()
    node.pass_days(KEPT_DAYS - 0.1)
    assert node.removed() == 0
    assert there(files) == [True] * 4
    instances = [(row.sop_instance_uid, row.sha256) for row in node.steered.rows(Instance)]

    node.pass_days(0.2)

    assert node.removed() == 1
    assert there(files) == [False] * 4
    assert [(row.sop_instance_uid, row.sha256) for row in node.steered.rows(Instance)] == instances
    assert len(node.steered.rows(ResultObject)) == 2
    event = node.steered.audited()[-1]
    assert (event.actor, event.action, event.study_instance_uid) == (
        DISPATCHER,
        "study.files_removed",
        STUDY,
    )
    detail = json.loads(event.detail)
    assert (detail["files"], detail["bytes"]) == (4, 4 * len(b"headdata set"))
    assert detail["rule"] == "retention.received_days = 100"
    assert node.removed() == 0, "and once only"


def test_a_dry_run_tells_what_would_go_and_changes_nothing(node: OldNode) -> None:
    files = node.receive()
    node.score()
    received_at = node.steered.clock.time
    node.pass_days(KEPT_DAYS + 1)
    told = node.steered.actions()

    found = list(node.retention.removals(node.steered.clock.time, rule="for a test", dry_run=True))

    assert found == [Removal(STUDY, received_at, 4, 4 * len(b"headdata set"))]
    assert there(files) == [True] * 4
    assert node.steered.actions() == told


@pytest.mark.parametrize(
    "left", ["open revision", "waiting score job", "failed score job", "waiting deliver job"]
)
def test_what_is_not_finished_stays_however_old_it_is(node: OldNode, left: str) -> None:
    files = node.receive(views=3 if left == "open revision" else 4)
    if left == "failed score job":
        claimed = node.steered.claimed()
        with node.steered.transaction(WORKER) as tx:
            jobs.give_up(tx, claimed, code="UNEXPECTED", reason="for a test")
    elif left == "waiting deliver job":
        node.steered.finish_scoring(node.steered.claimed(), results=[result_object()])
    node.pass_days(10 * KEPT_DAYS)

    assert node.removed() == 0
    assert there(files) == [True] * len(files)


def test_only_old_studies_lose_their_files(node: OldNode) -> None:
    old = node.receive()
    node.score()
    node.pass_days(KEPT_DAYS + 1)
    young = node.receive(OTHER_STUDY)
    node.score()

    assert node.removed() == 1

    assert there(old + young) == [False] * 4 + [True] * 4


def test_a_late_image_makes_its_whole_study_young_again(node: OldNode) -> None:
    files = node.receive()
    node.score()
    node.pass_days(KEPT_DAYS + 1)
    late = node.spool.write(b"data set", preface=b"head")
    node.steered.receive(replace(mammogram("R", "ML"), spool_name=late.name))
    node.age([node.spool.path_of(late.name)])
    node.steered.complete()
    node.score()

    assert node.removed() == 0
    assert there(files) == [True] * 4


def test_what_was_sent_again_since_stays_as_long_again(node: OldNode) -> None:
    files = node.receive()
    node.score()
    node.pass_days(KEPT_DAYS + 1)
    node.age(files[:1])

    assert node.removed() == 0

    node.pass_days(KEPT_DAYS + 1)
    assert node.removed() == 1


def test_what_was_left_by_a_crash_goes_the_next_time(node: OldNode) -> None:
    files = node.receive()
    node.score()
    node.pass_days(KEPT_DAYS + 1)
    for file in files[:3]:
        file.unlink()
    assert node.removed() == 1
    assert there(files) == [False] * 4
    assert json.loads(node.steered.audited()[-1].detail)["files"] == 1


def test_a_removal_that_cannot_be_told_does_not_happen(node: OldNode) -> None:
    files = node.receive()
    node.score()
    node.pass_days(KEPT_DAYS + 1)
    with node.steered.transaction("mallory") as tx:
        tx.session.connection().exec_driver_sql("ALTER TABLE audit_event RENAME TO gone")

    with pytest.raises(Exception, match="database"):
        node.removed()

    assert there(files) == [True] * 4


def test_a_stop_ends_it_between_two_studies(node: OldNode) -> None:
    node.receive()
    node.receive(OTHER_STUDY)
    node.score()
    node.score()
    node.pass_days(KEPT_DAYS + 1)
    answers = iter([False, True])
    stopped = Retention(
        node.steered.database, RECEIVED, node.spool, DISPATCHER, is_stopping=lambda: next(answers)
    )
    before = node.steered.clock.time - timedelta(days=KEPT_DAYS)
    assert len(list(stopped.removals(before, rule="for a test", dry_run=False))) == 1
    assert len(node.spool.names()) == 4


# --- results


def test_the_results_of_a_study_go_their_days_after_the_last_of_them_arrived(node: OldNode) -> None:
    images = node.receive()
    files = node.make(PACS, ARCHIVE)
    node.deliver()
    node.pass_days(KEPT_DAYS)
    node.deliver()
    node.pass_days(KEPT_DAYS - 0.1)
    assert node.results_removed() == 0
    assert there(files) == [True] * 2
    rows = [(row.sop_instance_uid, row.sha256) for row in node.steered.rows(ResultObject)]

    node.pass_days(0.2)

    assert node.results_removed() == 1
    assert there(files) == [False] * 2
    assert there(images) == [True] * 4, "received files have a time of their own"
    assert [(row.sop_instance_uid, row.sha256) for row in node.steered.rows(ResultObject)] == rows
    event = node.steered.audited()[-1]
    assert (event.actor, event.action, event.study_instance_uid) == (
        DISPATCHER,
        "study.results_removed",
        STUDY,
    )
    detail = json.loads(event.detail)
    assert (detail["files"], detail["bytes"]) == (2, 2 * len(b"report"))
    assert detail["rule"] == "retention.results_days = 100"
    assert node.results_removed() == 0, "and once only"


@pytest.mark.parametrize(
    "left",
    [
        "one destination of two",
        "refused",
        "lost answer",
        "no destination",
        "not reported yet",
        "open revision",
    ],
)
def test_results_stay_for_ever_where_one_did_not_surely_arrive(node: OldNode, left: str) -> None:
    node.receive()
    files = node.make(*([] if left == "no destination" else [PACS, ARCHIVE]))
    if left != "no destination":
        node.deliver()
    if left in ("refused", "lost answer"):
        node.deliver(DeliveryEvent.REFUSE if left == "refused" else DeliveryEvent.NO_ANSWER)
    elif left in ("not reported yet", "open revision"):
        delivered = node.deliver()
    if left == "not reported yet":
        with node.steered.transaction(WORKER) as tx:
            commitments.queue_request(tx, delivered)
    elif left == "open revision":
        node.steered.receive(mammogram("R", "ML"))
    node.pass_days(10 * KEPT_DAYS)

    assert node.results_removed() == 0
    assert there(files) == [True] * 2


def test_results_go_once_the_destination_has_committed_and_the_days_begin_then(node: OldNode) -> None:
    node.receive()
    files = node.make(PACS)
    delivered = node.deliver()
    with node.steered.transaction(WORKER) as tx:
        commitments.queue_request(tx, delivered)
    node.pass_days(2 * KEPT_DAYS)
    asking = node.steered.claimed(JobKind.COMMIT)
    with node.steered.transaction(WORKER) as tx:
        commitments.note_request(tx, asking, "2.25.99", objects=2)
    objects = frozenset((row.sop_class_uid, row.sop_instance_uid) for row in node.steered.rows(ResultObject))
    with node.steered.transaction(WORKER) as tx:
        commitments.record_report(tx, Report("2.25.99", objects, {}, reporter="PACS"))
    with node.steered.transaction(WORKER) as tx:
        jobs.finish(tx, asking)
    assert {row.state for row in node.steered.rows(Delivery)} == {"committed"}
    assert node.results_removed() == 0

    node.pass_days(KEPT_DAYS + 0.1)

    assert node.results_removed() == 1
    assert there(files) == [False] * 2


def test_results_that_a_crash_left_after_their_event_go_the_next_time(node: OldNode) -> None:
    node.receive()
    files = node.score()
    node.pass_days(KEPT_DAYS + 1)
    node.results_removed()
    files[0].write_bytes(b"report")
    node.age(files[:1])
    node.pass_days(KEPT_DAYS + 1)

    assert node.results_removed() == 1
    assert there(files) == [False] * 2


def test_a_study_is_scored_again_after_its_results_went_and_keeps_the_new_ones(node: OldNode) -> None:
    node.receive()
    old = node.score()
    node.pass_days(KEPT_DAYS + 1)
    assert node.results_removed() == 1
    late = node.spool.write(b"data set", preface=b"head")
    node.steered.receive(replace(mammogram("R", "ML"), spool_name=late.name))
    node.steered.complete()

    new = node.score()
    node.pass_days(KEPT_DAYS - 1)

    assert node.results_removed() == 0
    assert there(old + new) == [False] * 2 + [True] * 2
