"""Which bundle answers for which task, and that only a row decides it."""

from __future__ import annotations

import json
from functools import partial

import pytest

from db.deployments import BundleFacts, activate, add_bundle, champion, rollback
from db.errors import UnknownRecordError
from db.tables import BundleRecord, Deployment
from tests.steered_node import TASK, SteeredNode, at_the_same_time

PERSON = "anna"
A, B, C = "a" * 64, "b" * 64, "c" * 64


def facts(digest: str, task: str = TASK) -> BundleFacts:
    return BundleFacts(digest, name="demonstration", version=digest[:3], task=task, demonstration=True)


def add(node: SteeredNode, *digests: str, task: str = TASK) -> list[bool]:
    answers = []
    for digest in digests:
        with node.transaction(PERSON) as tx:
            answers.append(add_bundle(tx, facts(digest, task)))
    return answers


def switch_to(node: SteeredNode, digest: str) -> str | None:
    with node.transaction(PERSON) as tx:
        return activate(tx, digest)


def roll_back(node: SteeredNode, task: str = TASK) -> str:
    with node.transaction(PERSON) as tx:
        return rollback(tx, task)


def answering(node: SteeredNode, task: str = TASK) -> str | None:
    with node.reading() as session:
        return champion(session, task)


def test_an_added_bundle_is_remembered_once_and_does_not_answer_yet(node: SteeredNode) -> None:
    assert add(node, A, A) == [True, False]

    (row,) = node.rows(BundleRecord)
    assert (row.digest, row.task, row.demonstration, row.added_by) == (A, TASK, 1, PERSON)
    assert answering(node) is None
    assert node.actions() == ["bundle.added"]


def test_a_bundle_added_twice_at_once_is_added_once(node: SteeredNode) -> None:
    answers = at_the_same_time(partial(add, node, A), partial(add, node, A))

    assert sorted(answers) == [[False], [True]]
    assert node.actions() == ["bundle.added"]


def test_an_activated_bundle_answers_from_now_on(node: SteeredNode) -> None:
    add(node, A)

    assert switch_to(node, A) is None

    assert answering(node) == A
    (row,) = node.rows(Deployment)
    assert (row.since, row.until, row.deployed_by) == (node.clock.time, None, PERSON)


def test_the_next_bundle_ends_the_term_of_the_one_before(node: SteeredNode) -> None:
    add(node, A, B)
    switch_to(node, A)
    node.clock.advance(100)

    assert switch_to(node, B) == A

    assert answering(node) == B
    first, second = node.rows(Deployment)
    assert first.until == second.since == node.clock.time
    event = node.audited()[-1]
    assert (event.action, event.bundle, event.actor) == ("bundle.activated", B, PERSON)
    assert json.loads(event.detail) == {
        "task": TASK,
        "replaces": A,
        "name": "demonstration",
        "version": "bbb",
    }


def test_activating_the_bundle_that_answers_changes_nothing(node: SteeredNode) -> None:
    add(node, A)
    switch_to(node, A)
    before = node.actions()

    assert switch_to(node, A) == A

    assert len(node.rows(Deployment)) == 1
    assert node.actions() == before


def test_a_bundle_that_was_never_added_is_refused(node: SteeredNode) -> None:
    add(node, A)
    switch_to(node, A)
    before = node.actions()

    with pytest.raises(UnknownRecordError, match="model list"):
        switch_to(node, B)

    assert answering(node) == A
    assert node.actions() == before


def test_two_people_who_switch_at_once_leave_one_bundle_answering(node: SteeredNode) -> None:
    add(node, A, B, C)
    switch_to(node, A)

    replaced = at_the_same_time(partial(switch_to, node, B), partial(switch_to, node, C))

    present = answering(node)
    assert present in {B, C}
    assert set(replaced) == {A, C if present == B else B}
    assert len(node.rows(Deployment, Deployment.until.is_(None))) == 1


def test_tasks_do_not_share_their_bundles(node: SteeredNode) -> None:
    add(node, A)
    add(node, B, task="mias_classes")
    switch_to(node, A)
    switch_to(node, B)

    assert (answering(node), answering(node, "mias_classes")) == (A, B)


def test_rolling_back_lets_the_bundle_before_answer_again(node: SteeredNode) -> None:
    add(node, A, B)
    switch_to(node, A)
    switch_to(node, B)

    assert roll_back(node) == A

    assert answering(node) == A
    event = node.audited()[-1]
    assert (event.action, event.bundle) == ("bundle.rolled_back", A)
    assert json.loads(event.detail) == {"task": TASK, "replaces": B}


def test_rolling_back_twice_undoes_the_first(node: SteeredNode) -> None:
    add(node, A, B, C)
    for digest in (A, B, C):
        switch_to(node, digest)

    assert (roll_back(node), roll_back(node)) == (B, C)
    assert answering(node) == C


@pytest.mark.parametrize("activated", [(), (A,)], ids=["no_bundle", "one_bundle"])
def test_without_an_earlier_bundle_there_is_nothing_to_roll_back_to(
    node: SteeredNode, activated: tuple[str, ...]
) -> None:
    add(node, A)
    for digest in activated:
        switch_to(node, digest)
    before = node.actions()

    with pytest.raises(UnknownRecordError, match="nothing to roll back to"):
        roll_back(node)

    assert answering(node) == (activated[0] if activated else None)
    assert node.actions() == before


def test_a_switch_that_is_rolled_back_by_an_error_leaves_the_old_bundle_answering(node: SteeredNode) -> None:
    add(node, A, B)
    switch_to(node, A)
    before = node.actions()

    with pytest.raises(ZeroDivisionError), node.transaction(PERSON) as tx:
        activate(tx, B)
        raise ZeroDivisionError

    assert answering(node) == A
    assert node.actions() == before
