"""Shadow and canary: who scores unseen, who answers for a share, and what ends a term."""

from __future__ import annotations

import json
from functools import partial

import pytest
from sqlalchemy.exc import IntegrityError

from db import deployments
from db.deployments import BundleFacts
from db.errors import DatabaseError, TransitionRefusedError, UnknownRecordError
from db.jobs import bind_bundle
from db.lifecycle import DeploymentRole
from db.tables import Deployment
from tests.steered_node import TASK, SteeredNode, at_the_same_time, four_views

PERSON = "anna"
A, B, C = "a" * 64, "b" * 64, "c" * 64
STUDIES = [f"1.2.826.0.1.{number}" for number in range(4000)]


@pytest.fixture
def answered(node: SteeredNode) -> SteeredNode:
    """A node that knows three bundles, of which A answers."""
    for digest in (A, B, C):
        with node.transaction(PERSON) as tx:
            deployments.add_bundle(tx, BundleFacts(digest, "demo", digest[:3], TASK, True))
    with node.transaction(PERSON) as tx:
        deployments.activate(tx, A)
    return node


def roles(node: SteeredNode) -> dict[str, str]:
    return {row.role: row.bundle_digest for row in node.rows(Deployment, Deployment.until.is_(None))}


def change(node: SteeredNode, verb: str, *arguments: object) -> object:
    with node.transaction(PERSON) as tx:
        return getattr(deployments, verb)(tx, *arguments)


def promoted(node: SteeredNode, digest: str, champion_was: str) -> None:
    with node.transaction(PERSON) as tx:
        deployments.promote(
            tx, digest, champion_was=champion_was, approver="berta", evidence={"verdict": "promote"}
        )


def test_a_bundle_in_shadow_answers_for_nothing(answered: SteeredNode) -> None:
    assert change(answered, "shadow", B) is None
    assert roles(answered) == {"champion": A, "shadow": B}
    with answered.reading() as session:
        assert deployments.in_shadow(session, TASK) == B
        answers = {deployments.answering(session, TASK, study) for study in STUDIES[:50]}
    assert answers == {deployments.Answering(A, DeploymentRole.CHAMPION)}
    assert answered.actions()[-1] == "bundle.shadowed"


def test_a_canary_answers_for_its_share_and_always_for_the_same_studies(answered: SteeredNode) -> None:
    change(answered, "canary", B, 10)
    of_canary = [study for study in STUDIES if deployments.is_in_share(study, 10)]
    assert 0.08 < len(of_canary) / len(STUDIES) < 0.12
    asked = STUDIES[:100] * 2
    with answered.reading() as session:
        answers = [deployments.answering(session, TASK, study) for study in asked]
    by_canary = deployments.Answering(B, DeploymentRole.CANARY)
    assert [answer == by_canary for answer in answers] == [study in of_canary for study in asked]
    assert json.loads(answered.audited()[-1].detail) == {"task": TASK, "percent": 10}


def test_a_larger_share_holds_the_studies_of_a_smaller_one() -> None:
    shares = [
        {study for study in STUDIES if deployments.is_in_share(study, percent)} for percent in (5, 20, 99)
    ]
    assert shares[0] < shares[1] < shares[2] < set(STUDIES)


@pytest.mark.parametrize("percent", [0, 100, -3])
def test_a_share_of_nothing_or_all_is_refused(answered: SteeredNode, percent: int) -> None:
    before = answered.actions()
    with pytest.raises(TransitionRefusedError, match="1 to 99"):
        change(answered, "canary", B, percent)
    assert roles(answered) == {"champion": A}
    assert answered.actions() == before


def test_a_share_may_be_as_small_as_1_and_as_large_as_99_percent(answered: SteeredNode) -> None:
    for percent in (1, 99):
        change(answered, "canary", B, percent)
        (row,) = answered.rows(Deployment, Deployment.until.is_(None), Deployment.role == "canary")
        assert row.percent == percent


def test_the_database_itself_refuses_a_canary_without_a_share(answered: SteeredNode) -> None:
    with pytest.raises((DatabaseError, IntegrityError)), answered.transaction(PERSON) as tx:
        row = Deployment(task=TASK, role="canary", bundle_digest=B, since=tx.now, deployed_by=PERSON)
        tx.session.add(row)
        tx.session.flush()
    assert roles(answered) == {"champion": A}


@pytest.mark.parametrize("verb", ["shadow", "canary"])
def test_the_bundle_that_answers_cannot_assist_itself(answered: SteeredNode, verb: str) -> None:
    arguments = (A, 10) if verb == "canary" else (A,)
    with pytest.raises(TransitionRefusedError, match="answers already"):
        change(answered, verb, *arguments)
    assert roles(answered) == {"champion": A}


def test_each_role_has_one_bundle_and_each_bundle_one_role(answered: SteeredNode) -> None:
    change(answered, "shadow", B)
    assert change(answered, "shadow", C) == B
    assert roles(answered) == {"champion": A, "shadow": C}
    change(answered, "canary", C, 5)
    assert roles(answered) == {"champion": A, "canary": C}


def test_two_people_who_shadow_at_once_leave_one_bundle_in_shadow(answered: SteeredNode) -> None:
    replaced = at_the_same_time(
        partial(change, answered, "shadow", B), partial(change, answered, "shadow", C)
    )
    present = roles(answered)["shadow"]
    assert set(replaced) == {None, C if present == B else B}


def test_a_term_ends_by_command(answered: SteeredNode) -> None:
    change(answered, "canary", B, 5)
    with pytest.raises(TransitionRefusedError, match="neither"):
        change(answered, "retire", C)
    assert change(answered, "retire", B) is DeploymentRole.CANARY
    assert roles(answered) == {"champion": A}
    assert answered.actions()[-1] == "bundle.retired"
    for digest in (A, B):
        with pytest.raises(TransitionRefusedError, match="neither"):
            change(answered, "retire", digest)


def test_a_promoted_canary_answers_for_everything_and_names_its_approver(answered: SteeredNode) -> None:
    change(answered, "canary", B, 5)
    promoted(answered, B, champion_was=A)
    assert roles(answered) == {"champion": B}
    (row,) = answered.rows(Deployment, Deployment.until.is_(None))
    assert (row.approved_by, row.deployed_by, row.percent) == ("berta", PERSON, None)
    event = answered.audited()[-1]
    assert (event.action, event.bundle) == ("bundle.promoted", B)
    assert json.loads(event.detail) == {
        "task": TASK,
        "replaces": A,
        "approver": "berta",
        "verdict": "promote",
    }


def test_a_promotion_against_another_champion_than_was_compared_or_of_the_champion_is_refused(
    answered: SteeredNode,
) -> None:
    change(answered, "activate", C)
    before = answered.actions()
    for digest, champion_was in ((B, A), (C, C)):
        with pytest.raises(TransitionRefusedError, match="compare"):
            promoted(answered, digest, champion_was=champion_was)
    assert roles(answered) == {"champion": C}
    assert answered.actions() == before


def test_rolling_back_a_promotion_ends_the_canary_too(answered: SteeredNode) -> None:
    promoted(answered, B, champion_was=A)
    change(answered, "canary", C, 50)
    assert change(answered, "rollback", TASK) == A
    assert roles(answered) == {"champion": A}


@pytest.mark.parametrize("verb", ["shadow", "retire"])
def test_an_unknown_bundle_gets_no_role(answered: SteeredNode, verb: str) -> None:
    with pytest.raises(UnknownRecordError, match="model list"):
        change(answered, verb, "d" * 64)
    assert roles(answered) == {"champion": A}


# --- a bundle that fails before it answered (S13)


def answer_with(node: SteeredNode, digest: str, study: str) -> None:
    """Let a bundle's scores of a study be the node's."""
    node.receive(*four_views(study))
    claimed = node.claimed()
    with node.transaction(claimed.owner) as tx:
        bind_bundle(tx, claimed, digest)
    node.finish_scoring(claimed)


def taken_back(node: SteeredNode, digest: str) -> bool:
    with node.transaction("worker@host-a:12") as tx:
        return deployments.take_back(tx, digest, reason="it fails")


def test_a_new_champion_is_taken_back_to_one_that_has_answered(answered: SteeredNode) -> None:
    answer_with(answered, A, "2.25.1")
    change(answered, "activate", B)
    assert taken_back(answered, B)
    assert roles(answered) == {"champion": A}
    event = answered.audited()[-1]
    assert (event.action, json.loads(event.detail)["reason"]) == ("bundle.rolled_back", "it fails")
    assert taken_back(answered, B), "another worker did it already"
    assert answered.audited()[-1].seq == event.seq


def test_a_bundle_that_has_answered_keeps_its_role(answered: SteeredNode) -> None:
    answer_with(answered, A, "2.25.1")
    change(answered, "activate", B)
    answer_with(answered, B, "2.25.2")
    before = answered.actions()
    assert not taken_back(answered, B)
    assert roles(answered) == {"champion": B}
    assert answered.actions() == before


def test_two_bundles_that_never_answered_are_not_exchanged_for_each_other(answered: SteeredNode) -> None:
    change(answered, "activate", B)
    assert not taken_back(answered, B)
    assert roles(answered) == {"champion": B}
