"""What people and programs ask of the database: rows whose keys are a promise."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from db import census, deliveries, listing
from db.deployments import BundleFacts, activate, add_bundle
from db.handoff import register_instance
from db.jobs import give_up
from db.lifecycle import DeliveryEvent, JobKind, JobState
from db.queueing import queue_training
from tests.steered_node import (
    ARCHIVE,
    PACS,
    RULES,
    STUDY,
    TASK,
    WORKER,
    SteeredNode,
    four_views,
    mammogram,
    on_sqlite,
    result_object,
)

OTHER_STUDY = "1.2.9"

# Fixed for programs: the keys that each list promises; more may be there.
PROMISED = {
    listing.studies: {"study_instance_uid", "revision", "state", "complete_reason", "instances"},
    listing.jobs: {
        "job_id",
        "study_instance_uid",
        "revision",
        "task",
        "state",
        "attempts",
        "bundle",
        "error",
    },
    listing.results: {"sop_instance_uid", "job_id", "kind", "destination", "delivery_state", "sha256"},
}


@pytest.fixture
def scored(node: SteeredNode) -> SteeredNode:
    """One study scored and delivered to one of two destinations, another with its job failed."""
    node.receive(*four_views(), mammogram("R", "ML"))
    results = [result_object(0), result_object(1, kind="segmentation")]
    node.finish_scoring(node.claimed(), results=results, destinations=[PACS, ARCHIVE])
    deliver = node.claimed(JobKind.DELIVER)
    with node.transaction(WORKER) as tx:
        for item in deliveries.outgoing(tx.session, deliver):
            accepted = DeliveryEvent.ACCEPTED
            deliveries.record(tx, deliver, item.delivery_id, accepted, status=0xB000, detail="coerced")
    node.clock.advance(10)
    node.receive(*four_views(OTHER_STUDY))
    failed = node.claimed()
    with node.transaction(WORKER) as tx:
        give_up(tx, failed, code="INPUT", reason="the pixel data cannot be decoded")
    return node


def test_the_promised_keys_are_there(scored: SteeredNode) -> None:
    with scored.reading() as session:
        for list_rows, keys in PROMISED.items():
            rows = list_rows(session)  # type: ignore[operator]
            assert rows
            assert all(keys <= set(row) for row in rows), list_rows.__name__


def test_rows_are_plain_values_that_json_can_say(scored: SteeredNode) -> None:
    with scored.reading() as session:
        rows = [*listing.studies(session), *listing.jobs(session, kind=None), *listing.results(session)]
        rows += [*listing.instances(session, STUDY), *listing.bundles(session), listing.counts(session)]

    plain = (str, int, float, bool, dict, type(None))
    assert all(isinstance(value, plain) for row in rows for value in row.values())


def test_no_list_shows_who_the_patient_is(scored: SteeredNode) -> None:
    with scored.reading() as session:
        told = repr(
            [
                listing.studies(session),
                listing.instances(session, STUDY),
                listing.jobs(session, kind=None),
                listing.results(session),
                listing.counts(session),
            ]
        )

    assert "P-4711" not in told
    assert "A-0815" not in told


# --- studies and instances


def test_studies_are_listed_by_revision_newest_first(scored: SteeredNode) -> None:
    with scored.reading() as session:
        rows = listing.studies(session)

    assert [(r["study_instance_uid"], r["revision"], r["state"], r["complete_reason"]) for r in rows] == [
        (OTHER_STUDY, 1, "complete", "all_views"),
        (STUDY, 2, "open", None),
        (STUDY, 1, "complete", "all_views"),
    ]
    assert [r["instances"] for r in rows] == [4, 5, 4], "a revision holds the instances of earlier ones"
    assert rows[1]["completed_at"] is None
    assert rows[2]["completed_at"] == "2026-11-02T09:30:00+00:00"


def test_conflicts_are_not_counted_as_instances(node: SteeredNode) -> None:
    node.receive(mammogram(), mammogram(sop_instance_uid=mammogram().sop_instance_uid, sha256="0" * 64))

    with node.reading() as session:
        assert [row["instances"] for row in listing.studies(session)] == [1]
        assert [row["conflict"] for row in listing.instances(session, STUDY)] == [False, True]
        assert [row["first_revision"] for row in listing.instances(session, STUDY)] == [1, None]


def test_one_study_is_shown_alone(scored: SteeredNode) -> None:
    with scored.reading() as session:
        rows = listing.studies(session, study_instance_uid=STUDY)
        assert {row["study_instance_uid"] for row in rows} == {STUDY}
        assert listing.studies(session, study_instance_uid="1.2.3") == []
        assert len(listing.studies(session, limit=1)) == 1


def test_studies_are_found_by_patient_and_by_accession_number_which_no_row_shows(node: SteeredNode) -> None:
    node.receive(mammogram())

    with node.reading() as session:
        for wanted in ({"patient_id": "P-4711"}, {"accession_number": "A-0815"}):
            rows = listing.studies(session, **wanted)
            assert [row["study_instance_uid"] for row in rows] == [STUDY]
            assert not {"P-4711", "A-0815"} & set(map(str, rows[0].values()))
        assert listing.studies(session, patient_id="P-4711", accession_number="A-1") == []
        assert listing.studies(session, patient_id="P-47%") == [], "a wildcard is a character like others"


def test_instances_are_listed_in_the_order_of_arrival(node: SteeredNode) -> None:
    views = four_views()
    node.receive(*views, *four_views(OTHER_STUDY))

    with node.reading() as session:
        rows = listing.instances(session, STUDY)

    assert [row["sop_instance_uid"] for row in rows] == [view.sop_instance_uid for view in views]
    assert [(row["laterality"], row["view"]) for row in rows] == [(v.laterality, v.view) for v in views]


# --- jobs


def test_jobs_are_listed_newest_first_and_score_jobs_by_default(scored: SteeredNode) -> None:
    with scored.reading() as session:
        rows = listing.jobs(session)
        of_all_kinds = listing.jobs(session, kind=None)
        delivering = listing.jobs(session, kind=JobKind.DELIVER)

    assert [(r["study_instance_uid"], r["state"], r["attempts"], r["error"]) for r in rows] == [
        (OTHER_STUDY, "failed", 1, "INPUT: the pixel data cannot be decoded"),
        (STUDY, "done", 1, None),
    ]
    assert {row["task"] for row in rows} == {TASK}
    assert [(row["outcome"], row["study_probability"]) for row in rows] == [(None, None), ("scored", 0.25)]
    assert {row["destination"] for row in delivering} == {PACS, ARCHIVE}
    assert len(of_all_kinds) == len(rows) + len(delivering)


def test_jobs_are_found_by_state_study_and_id(scored: SteeredNode) -> None:
    with scored.reading() as session:
        (failed,) = listing.jobs(session, state=JobState.FAILED)
        assert failed["study_instance_uid"] == OTHER_STUDY
        assert listing.jobs(session, study_instance_uid=OTHER_STUDY) == [failed]
        assert listing.jobs(session, kind=None, job_id=failed["job_id"]) == [failed]
        assert listing.jobs(session, kind=JobKind.TRAIN) == []
        assert len(listing.jobs(session, kind=None, limit=2)) == 2


def test_a_training_run_is_listed_without_a_study(node: SteeredNode) -> None:
    with node.transaction("anna") as tx:
        job_id = queue_training(tx, recipe="phantoms", order={})

    with node.reading() as session:
        (row,) = listing.jobs(session, kind=JobKind.TRAIN)
    assert (row["job_id"], row["task"], row["study_instance_uid"], row["revision"]) == (
        job_id,
        "phantoms",
        None,
        None,
    )


# --- results


def test_results_are_listed_per_destination_with_their_delivery(scored: SteeredNode) -> None:
    with scored.reading() as session:
        rows = listing.results(session)

    assert [row["kind"] for row in rows] == ["segmentation"] * 2 + ["measurement_report"] * 2
    states = {(row["destination"], row["delivery_state"], row["last_status"]) for row in rows}
    assert len(states) == 2
    assert {state for _, state, _ in states} == {"delivered", "pending"}
    assert {status for _, _, status in states} == {"B000", None}
    assert {row["study_instance_uid"] for row in rows} == {STUDY}


def test_results_are_found_by_study_and_job(scored: SteeredNode) -> None:
    with scored.reading() as session:
        rows = listing.results(session)
        assert listing.results(session, study_instance_uid=STUDY) == rows
        assert listing.results(session, job_id=rows[0]["job_id"]) == rows
        assert listing.results(session, study_instance_uid=OTHER_STUDY) == []


def test_a_result_without_a_destination_is_listed_all_the_same(node: SteeredNode) -> None:
    node.receive(*four_views())
    node.finish_scoring(node.claimed(), destinations=[])

    with node.reading() as session:
        (row,) = listing.results(session)
    assert (row["destination"], row["delivery_state"], row["attempts"]) == (None, None, None)


# --- bundles


def test_bundles_are_listed_with_the_role_that_they_have_now(node: SteeredNode) -> None:
    for digest in ("a" * 64, "b" * 64):
        with node.transaction("anna") as tx:
            add_bundle(tx, BundleFacts(digest, "demonstration", digest[:2], TASK, demonstration=True))
            activate(tx, digest)
        node.clock.advance(1)

    with node.reading() as session:
        newest, oldest = listing.bundles(session)
    assert (newest["digest"], newest["role"], newest["deployed_by"]) == ("b" * 64, "champion", "anna")
    assert newest["since"] == "2026-11-02T09:30:01+00:00"
    assert (oldest["digest"], oldest["role"], oldest["since"]) == ("a" * 64, None, None)
    assert oldest["demonstration"] is True


# --- counts


def test_an_empty_node_counts_nothing_but_names_every_state(node: SteeredNode) -> None:
    with node.reading() as session:
        found = listing.counts(session)

    assert set(found["score_jobs"]) == {"queued", "running", "done", "failed"}
    assert set(found["deliveries"]) == {
        "pending",
        "unknown",
        "delivered",
        "committed",
        "refused",
        "not_needed",
    }
    assert {number for states in found.values() for number in states.values()} == {0}


def test_everything_is_counted_where_it_stands(scored: SteeredNode) -> None:
    scored.receive(mammogram(sop_instance_uid=mammogram().sop_instance_uid, sha256="0" * 64))

    with scored.reading() as session:
        found = listing.counts(session)

    assert found["instances"] == {"stored": 9, "conflicts": 1}
    assert found["revisions"] == {"open": 1, "complete": 2}
    assert found["score_jobs"] == {"queued": 0, "running": 0, "done": 1, "failed": 1}
    assert found["deliver_jobs"] == {"queued": 1, "running": 1, "done": 0, "failed": 0}
    assert found["deliveries"] == {
        "pending": 2,
        "unknown": 0,
        "delivered": 2,
        "committed": 0,
        "refused": 0,
        "not_needed": 0,
    }


def test_what_is_not_done_is_counted_as_everything_is(scored: SteeredNode) -> None:
    scored.receive(mammogram(sop_instance_uid=mammogram().sop_instance_uid, sha256="0" * 64))

    with scored.reading() as session:
        everything, found = listing.counts(session), census.unfinished(session)

    assert found["instances"] == everything["instances"]
    assert found["revisions"] == everything["revisions"]
    assert {what: set(by) for what, by in found.items()} == {
        "instances": {"stored", "conflicts"},
        "revisions": {"open", "complete"},
        **{f"{kind}_jobs": {"queued", "running", "failed"} for kind in JobKind},
        "deliveries": {"pending", "unknown", "refused"},
    }
    assert all(
        everything[what][state] == number for what, by in found.items() for state, number in by.items()
    )


@on_sqlite
def test_no_list_of_jobs_and_no_status_walks_through_all_that_is_done(node: SteeredNode) -> None:
    asked: list[tuple[str, Any]] = []
    with node.reading() as session:
        engine = session.get_bind()
        event.listen(
            engine, "before_cursor_execute", lambda _c, _k, text, values, *_: asked.append((text, values))
        )
        for kind in (None, JobKind.SCORE):
            for state in (None, *JobState):
                listing.jobs(session, kind=kind, state=state)
            listing.jobs(session, kind=kind, study_instance_uid=STUDY)
        census.unfinished(session)
        plans = [
            row[3]
            for text, values in list(asked)
            for row in session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
        ]

    assert len(asked) > 10
    assert not [
        step for step in plans if re.match(r"SCAN (job|delivery|instance|revision|audit_event)\b", step)
    ]
    outer = [step for step in plans if "sqlite_autoindex_job_1" in step]
    assert len(outer) >= 12, "the jobs that are wanted come by their ids"


def test_lists_show_only_what_is_committed(node: SteeredNode) -> None:
    def listed() -> int:
        with node.reading() as session:
            return len(rows_of(session))

    def rows_of(session: Session) -> list[listing.Row]:
        return listing.studies(session)

    with node.transaction() as tx:
        register_instance(tx, mammogram(), RULES)
        assert listed() == 0
    assert listed() == 1


def test_waiting_score_jobs_are_counted_up_to_a_bound(node: SteeredNode) -> None:
    node.receive(*four_views())
    node.receive(*four_views(OTHER_STUDY))
    with node.reading() as session:
        assert listing.waiting_score_jobs(session, at_most=10) == 2
        assert listing.waiting_score_jobs(session, at_most=1) == 1
    node.claimed()
    with node.reading() as session:
        assert listing.waiting_score_jobs(session, at_most=10) == 1
