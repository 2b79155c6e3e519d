"""Instances registered in one transaction: what became of each is what would have become of it alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from db.errors import DatabaseError
from db.handoff import ReceivedInstance, Registration, register_instances
from db.tables import AuditEvent, Instance, Study
from dicom_node.listener.group_commit import GroupCommit
from tests.steered_node import RULES, SteeredNode, four_views, mammogram


def together(node: SteeredNode, *received: ReceivedInstance) -> list[Registration]:
    """Register in one transaction."""
    with node.transaction("listener") as tx:
        return register_instances(tx, received, RULES)


def test_each_of_a_batch_gets_its_own_outcome(node: SteeredNode) -> None:
    first, other = mammogram("L", "CC"), mammogram("R", "CC")
    node.receive(first)
    outcomes = together(
        node,
        replace(other, spool_name="a" * 32 + ".dcm"),
        replace(first, spool_name="b" * 32 + ".dcm"),
        replace(first, spool_name="c" * 32 + ".dcm", sha256="f" * 64),
        replace(other, spool_name="d" * 32 + ".dcm"),
    )
    assert outcomes == [
        Registration.NEW,
        Registration.DUPLICATE,
        Registration.CONFLICT,
        Registration.DUPLICATE,
    ]
    assert sorted(row.spool_name[0] for row in node.rows(Instance) if row.spool_name != first.spool_name) == [
        "a",
        "c",
    ]
    assert node.actions() == ["instance.stored", "instance.stored", "instance.conflict"]


def test_studies_of_a_batch_are_kept_apart_and_outcomes_keep_their_order(node: SteeredNode) -> None:
    batch = [
        replace(mammogram("L", "CC"), sop_instance_uid=f"1.9.{index}", spool_name=f"{index:032x}.dcm")
        for index in range(4)
    ]
    batch = [replace(each, study_instance_uid=f"1.8.{3 - index % 2}") for index, each in enumerate(batch)]
    assert together(node, *batch) == [Registration.NEW] * 4
    studies = {study.id: study.study_instance_uid for study in node.rows(Study)}
    assert {row.sop_instance_uid: studies[row.study_id] for row in node.rows(Instance)} == {
        each.sop_instance_uid: each.study_instance_uid for each in batch
    }


def test_four_views_in_one_batch_complete_their_study_once(node: SteeredNode) -> None:
    assert together(node, *four_views()) == [Registration.NEW] * 4
    assert node.revisions() == [(1, "complete", "all_views")]
    assert node.actions().count("study.complete") == 1


def test_a_row_that_the_database_refuses_does_not_refuse_those_beside_it(node: SteeredNode) -> None:
    good, bad = mammogram("L", "CC"), replace(mammogram("R", "CC"), sha256=None)  # type: ignore[arg-type]
    first = mammogram("L", "MLO")
    has_begun, may_go_on = threading.Event(), threading.Event()

    def commit(batch: Sequence[ReceivedInstance]) -> list[Registration]:
        has_begun.set()
        assert may_go_on.wait(60)
        return together(node, *batch)

    group = GroupCommit(commit)
    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(group.submit, first)
        assert has_begun.wait(60)
        followers = [pool.submit(group.submit, each) for each in (good, bad)]
        while len(group._queue) < 2:
            threading.Event().wait(0.001)
        may_go_on.set()
        assert leader.result() is followers[0].result() is Registration.NEW
        with pytest.raises(DatabaseError):
            followers[1].result()
    stored = sorted(row.sop_instance_uid for row in node.rows(Instance))
    assert stored == sorted((first.sop_instance_uid, good.sop_instance_uid))
    assert [row.action for row in node.rows(AuditEvent)] == ["instance.stored"] * 2
