"""What ``dicom-node job`` shows of work, and what it queues again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import command
from tests.filled_node import REFUSAL, REFUSED, SCORED, Filled, data_dir, filled
from tests.steered_node import BUNDLE

__all__ = ["data_dir", "filled"]


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


def test_queued_training_is_a_job(data_dir: Path) -> None:
    answer = command("train", "demonstration", "--queue", "--seed", "5", "--data-dir", data_dir)
    assert answer.status == 0
    (job,) = command("job", "list", "--kind", "train", "--json", "--data-dir", data_dir).json
    assert job["job_id"] in answer.out
    assert (job["task"], job["state"]) == ("demonstration", "queued")
