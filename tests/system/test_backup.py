"""The documented commands back up a node at work and restore it elsewhere; it goes on, nothing is lost."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from db.lifecycle import JobState
from tests.backup_page import BACK_UP, RESTORE, documented, run
from tests.command_line import command
from tests.running_node import WORK_S, RunningNode, until
from tests.simulators.pacs import Behaviour, SimulatedPacs
from training.datasets.phantom_objects import study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ME = pwd.getpwuid(os.getuid()).pw_name


def test_a_backup_of_a_working_node_is_restored_by_the_documented_commands(tmp_path: Path) -> None:
    backup, keys = tmp_path / "backup", tmp_path / "keys"
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with SimulatedPacs() as pacs:
        with RunningNode(tmp_path / "first", [pacs.destination]) as first:
            first.serve(timeout_s=300)
            first.send(study(seed=1, rows=640, columns=512))
            first.wait_until_delivered(1, timeout_s=120)
            pacs.behave(Behaviour.REFUSE_CONNECTION)
            first.send(study(seed=2, rows=640, columns=512))
            until(
                lambda: [j["state"] for j in first.jobs()] == ["done"] * 2, WORK_S, "the second study's score"
            )
            first.send(study(seed=3, rows=640, columns=512)[:1])  # open when the copy is made, and after

            run(documented(BACK_UP, node=first.data_dir, backup=backup, keys=keys))

        delivered = len(pacs.stored)
        second = RunningNode(tmp_path / "second", [pacs.destination])
        run(documented(RESTORE, user=ME, node=second.data_dir, backup=backup, keys=keys))
        where = ("--data-dir", second.data_dir)
        assert command("db", "check", *where).status == 0
        assert command("audit", "verify", *where).status == 0
        assert [path.stat().st_mode & 0o077 for path in (second.data_dir, second.data_dir / "keys")] == [0, 0]

        pacs.behave(Behaviour.ACCEPT)
        with second:
            second.serve(timeout_s=300)
            # The copy knows the first node's processes as alive, so the second is waited for by its answers.
            second.send(study(seed=3, rows=640, columns=512), timeout_s=300)
            second.wait_until_delivered(3, timeout_s=120)
            until(
                lambda: {job["state"] for job in second.jobs(kind=None)} == {JobState.DONE},
                WORK_S,
                "all work",
            )
            assert second.verify_audit().ok

    assert len(pacs.stored) > delivered
    assert {len(hashes) for hashes in pacs.hashes.values()} == {1}, "one content for each UID"
