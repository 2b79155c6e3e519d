"""A study for whose network there is no memory: tried later, moved to the CPU, told in plain words.

No GPU is needed: what is sent to it stays where it is, and the memory runs out as often as a test says.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from db import listing
from db.lifecycle import JobState
from tests.scoring_node import images_of, scoring_node
from tests.steered_node import SteeredNode, on_sqlite
from tests.unit.small_bundle import write_small_bundle
from workers.claim_loop import Terms
from workers.retry import Policy

TERMS = Terms(lease_s=60, hard_limit_s=300, policy=Policy(attempts=3, backoff_max_s=8))
FAR = 60.0  # longer than any backoff of these terms
LOOK_EVERY_S = 20
FAR_FROM_A_FULL_GPU = 400.0  # longer than the longest wait for one


@dataclass
class StandIn:
    """What takes the place of a GPU.

    Attributes
    ----------
    shortages : int
        Transfers to it that find no memory from now on.
    """

    shortages: int = 0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Let torch take a stand-in for a GPU."""
    stand_in = StandIn()
    of_tensors, of_networks = torch.Tensor.to, nn.Module.to

    def is_gpu(target: object) -> bool:
        return isinstance(target, torch.device) and target.type == "cuda"

    def tensor_to(tensor: torch.Tensor, target: Any, *more: Any, **options: Any) -> torch.Tensor:
        if not is_gpu(target):
            return of_tensors(tensor, target, *more, **options)
        if stand_in.shortages:
            stand_in.shortages -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tensor

    def network_to(network: nn.Module, target: Any, *more: Any, **options: Any) -> nn.Module:
        return network if is_gpu(target) else of_networks(network, target, *more, **options)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", tensor_to)
    monkeypatch.setattr(nn.Module, "to", network_to)
    return stand_in


@on_sqlite
@pytest.mark.parametrize(
    ("shortages", "device"),
    [(0, "cuda"), (1, "cuda"), (2, "cuda+cpu"), (8, "cpu")],
    ids=["none", "for a moment", "for one of four images", "for all of them"],
)
def test_the_analysis_names_the_device_that_computed_the_answer(
    node: SteeredNode, tmp_path: Path, gpu: StandIn, shortages: int, device: str
) -> None:
    with scoring_node(node, tmp_path) as scoring:
        scoring.change("activate", scoring.add(write_small_bundle(tmp_path / "bundle")))
        loop = scoring.worker(device="cuda")
        before = scoring.receive(images_of(1))
        loop.drain()
        gpu.shortages = shortages
        study = scoring.receive(images_of(2))
        loop.drain()
        assert gpu.shortages == 0
        assert scoring.document_of(before)["device"] == "cuda"
        assert scoring.document_of(study)["device"] == device


@on_sqlite
def test_a_study_that_was_refused_names_the_device_that_would_have_answered(
    node: SteeredNode, tmp_path: Path, gpu: StandIn
) -> None:
    with scoring_node(node, tmp_path) as scoring:
        of_others = write_small_bundle(tmp_path / "bundle", scanner_models=("ANOTHER",))
        scoring.change("activate", scoring.add(of_others))
        loop = scoring.worker(device="cuda")
        study = scoring.receive(images_of(1))
        loop.drain()
        document = scoring.document_of(study)
    assert (document["outcome"], document["device"]) == ("refused", "cuda")


@on_sqlite
@pytest.mark.parametrize("lasts_min", [10, 20], ids=["for ten minutes", "for longer"])
def test_a_job_for_a_full_gpu_waits_for_minutes_and_then_for_a_person(
    node: SteeredNode, tmp_path: Path, gpu: StandIn, lasts_min: int
) -> None:
    with scoring_node(node, tmp_path) as scoring:
        for_gpus = write_small_bundle(tmp_path / "bundle", processors=("cuda",))
        scoring.change("activate", scoring.add(for_gpus))
        loop = scoring.worker(device="cuda", terms=Terms(60, 300, Policy(attempts=5, backoff_max_s=300)))
        scoring.receive(images_of(1))
        loop.drain()
        gpu.shortages = 1000
        scoring.receive(images_of(2))
        for _ in range(lasts_min * 60 // LOOK_EVERY_S):
            loop.drain()
            node.clock.advance(LOOK_EVERY_S)
        with node.reading() as session:
            (row,) = [row for row in listing.jobs(session) if row["error"]]
        gpu.shortages = 0
        node.clock.advance(FAR_FROM_A_FULL_GPU)
        loop.drain()
        states = [job.state for job in node.jobs()]
    assert row["error"].startswith("DEVICE_MEMORY: The cuda had no memory left")
    assert "end what else runs there" in row["error"]
    assert "job retry" in row["error"]
    if lasts_min == 10:
        assert (row["state"], row["attempts"], row["next_try_at"] is None) == (JobState.QUEUED, 4, False)
        assert states == [JobState.DONE] * 2
    else:
        assert (row["state"], row["attempts"], row["next_try_at"]) == (JobState.FAILED, 5, None)
        assert JobState.FAILED in states


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
