"""Callers ask the node to commit what they sent: it answers for bytes that it reads again, not for rows."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StorageCommitmentPushModel

from db import commitment_answers, jobs
from db.errors import TransitionRefusedError
from db.lifecycle import JobKind, JobState
from db.tables import Instance, Job
from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor
from dicom_node.errors import DestinationUnavailableError
from dicom_node.listener.admission import Admission, Caller, Operation
from dicom_node.listener.commitment import MOST_ANSWERED_AT_ONCE, CommitmentService
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.registration import Registrar
from dicom_node.listener.server import Listener, Storing
from dicom_node.listener.transport import Port
from dicom_node.spool import Spool
from tests.listening import MG_FOR_PRESENTATION, encoded, mammogram, uid_of
from tests.simulators.asking_modality import Modality, request_for
from tests.simulators.raw_scu import Proposal, RawScu
from tests.steered_node import RULES, SteeredNode, on_sqlite
from workers.claim_loop import ClaimLoop, Terms
from workers.committing import CommitmentTerms, Committer
from workers.lease import Lease
from workers.retry import Policy, UndeliverableError

CT = "1.2.840.10008.5.1.4.1.1.2"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
N_ACTION_RQ = 0x0130
PATIENCE_S = 60
TIMEOUTS = DeliveryTimeouts(connect_s=PATIENCE_S, acse_s=PATIENCE_S, dimse_s=PATIENCE_S)


def request_without_a_transaction() -> Dataset:
    request = request_for("2.25.7", [(CT, "2.25.1")])
    del request.TransactionUID
    return request


@dataclass
class Receiving:
    """A node that receives, and what it tells its audit trail."""

    node: SteeredNode
    spool: Spool
    listener: Listener
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listener.port

    def store(self, *datasets: Dataset) -> list[tuple[str, str]]:
        """Send objects to it; return their references."""
        with RawScu(self.port, Proposal(MG_FOR_PRESENTATION, "1.2.840.10008.1.2.1")) as scu:
            for dataset in datasets:
                assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000
            scu.release()
        return [(MG_FOR_PRESENTATION, str(uid_of(dataset))) for dataset in datasets]

    def path_of(self, ordinal: int) -> Path:
        return self.spool.path_of(self.node.rows(Instance)[ordinal].spool_name)

    def work(self) -> None:
        """Do the commit jobs that are due, as a worker does."""
        committer = Committer(
            self.node.database,
            self.spool.path_of,
            Requestor("NODE", TIMEOUTS),
            terms=CommitmentTerms(1, 3600, 3),
        )
        terms = Terms(30, None, Policy(5, 300))
        loop = ClaimLoop(self.node.database, JobKind.COMMIT, committer.commit, terms=terms, owner="w@h:1")
        loop.drain()

    def job(self) -> Job:
        (job,) = self.node.jobs(JobKind.COMMIT)
        return job

    def wait_until(self, state: JobState) -> Job:
        """Wait for the answering thread, which nobody outside can be told of."""
        deadline = time.monotonic() + PATIENCE_S
        while self.job().state != state:
            assert time.monotonic() < deadline, f"the job stays {self.job().state}"
            time.sleep(0.02)
        return self.job()


Start = Callable[..., Any]


@pytest.fixture
def start(node: SteeredNode, tmp_path: Path) -> Start:
    """What runs a listener that answers for received objects."""

    @contextmanager
    def started(
        *,
        answers_to: dict[str, str] | None = None,
        admission: Admission | None = None,
        answers: bool = True,
        may_leave_s: float = 0.05,
    ) -> Iterator[Receiving]:
        spool = Spool(tmp_path / "spool")
        registrar = Registrar(node.database, RULES, spool=spool, actor="listen@host:1")
        events: list[tuple[str, dict[str, Any]]] = []
        service = CommitmentService(
            node.database,
            spool.path_of,
            actor="listen@host:1",
            on_event=lambda action, detail: events.append((action, detail)),
            answers_to=answers_to or {},
            answers_requests=answers,
            may_leave_s=may_leave_s,
        )
        listener = Listener(
            "NODE",
            Port("127.0.0.1", 0),
            Storing(spool, registrar.register),
            limits=ListenerLimits(min_free_bytes=0),
            on_event=lambda _action, _detail: None,
            services=[service.service],
            admission=admission,
        )
        listener.start()
        try:
            yield Receiving(node, spool, listener, events)
        finally:
            listener.stop(deadline_s=5)

    return started


def reasons(report: Dataset) -> dict[str, int]:
    return {item.ReferencedSOPInstanceUID: item.FailureReason for item in report.FailedSOPSequence}


def test_what_is_stored_is_committed_on_the_association_of_the_request(start: Start) -> None:
    with start() as receiving, Modality() as modality:
        objects = receiving.store(mammogram(1), mammogram(2))

        assert modality.ask(receiving.port, objects) == 0x0000

        receiving.wait_until(JobState.DONE)
        ((event_type, report),) = modality.reports
        assert (event_type, report.TransactionUID) == (1, "2.25.7")
        assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [
            uid for _, uid in objects
        ]
        assert "FailedSOPSequence" not in report
        told = [event for event in receiving.node.audited() if event.action.startswith("commitment")]
        assert [event.action for event in told] == ["commitment.asked", "commitment.answered"]
        assert json.loads(told[0].detail)["asker"] == "MAMMO1"


def test_each_object_that_cannot_be_answered_for_has_its_reason(start: Start) -> None:
    with start() as receiving, Modality() as modality:
        objects = receiving.store(*(mammogram(n) for n in range(1, 6)))
        receiving.store(mammogram(5, PatientID="OTHER"))
        receiving.path_of(1).unlink()
        whole = receiving.path_of(2).read_bytes()
        receiving.path_of(2).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        receiving.path_of(3).write_bytes(whole[:200])
        unknown, other_class = (MG_FOR_PRESENTATION, "2.25.404"), (CT, objects[0][1])

        assert modality.ask(receiving.port, [*objects[1:], unknown, objects[0]]) == 0x0000
        ((event_type, report),) = modality.reports
        assert event_type == 2
        assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [objects[0][1]]
        assert reasons(report) == {
            objects[1][1]: 0x0112,  # its file is gone
            objects[2][1]: 0x0110,  # a bit is another
            objects[3][1]: 0x0110,  # cut short
            objects[4][1]: 0x0110,  # came with two contents
            "2.25.404": 0x0112,
        }

        modality.reports.clear()
        assert modality.ask(receiving.port, [other_class], transaction_uid="2.25.8") == 0x0000
        assert reasons(modality.reports[0][1]) == {objects[0][1]: 0x0119}


def test_an_asker_that_left_is_told_on_a_new_association(start: Start) -> None:
    with (
        Modality() as modality,
        start(answers_to={"MAMMO1": modality.address}) as receiving,
    ):
        objects = receiving.store(mammogram(1))
        with receiving.node.transaction("listen@host:1") as tx:
            commitment_answers.queue_answer(
                tx,
                asker="MAMMO1",
                transaction_uid="2.25.7",
                objects=objects,
                destination=modality.address,
                most_waiting=10,
            )
        receiving.work()

        modality.wait_for(1)
        assert modality.reports[0][0] == 1
        assert receiving.job().state == JobState.DONE


def test_an_asker_that_releases_at_once_is_let_go_and_told_on_a_new_association(start: Start) -> None:
    with (
        Modality() as modality,
        start(answers_to={"MAMMO1": modality.address}, may_leave_s=PATIENCE_S) as receiving,
    ):
        objects = receiving.store(mammogram(1))
        began = time.monotonic()
        assert modality.ask(receiving.port, objects, stays=False) == 0x0000
        assert time.monotonic() - began < PATIENCE_S / 2, "its release was answered"
        assert modality.reports == []

        receiving.wait_until(JobState.QUEUED)
        receiving.work()

        assert receiving.job().state == JobState.DONE
        assert [report.TransactionUID for _, report in modality.reports] == ["2.25.7"]


def asked_by(receiving: Receiving, transaction_uid: str) -> RawScu:
    """Let a peer ask for an object that nobody knows, and do nothing more."""
    scu = RawScu(receiving.port, Proposal(StorageCommitmentPushModel, ImplicitVRLittleEndian))
    uids = {0x0003: StorageCommitmentPushModel, 0x1001: PUSH_MODEL_INSTANCE}
    more = {number: uid.encode() + b"\0" * (len(uid) % 2) for number, uid in uids.items()}
    more[0x1008] = struct.pack("<H", 1)
    scu.send_command(N_ACTION_RQ, StorageCommitmentPushModel, None, more=more)
    scu.send_data(encode(request_for(transaction_uid, [(CT, "2.25.1")]), True, True) or b"")
    assert scu.read_status() == 0x0000
    return scu


def test_a_report_that_its_asker_did_not_answer_is_left_to_a_worker(start: Start) -> None:
    with start() as receiving, asked_by(receiving, "2.25.7") as scu:
        kind, _ = scu.read_pdu()
        assert kind == 0x04, "the report came"
        scu.read_pdu()
        scu.release()
        receiving.wait_until(JobState.QUEUED)
        assert "commitment.answered" not in receiving.node.actions()


def test_of_many_that_ask_and_stay_only_some_are_promised_their_answer(start: Start) -> None:
    with ExitStack() as stack:
        receiving = stack.enter_context(start(may_leave_s=PATIENCE_S))
        for number in range(MOST_ANSWERED_AT_ONCE + 2):
            stack.enter_context(asked_by(receiving, f"2.25.{number + 1}"))
        states = [job.state for job in receiving.node.jobs(JobKind.COMMIT)]
        assert sorted(states) == [JobState.QUEUED] * 2 + [JobState.RUNNING] * MOST_ANSWERED_AT_ONCE


def test_an_asker_that_left_without_an_address_is_named(start: Start) -> None:
    with start() as receiving:
        with receiving.node.transaction("listen@host:1") as tx:
            commitment_answers.queue_answer(
                tx,
                asker="MAMMO1",
                transaction_uid="2.25.7",
                objects=[(CT, "2.25.1")],
                destination=None,
                most_waiting=10,
            )
        receiving.work()
        assert receiving.job().state == JobState.FAILED
        assert "callers.commitment_address" in str(receiving.job().error)


@on_sqlite
@pytest.mark.parametrize(("days", "error"), [(6, DestinationUnavailableError), (8, UndeliverableError)])
def test_an_asker_that_is_away_is_tried_again_for_a_week(
    node: SteeredNode, tmp_path: Path, days: int, error: type[Exception]
) -> None:
    with node.transaction("listen@host:1") as tx:
        commitment_answers.queue_answer(
            tx,
            asker="MAMMO1",
            transaction_uid="2.25.7",
            objects=[(CT, "2.25.1")],
            destination="MAMMO1@127.0.0.1:1",
            most_waiting=10,
        )
    claim = replace(node.claimed(JobKind.COMMIT), first_started_at=datetime.now(UTC) - timedelta(days=days))
    committer = Committer(
        node.database, tmp_path.joinpath, Requestor("NODE", TIMEOUTS), terms=CommitmentTerms(1, 3600, 3)
    )
    with pytest.raises(error) as ended:
        committer.commit(claim, Lease(node.database, claim, lease_s=30, hard_limit_s=None))
    assert ended.type is error, "one that is away makes no other answer wait"


def test_the_same_request_again_is_answered_again_and_is_one_job(start: Start) -> None:
    with start(may_leave_s=0.01) as receiving, Modality() as modality:
        objects = receiving.store(mammogram(1))
        # More often than requests are answered at one time: who was answered leaves its place to the next.
        for count in range(1, MOST_ANSWERED_AT_ONCE + 2):
            assert modality.ask(receiving.port, objects) == 0x0000
            modality.wait_for(count)
            receiving.wait_until(JobState.DONE)
        assert len(receiving.node.jobs(JobKind.COMMIT)) == 1


def test_a_transaction_uid_that_names_another_request_is_refused(start: Start) -> None:
    with start() as receiving, Modality() as modality:
        objects = receiving.store(mammogram(1), mammogram(2))
        assert modality.ask(receiving.port, objects) == 0x0000
        receiving.wait_until(JobState.DONE)

        assert modality.ask(receiving.port, objects[:1]) == 0x0213
        assert receiving.events[-1][0] == "commitment.refused"
        assert "another request" in receiving.events[-1][1]["reason"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"action": 2}, 0x0123),
        ({"instance": "1.2.840.10008.1.20.1.2"}, 0x0112),
        ({"information": request_without_a_transaction()}, 0x0115),
        ({"objects": []}, 0x0115),
    ],
    ids=["another action", "another instance", "no transaction", "no object"],
)
def test_what_is_no_request_is_refused_and_leaves_nothing(
    start: Start, change: dict[str, Any], status: int
) -> None:
    with start() as receiving, Modality() as modality:
        arguments = {"objects": [(CT, "2.25.1")], **change}
        assert modality.ask(receiving.port, **arguments) == status
        assert receiving.node.jobs(JobKind.COMMIT) == []
        assert modality.reports == []


def test_a_node_that_does_not_answer_says_so(start: Start) -> None:
    with start(answers=False) as receiving, Modality() as modality:
        assert modality.ask(receiving.port, [(CT, "2.25.1")]) == 0x0124
        assert receiving.node.jobs(JobKind.COMMIT) == []


def test_a_caller_without_the_operation_cannot_ask(start: Start) -> None:
    admission = Admission("NODE", callers=[Caller("MAMMO1", operations=frozenset({Operation.STORE}))])
    with start(admission=admission) as receiving:
        entity = AE("MAMMO1")
        entity.add_requested_context(StorageCommitmentPushModel, ImplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", receiving.port)
        assert not association.accepted_contexts
        association.abort()


def test_too_many_waiting_requests_are_turned_away(node: SteeredNode) -> None:
    def ask(number: int) -> None:
        with node.transaction("listen@host:1") as tx:
            commitment_answers.queue_answer(
                tx,
                asker="MAMMO1",
                transaction_uid=f"2.25.{number}",
                objects=[(CT, "2.25.1")],
                destination=None,
                most_waiting=2,
            )

    ask(1)
    ask(2)
    with pytest.raises(TransitionRefusedError, match="too many"):
        ask(3)
    ask(2)
    assert len(node.jobs(JobKind.COMMIT)) == 2


def test_a_request_whose_listener_died_is_answered_by_a_worker(start: Start) -> None:
    with Modality() as modality, start() as receiving:
        objects = receiving.store(mammogram(1))
        with receiving.node.transaction("listen@host:9") as tx:
            job_id = commitment_answers.queue_answer(
                tx,
                asker="MAMMO1",
                transaction_uid="2.25.7",
                objects=objects,
                destination=modality.address,
                most_waiting=10,
            )
            assert jobs.claim(tx, JobKind.COMMIT, lease_s=300, max_attempts=None, job_id=job_id)
        receiving.work()
        assert modality.reports == []

        receiving.node.clock.advance(301)
        receiving.work()
        modality.wait_for(1)
        assert receiving.job().state == JobState.DONE
