"""The command line's promises to programs and people: rows, exit statuses, and terminals left alone."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from db import deliveries, jobs
from db.audit.checkpoints import CheckpointWriter
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import AuditTrail
from db.deployments import BundleFacts, add_bundle
from db.handoff import register_instance
from db.lifecycle import DeliveryEvent, JobKind
from db.scoring import finish_scoring
from db.session import Database
from dicom_node.spool import Spool
from tests.command_line import command
from tests.simulators.pacs import SimulatedPacs
from tests.steered_node import (
    BUNDLE,
    LISTENER,
    PACS,
    RULES,
    WORKER,
    every,
    four_views,
    mammogram,
    result_object,
)

SCORED, REFUSED, OPEN = "2.25.101", "2.25.102", "2.25.103"
PATIENT_ID, ACCESSION = "P-4711", "A-0815"
SECRET = "hunter2"
TLS_FILES_THAT_ARE_NOT_THERE = """[listener.tls]
certificate = "/nowhere/node.pem"
private_key = "/nowhere/node.key"
authority = "/nowhere/authority.pem"
"""
REFUSAL = {
    "code": "IMPLANT",
    "detail": "",
    "laterality": "L",
    "sentence": "L CC not analysed: breast implant present",
    "sop_instance_uid": "2.25.4711",
    "view": "CC",
}


@dataclass(frozen=True)
class Filled:
    """A data directory with a study scored and delivered, one refused by the PACS, and one still open."""

    data_dir: Path
    database: Database
    contents: dict[str, bytes]
    scored_job: str
    refused_job: str


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with this version's tables and keys."""
    folder = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", folder).status == 0
    AuditKey.load_or_create(folder / "keys" / "audit.key")
    CheckpointKey.load_or_create(folder / "keys" / "checkpoint.key")
    return folder


@pytest.fixture
def filled(data_dir: Path) -> Iterator[Filled]:
    database = Database(
        f"sqlite:///{data_dir / 'node.db'}", AuditTrail(AuditKey.load(data_dir / "keys" / "audit.key"))
    )
    spool, contents = Spool(data_dir / "results"), {}
    for study in (SCORED, REFUSED):
        for instance in four_views(study):
            with database.transaction(LISTENER) as tx:
                register_instance(tx, instance, RULES)
    with database.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(study=OPEN), RULES)
    scored: dict[str, str] = {}
    for study, event, status in (
        (SCORED, DeliveryEvent.ACCEPTED, 0x0000),
        (REFUSED, DeliveryEvent.REFUSE, 0xC001),
    ):
        content = f"DICM bytes of {study}".encode()
        file = spool.write([content])
        result = result_object(file_name=file.name, sha256=file.sha256, size_bytes=file.size_bytes)
        contents[result.sop_instance_uid] = content
        with database.transaction(WORKER) as tx:
            claim = jobs.claim(tx, JobKind.SCORE, lease_s=60, max_attempts=5)
            assert claim is not None
        scored[study] = claim.job_id
        with database.transaction(WORKER) as tx:
            jobs.bind_bundle(tx, claim, BUNDLE)
            finish_scoring(
                tx,
                claim,
                bundle=BUNDLE,
                outcome="scored",
                study_probability=0.25,
                document={"probability": 0.25, "refusals": [REFUSAL]},
                results=[result],
                deliveries=[every([result], PACS)],
            )
        with database.transaction(WORKER) as tx:
            delivering = jobs.claim(tx, JobKind.DELIVER, lease_s=60, max_attempts=None)
        assert delivering is not None
        with database.transaction(WORKER) as tx:
            (item,) = deliveries.outgoing(tx.session, delivering)
            deliveries.record(tx, delivering, item.delivery_id, event, status=status, detail="said the PACS")
            if event is DeliveryEvent.ACCEPTED:
                jobs.finish(tx, delivering)
            else:
                jobs.give_up(tx, delivering, code="UNDELIVERABLE", reason="refused an object")
                refused_job = delivering.job_id
    yield Filled(data_dir, database, contents, scored[SCORED], refused_job)
    database.close()


def test_study_list_rows(filled: Filled) -> None:
    rows = command("study", "list", "--json", "--data-dir", filled.data_dir).json
    promised = ("study_instance_uid", "revision", "state", "complete_reason", "instances")
    assert [tuple(row[key] for key in promised) for row in rows] == [
        (OPEN, 1, "open", None, 1),
        (REFUSED, 1, "complete", "all_views", 4),
        (SCORED, 1, "complete", "all_views", 4),
    ]


def test_job_list_rows(filled: Filled) -> None:
    rows = command("job", "list", "--json", "--study", SCORED, "--data-dir", filled.data_dir).json
    promised = ("job_id", "study_instance_uid", "revision", "task", "state", "attempts", "bundle", "error")
    assert [tuple(row[key] for key in promised) for row in rows] == [
        (filled.scored_job, SCORED, 1, "mammography_malignancy", "done", 1, BUNDLE, None)
    ]


def test_job_list_can_be_narrowed(filled: Filled) -> None:
    where = ("--json", "--data-dir", filled.data_dir)
    assert len(command("job", "list", *where).json) == 2, "scoring alone by default"
    assert {row["kind"] for row in command("job", "list", "--all", *where).json} == {"score", "deliver"}
    (failed,) = command("job", "list", "--all", "--state", "failed", *where).json
    assert failed["job_id"] == filled.refused_job
    assert failed["error"] == "UNDELIVERABLE: refused an object"
    assert len(command("job", "list", "--limit", "1", *where).json) == 1


def test_result_list_rows(filled: Filled) -> None:
    rows = command("result", "list", "--json", "--data-dir", filled.data_dir).json
    promised = {"sop_instance_uid", "job_id", "kind", "destination", "delivery_state", "sha256"}
    assert all(promised <= set(row) for row in rows)
    assert {(row["study_instance_uid"], row["delivery_state"], row["last_status"]) for row in rows} == {
        (SCORED, "delivered", "0000"),
        (REFUSED, "refused", "C001"),
    }
    assert {row["destination"] for row in rows} == {PACS}


def test_audit_query_rows(filled: Filled) -> None:
    rows = command("audit", "query", "--json", "--data-dir", filled.data_dir).json
    promised = {"seq", "at", "actor", "action", "study_instance_uid", "job_id", "bundle", "detail"}
    assert all(set(row) == promised for row in rows)
    assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)


@pytest.mark.parametrize(
    ("options", "studies"),
    [
        (("--study", SCORED), {SCORED}),
        (("--patient-id", PATIENT_ID), {SCORED, REFUSED, OPEN}),
        (("--accession", ACCESSION), {SCORED, REFUSED, OPEN}),
        (("--patient-id", "P-%"), set()),
        (("--patient-id", "x' OR 1=1 --"), set()),
        (("--action", "study.complete"), {SCORED, REFUSED}),
        (("--bundle", BUNDLE), {SCORED, REFUSED}),
        (("--since", "2999-01-01"), set()),
        (("--until", "1999-01-01T00:00:00+0000"), set()),
        (("--until", "2999-01-01", "--study", OPEN), {OPEN}),
    ],
)
def test_audit_query_finds_by(filled: Filled, options: tuple[str, ...], studies: set[str]) -> None:
    rows = command("audit", "query", "--json", *options, "--data-dir", filled.data_dir).json
    assert {row["study_instance_uid"] for row in rows} - {None} == studies


def test_audit_query_finds_by_job(filled: Filled) -> None:
    rows = command("audit", "query", "--json", "--job", filled.scored_job, "--data-dir", filled.data_dir).json
    assert [row["action"] for row in rows][:2] == ["job.queued", "job.claimed"]
    assert {row["job_id"] for row in rows} == {filled.scored_job}


def test_reading_the_trail_is_an_event_without_the_patient_asked_for(filled: Filled) -> None:
    command("audit", "query", "--patient-id", PATIENT_ID, "--data-dir", filled.data_dir)
    (event,) = command(
        "audit", "query", "--json", "--action", "audit.queried", "--data-dir", filled.data_dir
    ).json
    assert event["detail"]["filter"] == {"patient_id": "given"}
    assert PATIENT_ID not in json.dumps(event)


def test_audit_verify_passes_an_untouched_trail(filled: Filled) -> None:
    answer = command("audit", "verify", "--json", "--data-dir", filled.data_dir)
    assert (answer.status, answer.json["ok"]) == (0, True)


def test_audit_verify_fails_after_one_changed_letter(filled: Filled) -> None:
    raw = sqlite3.connect(filled.data_dir / "node.db")
    raw.executescript(
        "".join(
            f"DROP TRIGGER {name};"
            for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        )
    )
    raw.execute("UPDATE audit_event SET actor = 'someone@else' WHERE seq = 3")
    raw.commit()
    raw.close()
    answer = command("audit", "verify", "--json", "--data-dir", filled.data_dir)
    assert (answer.status, answer.json["ok"]) == (1, False)
    assert "3" in json.dumps(answer.json)


def test_audit_query_finds_by_who_acted_on_one_host_or_all(filled: Filled) -> None:
    def actions(actor: str) -> set[str]:
        rows = command("audit", "query", "--json", "--actor", actor, "--data-dir", filled.data_dir).json
        return {row["action"] for row in rows}

    assert "instance.stored" in actions(LISTENER)
    assert actions(LISTENER.partition("@")[0]) == actions(LISTENER)
    assert actions(LISTENER[:-1]) == set()


def test_audit_query_takes_the_beginning_of_a_digest_and_refuses_an_unknown_one(
    filled: Filled,
) -> None:
    digest = f"5ca1e{'0' * 59}"
    with filled.database.transaction("test") as tx:
        add_bundle(tx, BundleFacts(digest, "name", "1", "mammography_malignancy", demonstration=True))

    (row,) = command("audit", "query", "--json", "--bundle", "5ca1e", "--data-dir", filled.data_dir).json
    unknown = command("audit", "query", "--bundle", "feed", "--data-dir", filled.data_dir)

    assert row["action"] == "bundle.added"
    assert (unknown.status, "model list" in unknown.err) == (4, True)


def test_audit_query_tells_that_the_limit_left_events_out(filled: Filled) -> None:
    where = ("--action", "instance.stored", "--json", "--data-dir", filled.data_dir)
    all_of_them = command("audit", "query", *where)
    newest = command("audit", "query", "--limit", "2", *where)

    assert newest.json == all_of_them.json[-2:]
    assert "older ones match, too" in newest.err
    assert "older ones" not in all_of_them.err
    exactly = command("audit", "query", "--limit", str(len(all_of_them.json)), *where)
    assert "older ones" not in exactly.err


def test_a_span_of_time_that_ends_before_it_begins_is_refused(filled: Filled) -> None:
    span = ("--since", "2026-02-01", "--until", "2026-01-01")
    assert command("audit", "query", *span, "--data-dir", filled.data_dir).status == 2


def test_audit_verify_says_in_words_what_it_found_and_what_to_do(filled: Filled) -> None:
    whole = command("audit", "verify", "--data-dir", filled.data_dir)
    assert "The trail is whole: events 1 to " in whole.out
    assert "No checkpoint was found" in whole.out

    raw = sqlite3.connect(filled.data_dir / "node.db")
    raw.executescript("DROP TRIGGER audit_event_no_update; UPDATE audit_event SET actor = 'x' WHERE seq = 3")
    raw.close()
    touched = command("audit", "verify", "--data-dir", filled.data_dir)

    assert touched.status == 1
    assert "THE TRAIL IS NOT WHOLE: event 3: the column 'actor' is not what was signed" in touched.out
    assert "2 events before that are unharmed" in touched.out
    assert "find out who had access" in touched.out


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE analysis SET study_probability = 0.01", "has another score in its table"),
        ("UPDATE analysis SET document = '{}'", "has another document in its table"),
        ("UPDATE result_object SET sha256 = 'x'", "has another list of results in its table"),
        ("UPDATE instance SET calling_ae_title = 'X' WHERE id = 1", "has another calling AE title"),
        ("UPDATE instance SET sha256 = 'x' WHERE id = 1", "has another sha256 in its table"),
        ("UPDATE instance SET study_id = 2 WHERE id = 1", "has another study in its table"),
        ("UPDATE delivery SET state = 'committed'", "has another state in its table"),
    ],
)
def test_a_row_that_is_not_what_the_trail_says_is_found(filled: Filled, change: str, problem: str) -> None:
    where = ("--rows", "--data-dir", filled.data_dir)
    whole = command("audit", "verify", *where)
    assert (whole.status, "are what the trail says" in whole.out) == (0, True)
    raw = sqlite3.connect(filled.data_dir / "node.db")
    raw.executescript(change)
    raw.close()

    answer = command("audit", "verify", *where)
    as_json = command("audit", "verify", "--json", *where).json

    assert (answer.status, problem in answer.out) == (1, True)
    assert as_json["ok"], "the trail is whole"
    assert problem in as_json["rows"]["disagreements"][0]["problem"]
    assert command("audit", "verify", "--data-dir", filled.data_dir).status == 0, "rows only when asked"


def test_a_damaged_end_of_the_trail_is_told_though_no_event_can_follow_it(filled: Filled) -> None:
    raw = sqlite3.connect(filled.data_dir / "node.db")
    raw.executescript(
        "DROP TRIGGER audit_event_no_update; "
        "UPDATE audit_event SET key_id = 'feed' WHERE seq = (SELECT max(seq) FROM audit_event)"
    )
    (last,) = raw.execute("SELECT max(seq) FROM audit_event").fetchone()
    raw.close()

    answer = command("audit", "verify", "--data-dir", filled.data_dir)

    assert answer.status == 1
    assert f"THE TRAIL IS NOT WHOLE: event {last}: " in answer.out
    assert "could not be written into the trail" in answer.err


def test_a_result_file_that_is_not_what_was_made_is_found(filled: Filled) -> None:
    damaged, missing = sorted((filled.data_dir / "results").rglob("*.dcm"))
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    missing.unlink()

    answer = command("study", "verify", "--json", "--data-dir", filled.data_dir)
    assert answer.out, answer.err
    rows = answer.json

    found = {(row["file"], row["state"]) for row in rows if row["folder"] == "results"}
    assert found == {(damaged.name, "damaged"), (missing.name, "missing")}


def test_an_exported_trail_is_proved_with_the_public_key_alone(filled: Filled, tmp_path: Path) -> None:
    where = ("--data-dir", filled.data_dir)
    signer = CheckpointKey.load(filled.data_dir / "keys" / "checkpoint.key")
    signed = CheckpointWriter(tmp_path / "checkpoints", signer, "NODE").write(filled.database)
    assert signed is not None
    key = command("audit", "public-key", *where).out.strip()
    trail = tmp_path / "trail.jsonl"
    command("audit", "export", "--out", trail, *where)
    elsewhere = ("--checkpoints", tmp_path / "checkpoints", "--public-key", key)

    proved = command("audit", "verify-export", trail, *elsewhere)
    as_json = command("audit", "verify-export", trail, "--json", *elsewhere).json
    trail.write_text(trail.read_text().replace(LISTENER, "nobody@x"))
    touched = command("audit", "verify-export", trail, *elsewhere)

    no_key = command("audit", "verify-export", trail, *elsewhere[:3], "no key")
    other = ("--public-key", "A" * 43 + "=")
    strange = command("audit", "verify-export", trail, *elsewhere[:2], *other)

    assert (no_key.status, "audit public-key" in no_key.err) == (2, True)
    assert (strange.status, "THE TRAIL IS NOT PROVED: the audit checkpoint in" in strange.out) == (1, True)
    assert proved.status == 0
    assert f"{signed.seq} of them are what the node signed in 1 checkpoint" in proved.out
    assert (as_json["ok"], as_json["proved"]) == (True, signed.seq)
    assert touched.status == 1
    assert "THE TRAIL IS NOT WHOLE: event 1: it, or another one" in touched.out


def test_a_part_of_the_trail_is_exported_by_what_a_question_takes(filled: Filled, tmp_path: Path) -> None:
    out = tmp_path / "part.jsonl"
    command("audit", "export", "--out", out, "--job", filled.scored_job, "--data-dir", filled.data_dir)
    assert {json.loads(line)["job_id"] for line in out.read_text().splitlines()} == {filled.scored_job}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_audit_export_writes_every_event(filled: Filled, tmp_path: Path, form: str) -> None:
    out = tmp_path / f"trail.{form}"
    before = len(command("audit", "query", "--json", "--data-dir", filled.data_dir).json)
    answer = command("audit", "export", "--out", out, "--format", form, "--data-dir", filled.data_dir)
    assert answer.status == 0
    lines = out.read_text().splitlines()
    assert len(lines) - (form == "csv") == before + 1, "all, and the query above"
    assert PATIENT_ID not in out.read_text()


def test_job_retry_queues_a_failed_delivery_again(filled: Filled) -> None:
    where = ("--data-dir", filled.data_dir)
    assert command("job", "retry", filled.refused_job, *where).status == 0
    job = command("job", "show", filled.refused_job, "--json", *where).json
    assert (job["state"], job["attempts"], job["error"]) == ("queued", 0, None)
    states = {r["study_instance_uid"]: r for r in command("result", "list", "--json", *where).json}
    assert states[REFUSED]["delivery_state"] == "pending"
    assert states[SCORED]["delivery_state"] == "delivered", "the other one is left alone"
    assert command("audit", "verify", *where).status == 0


def test_job_retry_queues_all_that_was_given_up_or_a_choice_of_it(filled: Filled) -> None:
    """After a week in which a PACS refused everything, nobody names ten thousand jobs."""
    where = ("--data-dir", filled.data_dir)
    destination = command("job", "show", filled.refused_job, "--json", *where).json["destination"]
    for none in (("--kind", "score"), ("--destination", "OTHER@10.0.0.9:104")):
        assert "0 jobs are queued" in command("job", "retry", "--failed", *none, *where).out
    of_destination = ("--failed", "--kind", "deliver", "--destination", destination)
    assert "1 jobs are queued" in command("job", "retry", *of_destination, *where).out
    assert command("job", "show", filled.refused_job, "--json", *where).json["state"] == "queued"
    assert "0 jobs are queued" in command("job", "retry", "--failed", *where).out


@pytest.mark.parametrize(
    "arguments", [(), ("abc", "--failed"), ("abc", "--kind", "score"), ("--destination", "PACS@10.0.0.5:104")]
)
def test_job_retry_is_told_which_jobs(filled: Filled, arguments: tuple[str, ...]) -> None:
    answer = command("job", "retry", *arguments, "--data-dir", filled.data_dir)
    assert answer.status == 2
    assert "--failed" in answer.err
    assert command("job", "show", filled.refused_job, "--json", "--data-dir", filled.data_dir).json["error"]


def test_a_done_job_cannot_be_retried(filled: Filled) -> None:
    answer = command("job", "retry", filled.scored_job, "--data-dir", filled.data_dir)
    assert answer.status == 5
    assert "it is done; look with 'dicom-node job show'" in " ".join(answer.err.split())


def test_job_show_has_the_analysis(filled: Filled) -> None:
    job = command("job", "show", filled.scored_job, "--json", "--data-dir", filled.data_dir).json
    assert job["analysis"] == {"probability": 0.25, "refusals": [REFUSAL]}
    assert job["study_probability"] == 0.25


def test_job_show_lists_each_refusal_in_a_row_for_people(filled: Filled) -> None:
    shown = command("job", "show", filled.scored_job, "--data-dir", filled.data_dir)
    assert shown.status == 0
    facts, _, table = shown.out.partition("\nrefusals\n")
    assert '{"probability": 0.25}' in facts
    assert REFUSAL["code"] not in facts, "told once"
    _, row = table.strip().splitlines()
    assert row.split() == ["IMPLANT", "L", "CC", *REFUSAL["sentence"].split(), "2.25.4711"]


def test_job_show_of_a_delivery_has_no_refusals(filled: Filled) -> None:
    shown = command("job", "show", filled.refused_job, "--data-dir", filled.data_dir)
    assert shown.status == 0
    assert "UNDELIVERABLE" in shown.out
    assert "refusals" not in shown.out


def test_study_show_has_everything_of_one_study(filled: Filled) -> None:
    shown = command("study", "show", SCORED, "--json", "--data-dir", filled.data_dir).json
    assert [row["revision"] for row in shown["revisions"]] == [1]
    assert {(row["laterality"], row["view"]) for row in shown["instances"]} == {
        ("R", "CC"),
        ("L", "CC"),
        ("R", "MLO"),
        ("L", "MLO"),
    }
    assert {row["kind"] for row in shown["jobs"]} == {"score", "deliver"}
    assert [row["delivery_state"] for row in shown["results"]] == ["delivered"]
    people = command("study", "show", SCORED, "--data-dir", filled.data_dir)
    assert people.status == 0
    assert all(title in people.out for title in ("revisions", "instances", "jobs", "results"))


def test_study_complete_closes_an_open_study_once(filled: Filled) -> None:
    where = ("--data-dir", filled.data_dir)
    assert command("study", "complete", OPEN, *where).status == 0
    (row,) = [r for r in command("study", "list", "--json", *where).json if r["study_instance_uid"] == OPEN]
    assert (row["state"], row["complete_reason"]) == ("complete", "command")
    again = command("study", "complete", OPEN, *where)
    assert again.status == 4
    assert "study list" in again.err


def test_result_export_writes_the_stored_bytes(filled: Filled, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command("result", "export", "--out", out, "--data-dir", filled.data_dir).status == 0
    written = {path.stem.rpartition("-")[2]: path.read_bytes() for path in out.iterdir()}
    assert written == filled.contents
    (event,) = command(
        "audit", "query", "--json", "--action", "result.exported", "--data-dir", filled.data_dir
    ).json
    assert event["detail"] == {"objects": 2}


def test_what_needs_a_result_that_was_removed_says_when_by_which_rule_and_what_to_do(
    filled: Filled, tmp_path: Path
) -> None:
    where, out = ("--data-dir", filled.data_dir), tmp_path / "out"
    for file in (filled.data_dir / "results").rglob("*.dcm"):
        os.utime(file, (0, 0))
    pruned = command("study", "prune", "--results", "--before", "2199-01-01", "--json", *where)
    (row,) = pruned.json
    assert (row["study_instance_uid"], row["files"]) == (SCORED, 1), "what was refused stays"
    assert row["last_delivered_at"]
    (event,) = command("audit", "query", "--action", "study.results_removed", "--json", *where).json
    rule = "study prune --before 2199-01-01T00:00:00"
    assert event["detail"]["rule"] == rule
    told = f"removed on {event['at'][:10]} ({rule})"

    for words in (("export", "--out", out), ("show",)):
        refused = command("result", *words, "--study", SCORED, *where)
        assert refused.status == 5
        assert f"The files of 1 results were {told}" in refused.err
        assert "a study is scored again" in refused.err
    assert not out.exists()

    partly = command("result", "export", "--out", out, *where)
    assert partly.status == 1, "a program must see that not all is there"
    assert told in partly.err
    assert [path.read_bytes() for path in out.iterdir()] == [f"DICM bytes of {REFUSED}".encode()]

    verified = command("study", "verify", "--json", *where).json
    assert not [each for each in verified if each["folder"] == "results"], "not lost, but removed"


def test_a_result_that_is_lost_is_not_told_as_removed(filled: Filled, tmp_path: Path) -> None:
    for file in (filled.data_dir / "results").rglob("*.dcm"):
        file.unlink()

    answer = command("result", "export", "--out", tmp_path, "--data-dir", filled.data_dir)

    assert answer.status == 5
    assert "The files of 2 results are missing, and nothing tells that they were removed" in answer.err


def test_status_counts(filled: Filled) -> None:
    counts = command("status", "--json", "--data-dir", filled.data_dir).json
    assert counts["instances"] == {"stored": 9, "conflicts": 0}
    assert counts["deliver_jobs"]["failed"] == 1
    assert {state: n for state, n in counts["deliveries"].items() if n} == {"delivered": 1, "refused": 1}
    assert command("status", "--data-dir", filled.data_dir).status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("job", "show", "nosuch"), 4, "job list"),
        (("job", "retry", "nosuch"), 4, "job list"),
        (("study", "show", "1.2.3"), 4, "study list"),
        (("study", "complete", "1.2.3"), 4, "study list"),
        (("result", "export", "--out", "OUT", "--study", "1.2.3"), 4, "result list"),
        (("model", "activate", "feed"), 4, "model list"),
        (("model", "rollback"), 4, "no earlier bundle"),
        (("job", "list", "--state", "sideways"), 2, "sideways"),
        (("study", "frobnicate"), 2, "frobnicate"),
        (("job", "list", "--limit", "0"), 2, "--limit"),
        (("audit", "query", "--since", "yesterday"), 2, "yesterday"),
        (("audit", "query", "--since", "0001-01-01"), 2, "out of range"),
        (("audit", "query", "--until", "9999-12-31T23:59:59-1200"), 2, "out of range"),
        (("study", "prune", "--before", "9999-12-31"), 2, "out of range"),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_status_and_a_next_step(
    filled: Filled, tmp_path: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    given = [str(tmp_path / "out") if part == "OUT" else part for part in arguments]
    answer = command(*given, "--data-dir", filled.data_dir)
    assert (answer.status, answer.out) == (status, "")
    assert says in " ".join(answer.err.split())
    assert "Traceback" not in answer.err


def test_a_folder_without_a_node_is_named(tmp_path: Path) -> None:
    answer = command("study", "list", "--data-dir", tmp_path / "empty")
    assert answer.status == 3
    assert "serve" in answer.err
    assert not (tmp_path / "empty").exists(), "looking makes nothing"


def test_an_unreachable_database_is_status_6(data_dir: Path) -> None:
    url = f"postgresql+psycopg://node:{SECRET}@127.0.0.1:1/node"
    answer = command("study", "list", "--data-dir", data_dir, environment={"DICOM_NODE_DATABASE_URL": url})
    assert answer.status == 6
    assert SECRET not in answer.err


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "later version"),
        ("DELETE FROM alembic_version", "db upgrade"),
    ],
    ids=["later", "none"],
)
def test_tables_of_another_version_are_status_7(data_dir: Path, statement: str, says: str) -> None:
    raw = sqlite3.connect(data_dir / "node.db")
    raw.execute(statement)
    raw.commit()
    raw.close()
    answer = command("study", "list", "--data-dir", data_dir)
    assert answer.status == 7
    assert says in " ".join(answer.err.split())


def test_db_check_passes_what_db_upgrade_made_and_finds_a_missing_column(data_dir: Path) -> None:
    assert command("db", "upgrade", "--data-dir", data_dir).status == 0, "again is harmless"
    right = command("db", "check", "--json", "--data-dir", data_dir)
    assert (right.status, right.json["differences"]) == (0, [])
    raw = sqlite3.connect(data_dir / "node.db")
    raw.execute("ALTER TABLE process RENAME COLUMN seen_at TO seen")
    raw.commit()
    raw.close()
    wrong = command("db", "check", "--json", "--data-dir", data_dir)
    assert wrong.status == 1
    assert "seen_at" in json.dumps(wrong.json["differences"])


@pytest.mark.parametrize("json_flag", [("--json",), ()], ids=["json", "table"])
def test_config_show_masks_secrets(data_dir: Path, json_flag: tuple[str, ...]) -> None:
    secret = {
        "DICOM_NODE_DATABASE_URL": f"postgresql+psycopg://node:{SECRET}@db/node",
        "DICOM_NODE_BROKER_URL": f"rediss://:{SECRET}@redis:6379/0",
    }
    answer = command("config", "show", *json_flag, "--data-dir", data_dir, environment=secret)
    assert answer.status == 0
    assert "database_url" in answer.out
    assert SECRET not in answer.out + answer.err


def test_config_show_spells_values_as_a_configuration_file_does(data_dir: Path) -> None:
    callers = {"DICOM_NODE_CALLERS": '[{"title": "MAMMO1", "operations": ["echo"]}]'}
    shown = command("config", "show", "--data-dir", data_dir, environment=callers)
    assert '[{title = "MAMMO1", addresses = [], operations = ["echo"], user_identity = false}]' in shown.out
    assert re.search(r"^listener\.plain +true ", shown.out, re.MULTILINE)


def test_flags_rank_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicom_node import settings

    def in_force(**flags: Any) -> tuple[str, int, str]:
        found = settings.load(config_file=file, flags={"data_dir": tmp_path, **flags})
        return found.ae_title, found.port, found.institution

    file: Path | None = None
    assert in_force() == ("DICOM_NODE", 11112, "")
    file = tmp_path / "settings.toml"
    file.write_text('ae_title = "FILE"\nport = 1\ninstitution = "File"\n')
    assert in_force() == ("FILE", 1, "File")
    monkeypatch.setenv("DICOM_NODE_AE_TITLE", "ENVIRONMENT")
    monkeypatch.setenv("DICOM_NODE_PORT", "2")
    assert in_force() == ("ENVIRONMENT", 2, "File")
    assert in_force(ae_title="FLAG") == ("FLAG", 2, "File")


def test_config_check_accepts_right_settings(data_dir: Path) -> None:
    assert command("config", "check", "--data-dir", data_dir).status == 0


@pytest.mark.parametrize(
    ("text", "names", "example"),
    [
        ('port = "many"', "port", "11112"),
        ("port = 99999", "port", "11112"),
        ('ae_title = "WAY_TOO_LONG_FOR_AN_AE_TITLE"', "ae_title", "DICOM_NODE"),
        ('destinations = ["nowhere"]', "destinations", "PACS@pacs.example.org:104"),
        ("[jobs]\nlease_s = 0", "jobs.lease_s", "60"),
        ('[completeness]\nstandard_views = ["R XX"]', "completeness.standard_views", "R CC"),
        ('database_url = "mysql://node:secret@db/node"', "database_url", "postgresql+psycopg://"),
        (
            '[[callers]]\ntitle = "A"\noperations = ["stor"]',
            "callers.operations",
            'operations = ["store", "echo"]',
        ),
        ('[[callers]]\ntitle = "A"\nadresses = ["10.0.0.1"]', "callers.adresses", "did you mean addresses?"),
        ("prot = 11112", "prot", "config show"),
        ("[listener]\nplain = 7", "listener.plain", "for example plain = false"),
        ("[listener]\nallowed_ae_titles = 7", "allowed_ae_titles", '= ["MAMMO1", "MAMMO2"]'),
        ("port = ", "settings.toml", "TOML"),
    ],
)
@pytest.mark.parametrize("what", [("config", "check"), ("listen",), ("serve",)], ids=lambda w: w[0])
def test_a_wrong_setting_is_refused_with_its_name_and_an_example(
    tmp_path: Path, what: tuple[str, ...], text: str, names: str, example: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    answer = command(*what, "--data-dir", tmp_path / "data", "--config", file)
    assert (answer.status, answer.out) == (3, "")
    said = " ".join(answer.err.split())
    assert names in said
    assert example in said
    assert not (tmp_path / "data").exists(), "nothing is made before the settings are right"


def test_a_misspelt_variable_is_refused_with_what_was_probably_meant(tmp_path: Path) -> None:
    misspelt = {"DICOM_NODE_DESTINATION": "PACS@h:104"}
    answer = command("config", "check", "--data-dir", tmp_path, environment=misspelt)
    assert answer.status == 3
    assert "DESTINATIONS" in " ".join(answer.err.split())


def test_an_unknown_task_is_refused_by_config_check(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('tasks = ["palmistry"]')
    answer = command("config", "check", "--data-dir", tmp_path, "--config", file)
    assert answer.status == 3
    assert "palmistry" in answer.err


def test_certificates_that_cannot_be_read_are_refused_by_config_check(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(TLS_FILES_THAT_ARE_NOT_THERE)
    answer = command("config", "check", "--data-dir", tmp_path, "--config", file)
    assert answer.status == 3
    assert "/nowhere/node.key cannot be read" in " ".join(answer.err.split())


@pytest.mark.parametrize("text", ['tasks = ["palmistry"]', TLS_FILES_THAT_ARE_NOT_THERE])
def test_serve_refuses_what_its_listener_would_refuse_before_it_makes_anything(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    answer = command("serve", "--data-dir", tmp_path / "data", "--config", file)
    assert answer.status == 3
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("what", ["listen", "dispatch"])
def test_a_process_refuses_an_unknown_task_as_a_setting_so_that_serve_stops(
    tmp_path: Path, what: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('tasks = ["palmistry"]\nport = 0\n')
    answer = command(what, "--data-dir", tmp_path / "data", "--config", file)
    assert answer.status == 3
    assert "palmistry" in answer.err


def test_an_unknown_queue_is_refused(data_dir: Path) -> None:
    answer = command("work", "--queues", "score,dance", "--data-dir", data_dir)
    assert answer.status == 3
    assert "score,deliver" in " ".join(answer.err.split())


def test_every_command_finds_a_started_node_by_its_data_directory_alone(
    data_dir: Path, tmp_path: Path
) -> None:
    from dicom_node.cli.wiring import load_settings, remember_start

    file = tmp_path / "settings.toml"
    file.write_text('institution = "General"\n')
    flags = {"port": 4242, "ae_title": "MAMMO_AI", "destinations": ["PACS@10.0.0.1:104"]}
    remember_start(load_settings(data_dir, file, flags), config=file, flags=flags)
    found = command("config", "show", "--json", "--data-dir", data_dir).json
    assert (found["port"], found["ae_title"], found["destinations"]) == (
        4242,
        "MAMMO_AI",
        ["PACS@10.0.0.1:104"],
    )
    assert found["institution"] == "General"


def test_control_characters_of_data_never_reach_the_terminal(filled: Filled) -> None:
    evil = "\x1b[2Jgone\x07\x9b31m\r\n\u202e"
    with filled.database.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(study="2.25.9", view=evil, calling_ae_title=evil), RULES)
    shown = command("study", "show", "2.25.9", "--data-dir", filled.data_dir)
    trail = command("audit", "query", "--study", "2.25.9", "--data-dir", filled.data_dir)
    as_json = command("study", "show", "2.25.9", "--json", "--data-dir", filled.data_dir)
    for answer in (shown, trail, as_json):
        assert answer.status == 0
        assert not [c for c in answer.out + answer.err if not c.isprintable() and c != "\n"]
    assert "gone" in shown.out, "the rest of it is shown"
    assert as_json.json["instances"][0]["view"] == evil, "programs get it whole, escaped"


def test_doctor_fails_for_a_destination_that_is_down_and_says_what_to_do(
    data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    with SimulatedPacs() as pacs:
        alive, dead = pacs.destination, "DEAD@127.0.0.1:1"
        file.write_text(
            f'destinations = ["{alive}", "{dead}"]\n[delivery]\nconnect_timeout_s = 30\n'
            "[listener]\nminimum_free_bytes = 0\n"
        )
        answer = command("doctor", "--json", "--data-dir", data_dir, "--config", file)
    found = {row["check"]: row for row in answer.json}
    assert found[f"C-ECHO {alive}"]["verdict"] == "ok"
    assert found[f"C-ECHO {dead}"]["verdict"] == "problem"
    assert found[f"C-ECHO {dead}"]["advice"]
    assert found["database"]["verdict"] == "ok"
    assert answer.status == 1


def test_doctor_tells_failed_work(filled: Filled) -> None:
    answer = command("doctor", "--json", "--data-dir", filled.data_dir)
    (work,) = [row for row in answer.json if row["check"] == "work"]
    assert work["verdict"] == "problem"
    assert "job retry" in work["advice"]
    assert command("doctor", "--data-dir", filled.data_dir).status == 1, "the table tells the same"


def test_queued_training_is_a_job(data_dir: Path) -> None:
    answer = command("train", "demonstration", "--queue", "--seed", "5", "--data-dir", data_dir)
    assert answer.status == 0
    (job,) = command("job", "list", "--kind", "train", "--json", "--data-dir", data_dir).json
    assert job["job_id"] in answer.out
    assert (job["task"], job["state"]) == ("demonstration", "queued")
