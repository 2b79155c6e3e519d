"""Storage commitment with Orthanc, an archive of another maker, in both roles."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread

from db import commitments
from db.lifecycle import JobKind, JobState
from db.tables import Delivery
from dicom_node.delivery.dimse import DeliveryTimeouts, Outgoing, Requestor, send
from dicom_node.listener.commitment import CommitmentService
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.registration import Registrar
from dicom_node.listener.server import Listener, Storing
from dicom_node.listener.transport import Port
from dicom_node.results.builders import build_all
from dicom_node.spool import Spool
from tests import results_contexts as given
from tests.free_ports import free_port
from tests.listening import MG_FOR_PRESENTATION, encoded, mammogram, uid_of
from tests.simulators.orthanc import running_orthanc
from tests.simulators.raw_scu import Proposal, RawScu
from tests.steered_node import RULES, SteeredNode, four_views, on_sqlite, result_object
from workers.claim_loop import ClaimLoop, Terms
from workers.committing import CommitmentTerms, Committer
from workers.retry import Policy

pytestmark = on_sqlite

PATIENCE_S = 60
TIMEOUTS = DeliveryTimeouts(connect_s=PATIENCE_S, acse_s=PATIENCE_S, dimse_s=PATIENCE_S)


def listener_of(node: SteeredNode, spool: Spool, answers_to: dict[str, str], port: int = 0) -> Listener:
    service = CommitmentService(
        node.database,
        spool.path_of,
        actor="listen@host:1",
        on_event=lambda _action, _detail: None,
        answers_to=answers_to,
        answers_requests=True,
    )
    return Listener(
        "NODE",
        Port("127.0.0.1", port),
        Storing(spool, Registrar(node.database, RULES, spool=spool, actor="listen@host:1").register),
        limits=ListenerLimits(min_free_bytes=0),
        on_event=lambda _action, _detail: None,
        services=[service.service],
    )


def worker_of(node: SteeredNode, spool: Spool) -> ClaimLoop:
    committer = Committer(
        node.database,
        spool.path_of,
        Requestor("NODE", TIMEOUTS),
        terms=CommitmentTerms(0.2, 3600, 3),
    )
    terms = Terms(30, None, Policy(5, 300))
    return ClaimLoop(node.database, JobKind.COMMIT, committer.commit, terms=terms, owner="commit@host:1")


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another program does in its own time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def test_orthanc_commits_what_it_has_and_reports_what_it_has_not(node: SteeredNode, tmp_path: Path) -> None:
    built = build_all(given.positive())[:2]
    spool = Spool(tmp_path / "spool")
    listener = listener_of(node, spool, {})
    listener.start()
    archive = tmp_path / "orthanc"
    archive.mkdir()
    try:
        with running_orthanc(archive, {"NODE": listener.port}) as orthanc:
            results = [
                result_object(
                    ordinal,
                    sop_class_uid=item.sop_class_uid,
                    sop_instance_uid=item.sop_instance_uid,
                    sha256=hashlib.sha256(item.content).hexdigest(),
                )
                for ordinal, item in enumerate(built)
            ]
            node.receive(*four_views())
            node.finish_scoring(node.claimed(), results=results, destinations=[str(orthanc.destination)])
            claimed = node.claimed(JobKind.DELIVER)
            path = tmp_path / "first.dcm"
            path.write_bytes(built[0].content)
            syntax = str(dcmread(path).file_meta.TransferSyntaxUID)
            first = Outgoing(built[0].sop_instance_uid, built[0].sop_class_uid, syntax, path)
            told: list[object] = []
            send(
                [first],
                orthanc.destination,
                Requestor("NODE", TIMEOUTS),
                on_result=lambda _uid, result: told.append(result.status),
            )
            assert told == [0x0000]
            node.deliver(claimed)  # the second is believed to be there, as after a loss of the archive's disk
            with node.transaction(claimed.owner) as tx:
                commitments.queue_request(tx, claimed)
            worker_of(node, spool).drain()
            until(lambda: "delivered" not in [row.state for row in node.rows(Delivery)])
    finally:
        listener.stop(deadline_s=5)

    assert [row.state for row in node.rows(Delivery)] == ["committed", "pending"]
    assert "0112" in str(node.rows(Delivery)[1].detail)


def test_orthanc_is_told_what_the_node_has(node: SteeredNode, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    answers_to: dict[str, str] = {}
    archive = tmp_path / "orthanc"
    archive.mkdir()
    # The archive's port is known once it runs, the listener's must be known before.
    port = free_port()
    with running_orthanc(archive, {"NODE": port}) as orthanc:
        answers_to["ORTHANC"] = str(orthanc.destination)
        listener = listener_of(node, spool, answers_to, port)
        listener.start()
        try:
            image = mammogram(1)
            with RawScu(port, Proposal(MG_FOR_PRESENTATION, "1.2.840.10008.1.2.1")) as scu:
                assert scu.store(encoded(image), MG_FOR_PRESENTATION, uid_of(image)) == 0x0000
                scu.release()
            there = (MG_FOR_PRESENTATION, str(uid_of(image)))
            worker = worker_of(node, spool)
            outcomes = []
            for objects in ([there], [there, (MG_FOR_PRESENTATION, "2.25.404")]):
                transaction_uid = orthanc.ask_for_commitment("NODE", objects)

                def is_told(asked: str = transaction_uid) -> bool:
                    worker.drain()
                    return bool(orthanc.commitment(asked)["Status"] != "Pending")

                until(is_told)
                outcomes.append(orthanc.commitment(transaction_uid))
        finally:
            listener.stop(deadline_s=5)

    assert [outcome["Status"] for outcome in outcomes] == ["Success", "Failure"]
    (failure,) = outcomes[1]["Failures"]
    assert (failure["SOPInstanceUID"], failure["FailureReason"]) == ("2.25.404", 0x0112)
    assert {job.state for job in node.jobs(JobKind.COMMIT)} == {JobState.DONE}
