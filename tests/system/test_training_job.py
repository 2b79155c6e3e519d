"""A training run that is left to a worker: minutes of work, so only where the environment asks for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from db import listing
from dicom_node import installation
from tests.running_node import RunningNode, until

VARIABLE = "DICOM_NODE_TEST_TRAINING"
LONGEST_S = 1500

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(LONGEST_S + 120),
    pytest.mark.skipif(VARIABLE not in os.environ, reason=f"trains for minutes; set {VARIABLE}=1 to run it"),
]


def test_a_queued_training_run_adds_its_bundle_and_does_not_let_it_answer(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        node.start("work", "--queues", "train")
        node.wait_for_processes({"train"})
        queued = subprocess.run(
            [
                *installation.console_script(),
                *("train", "demonstration", "--queue", "--seed", "7", "--data-dir", str(node.data_dir)),
            ],
            timeout=120,
            check=False,
        )
        assert queued.returncode == 0

        def ended() -> bool:
            (job,) = node.jobs(kind=None)
            return job["state"] in ("done", "failed")

        until(ended, LONGEST_S, "the end of the training run")
        (job,) = node.jobs(kind=None)
        assert (job["state"], job["error"]) == ("done", None)
        with node.database.reading() as session:
            bundles = {row["digest"]: row["role"] for row in listing.bundles(session)}
        assert bundles == {job["bundle"]: None}, "added, not activated"
        assert node.verify_audit().ok
