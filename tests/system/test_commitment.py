"""A whole node asks for storage commitment and answers for it; its processes die at every step of that."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.audit.reading import AuditFilter, query
from dicom_node.crashpoints import VARIABLE
from tests.running_node import START_S, WORK_S, RunningNode, until
from tests.simulators.asking_modality import Modality
from tests.simulators.committing_pacs import Commitment, CommittingPacs
from training.datasets.phantom_objects import study
from training.datasets.phantoms import LesionKind

pytestmark = pytest.mark.timeout(600)

KINDS = {("R", "CC"): (LesionKind.SPIC, True), ("R", "MLO"): (LesionKind.SPIC, True)}


def committed(node: RunningNode) -> bool:
    return {row["delivery_state"] for row in node.results()} == {"committed"}


def commit_through_a_node_that_dies_once(name: str, folder: Path) -> None:
    """Run a node one of whose processes dies at a crash point, and show that all results are committed."""
    marker = folder / "died"
    reports_itself = name.startswith("listener")
    behaviour = Commitment.LATER if reports_itself else Commitment.AT_ONCE
    with (
        CommittingPacs(behaviour) as pacs,
        RunningNode(
            folder,
            settings={
                "destinations": [f"{pacs.destination}+commitment"],
                "training": {"workers": 0},
                "delivery": {"commitment_wait_s": 0.5 if reports_itself else 5.0},
            },
            environment={VARIABLE: f"{name}@{marker}"},
        ) as node,
    ):
        node.start("serve")
        node.wait_for_processes({"listen", "dispatch", "score", "deliver", "commit"})
        node.send(study(seed=3, kinds=KINDS, rows=640, columns=512))
        node.wait_until_delivered(1)
        if reports_itself:
            until(lambda: bool(pacs.requests), WORK_S, "the request")
            assert pacs.report_to(node.address.port, pacs.requests[0]) is None, "the listener died"
            until(lambda: node.log.count("listener.ready") >= 2, START_S, "the listener's return")
            until(lambda: committed(node), WORK_S, "the record of the report")
            assert pacs.report_to(node.address.port, pacs.requests[0]) == 0x0000
        until(lambda: committed(node), WORK_S, "the commitment of every result")
        until(marker.exists, 60, "the death at the crash point")
        assert all(len(contents) == 1 for contents in pacs.contents.values())
        assert set(pacs.contents) == {row["sop_instance_uid"] for row in node.results()}
        assert node.verify_audit().ok


@pytest.mark.slow
def test_every_result_is_committed_though_the_worker_dies_before_its_request_leaves(tmp_path: Path) -> None:
    commit_through_a_node_that_dies_once("commit.noted", tmp_path)


@pytest.mark.slow_proof
@pytest.mark.parametrize(
    "name", ["commit.claimed", "commit.requested", "commit.committed", "listener.report_recorded"]
)
def test_every_result_is_committed_though_a_process_dies_at(name: str, tmp_path: Path) -> None:
    commit_through_a_node_that_dies_once(name, tmp_path)


@contextmanager
def answering_node(folder: Path, modality: Modality) -> Iterator[RunningNode]:
    """Run a node for a scanner that may ask it; its processes are the test's to start."""
    caller = {"title": "MAMMO1", "commitment_address": modality.address}
    with RunningNode(
        folder,
        settings={
            "callers": [caller, {"title": "SCANNER"}],
            "listener": {"commitment": True, "minimum_free_bytes": 0},
        },
    ) as node:
        yield node


def listen(node: RunningNode, crash_at: str | None = None) -> subprocess.Popen[bytes]:
    """Start a listener and wait until it takes associations."""
    ready = node.log.count("listener.ready")
    process = node.start("listen", environment={VARIABLE: crash_at} if crash_at else None)
    until(lambda: node.log.count("listener.ready") > ready, START_S, "the listener's start")
    return process


def died(process: subprocess.Popen[bytes]) -> bool:
    return process.wait(START_S) == -signal.SIGKILL


def committed_objects(modality: Modality) -> list[list[str]]:
    """Per report, the objects that it names as committed; every one is a success."""
    assert {event_type for event_type, _ in modality.reports} == {1}
    return [
        [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence]
        for _, report in modality.reports
    ]


def configurations(node: RunningNode) -> list[dict[str, object]]:
    """The settings that the audit trail tells, newest last."""
    with node.database.reading() as session:
        return [event.detail["settings"] for event in query(session, AuditFilter(action="node.configured"))]


def test_a_scanner_is_answered_though_the_listener_dies_with_its_request_and_the_worker_with_the_answer(
    tmp_path: Path,
) -> None:
    images = study(seed=3, kinds=KINDS, rows=64, columns=64)[:2]
    objects = [(str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in images]
    with Modality() as modality, answering_node(tmp_path, modality) as node:
        listener = listen(node, "listener.request_kept")
        node.send(images)

        assert modality.ask(node.address.port, objects) is None, "no response to the request"
        assert died(listener)
        (job,) = node.jobs(kind="commit")
        assert (job["state"], modality.reports) == ("running", [])

        worker = node.start("work", "--queues", "commit", environment={VARIABLE: "commit.reported"})
        assert died(worker)
        assert len(modality.reports) == 1
        node.start("work", "--queues", "commit")
        until(lambda: node.jobs(kind="commit")[0]["state"] == "done", WORK_S, "the end of the job")

        assert committed_objects(modality) == [[uid for _, uid in objects]] * 2, "the same answer twice"
        assert node.verify_audit().ok
        assert [told["listener.commitment"] for told in configurations(node)] == [True], "three starts, once"


def test_a_scanner_hears_the_same_again_though_the_listener_dies_once_it_answered(tmp_path: Path) -> None:
    images = study(seed=3, kinds=KINDS, rows=64, columns=64)[:2]
    objects = [(str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in images]
    with Modality() as modality, answering_node(tmp_path, modality) as node:
        listener = listen(node, "commit.reported")
        node.send(images)

        assert modality.ask(node.address.port, objects) == 0x0000
        assert died(listener)
        assert len(modality.reports) == 1
        node.start("work", "--queues", "commit")
        until(lambda: node.jobs(kind="commit")[0]["state"] == "done", WORK_S, "the end of the job")

        assert committed_objects(modality) == [[uid for _, uid in objects]] * 2
        assert node.verify_audit().ok
