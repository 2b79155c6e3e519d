"""`dicom-node study verify` and `study prune`: what lies on the disk, found, removed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db import jobs
from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.handoff import Completeness, register_instance
from db.lifecycle import JobKind
from db.session import Database
from dicom_node.spool import Spool
from tests.command_line import Answer, command
from tests.steered_node import FOUR_VIEWS, LISTENER, RULES, WORKER, four_views

OTHER_TASKS = Completeness(frozenset(FOUR_VIEWS), 60, routes=())
DONE, WAITING = "2.25.301", "2.25.302"
CONTENT = b"data set"


@dataclass(frozen=True)
class Stored:
    """A data directory with the files of a study that nobody wants scored and of one that waits."""

    data_dir: Path
    database: Database
    files: dict[str, list[Path]]

    def study(self, *arguments: str) -> Answer:
        return command("study", *arguments, "--data-dir", self.data_dir)

    def actions(self, action: str) -> list[dict[str, Any]]:
        rows = command("audit", "query", "--action", action, "--json", "--data-dir", self.data_dir).json
        assert isinstance(rows, list)
        return rows


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    data_dir = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", data_dir).status == 0
    key = AuditKey.load(data_dir / "keys" / "audit.key")
    database = Database(f"sqlite:///{data_dir / 'node.db'}", AuditTrail(key))
    spool = Spool(data_dir / "spool")
    files: dict[str, list[Path]] = {}
    for study, rules in ((DONE, OTHER_TASKS), (WAITING, RULES)):
        for instance in four_views(study):
            written = spool.write(CONTENT, preface=b"head")
            with database.transaction(LISTENER) as tx:
                row = replace(
                    instance,
                    spool_name=written.name,
                    sha256=written.sha256,
                    size_bytes=written.size_bytes,
                )
                register_instance(tx, row, rules)
            files.setdefault(study, []).append(spool.path_of(written.name))
    yield Stored(data_dir, database, files)
    database.close()


def test_whole_files_are_verified(stored: Stored) -> None:
    answer = stored.study("verify")
    assert (answer.status, answer.out) == (0, "8 files hold what was received, 0 what was made.\n")
    assert stored.study("verify", DONE).out.startswith("4 files")


def test_damaged_and_missing_files_are_named_and_left(stored: Stored) -> None:
    damaged, missing, *_ = stored.files[DONE]
    damaged.write_bytes(b"headdata sat")
    missing.unlink()

    answer = stored.study("verify", "--json")

    assert answer.status == 1
    assert {(row["file"], row["state"], row["study_instance_uid"]) for row in answer.json} == {
        (damaged.name, "damaged", DONE),
        (missing.name, "missing", DONE),
    }
    assert damaged.exists()
    assert "send their studies again" in stored.study("verify").out
    assert stored.study("verify", WAITING).status == 0, "the other study is whole"


def test_an_unknown_study_is_named(stored: Stored) -> None:
    answer = stored.study("verify", "1.2.3")
    assert (answer.status, answer.out) == (4, "")
    assert "study list" in answer.err


def age(paths: list[Path]) -> None:
    long_ago = time.time() - 3600
    for path in paths:
        os.utime(path, (long_ago, long_ago))


def soon() -> str:
    """A time after all that was received."""
    return (datetime.now(UTC) + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S%z")


def test_pruning_removes_the_files_of_what_is_done_after_a_dry_run_that_removes_none(stored: Stored) -> None:
    age([*stored.files[DONE], *stored.files[WAITING]])

    tried = stored.study("prune", "--before", soon(), "--dry-run", "--json")
    assert [(row["study_instance_uid"], row["files"], row["size_bytes"]) for row in tried.json] == [
        (DONE, 4, 4 * len(b"head" + CONTENT))
    ]
    assert all(path.exists() for path in stored.files[DONE])
    assert stored.actions("study.files_removed") == []

    pruned = stored.study("prune", "--before", soon())
    assert pruned.status == 0
    assert "The files of 1 studies, 0.0 GiB, were removed." in pruned.out
    assert not any(path.exists() for path in stored.files[DONE])
    assert all(path.exists() for path in stored.files[WAITING])
    assert [event["study_instance_uid"] for event in stored.actions("study.files_removed")] == [DONE]
    verified = stored.study("verify")
    assert verified.status == 0, "what was removed on purpose is not missing"
    assert (
        verified.out == "4 files hold what was received, 0 what was made; 4 were removed after their time.\n"
    )
    (event,) = stored.actions("study.files_removed")
    when = f"removed on {event['at'][:10]} ({event['detail']['rule']})"
    assert f"The received files: {when}." in stored.study("verify", DONE).out
    assert len(stored.study("list", "--json").json) == 2
    assert stored.study("prune", "--before", soon()).out == "No study is so old and done.\n"


def test_without_a_time_the_setting_says_what_is_old(stored: Stored) -> None:
    for options, setting in (((), "retention.received_days"), (("--results",), "retention.results_days")):
        refused = stored.study("prune", *options)
        assert refused.status == 3
        assert setting in refused.err

    (stored.data_dir / "node.toml").write_text("[retention]\nreceived_days = 1\n")

    assert stored.study("prune").out == "No study is so old and done.\n"
    assert all(path.exists() for path in stored.files[DONE])


def test_a_study_whose_score_job_is_done_is_done(stored: Stored) -> None:
    with stored.database.transaction(WORKER) as tx:
        claim = jobs.claim(tx, JobKind.SCORE, lease_s=60, max_attempts=5)
        assert claim is not None
        jobs.finish(tx, claim)
    age([*stored.files[DONE], *stored.files[WAITING]])
    found = stored.study("prune", "--before", soon(), "--dry-run", "--json").json
    assert [row["study_instance_uid"] for row in found] == [DONE, WAITING]
