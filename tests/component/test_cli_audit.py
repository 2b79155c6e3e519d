"""What ``dicom-node audit`` answers: questions to the trail, whether it was touched, and its export."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from db.audit.checkpoints import CheckpointWriter
from db.audit.keys import CheckpointKey
from db.deployments import BundleFacts, add_bundle
from tests.command_line import command
from tests.filled_node import ACCESSION, OPEN, PATIENT_ID, REFUSED, SCORED, Filled, data_dir, filled
from tests.steered_node import BUNDLE, LISTENER

__all__ = ["data_dir", "filled"]


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
