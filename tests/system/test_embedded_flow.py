"""A node on its embedded default and two PACS: what goes in, what comes out, and who learns whose it was.

Every study here is of one patient whose name and id occur nowhere else, so that any leak can be found.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from db.lifecycle import JobState
from tests.command_line import command
from tests.free_ports import free_port
from tests.running_node import WORK_S, RunningNode, until
from tests.simulators.pacs import Behaviour, SimulatedPacs
from training.datasets.phantom_objects import study
from training.datasets.phantoms import LesionKind

pytestmark = pytest.mark.timeout(600)

NAME, PATIENT_ID, ACCESSION = "ZZCANARY^NAME", "ZZCANARYID", "ZZCANARYACC"
SPICULATED = {("R", "CC"): (LesionKind.SPIC, True), ("R", "MLO"): (LesionKind.SPIC, True)}
TID_1500_REPORT, SEGMENTATION = "measurement_report_2d", "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True)
class Hospital:
    """The node, its PACS, and an archive that tests switch off and on."""

    node: RunningNode
    pacs: SimulatedPacs
    archive: SimulatedPacs
    supervisor: psutil.Process
    metrics_port: int

    def command(self, *arguments: str | Path) -> str:
        """Run a command that finds the node by its data directory alone; return what it printed."""
        answer = command(*arguments, "--data-dir", self.node.data_dir)
        assert answer.status == 0, answer.err
        return answer.out

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the rows of a ``list`` command."""
        found: list[dict[str, Any]] = json.loads(self.command(*arguments, "--json"))
        return found

    def revisions_of(self, uid: str) -> dict[int, Mapping[str, Any]]:
        """Return a study's revisions by number."""
        return {int(str(r["revision"])): r for r in self.node.studies() if r["study_instance_uid"] == uid}

    def results_of(self, uid: str, revision: int = 1) -> list[dict[str, Any]]:
        """Return the result rows of a study's revision."""
        return [r for r in self.node.results() if (r["study_instance_uid"], r["revision"]) == (uid, revision)]

    def wait_for_results(self, uid: str, destination: SimulatedPacs, revision: int = 1) -> None:
        """Wait until a destination holds every result of a study's revision."""

        def is_there() -> bool:
            assert not self.node.jobs(kind=None, state=JobState.FAILED), self.node.log[-3000:]
            states = {
                row["delivery_state"]
                for row in self.results_of(uid, revision)
                if row["destination"] == str(destination.destination)
            }
            return states == {"delivered"}

        until(is_there, WORK_S, "the delivery")

    def stored_bytes(self, row: Mapping[str, Any]) -> bytes:
        """Return the file of a result object."""
        name = str(row["file"])
        return (self.node.data_dir / "results" / name[:2] / name).read_bytes()

    def object_of(self, uid: str, kind: str, revision: int = 1) -> Dataset:
        """Return one result object of a study's revision."""
        row = next(r for r in self.results_of(uid, revision) if r["kind"] == kind)
        return dcmread(BytesIO(self.stored_bytes(row)))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    with (
        SimulatedPacs() as pacs,
        SimulatedPacs("ARCHIVE") as archive,
        RunningNode(
            folder,
            [pacs.destination, archive.destination],
            # Two tests wait for it; the others need it to be longer than a slow disk takes for an image.
            settings={"completeness": {"quiet_period_s": 20.0}, "metrics": {"port": (port := free_port())}},
        ) as node,
    ):
        supervisor = node.start("serve")
        node.wait_for_processes({"listen", "dispatch", "score", "deliver", "metrics"})
        yield Hospital(node, pacs, archive, psutil.Process(supervisor.pid), port)


def images_of(
    seed: int, kinds: dict[tuple[str, str], tuple[LesionKind, bool]] | None = None
) -> list[Dataset]:
    return study(
        seed=seed,
        kinds=kinds,
        rows=640,
        columns=512,
        patient_name=NAME,
        patient_id=PATIENT_ID,
        accession_number=ACCESSION,
    )


def uid_of(images: list[Dataset]) -> str:
    return str(images[0].StudyInstanceUID)


def data_set_digest(part10: bytes) -> str:
    """Return the SHA-256 of a file's data set, without preamble and file meta information."""
    length = dcmread(BytesIO(part10), specific_tags=["PatientID"]).file_meta[0x00020000].value
    return hashlib.sha256(part10[128 + 4 + 12 + length :]).hexdigest()


def text_of(report: Dataset) -> str:
    """Return every text of a report's content tree."""
    return "\n".join(str(each.value) for each in report.iterall() if each.VR == "UT")


def test_the_fourth_view_completes_the_study_before_it_is_answered(hospital: Hospital) -> None:
    images = images_of(10)
    hospital.node.send(images[:3])
    assert hospital.revisions_of(uid_of(images))[1]["state"] == "open"
    hospital.node.send(images[3:])
    (revision,) = hospital.revisions_of(uid_of(images)).values()
    assert (revision["state"], revision["complete_reason"], revision["instances"]) == (
        "complete",
        "all_views",
        4,
    )
    arrived = datetime.fromisoformat(str(revision["last_instance_at"]))
    completed = datetime.fromisoformat(str(revision["completed_at"]))
    assert completed == arrived, "both in the transaction that the response waited for"
    (job,) = hospital.node.jobs(study_instance_uid=uid_of(images))
    assert job["revision"] == 1, "its job exists, too"


@pytest.mark.parametrize(("seed", "kinds"), [(3, SPICULATED), (21, None)], ids=["positive", "negative"])
def test_report_and_segmentation_arrive_at_the_pacs(
    hospital: Hospital, seed: int, kinds: dict[tuple[str, str], tuple[LesionKind, bool]] | None
) -> None:
    images = images_of(seed, kinds)
    uid = uid_of(images)
    hospital.node.send(images)
    hospital.wait_for_results(uid, hospital.pacs)
    (job,) = hospital.node.jobs(study_instance_uid=uid)
    assert (job["state"], job["outcome"], job["attempts"]) == ("done", "scored", 1)
    assert 0 <= float(str(job["study_probability"])) <= 1
    rows = [r for r in hospital.results_of(uid) if r["destination"] == str(hospital.pacs.destination)]
    kinds_built = [row["kind"] for row in rows]
    assert kinds_built.count(TID_1500_REPORT) == 1
    assert kinds_built.count("text_report") == 1
    if kinds is not None:
        assert SEGMENTATION in {row["sop_class_uid"] for row in rows}
    for row in rows:
        (content,) = hospital.pacs.hashes[row["sop_instance_uid"]]
        assert content == data_set_digest(hospital.stored_bytes(row)), "the bytes that were built"
        assert row["sha256"] == hashlib.sha256(hospital.stored_bytes(row)).hexdigest()
    report = hospital.object_of(uid, TID_1500_REPORT)
    assert report.StudyInstanceUID == uid
    assert report.PatientID == PATIENT_ID
    assert "PredecessorDocumentsSequence" not in report
    assert "not for clinical use" in text_of(report).lower()


def test_a_destination_that_is_down_holds_up_no_other_and_gets_the_same_bytes_later(
    hospital: Hospital,
) -> None:
    images = images_of(30)
    uid = uid_of(images)
    hospital.archive.behave(Behaviour.REFUSE_CONNECTION)
    try:
        hospital.node.send(images)
        hospital.wait_for_results(uid, hospital.pacs)
        waiting = [r for r in hospital.results_of(uid) if r["destination"].startswith("ARCHIVE")]
        assert {row["delivery_state"] for row in waiting} == {"pending"}
    finally:
        hospital.archive.behave(Behaviour.ACCEPT)
    hospital.wait_for_results(uid, hospital.archive)
    for row in waiting:
        same = row["sop_instance_uid"]
        assert hospital.archive.hashes[same] == hospital.pacs.hashes[same]
        assert len(hospital.archive.hashes[same]) == 1


def test_a_late_image_makes_a_revision_whose_report_names_the_one_it_replaces(hospital: Hospital) -> None:
    images = images_of(40)
    uid = uid_of(images)
    hospital.node.send(images)
    hospital.wait_for_results(uid, hospital.pacs)
    first = hospital.object_of(uid, TID_1500_REPORT)
    late = images_of(40)[0]
    late.SOPInstanceUID = generate_uid()
    late.file_meta.MediaStorageSOPInstanceUID = late.SOPInstanceUID
    late.InstanceNumber = 5
    hospital.node.send([late])
    until(lambda: bool(hospital.results_of(uid, 2)), WORK_S, "the second revision's results")
    hospital.wait_for_results(uid, hospital.pacs, 2)
    revisions = hospital.revisions_of(uid)
    assert (revisions[2]["state"], revisions[2]["complete_reason"]) == ("complete", "quiet_period")
    assert (revisions[1]["instances"], revisions[2]["instances"]) == (4, 5)
    second = hospital.object_of(uid, TID_1500_REPORT, 2)
    before = {row["sop_instance_uid"] for row in hospital.results_of(uid, 1)}
    after = {row["sop_instance_uid"] for row in hospital.results_of(uid, 2)}
    assert before.isdisjoint(after)
    named = {
        str(document.ReferencedSOPInstanceUID)
        for predecessor in second.PredecessorDocumentsSequence
        for series in predecessor.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
    }
    assert first.SOPInstanceUID in named
    assert named <= before
    assert all(len(hospital.pacs.hashes[result]) == 1 for result in before | after)


def test_three_views_are_scored_after_the_quiet_period_and_the_text_names_the_missing_one(
    hospital: Hospital,
) -> None:
    images = images_of(50)
    uid = uid_of(images)
    hospital.node.send([i for i in images if (i.ImageLaterality, i.ViewPosition) != ("L", "MLO")])
    until(lambda: bool(hospital.results_of(uid)), WORK_S, "the results of the incomplete study")
    hospital.wait_for_results(uid, hospital.pacs)
    (revision,) = hospital.revisions_of(uid).values()
    assert (revision["complete_reason"], revision["instances"]) == ("quiet_period", 3)
    (job,) = hospital.node.jobs(study_instance_uid=uid)
    assert (job["state"], job["outcome"]) == ("done", "partial")
    report = hospital.object_of(uid, TID_1500_REPORT)
    assert report.CompletionFlag == "PARTIAL"
    assert "L MLO" in text_of(hospital.object_of(uid, "text_report"))


def test_a_person_completes_a_study_by_command(hospital: Hospital) -> None:
    images = images_of(60)[:2]
    uid = uid_of(images)
    hospital.node.send(images)
    hospital.command("study", "complete", uid)
    (revision,) = hospital.revisions_of(uid).values()
    assert (revision["state"], revision["complete_reason"]) == ("complete", "command")
    hospital.wait_for_results(uid, hospital.pacs)
    (event,) = hospital.rows("audit", "query", "--study", uid, "--action", "study.complete")
    assert "@" in event["actor"]
    assert not event["actor"].startswith(("listen@", "dispatch@")), "a person, not a process"


def test_the_same_images_again_make_no_new_work(hospital: Hospital) -> None:
    images = images_of(70)
    uid = uid_of(images)
    hospital.node.send(images)
    hospital.wait_for_results(uid, hospital.pacs)
    before = hospital.revisions_of(uid), hospital.results_of(uid)
    hospital.node.send(images)
    after = hospital.revisions_of(uid), hospital.results_of(uid)
    assert (set(after[0]), len(after[1])) == (set(before[0]), len(before[1]))
    assert len(hospital.node.jobs(study_instance_uid=uid)) == 1


def test_what_is_exported_is_what_the_pacs_holds(hospital: Hospital, tmp_path: Path) -> None:
    images = images_of(80)
    uid = uid_of(images)
    hospital.node.send(images)
    hospital.wait_for_results(uid, hospital.pacs)
    hospital.command("result", "export", "--study", uid, "--out", tmp_path / "out")
    exported = {path.stem.rpartition("-")[2]: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(exported) == {row["sop_instance_uid"] for row in hospital.results_of(uid)}
    for result, content in exported.items():
        assert hospital.pacs.hashes[result] == {data_set_digest(content)}


def test_the_trail_tells_a_studys_whole_story_in_order_and_verifies(hospital: Hospital) -> None:
    images = images_of(90)
    uid = uid_of(images)
    hospital.node.send(images)
    hospital.wait_for_results(uid, hospital.pacs)
    events = hospital.rows("audit", "query", "--study", uid)
    actions = list(dict.fromkeys(event["action"] for event in events))
    told = ["instance.stored", "study.complete", "job.queued", "job.claimed", "job.scored", "result.accepted"]
    assert [action for action in actions if action in told] == told
    scored = next(event for event in events if event["action"] == "job.scored")
    assert scored["bundle"] == hospital.node.jobs(study_instance_uid=uid)[0]["bundle"]
    for option, value in (("--patient-id", PATIENT_ID), ("--accession", ACCESSION)):
        found = hospital.rows("audit", "query", option, value, "--limit", "100000")
        assert uid in {event["study_instance_uid"] for event in found}
    hospital.command("audit", "verify")


def test_doctor_is_content_and_the_tables_are_right(hospital: Hospital) -> None:
    findings = json.loads(hospital.command("doctor", "--json"))
    assert [f for f in findings if f["verdict"] == "problem"] == []
    (bundle,) = [f for f in findings if f["check"].startswith("bundle")]
    assert "demonstration" in bundle["found"]
    hospital.command("db", "check")


def test_nobody_learns_whose_study_it_was(hospital: Hospital, tmp_path: Path) -> None:
    images = images_of(100, SPICULATED)
    uid = uid_of(images)
    hospital.node.send(images)
    hospital.wait_for_results(uid, hospital.pacs)
    out = tmp_path / "trail.jsonl"
    hospital.command("audit", "export", "--out", out)
    printed = "".join(
        hospital.command(*words)
        for words in (
            ("study", "list", "--json"),
            ("study", "show", uid, "--json"),
            ("study", "show", uid),
            ("job", "list", "--all", "--json"),
            ("job", "show", str(hospital.node.jobs(study_instance_uid=uid)[0]["job_id"]), "--json"),
            ("result", "list", "--json"),
            ("audit", "query", "--json"),
            ("status", "--json"),
            ("doctor", "--json"),
        )
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{hospital.metrics_port}/metrics", timeout=60) as scraped:
        metrics = scraped.read().decode()
    family = [hospital.supervisor, *hospital.supervisor.children()]
    titles = "".join(" ".join(process.cmdline()) for process in family)
    assert {process.rlimit(psutil.RLIMIT_CORE) for process in family} == {(0, 0)}, "no core holds an image"
    names = "\n".join(str(path) for path in hospital.node.data_dir.rglob("*"))
    told = {
        "logs": hospital.node.log,
        "export": out.read_text(),
        "commands": printed,
        "metrics": metrics,
        "process titles": titles,
        "file names": names,
    }
    for where, text in told.items():
        assert text, where
        assert "ZZCANARY" not in text.upper(), where
    assert uid not in names, "no file is named after a UID"
    assert uid not in metrics, "no metric names a study"
    assert PATIENT_ID.encode() in (hospital.node.data_dir / "node.db").read_bytes() + b"".join(
        path.read_bytes() for path in hospital.node.data_dir.glob("node.db-wal")
    ), "the canary did fly: the database holds it for the auditor's queries"


def test_what_the_node_keeps_of_patients_is_for_its_own_user_alone(hospital: Hospital) -> None:
    folder = hospital.node.data_dir
    kept = [folder, *folder.glob("node.db*")]
    for name in ("spool", "results", "keys", "checkpoints"):
        kept += [folder / name, *(folder / name).rglob("*")]
    assert len(kept) > 20
    assert [path for path in kept if path.exists() and path.stat().st_mode & 0o077] == []
