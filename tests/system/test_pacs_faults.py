"""A PACS that misbehaves loses nothing and gets no duplicate; what the record says meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.command_line import command
from tests.running_node import WORK_S, RunningNode, until
from tests.simulators.pacs import Behaviour, SimulatedPacs
from training.datasets.phantom_objects import study
from training.datasets.phantoms import LesionKind

pytestmark = pytest.mark.timeout(600)

SPICULATED = {("R", "CC"): (LesionKind.SPIC, True), ("R", "MLO"): (LesionKind.SPIC, True)}
SEEDS = itertools.count(500)
REPORTS = {f"1.2.840.10008.5.1.4.1.1.88.{number}" for number in (11, 22, 33, 34)}
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0xA700, 0xC001


@dataclass(frozen=True)
class Ward:
    """A node and the PACS that it reports to."""

    node: RunningNode
    pacs: SimulatedPacs

    def send_study(self, *, suspicious: bool = False) -> str:
        """Send a new study, one with a segmentation if asked for; return its UID."""
        kinds = SPICULATED if suspicious else None
        images = study(seed=3 if suspicious else next(SEEDS), kinds=kinds, rows=640, columns=512)
        self.node.send(images)
        return str(images[0].StudyInstanceUID)

    def delivery(self, uid: str) -> dict[str, Any] | None:
        """Return the study's deliver job."""
        found = self.node.jobs(kind=None, study_instance_uid=uid)
        return next((job for job in found if job["kind"] == "deliver"), None)

    def results(self, uid: str) -> list[dict[str, Any]]:
        """Return the rows of ``result list`` of a study, as programs get them."""
        return self.command("result", "list", "--study", uid, "--json")

    def command(self, *arguments: str) -> Any:
        """Run a command on the node; return its JSON, where it prints some."""
        answer = command(*arguments, "--data-dir", self.node.data_dir)
        assert answer.status == 0, answer.err
        return answer.json if "--json" in arguments else answer.out

    def wait_for_attempts(self, uid: str, attempts: int) -> None:
        """Wait until so many attempts failed and were put back."""

        def tried() -> bool:
            job = self.delivery(uid)
            return job is not None and int(job["attempts"]) >= attempts and job["error"] is not None

        until(tried, WORK_S, f"{attempts} failed attempts")

    def wait_for_state(self, uid: str, state: str) -> None:
        """Wait until the deliver job is in a state."""
        until(lambda: (self.delivery(uid) or {}).get("state") == state, WORK_S, f"the delivery {state}")

    def assert_all_delivered_once(self, uid: str) -> None:
        """The PACS holds every result, one content per UID, and the record says so."""
        rows = self.results(uid)
        assert rows
        assert {row["delivery_state"] for row in rows} == {"delivered"}
        for row in rows:
            assert len(self.pacs.hashes[row["sop_instance_uid"]]) == 1
        assert self.pacs.violations == []


@pytest.fixture(scope="module")
def running_ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    with SimulatedPacs() as pacs, RunningNode(folder, [pacs.destination]) as node:
        node.start("listen")
        node.start("work", "--queues", "score,deliver")
        node.wait_for_processes({"listen", "score+deliver"})
        yield Ward(node, pacs)


@pytest.fixture
def ward(running_ward: Ward) -> Iterator[Ward]:
    """The node, with a PACS that behaves again after each test."""
    yield running_ward
    running_ward.pacs.behave(Behaviour.ACCEPT)


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (Behaviour.REFUSE_CONNECTION, None),
        (Behaviour.REJECT_TRANSIENT, None),
        (Behaviour.ABORT_AT_ASSOCIATION, None),
        (Behaviour.ACCEPT, OUT_OF_RESOURCES),
    ],
    ids=lambda value: value.name if isinstance(value, Behaviour) else value and f"{value:04X}",
)
def test_what_the_pacs_surely_does_not_have_is_pending_until_it_takes_it(
    ward: Ward, behaviour: Behaviour, status: int | None
) -> None:
    ward.pacs.behave(behaviour, status=status)
    uid = ward.send_study()
    ward.wait_for_attempts(uid, 2)
    rows = ward.results(uid)
    assert {row["delivery_state"] for row in rows} == {"pending"}
    assert not {row["sop_instance_uid"] for row in rows} & set(ward.pacs.hashes)
    ward.pacs.behave(Behaviour.ACCEPT)
    ward.wait_for_state(uid, "done")
    ward.assert_all_delivered_once(uid)


def test_a_line_that_drops_inside_an_object_is_never_taken_for_a_delivery(ward: Ward) -> None:
    ward.pacs.behave(Behaviour.DROP_DURING_DATA_SET)
    uid = ward.send_study()
    ward.wait_for_attempts(uid, 2)
    # A small object may be on its way whole before the line is seen to be down: then it is unknown.
    assert {row["delivery_state"] for row in ward.results(uid)} <= {"pending", "unknown"}
    ward.pacs.behave(Behaviour.ACCEPT)
    ward.wait_for_state(uid, "done")
    ward.assert_all_delivered_once(uid)


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour.DROP_AFTER_STORING, Behaviour.HALF_RESPONSE, Behaviour.WRONG_MESSAGE_ID],
    ids=lambda behaviour: behaviour.name,
)
def test_what_the_pacs_may_have_is_unknown_and_sent_again_with_the_same_bytes(
    ward: Ward, behaviour: Behaviour
) -> None:
    ward.pacs.behave(behaviour)
    uid = ward.send_study()
    ward.wait_for_attempts(uid, 1)
    rows = ward.results(uid)
    states = {row["delivery_state"] for row in rows}
    assert "unknown" in states
    assert states <= {"unknown", "pending"}, "never taken for delivered"
    doubtful = {row["sop_instance_uid"] for row in rows if row["delivery_state"] == "unknown"}
    assert doubtful & set(ward.pacs.hashes), "the PACS does have it"
    ward.pacs.behave(Behaviour.ACCEPT)
    ward.wait_for_state(uid, "done")
    ward.assert_all_delivered_once(uid)
    stored = [each.sop_instance_uid for each in ward.pacs.stored]
    assert any(stored.count(result) > 1 for result in doubtful), "it was sent again"


def test_a_refusal_that_passes_needs_no_person(ward: Ward) -> None:
    ward.pacs.behave(Behaviour.ACCEPT, status=CANNOT_UNDERSTAND, times=1)
    uid = ward.send_study()
    ward.wait_for_state(uid, "done")
    ward.assert_all_delivered_once(uid)
    first, *others = sorted(ward.results(uid), key=lambda row: -int(row["attempts"]))
    assert first["attempts"] == 2
    assert {row["attempts"] for row in others} <= {1}
    told = ward.command("audit", "query", "--study", uid, "--action", "result.turned_away", "--json")
    assert [(event["detail"]["sop_instance_uid"], event["detail"]["status"]) for event in told] == [
        (first["sop_instance_uid"], "C001")
    ]


def test_what_the_pacs_refuses_waits_for_a_person_and_the_rest_is_delivered(ward: Ward) -> None:
    ward.pacs.behave(Behaviour.ACCEPT, status=CANNOT_UNDERSTAND)
    uid = ward.send_study()
    ward.wait_for_state(uid, "failed")
    job = ward.delivery(uid)
    assert job is not None
    assert job["error"].startswith("UNDELIVERABLE")
    rows = ward.results(uid)
    seen = {(row["delivery_state"], row["last_status"], row["attempts"], row["detail"]) for row in rows}
    assert seen == {("refused", "C001", 3, "C001: cannot understand; refused 3 times")}
    ward.pacs.behave(Behaviour.ACCEPT)
    before = len(ward.pacs.stored)
    with pytest.raises(AssertionError, match="did not happen"):
        until(lambda: len(ward.pacs.stored) > before, 2, "a delivery without a person")
    ward.command("job", "retry", str(job["job_id"]))
    ward.wait_for_state(uid, "done")
    ward.assert_all_delivered_once(uid)


def test_one_refused_object_does_not_hold_up_the_others_of_its_study(ward: Ward) -> None:
    # This PACS does not know segmentations: it takes the reports alone.
    ward.pacs.sop_class_uids = frozenset(REPORTS)
    try:
        uid = ward.send_study(suspicious=True)
        ward.wait_for_state(uid, "failed")
        rows = ward.results(uid)
        states = {row["sop_class_uid"]: row["delivery_state"] for row in rows}
        reports = {sop_class: states.pop(sop_class) for sop_class in REPORTS if sop_class in states}
        assert set(reports.values()) == {"delivered"}
        assert states[SEGMENTATION] == "refused"
        assert set(states.values()) == {"refused"}
    finally:
        ward.pacs.sop_class_uids = None
    job = ward.delivery(uid)
    assert job is not None
    ward.command("job", "retry", str(job["job_id"]))
    ward.wait_for_state(uid, "done")
    ward.assert_all_delivered_once(uid)


def test_at_the_end_the_trail_verifies_and_the_pacs_holds_nothing_twice(ward: Ward) -> None:
    uid = ward.send_study()
    ward.wait_for_state(uid, "done")
    assert all(len(contents) == 1 for contents in ward.pacs.hashes.values())
    assert ward.node.verify_audit().ok
    assert "Traceback" not in ward.node.log
