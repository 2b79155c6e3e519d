"""A study for whose network there is no memory: tried later, moved to the CPU, told in plain words."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from db.lifecycle import JobState
from tests.scoring_node import images_of, scoring_node
from tests.steered_node import SteeredNode, on_sqlite
from tests.unit.small_bundle import write_small_bundle
from workers.claim_loop import Terms
from workers.retry import Policy

TERMS = Terms(lease_s=60, hard_limit_s=300, policy=Policy(attempts=3, backoff_max_s=8))
FAR = 60.0  # longer than any backoff of these terms


@on_sqlite
def test_a_study_whose_network_finds_no_memory_is_tried_later_and_moved_to_the_cpu(
    node: SteeredNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    with scoring_node(node, tmp_path) as scoring:
        scoring.change("activate", scoring.add(write_small_bundle(tmp_path / "bundle")))
        loop = scoring.worker(terms=TERMS)
        scoring.receive(images_of(1))
        loop.drain()
        left = [5]

        def crowded(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
            if left[0]:
                left[0] -= 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            return convolve(self, images)

        convolve = nn.Conv2d.forward
        monkeypatch.setattr(nn.Conv2d, "forward", crowded)
        study = scoring.receive(images_of(2))
        loop.drain()
        (failed,) = [job for job in node.jobs() if job.error_code]
        assert (failed.state, failed.attempts, failed.error_code) == (JobState.QUEUED, 1, "DEVICE_MEMORY")
        assert "end what else runs there" in (failed.error or "")
        assert left == [2], "an image was tried twice, and once on the CPU"

        node.clock.advance(FAR)
        loop.drain()
        assert left == [0]
        document = scoring.document_of(study)
    assert (document["outcome"], len(document["images"])) == ("scored", 4)
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    (warned,) = [line for line in told if line["event"] == "score.moved_to_cpu"]
    assert (warned["level"], warned["job_id"], warned["batches"]) == ("warning", failed.id, 1)
    assert not [line for line in told if "exception" in line], "it is no unexpected error"
