"""``result check`` and ``result show``: faults by rule, reports as text, overlays as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, dcmwrite

from db import jobs
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import AuditTrail
from db.handoff import register_instance
from db.lifecycle import JobKind
from db.scoring import finish_scoring
from db.session import Database
from dicom_node.cli.pictures import HEIGHT
from dicom_node.results.builders import RESULT_BUILDERS, build_all
from dicom_node.results.checks.together import SEGMENTATION
from dicom_node.results.slide import build_slide_study
from dicom_node.spool import Spool
from tests import localised_contexts as localised
from tests import results_contexts as given
from tests import slide_contexts as slides
from tests.command_line import command
from tests.steered_node import BUNDLE, LISTENER, RULES, WORKER, every, mammogram, result_object

BELOW_CAPTION = 40


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """One good object of each kind as a file, by kind."""
    found = {}
    for item in build_all(localised.masses(), RESULT_BUILDERS):
        found[item.kind] = tmp_path / f"{item.kind}.dcm"
        found[item.kind].write_bytes(item.content)
    return found


@pytest.fixture
def image_files(tmp_path: Path) -> list[Path]:
    paths = []
    for number, image in enumerate(given.images()):
        paths.append(tmp_path / f"image-{number}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def test_good_objects_have_no_fault(files: dict[str, Path], image_files: list[Path]) -> None:
    sources = [part for path in image_files for part in ("--source", path)]
    answer = command("result", "check", files["text_report"], files["presentation_state"], *sources)
    assert (answer.status, answer.out.strip()) == (0, "2 objects, no fault.")
    assert command("result", "check", files["text_report"], "--json").json == []


def test_a_fault_is_named_with_its_rule_and_file_and_the_exit_status_is_1(files: dict[str, Path]) -> None:
    report = dcmread(files["text_report"])
    report.VerificationFlag = "VERIFIED"
    report.save_as(files["text_report"])
    answer = command("result", "check", files["text_report"], files["presentation_state"], "--json")
    assert answer.status == 1
    (row,) = answer.json
    assert (row["rule"], row["level"], row["where"]) == ("SR-03", "project", "VerificationFlag")
    assert row["file"] == str(files["text_report"])
    assert row["sop_instance_uid"] == report.SOPInstanceUID
    assert "SR-03" in command("result", "check", files["text_report"]).out


def test_a_result_of_other_images_is_a_fault(files: dict[str, Path], image_files: list[Path]) -> None:
    other = dcmread(image_files[0])
    other.PatientID = "SOMEBODY-ELSE"
    other.save_as(image_files[0])
    answer = command("result", "check", files["text_report"], "--source", image_files[0], "--json")
    assert answer.status == 1
    assert ("SRC-01", "PatientID") in {(row["rule"], row["where"]) for row in answer.json}
    assert "SOMEBODY" not in answer.out


def test_objects_of_several_revisions_and_studies_are_each_held_against_their_own(tmp_path: Path) -> None:
    paths = []
    other_study = given.sources(StudyInstanceUID="2.25.4711")
    for name, context in (
        ("first", localised.masses()),
        ("second", localised.superseding()),
        ("other", localised.masses(other_study)),
        ("slides", slides.study()),
    ):
        build = build_slide_study if name == "slides" else build_all
        for item in build(context):  # type: ignore[operator]
            paths.append(tmp_path / f"{name}-{item.kind}-{item.sop_instance_uid}.dcm")
            paths[-1].write_bytes(item.content)
    answer = command("result", "check", *paths)
    assert (answer.status, answer.out.strip()) == (0, f"{len(paths)} objects, no fault.")

    unlisted = dcmread(next(tmp_path.glob("second-text_report-*")))
    evidence = unlisted.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    kept = [s for s in evidence if s.ReferencedSOPSequence[0].ReferencedSOPClassUID != SEGMENTATION]
    assert 0 < len(kept) < len(evidence)
    unlisted.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence = kept
    unlisted.save_as(next(tmp_path.glob("second-text_report-*")))
    faults = {
        (row["sop_instance_uid"], row["rule"]) for row in command("result", "check", *paths, "--json").json
    }
    assert faults == {(unlisted.SOPInstanceUID, "SET-06")}


def test_each_study_is_held_against_its_own_images(tmp_path: Path, image_files: list[Path]) -> None:
    paths = []
    for number, sources in enumerate((given.sources(), given.sources(StudyInstanceUID="2.25.4711"))):
        (item,) = build_all(localised.masses(sources), ["text_report"])
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(item.content)
    sources = [part for path in image_files for part in ("--source", path)]
    assert command("result", "check", *paths, *sources, "--json").json == []
    alone = command("result", "check", paths[1], *sources, "--json").json
    assert ("SRC-01", "StudyInstanceUID") in {(row["rule"], row["where"]) for row in alone}


def test_what_is_no_dicom_file_is_a_wrong_use(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no DICOM file")
    for verb in ("check", "show"):
        answer = command("result", verb, path)
        assert answer.status == 2
        assert "is no DICOM file" in " ".join(answer.err.split())


def test_a_report_is_shown_as_text(files: dict[str, Path]) -> None:
    answer = command("result", "show", files["text_report"])
    assert answer.status == 0
    assert "Impression: AI result: POSITIVE." in answer.out
    assert "Not verified by a radiologist." in answer.out


def test_every_kind_of_object_is_shown_and_drawn(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "views"
    rows = command("result", "show", *files.values(), "--out", out, "--json").json
    assert len(rows) == len(files)
    assert all(row["text"] and Path(row["picture"]).is_file() for row in rows)
    suffixes = {kind: Path(row["picture"]).suffix for kind, row in zip(files, rows, strict=True)}
    assert suffixes["segmentation"] == suffixes["secondary_capture"] == ".png"
    assert suffixes["encapsulated_pdf"] == ".pdf"
    assert suffixes["text_report"] == ".txt"
    pdf = Path(rows[list(files).index("encapsulated_pdf")]["picture"]).read_bytes()
    assert pdf.startswith(b"%PDF-")


def test_an_overlay_lies_over_its_image_where_that_is_given(
    files: dict[str, Path], image_files: list[Path], tmp_path: Path
) -> None:
    pictures = []
    for name, source in (("with", ["--source", image_files[1]]), ("without", [])):
        (row,) = command(
            "result", "show", files["segmentation"], *source, "--out", tmp_path / name, "--json"
        ).json
        pictures.append(np.asarray(Image.open(row["picture"]))[BELOW_CAPTION:].astype(int))
    over_image, over_black = pictures
    assert over_image.shape[0] == HEIGHT
    coloured = np.ptp(over_black, axis=2) > 0
    assert coloured.any()
    assert over_black[~coloured].max() == 0
    assert over_image[~coloured].max() > 100
    assert (np.ptp(over_image, axis=2) > 0)[coloured].mean() > 0.95


def test_nothing_to_show_is_a_wrong_use(tmp_path: Path) -> None:
    answer = command("result", "show", "--data-dir", tmp_path)
    assert answer.status == 2
    assert "--study" in answer.err


@dataclass(frozen=True)
class Scored:
    """A data directory with one scored study of real files."""

    data_dir: Path
    study_instance_uid: str
    job_id: str


@pytest.fixture
def scored(tmp_path: Path) -> Iterator[Scored]:
    folder = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", folder).status == 0
    trail = AuditTrail(AuditKey.load_or_create(folder / "keys" / "audit.key"))
    CheckpointKey.load_or_create(folder / "keys" / "checkpoint.key")
    database = Database(f"sqlite:///{folder / 'node.db'}", trail)
    study = str(given.images()[0].StudyInstanceUID)
    for image, view in zip(given.images(), given.VIEWS, strict=True):
        buffer = BytesIO()
        dcmwrite(buffer, image, enforce_file_format=True)
        file = Spool(folder / "spool").write([buffer.getvalue()])
        arrived = mammogram(
            *view, study=study, sop_instance_uid=str(image.SOPInstanceUID), spool_name=file.name
        )
        with database.transaction(LISTENER) as tx:
            register_instance(tx, arrived, RULES)
    with database.transaction(WORKER) as tx:
        claim = jobs.claim(tx, JobKind.SCORE, lease_s=60, max_attempts=5)
    assert claim is not None
    results = []
    for number, item in enumerate(build_all(given.positive())):
        file = Spool(folder / "results").write([item.content])
        uid = item.sop_instance_uid
        results.append(result_object(number, kind=item.kind, sop_instance_uid=uid, file_name=file.name))
    with database.transaction(WORKER) as tx:
        jobs.bind_bundle(tx, claim, BUNDLE)
        finish_scoring(
            tx,
            claim,
            bundle=BUNDLE,
            outcome="scored",
            study_probability=0.87,
            document={"probability": 0.87},
            results=results,
            deliveries=[every(results, "PACS@127.0.0.1:104")],
        )
    yield Scored(folder, study, claim.job_id)
    database.close()


@pytest.mark.parametrize("choice", ["study", "job"])
def test_a_study_of_the_node_is_shown_from_its_own_store(scored: Scored, choice: str, tmp_path: Path) -> None:
    which = ("--study", scored.study_instance_uid) if choice == "study" else ("--job", scored.job_id)
    rows = command(
        "result", "show", *which, "--data-dir", scored.data_dir, "--out", tmp_path / "views", "--json"
    ).json
    assert [row["series_description"] for row in rows] == [
        "AI attention R CC (not verified)",
        "AI attention R MLO (not verified)",
        "AI mammography report (not verified)",
        "AI mammography scores (not verified)",
    ]
    overlay = np.asarray(Image.open(rows[0]["picture"]))[BELOW_CAPTION:].astype(int)
    grey = np.ptp(overlay, axis=2) == 0
    assert overlay[grey].max() > 100, "drawn over the node's own copy of the image"
    assert "AI result: POSITIVE." in rows[2]["text"]


def test_a_study_without_results_is_unknown(scored: Scored) -> None:
    assert command("result", "show", "--study", "2.25.1", "--data-dir", scored.data_dir).status == 4


def test_an_overlay_whose_image_was_removed_is_drawn_on_black(scored: Scored, tmp_path: Path) -> None:
    for image in (scored.data_dir / "spool").rglob("*.dcm"):
        image.unlink()
    which = ("--study", scored.study_instance_uid, "--out", tmp_path / "views", "--json")

    rows = command("result", "show", *which, "--data-dir", scored.data_dir).json

    overlay = np.asarray(Image.open(rows[0]["picture"]))[BELOW_CAPTION:].astype(int)
    grey = np.ptp(overlay, axis=2) == 0
    assert overlay[grey].max() == 0
