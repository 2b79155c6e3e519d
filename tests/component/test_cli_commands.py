"""The command line's promises to programs and people: rows, exit statuses, and terminals left alone."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from db.handoff import register_instance
from tests.command_line import command
from tests.filled_node import OPEN, REFUSED, SCORED, Filled, data_dir, filled
from tests.simulators.pacs import SimulatedPacs
from tests.steered_node import LISTENER, PACS, RULES, mammogram

__all__ = ["data_dir", "filled"]

SECRET = "hunter2"


def test_study_list_rows(filled: Filled) -> None:
    rows = command("study", "list", "--json", "--data-dir", filled.data_dir).json
    promised = ("study_instance_uid", "revision", "state", "complete_reason", "instances")
    assert [tuple(row[key] for key in promised) for row in rows] == [
        (OPEN, 1, "open", None, 1),
        (REFUSED, 1, "complete", "all_views", 4),
        (SCORED, 1, "complete", "all_views", 4),
    ]


def test_result_list_rows(filled: Filled) -> None:
    rows = command("result", "list", "--json", "--data-dir", filled.data_dir).json
    promised = {"sop_instance_uid", "job_id", "kind", "destination", "delivery_state", "sha256"}
    assert all(promised <= set(row) for row in rows)
    assert {(row["study_instance_uid"], row["delivery_state"], row["last_status"]) for row in rows} == {
        (SCORED, "delivered", "0000"),
        (REFUSED, "refused", "C001"),
    }
    assert {row["destination"] for row in rows} == {PACS}


def test_a_result_file_that_is_not_what_was_made_is_found(filled: Filled) -> None:
    damaged, missing = sorted((filled.data_dir / "results").rglob("*.dcm"))
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    missing.unlink()

    answer = command("study", "verify", "--json", "--data-dir", filled.data_dir)
    assert answer.out, answer.err
    rows = answer.json

    found = {(row["file"], row["state"]) for row in rows if row["folder"] == "results"}
    assert found == {(damaged.name, "damaged"), (missing.name, "missing")}


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
    where = ("--json", "--data-dir", filled.data_dir)
    waiting, everything = command("status", *where).json, command("status", "--all", *where).json
    assert waiting["instances"] == everything["instances"] == {"stored": 9, "conflicts": 0}
    assert waiting["deliver_jobs"] == {"queued": 0, "running": 0, "failed": 1}
    assert waiting["deliveries"] == {"pending": 0, "unknown": 0, "refused": 1}
    assert {state: n for state, n in everything["deliveries"].items() if n} == {"delivered": 1, "refused": 1}
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
