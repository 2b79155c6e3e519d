"""Processes die between two steps of a study: it is still delivered, exactly once (S2-S11, R1, R5).

A node is started with several crash points, so that one study meets them all: its listener, its scorer and
its sender die in turn, once or twice each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dicom_node.crashpoints import CRASHPOINTS, VARIABLE
from tests.redis_server import RedisServer, redis_server
from tests.running_node import RunningNode, until
from tests.simulators.pacs import SimulatedPacs
from training.datasets.phantom_objects import study
from training.datasets.phantoms import LesionKind

__all__ = ["redis_server"]

pytestmark = pytest.mark.timeout(600)

BROKER_ONLY = {"dispatcher.before_publish", "dispatcher.published"}
TRAIN_ONLY = {"train.claimed", "train.committed"}
COMMITMENT_ONLY = {name for name in CRASHPOINTS if name.startswith("commit.")} | {
    "listener.report_recorded",
    "listener.request_kept",
}
QUIET_ONLY = {"dispatcher.completed"}
ELSEWHERE = BROKER_ONLY | TRAIN_ONLY | COMMITMENT_ONLY
DEATHS_OF_ONE_STUDY = (
    (
        "listener.part_written",
        "listener.committed",
        "score.claimed",
        "score.decoded",
        "deliver.claimed",
        "deliver.object_sent",
    ),
    (
        "listener.durable",
        "listener.owed",
        "score.predicted",
        "score.files_written",
        "deliver.all_sent",
        "deliver.committed",
    ),
    ("listener.placed", "dispatcher.completed", "score.committed"),
)
KINDS = {("R", "CC"): (LesionKind.SPIC, True), ("R", "MLO"): (LesionKind.SPIC, True)}


def assert_delivered_exactly_once(node: RunningNode, pacs: SimulatedPacs) -> None:
    """The PACS holds what the node built, one content per UID, and the record agrees."""
    rows = node.results()
    assert {row["kind"] for row in rows} >= {"measurement_report_2d", "text_report"}
    assert len({row["sop_instance_uid"] for row in rows}) == len(rows)
    assert {row["delivery_state"] for row in rows} == {"delivered"}
    assert set(pacs.hashes) == {row["sop_instance_uid"] for row in rows}
    assert all(len(contents) == 1 for contents in pacs.hashes.values())
    (study_row,) = node.studies()
    assert (study_row["revision"], study_row["state"]) == (1, "complete")
    (job,) = node.jobs()
    assert job["state"] == "done"
    assert node.verify_audit().ok


def send_a_study_through_a_node_that_dies(
    names: Sequence[str], folder: Path, *, broker_url: str | None = None
) -> None:
    """Run a node whose processes die once at each crash point; show that nobody notices in the PACS."""
    # Files of more than 1 MiB are synced by themselves, smaller ones pass through the journal.
    rows = 1152 if "listener.part_written" in names else 640
    images = study(seed=3, kinds=KINDS, rows=rows, columns=512)
    is_quiet = not QUIET_ONLY.isdisjoint(names)
    if is_quiet:
        images = images[:3]
    markers = [folder / f"died at {name}" for name in names]
    orders = (f"{name}@{marker}" for name, marker in zip(names, markers, strict=True))
    with (
        SimulatedPacs() as pacs,
        RunningNode(
            folder,
            [pacs.destination],
            broker_url=broker_url,
            settings={
                # Longer than a slow disk takes for an image, or the study would be split in two.
                "completeness": {"quiet_period_s": 15.0 if is_quiet else 600.0},
                "training": {"workers": 0},
            },
            environment={VARIABLE: ",".join(orders)},
        ) as node,
    ):
        node.start("serve")
        node.wait_for_processes({"listen", "dispatch", "score", "deliver"})
        node.send(images)
        node.wait_until_delivered(1, timeout_s=300)
        for marker in markers:
            until(marker.exists, 60, f"the process that {marker.name}")
        assert_delivered_exactly_once(node, pacs)
        until(lambda: node.log.count("part.died") == len(names), 60, "the supervisor's notice of every death")
        log = node.log
    assert log.count("part.died") == len(names), "no other process died"
    assert "Traceback" not in log


def test_every_crash_point_of_a_study_is_met() -> None:
    met = [name for names in DEATHS_OF_ONE_STUDY for name in names]
    assert sorted([*met, *ELSEWHERE]) == sorted(CRASHPOINTS)


@pytest.mark.slow
@pytest.mark.parametrize("names", DEATHS_OF_ONE_STUDY, ids="+".join)
def test_a_study_is_delivered_exactly_once_though_processes_die_at(
    names: Sequence[str], tmp_path: Path
) -> None:
    send_a_study_through_a_node_that_dies(names, tmp_path)


@pytest.mark.slow
@pytest.mark.redis
def test_a_study_is_delivered_exactly_once_though_the_dispatcher_dies_around_a_doorbell(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    send_a_study_through_a_node_that_dies(sorted(BROKER_ONLY), tmp_path, broker_url=redis_server.url)
