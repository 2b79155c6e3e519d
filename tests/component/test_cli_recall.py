"""``dicom-node model recall``: what it lists, what it changes, and what it leaves for the reader."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from db import deliveries, jobs, listing
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import AuditTrail
from db.deployments import BundleFacts, activate, add_bundle
from db.handoff import register_instance
from db.lifecycle import DeliveryEvent, JobKind
from db.scoring import finish_scoring
from db.session import Database
from tests.command_line import Answer, command
from tests.steered_node import (
    BUNDLE,
    LISTENER,
    PACS,
    RULES,
    STUDY,
    TASK,
    WORKER,
    every,
    four_views,
    result_object,
)

NEXT_BUNDLE = "c" * 64


@dataclass(frozen=True)
class Node:
    """A data directory with one study that the first of two bundles scored and the PACS has."""

    data_dir: Path
    database: Database

    def states(self) -> tuple[int, int]:
        """Return how many revisions and score jobs there are."""
        with self.database.reading() as session:
            return len(listing.studies(session)), len(listing.jobs(session))


@pytest.fixture
def scored_node(tmp_path: Path) -> Iterator[Node]:
    data_dir = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", data_dir).status == 0
    key = AuditKey.load_or_create(data_dir / "keys" / "audit.key")
    CheckpointKey.load_or_create(data_dir / "keys" / "checkpoint.key")
    database = Database(f"sqlite:///{data_dir / 'node.db'}", AuditTrail(key))
    for digest in (BUNDLE, NEXT_BUNDLE):
        with database.transaction("anna") as tx:
            add_bundle(tx, BundleFacts(digest, "n", digest[:3], TASK, demonstration=False))
    with database.transaction("anna") as tx:
        activate(tx, BUNDLE)
    for instance in four_views():
        with database.transaction(LISTENER) as tx:
            register_instance(tx, instance, RULES)
    with database.transaction(WORKER) as tx:
        claim = jobs.claim(tx, JobKind.SCORE, lease_s=60, max_attempts=5)
    assert claim is not None
    with database.transaction(WORKER) as tx:
        jobs.bind_bundle(tx, claim, BUNDLE)
        results = [result_object()]
        finish_scoring(
            tx,
            claim,
            bundle=BUNDLE,
            outcome="scored",
            study_probability=0.25,
            document={},
            results=results,
            deliveries=[every(results, PACS)],
        )
    with database.transaction(WORKER) as tx:
        delivering = jobs.claim(tx, JobKind.DELIVER, lease_s=60, max_attempts=None)
    assert delivering is not None
    with database.transaction(WORKER) as tx:
        (item,) = deliveries.outgoing(tx.session, delivering)
        deliveries.record(tx, delivering, item.delivery_id, DeliveryEvent.ACCEPTED, status=0, detail="")
        jobs.finish(tx, delivering)
    yield Node(data_dir, database)
    database.close()


def replace_bundle(node: Node) -> None:
    with node.database.transaction("anna") as tx:
        activate(tx, NEXT_BUNDLE)


def recall(node: Node, *options: str | Path) -> Answer:
    return command("model", "recall", "bbb", *options, "--data-dir", node.data_dir)


def test_without_execute_it_lists_and_changes_nothing(scored_node: Node) -> None:
    replace_bundle(scored_node)
    before = scored_node.states()

    (row,) = recall(scored_node, "--json").json

    assert (row["study_instance_uid"], row["revision"], row["delivered"]) == (STUDY, 1, 1)
    assert (row["destinations"], row["recalled"]) == ([PACS], False)
    assert scored_node.states() == before
    assert not (scored_node.data_dir / "recalls").exists()
    assert "Nothing was changed" in recall(scored_node).out


def test_the_time_can_be_limited(scored_node: Node) -> None:
    assert recall(scored_node, "--json", "--to", "2020-01-01").json == []
    assert len(recall(scored_node, "--json", "--from", "2020-01-01").json) == 1
    assert recall(scored_node, "--from", "yesterday").status == 2


def test_a_limit_is_read_as_rows_print_times_and_no_number_is_one(scored_node: Node) -> None:
    (row,) = recall(scored_node, "--json").json
    later = datetime.fromisoformat(row["scored_at"]) + timedelta(milliseconds=1)
    there = later.astimezone(timezone(timedelta(hours=5))).isoformat(timespec="microseconds")
    assert recall(scored_node, "--json", "--from", there).json == []
    assert len(recall(scored_node, "--json", "--to", there).json) == 1
    assert recall(scored_node, "--from", "20200101").status == 2


def test_a_bundle_that_still_answers_is_not_recalled(scored_node: Node) -> None:
    before = scored_node.states()
    answer = recall(scored_node, "--execute")
    assert answer.status == 5
    assert "model rollback" in answer.err
    assert scored_node.states() == before
    assert not (scored_node.data_dir / "recalls").exists()


def test_execute_queues_a_new_revision_and_writes_the_list_for_the_reader(scored_node: Node) -> None:
    replace_bundle(scored_node)

    assert recall(scored_node, "--execute").status == 0

    (written,) = (scored_node.data_dir / "recalls").iterdir()
    assert written.stat().st_mode & 0o777 == 0o600
    with written.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["study_instance_uid"], row["patient_id"], row["accession_number"]) == (
        STUDY,
        "P-4711",
        "A-0815",
    )
    with scored_node.database.reading() as session:
        newest, _ = listing.studies(session)
        job, _ = listing.jobs(session)
    assert (newest["revision"], newest["state"], newest["complete_reason"]) == (2, "complete", "recall")
    assert (job["revision"], job["state"]) == (2, "queued")
    events = command("audit", "query", "--json", "--data-dir", scored_node.data_dir).json
    actions = [event["action"] for event in events]
    assert {"study.recalled", "bundle.recalled"} <= set(actions)


def test_execute_twice_recalls_once(scored_node: Node) -> None:
    replace_bundle(scored_node)
    recall(scored_node, "--execute")
    once = scored_node.states()
    again = recall(scored_node, "--execute", "--json")
    assert [row["recalled"] for row in again.json] == [True]
    assert scored_node.states() == once == (2, 2)
    assert len(list((scored_node.data_dir / "recalls").iterdir())) == 2, "a list for each"


def test_the_list_is_written_where_and_how_one_asks(scored_node: Node, tmp_path: Path) -> None:
    replace_bundle(scored_node)
    out = tmp_path / "list.json"
    assert recall(scored_node, "--out", out).status == 0
    assert [row["patient_id"] for row in json.loads(out.read_text())] == ["P-4711"]
    assert recall(scored_node, "--out", tmp_path / "list.txt").status == 3
    assert recall(scored_node, "--out", tmp_path / "list.txt", "--execute").status == 3
    assert scored_node.states() == (1, 1)
