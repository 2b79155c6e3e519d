"""A process dies between two steps of a study: it is still delivered, exactly once (S2-S11, R1, R5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.crashpoints import CRASHPOINTS, VARIABLE
from tests.redis_server import RedisServer, redis_server
from tests.running_node import RunningNode, until
from tests.simulators.pacs import SimulatedPacs
from training.datasets.phantom_objects import study
from training.datasets.phantoms import LesionKind

__all__ = ["redis_server"]

BROKER_ONLY = {"dispatcher.before_publish", "dispatcher.published"}
TRAIN_ONLY = {"train.claimed", "train.committed"}
COMMITMENT_ONLY = {name for name in CRASHPOINTS if name.startswith("commit.")} | {
    "listener.report_recorded",
    "listener.request_kept",
}
QUIET_ONLY = {"dispatcher.completed"}
ELSEWHERE = BROKER_ONLY | TRAIN_ONLY | COMMITMENT_ONLY
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


def send_a_study_through_a_node_that_dies_once(
    name: str, folder: Path, *, broker_url: str | None = None
) -> None:
    """Run a node one of whose processes dies at a crash point, and show that nobody notices in the PACS."""
    images = study(seed=3, kinds=KINDS, rows=640, columns=512)
    if name in QUIET_ONLY:
        images = images[:3]
    marker = folder / "died"
    quiet_period_s = 2.0 if name in QUIET_ONLY else 60.0
    with (
        SimulatedPacs() as pacs,
        RunningNode(
            folder,
            [pacs.destination],
            broker_url=broker_url,
            settings={
                "completeness": {"quiet_period_s": quiet_period_s},
                "training": {"workers": 0},
            },
            environment={VARIABLE: f"{name}@{marker}"},
        ) as node,
    ):
        node.start("serve")
        node.wait_for_processes({"listen", "dispatch", "score", "deliver"})
        node.send(images)
        node.wait_until_delivered(1)
        until(marker.exists, 10, "the death at the crash point")
        assert_delivered_exactly_once(node, pacs)
        until(lambda: "part.died" in node.log, 10, "the supervisor's notice")
        log = node.log
    assert log.count("part.died") == 1, "exactly one process died"
    assert "Traceback" not in log


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CRASHPOINTS if name not in ELSEWHERE])
def test_a_study_is_delivered_exactly_once_though_a_process_dies_at(name: str, tmp_path: Path) -> None:
    send_a_study_through_a_node_that_dies_once(name, tmp_path)


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.parametrize("name", sorted(BROKER_ONLY))
def test_a_study_is_delivered_exactly_once_though_the_dispatcher_dies_around_a_doorbell_at(
    name: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    send_a_study_through_a_node_that_dies_once(name, tmp_path, broker_url=redis_server.url)
