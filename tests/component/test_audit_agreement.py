"""Rows are held against the trail: what the node itself does never differs, what a hand changes does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from db import recall
from db.audit.agreement import Agreement, compare_with_tables
from db.deployments import BundleFacts, activate, add_bundle
from db.jobs import bind_bundle
from db.lifecycle import JobKind
from tests.steered_node import (
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


def score(node: SteeredNode) -> None:
    claimed = node.claimed()
    with node.transaction(WORKER) as tx:
        bind_bundle(tx, claimed, BUNDLE)
    results = [result_object(0), result_object(1, kind="segmentation")]
    node.finish_scoring(claimed, results=results, destinations=(PACS,))


@pytest.fixture
def lived(node: SteeredNode) -> SteeredNode:
    """A study with its duplicates, other bytes under a known UID, a late image, and a recall."""
    for digest in (BUNDLE, NEXT_BUNDLE):
        with node.transaction("anna") as tx:
            add_bundle(tx, BundleFacts(digest, "n", digest[:3], TASK, demonstration=False))
            activate(tx, digest)
    views = four_views()
    node.receive(*views, views[0])
    node.receive(replace(views[1], sha256="f" * 64, spool_name="other"))
    score(node)
    node.receive(mammogram("R", "ML"))
    node.complete()
    score(node)
    with node.transaction("anna") as tx:
        recall.recall_study(tx, STUDY, BUNDLE, RULES)
    score(node)
    assert len(node.jobs(JobKind.SCORE)) == 3
    return node


def test_what_the_node_did_differs_in_no_row(lived: SteeredNode) -> None:
    assert compare_with_tables(lived.database) == Agreement(
        instances=5, scores=3, deliveries=6, disagreements=()
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE analysis SET study_probability = 0.125", "has another score"),
        ("UPDATE instance SET calling_ae_title = 'X' WHERE conflict = 0", "has another calling AE title"),
        ("DELETE FROM shadow_score; DELETE FROM delivery; DELETE FROM result_object", "list of results"),
        ("UPDATE analysis SET outcome = 'refused'", "has another outcome"),
    ],
)
def test_what_a_hand_changed_is_named_with_the_event_that_says_otherwise(
    lived: SteeredNode, change: str, problem: str
) -> None:
    with lived.database.engine.begin() as connection:
        for statement in change.split(";"):
            connection.execute(text(statement))

    found = compare_with_tables(lived.database).disagreements

    named = [each for each in found if problem in each.problem]
    assert named
    tells = {event.seq for event in lived.audited() if event.action in ("job.scored", "instance.stored")}
    assert {each.seq for each in named} <= tells
    assert all("delivery" in each.problem for each in found if each not in named), "deleted with its result"


def test_an_analysis_that_no_event_tells_of_is_named(lived: SteeredNode) -> None:
    (waiting,) = [job for job in lived.jobs(JobKind.DELIVER) if job.state == "queued"][:1]
    with lived.database.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO analysis (job_id, outcome, document) VALUES (:id, 'scored', '{}')"),
            {"id": waiting.id},
        )

    (found,) = compare_with_tables(lived.database).disagreements

    assert (found.seq, found.problem) == (None, f"no event tells of the analysis of job {waiting.id}")
