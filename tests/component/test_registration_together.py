"""Instances registered in one transaction: what became of each is what would have become of it alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from db.errors import DatabaseError
from db.handoff import ReceivedInstance, Registration, register_instances
from db.tables import AuditEvent, Instance, Study
from dicom_node.listener.group_commit import GroupCommit
from tests.steered_node import RULES, SteeredNode, at_the_same_time, four_views, mammogram


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


def test_the_last_view_of_a_batch_counts_whatever_comes_behind_it(node: SteeredNode) -> None:
    raw = mammogram("L", "MLO", for_presentation=False)
    assert together(node, *four_views(), raw) == [Registration.NEW] * 5
    assert node.revisions() == [(1, "complete", "all_views")]


def test_each_study_of_a_batch_is_told_complete_after_its_instances_and_before_the_next_study(
    node: SteeredNode,
) -> None:
    first, second = four_views("1.8.1"), four_views("1.8.2")
    batch = [each for pair in zip(second, first, strict=True) for each in pair]
    assert together(node, *batch) == [Registration.NEW] * 8
    assert [(event.study_instance_uid, event.action) for event in node.audited()] == [
        (study, action)
        for study in ("1.8.1", "1.8.2")
        for action in ["instance.stored"] * 4 + ["study.complete", "job.queued"]
    ]


def test_known_and_new_studies_of_a_batch_keep_their_revisions_apart(node: SteeredNode) -> None:
    known, complete, new = (mammogram("L", "CC", study=f"1.8.{n}") for n in range(3))
    node.receive(known, complete)
    node.complete(complete.study_instance_uid)
    late = [replace(each, sop_instance_uid=f"1.9.{n}") for n, each in enumerate((known, complete))]
    late = [replace(each, spool_name=f"{n:032x}.dcm") for n, each in enumerate(late)]
    assert together(node, new, *late) == [Registration.NEW] * 3
    numbers = {row.sop_instance_uid: row.revision_number for row in node.rows(Instance)}
    assert numbers == {
        known.sop_instance_uid: 1,
        complete.sop_instance_uid: 1,
        new.sop_instance_uid: 1,
        "1.9.0": 1,
        "1.9.1": 2,
    }


def test_one_uid_in_two_studies_of_a_batch_is_accepted_once(node: SteeredNode) -> None:
    first = mammogram("L", "CC", study="1.8.1")
    other = replace(first, study_instance_uid="1.8.2", spool_name="b" * 32 + ".dcm", sha256="f" * 64)
    assert together(node, other, first) == [Registration.CONFLICT, Registration.NEW]
    assert [(row.study_instance_uid, row.action) for row in node.audited()] == [
        ("1.8.1", "instance.stored"),
        ("1.8.2", "instance.conflict"),
    ]


def test_a_resend_in_the_same_batch_takes_the_place_of_a_file_that_is_gone(node: SteeredNode) -> None:
    first = mammogram("L", "CC")
    again = replace(first, spool_name="b" * 32 + ".dcm", calling_ae_title="OTHER")
    with node.transaction("listener") as tx:
        outcomes = register_instances(tx, [first, again], RULES, is_whole=lambda _file: False)
    assert outcomes == [Registration.NEW, Registration.RESTORED]
    (row,) = node.rows(Instance)
    assert (row.spool_name, row.calling_ae_title) == (again.spool_name, first.calling_ae_title)
    assert node.actions() == ["instance.stored", "instance.restored"]


def test_batches_of_the_same_studies_at_two_listeners_do_not_wait_for_each_other_for_ever(
    node: SteeredNode,
) -> None:
    """Each of a batch's studies is locked; of the first batches each is new as well."""
    uids = [f"1.8.{n}" for n in range(10)]
    for turn in range(5):
        batches = [
            [
                mammogram(study=uid, sop_instance_uid=f"1.9.{turn}.{listener}.{n}")
                for n, uid in enumerate(sorted(uids, reverse=bool(listener)))
            ]
            for listener in range(2)
        ]
        outcomes = at_the_same_time(*(partial(together, node, *batch) for batch in batches))
        assert outcomes == [[Registration.NEW] * len(uids)] * 2
    assert len(node.rows(Study)) == len(uids)


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
