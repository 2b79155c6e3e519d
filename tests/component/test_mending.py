"""A study whose files were lost or damaged goes on by itself as soon as they are whole again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import event

from db import jobs
from db.handoff import ReceivedInstance, Registration
from db.lifecycle import JobState
from db.tables import Analysis, Instance, Job, Revision
from dicom_node.listener.registration import Registrar
from tests.scoring_node import ScoringNode, images_of, scoring_node
from tests.steered_node import LISTENER, RULES, SteeredNode, on_sqlite
from tests.unit.small_bundle import write_small_bundle
from workers.mending import Mending
from workers.stored_files import unsound_files

HEAD = b"head of a Part 10 file"
DISPATCHER = "dispatch@host-a:15"

pytestmark = on_sqlite


@pytest.fixture
def node(node: SteeredNode, tmp_path: Path) -> Iterator[ScoringNode]:
    with scoring_node(node, tmp_path) as scoring:
        scoring.change("activate", scoring.add(write_small_bundle(tmp_path / "champion", seed=1)))
        yield scoring


@pytest.fixture
def mending(node: ScoringNode) -> Mending:
    return Mending(node.steered.database, node.spool, DISPATCHER)


def failed_study(node: ScoringNode) -> tuple[Path, bytes]:
    """Damage a file of a new study and let its job fail; return the file and what was received."""
    node.receive(images_of(1))
    path = node.spool.path_of(node.steered.rows(Instance)[2].spool_name)
    received = path.read_bytes()
    path.write_bytes(HEAD + bytes([received[0] ^ 1]) + received[1:])
    node.worker().drain()
    job = only_job(node)
    assert (job.state, job.error_code) == (JobState.FAILED, "DAMAGED_INPUT")
    assert "send the study again" in (job.error or ""), "it says what mends it"
    return path, received


def only_job(node: ScoringNode) -> Job:
    (job,) = node.steered.jobs()
    return job


def send_again(node: ScoringNode, content: bytes, sop_instance_uid: str) -> Registration:
    """Take in the bytes of an instance once more, as a listener does."""
    (row,) = node.steered.rows(Instance, Instance.sop_instance_uid == sop_instance_uid)
    assert dcmread(BytesIO(content), stop_before_pixels=True).SOPInstanceUID == sop_instance_uid
    file = node.spool.write([content])
    same = {name: getattr(row, name) for name in ReceivedInstance.__dataclass_fields__ if hasattr(row, name)}
    uids = dcmread(BytesIO(content), stop_before_pixels=True)
    instance = ReceivedInstance(
        **{
            **same,
            "study_instance_uid": str(uids.StudyInstanceUID),
            "patient_id": "P-1",
            "accession_number": "A-1",
            "for_presentation": True,
            "spool_name": file.name,
        }
    )
    registrar = Registrar(node.steered.database, RULES, spool=node.spool, actor=LISTENER)
    return registrar.register(replace(instance, sha256=file.sha256, size_bytes=file.size_bytes))


def test_a_file_that_is_restored_lets_its_job_go_on(node: ScoringNode, mending: Mending) -> None:
    path, received = failed_study(node)
    assert mending.look() == 0
    assert only_job(node).state == JobState.FAILED, "nothing changed yet"

    path.write_bytes(received)

    assert mending.look() == 1
    assert node.steered.audited()[-1].action == "job.retried"
    assert node.steered.audited()[-1].actor == DISPATCHER
    node.worker().drain()
    assert only_job(node).state == JobState.DONE
    assert len(node.steered.rows(Analysis)) == 1
    assert mending.look() == 0


def test_a_damaged_file_is_mended_by_sending_it_again(node: ScoringNode, mending: Mending) -> None:
    path, received = failed_study(node)
    uid = node.steered.rows(Instance)[2].sop_instance_uid
    report = unsound_files(node.steered.database, node.spool)
    assert [(each.sop_instance_uid, each.state, each.file) for each in report.unsound] == [
        (uid, "damaged", path.name)
    ]
    assert (report.whole, report.removed) == (3, 0)

    assert send_again(node, received, uid) is Registration.RESTORED
    assert path.exists(), "what it holds stays for who looks into it, until a sweep"
    assert mending.look() == 1
    node.worker().drain()
    assert only_job(node).state == JobState.DONE
    assert unsound_files(node.steered.database, node.spool).unsound == ()
    assert send_again(node, received, uid) is Registration.DUPLICATE, "nothing is left to mend"


def test_files_that_are_whole_queue_their_job_once_and_not_for_ever(node: ScoringNode) -> None:
    """A worker on another machine keeps seeing a damaged file; a person must look."""
    node.receive(images_of(1))
    mending = Mending(node.steered.database, node.spool, DISPATCHER)
    queued = []
    for _ in range(2):
        claimed = node.steered.claimed()
        with node.steered.transaction(claimed.owner) as tx:
            jobs.give_up(tx, claimed, code="DAMAGED_INPUT", reason="as that machine sees it")
        queued.append(mending.look())
        if not queued[-1]:
            break
    assert queued == [1, 0]
    assert only_job(node).state == JobState.FAILED


def test_jobs_that_failed_otherwise_or_were_replaced_stay_failed(node: ScoringNode) -> None:
    mending = Mending(node.steered.database, node.spool, DISPATCHER)
    node.receive(images_of(1))
    node.receive(images_of(2))
    for code in ("UNEXPECTED", "MISSING_INPUT"):
        claimed = node.steered.claimed()
        with node.steered.transaction(claimed.owner) as tx:
            jobs.give_up(tx, claimed, code=code, reason="for a test")
    replaced = claimed
    with node.steered.transaction("anna") as tx:
        revision = tx.session.get_one(Revision, replaced.revision_id)
        later = {"state": "complete", "complete_reason": "command", "completed_at": tx.now}
        times = {"opened_at": tx.now, "last_instance_at": tx.now, "due_at": tx.now}
        tx.session.add(Revision(study_id=revision.study_id, number=2, **later, **times))
        tx.session.flush()
        scored = tx.session.query(Revision).filter_by(study_id=revision.study_id, number=2).one()
        tx.session.add(
            Job(
                id="b",
                kind="score",
                revision_id=scored.id,
                task=replaced.task,
                state="done",
                attempts=1,
                next_try_at=tx.now,
                created_at=tx.now,
            )
        )
    assert mending.look() == 0
    assert {job.state for job in node.steered.jobs() if job.id != "b"} == {JobState.FAILED}


def test_a_look_asks_the_database_as_often_for_many_lost_studies_as_for_one(
    node: ScoringNode, mending: Mending
) -> None:
    """A disk that is lost fails thousands of jobs, and a look comes every few seconds."""
    asked: list[str] = []
    event.listen(node.steered.database.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    counts = []
    for number in range(1, 4):
        node.receive(images_of(number))
        claimed = node.steered.claimed()
        with node.steered.transaction(claimed.owner) as tx:
            jobs.give_up(tx, claimed, code="MISSING_INPUT", reason="for a test")
        for row in node.steered.rows(Instance):
            node.spool.remove(row.spool_name)
        asked.clear()
        assert mending.look() == 0
        counts.append(len(asked))
    assert counts == [counts[0]] * 3


def test_a_study_whose_file_is_gone_waits_until_it_is_sent_again(node: ScoringNode, mending: Mending) -> None:
    path, received = failed_study(node)
    path.unlink()
    assert mending.look() == 0

    assert (
        send_again(node, received, node.steered.rows(Instance)[2].sop_instance_uid) is Registration.RESTORED
    )

    assert mending.look() == 1
