"""The whole matrix against the validators of others, and through an archive and back: ``make proof``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dicom_node.delivery.dimse import DeliveryTimeouts, Outgoing, Requestor, SendState, send
from dicom_node.results.context import BuiltObject
from tests.programs import needs
from tests.result_matrix import CHARACTER_SETS, OUTCOMES, objects_of
from tests.simulators.orthanc import running_orthanc
from tests.validators import dciodvfy, errors_of, pixelmed, stored

TIMEOUTS = DeliveryTimeouts(connect_s=10, acse_s=20, dimse_s=60)
REPORT_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"

every_study = pytest.mark.parametrize("character_set", CHARACTER_SETS)
every_outcome = pytest.mark.parametrize("outcome", OUTCOMES)


@pytest.mark.slow_proof
@every_study
@every_outcome
def test_dciodvfy_finds_no_error(outcome: str, character_set: str, tmp_path: Path) -> None:
    for path in stored(objects_of(outcome, character_set), tmp_path):
        assert errors_of(dciodvfy(path)) == [], path.name


@pytest.mark.slow_proof
@every_study
@every_outcome
def test_dsrdump_reads_every_report(outcome: str, character_set: str, tmp_path: Path) -> None:
    needs("dsrdump", "dcmtk")
    reports = [o for o in objects_of(outcome, character_set) if o.sop_class_uid.startswith(REPORT_CLASSES)]
    for path in stored(reports, tmp_path):
        done = subprocess.run(["dsrdump", "+Pn", str(path)], capture_output=True, timeout=60, check=False)
        said = done.stderr.decode(errors="replace").splitlines()
        assert (done.returncode, [s for s in said if s.startswith(("E:", "F:"))]) == (0, []), path.name


@pytest.mark.slow_proof
@pytest.mark.timeout(3600)
@every_outcome
def test_pixelmed_finds_no_error(outcome: str, tmp_path: Path) -> None:
    # It knows no presentation states, captures or documents.
    reports, segmentations = [], []
    for character_set in CHARACTER_SETS:
        objects = objects_of(outcome, character_set)
        for built, path in zip(objects, stored(objects, tmp_path), strict=True):
            named = path.rename(tmp_path / f"{character_set}-{path.name}")
            if built.sop_class_uid.startswith(REPORT_CLASSES):
                reports.append(named)
            elif built.sop_class_uid == SEGMENTATION:
                segmentations.append(named)
    assert pixelmed("DicomSRValidator", reports) == {}
    assert bool(segmentations) == (outcome not in ("negative", "refused"))
    if segmentations:
        assert pixelmed("DicomInstanceValidator", segmentations) == {}


@pytest.mark.parametrize(
    ("outcome", "character_set"),
    [
        *((outcome, "Japanese") for outcome in ("positive", "partial")),
        *(
            pytest.param(outcome, character_set, marks=pytest.mark.slow_proof)
            for outcome in OUTCOMES
            for character_set in CHARACTER_SETS
        ),
    ],
)
def test_an_archive_gives_every_object_back_as_it_was(
    outcome: str, character_set: str, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    objects = objects_of(outcome, character_set)
    with running_orthanc(archive) as orthanc:
        results = send(
            [outgoing(o, p) for o, p in zip(objects, stored(objects, tmp_path), strict=True)],
            orthanc.destination,
            Requestor("AI_NODE", TIMEOUTS),
            on_result=lambda _uid, _result: None,
        )
        assert {(r.state, r.status) for r in results} == {(SendState.DELIVERED, 0)}
        returned = sorted(map(data_set_bytes, orthanc.files()))
    assert returned == sorted(data_set_bytes(o.content) for o in objects)


def outgoing(built: BuiltObject, path: Path) -> Outgoing:
    return Outgoing(built.sop_instance_uid, built.sop_class_uid, built.transfer_syntax_uid, path)


def data_set_bytes(content: bytes) -> bytes:
    """Give a file's data set as it is encoded; an archive writes meta information of its own (PS3.10 7.1)."""
    end_of_length = 128 + 4 + 12
    return content[end_of_length + int.from_bytes(content[end_of_length - 4 : end_of_length], "little") :]
