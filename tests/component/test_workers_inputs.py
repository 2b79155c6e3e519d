"""What lies on the disk is held against what was received, before anything is computed from it (S8)."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import deepcopy
from pathlib import Path

import pytest
from pydicom import dcmread

from db import jobs, queueing
from db.lifecycle import JobKind, JobState
from db.scoring import known_file_names
from db.session import Database
from db.tables import Analysis, AuditEvent, Instance, Job, ResultObject
from dicom_node.images.reader import ImageReader, SourceImage
from dicom_node.spool import Spool
from tests import results_contexts as given
from tests.running_node import until
from tests.scoring_node import ScoringNode, images_of, scoring_node
from tests.steered_node import OTHER_WORKER, SteeredNode, on_sqlite
from tests.unit.small_bundle import write_small_bundle

pytestmark = on_sqlite
LONG_S = 10_000


@pytest.fixture
def node(node: SteeredNode, tmp_path: Path) -> Iterator[ScoringNode]:
    with scoring_node(node, tmp_path) as scoring:
        scoring.change("activate", scoring.add(write_small_bundle(tmp_path / "champion", seed=1)))
        yield scoring


def stored_file(node: ScoringNode, number: int = 2) -> Path:
    return node.spool.path_of(node.steered.rows(Instance)[number].spool_name)


def only_job(node: ScoringNode) -> Job:
    (job,) = node.steered.jobs()
    return job


def result_files(node: ScoringNode) -> list[str]:
    return Spool(node.folder / "results").names()


@pytest.mark.parametrize("at", [-1, -100_000], ids=["last byte", "in the pixels"])
def test_one_flipped_bit_of_one_image_fails_the_job_and_gives_no_score(node: ScoringNode, at: int) -> None:
    node.receive(images_of(1))
    path = stored_file(node)
    received = path.read_bytes()
    damaged = bytearray(received)
    damaged[at] ^= 1
    path.write_bytes(damaged)

    node.worker().drain()

    job = only_job(node)
    assert (job.state, job.error_code, job.attempts) == (JobState.FAILED, "DAMAGED_INPUT", 1)
    assert path.name in (job.error or ""), "a person must find it"
    assert node.steered.rows(Analysis) == node.steered.rows(ResultObject) == []
    assert result_files(node) == []
    assert node.steered.actions()[-1] == "job.failed"
    assert node.steered.audited()[-1].study_instance_uid is not None

    path.write_bytes(received)
    with node.steered.transaction("anna") as tx:
        queueing.retry(tx, job.id)
    node.worker().drain()
    assert only_job(node).state == JobState.DONE
    assert len(node.steered.rows(Analysis)) == 1


def test_a_file_that_is_gone_is_named_and_nothing_is_scored(node: ScoringNode) -> None:
    node.receive(images_of(1))
    path = stored_file(node)
    path.unlink()
    node.worker().drain()
    job = only_job(node)
    assert (job.state, job.error_code) == (JobState.FAILED, "MISSING_INPUT")
    assert path.name in (job.error or "")
    assert node.steered.rows(Analysis) == []
    assert result_files(node) == []


def test_a_file_that_was_cut_short_is_damaged(node: ScoringNode) -> None:
    node.receive(images_of(1))
    stored_file(node).write_bytes(b"DICM")
    node.worker().drain()
    assert only_job(node).error_code == "DAMAGED_INPUT"


def test_an_attempt_whose_job_went_to_another_leaves_no_file_of_its_own(node: ScoringNode) -> None:
    """The lease ends while images are read; result files are written, and then the commit finds no row."""
    study = node.receive(images_of(1))

    class SlowReader(ImageReader):
        def read(self, path: Path, sop_instance_uid: str) -> SourceImage:
            if only_job(node).attempts == 1:
                node.steered.clock.advance(LONG_S)
                assert node.steered.claim(worker=OTHER_WORKER, max_attempts=None) is not None
            return super().read(path, sop_instance_uid)

    with SlowReader() as reader:
        ScoringNode(node.steered, node.folder, reader).worker().drain()
    job = only_job(node)
    assert (job.state, job.lease_owner, job.attempts) == (JobState.RUNNING, OTHER_WORKER, 2)
    assert result_files(node) == []
    assert node.steered.rows(ResultObject) == []
    assert "job.scored" not in [event.action for event in node.steered.rows(AuditEvent)]

    node.steered.clock.advance(LONG_S)
    with node.steered.transaction("anna") as tx:
        assert jobs.give_up_dead(tx, max_attempts={JobKind.SCORE: 2}) == 1
        queueing.retry(tx, job.id)
    node.worker().drain()
    assert node.job_of(study).state == JobState.DONE
    assert sorted(result_files(node)) == sorted(row.file_name for row in node.steered.rows(ResultObject))


def score_while_locked(
    node: ScoringNode, log: io.StringIO, end: Callable[[sqlite3.Connection], object]
) -> list[str]:
    """Score while the database is locked from the first image until the worker told that its outcome waits.

    Returns which images were read; ``end`` ends the transaction of whoever holds the lock.
    """
    database, read = node.steered.database, list[str]()
    file = str(database.engine.url.database)
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:

        class LockingReader(ImageReader):
            def read(self, path: Path, sop_instance_uid: str) -> SourceImage:
                read.append(sop_instance_uid)
                if not other.in_transaction:
                    other.execute("BEGIN IMMEDIATE")
                return super().read(path, sop_instance_uid)

        def unlock() -> None:
            until(lambda: "job.outcome_waits" in log.getvalue(), 150, "the first try to commit")
            end(other)

        node.steered.database = Database(
            f"sqlite:///{file}", database.trail, clock=node.steered.clock, lock_timeout_s=0.1
        )
        with LockingReader() as reader, ThreadPoolExecutor(1) as pool:
            unlocked = pool.submit(unlock)
            ScoringNode(node.steered, node.folder, reader).worker().drain()
            unlocked.result()
        node.steered.database.close()
        node.steered.database = database
    return read


def test_a_study_is_not_scored_again_because_the_database_was_away_at_its_end(
    node: ScoringNode, log: io.StringIO
) -> None:
    """S8, S9."""
    study = node.receive(images_of(1))
    read = score_while_locked(node, log, sqlite3.Connection.rollback)

    assert node.job_of(study).attempts == 1
    assert len(read) == len(set(read)) == 4
    assert len(node.steered.rows(Analysis)) == 1
    assert sorted(result_files(node)) == sorted(row.file_name for row in node.steered.rows(ResultObject))


def test_result_files_stay_for_the_sweep_where_nobody_can_tell_whether_they_have_rows(
    node: ScoringNode, log: io.StringIO
) -> None:
    """The job is no longer the worker's when the database is back: it may have ended it by its first try."""
    study = node.receive(images_of(1))

    def take_the_job(other: sqlite3.Connection) -> None:
        other.execute("UPDATE job SET lease_owner = ?, attempts = attempts + 1", [OTHER_WORKER])
        other.commit()

    score_while_locked(node, log, take_the_job)
    left = result_files(node)
    assert left
    assert node.steered.rows(ResultObject) == []

    node.steered.clock.advance(LONG_S)
    with node.steered.transaction("anna") as tx:
        assert jobs.give_up_dead(tx, max_attempts={JobKind.SCORE: 1}) == 1
        queueing.retry(tx, only_job(node).id)
    node.worker().drain()
    assert node.job_of(study).state == JobState.DONE
    with node.steered.reading() as session:
        known = known_file_names(session, result_files(node))
    assert sorted(node.results.sweep(known, grace_s=-1).orphans) == sorted(left)


def test_results_bear_the_patient_id_of_the_images_that_have_one(node: ScoringNode) -> None:
    *nameless, last = sorted(images_of(1), key=lambda image: str(image.SOPInstanceUID))
    named = str(last.PatientID)
    for image in nameless:
        image.PatientID = ""
    study = node.receive([*nameless, last])

    node.worker().drain()

    assert node.document_of(study)["outcome"] == "scored"
    results = [dcmread(node.results.path_of(row.file_name)) for row in node.steered.rows(ResultObject)]
    assert named
    assert {result.PatientID for result in results} == {named}


def test_images_of_two_patients_in_one_study_are_not_scored_and_the_report_says_why(
    node: ScoringNode,
) -> None:
    images = images_of(1)
    images[2].PatientID = "ANOTHER-2"
    study = node.receive(images)

    node.worker().drain()

    document = node.document_of(study)
    assert (document["outcome"], document["study_probability"]) == ("refused", None)
    assert [refusal["code"] for refusal in document["refusals"]] == [
        "NO_SCORABLE_IMAGE",
        *["SEVERAL_PATIENTS"] * 4,
    ]
    reports = [r for r in node.steered.rows(ResultObject) if r.kind == "text_report"]
    (report,) = (dcmread(node.results.path_of(row.file_name)) for row in reports)
    said = given.texts(report)
    assert "AI result: NONE. The study was not scored; this does not mean that it is normal." in said
    assert "L CC not analysed: images of the study bear different Patient IDs." in said


def test_the_record_of_a_refusal_reads_as_it_does_in_the_report(node: ScoringNode) -> None:
    images = images_of(1)
    twin = deepcopy(images[0])
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = f"{images[0].SOPInstanceUID[:-2]}.1"
    study = node.receive([twin, *images])

    node.worker().drain()

    (refusal,) = node.document_of(study)["refusals"]
    assert refusal["code"] == "DUPLICATE_VIEW"
    (row,) = (r for r in node.steered.rows(ResultObject) if r.kind == "text_report")
    said = given.texts(dcmread(node.results.path_of(row.file_name)))
    assert f"{refusal['sentence']}." in said
    assert refusal["sentence"].startswith("A further R CC image not analysed")
