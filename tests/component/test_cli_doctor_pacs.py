"""``dicom-node doctor --pacs``: what is sent to a destination, and what is told of it."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom.dsutils import decode

from dicom_node.cli.health.pacs_trial import best_profile, trial_objects
from dicom_node.results.builders import RESULT_BUILDERS
from dicom_node.results.profiles import BUILT_IN
from tests import results_contexts as given
from tests.command_line import Answer, command
from tests.free_ports import free_port
from tests.programs import needs
from tests.running_node import until
from tests.simulators.pacs import Behaviour, SimulatedPacs

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
ENHANCED_SR, COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.88.33"
KINDS_OF_A_MARKED_STUDY = set(RESULT_BUILDERS) - {
    "fractional_segmentation",
    "measurement_report_all_classes",
}


@pytest.fixture(scope="module")
def result_classes() -> frozenset[str]:
    """Every storage class that the node sends; the simulator answers no query."""
    return frozenset(item.sop_class_uid for item in trial_objects(given.NODE))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", folder).status == 0
    return folder


def doctor(data_dir: Path, pacs: str, *options: str) -> Answer:
    return command("doctor", "--pacs", pacs, *options, "--data-dir", data_dir)


def queries(data_dir: Path) -> list[dict[str, str]]:
    """What the audit trail says was asked of destinations."""
    told = command("audit", "query", "--action", "destination.queried", "--json", "--data-dir", data_dir)
    return [event["detail"] for event in told.json]


def test_every_test_object_is_labelled_and_of_no_patient() -> None:
    assert {item.kind for item in trial_objects(given.NODE)} == KINDS_OF_A_MARKED_STUDY
    objects = trial_objects(given.NODE, with_slides=True)
    assert {i.kind for i in objects} == KINDS_OF_A_MARKED_STUDY | {"slide_segmentation", "slide_report"}
    for item in objects:
        instance = dcmread(BytesIO(item.content))
        assert (instance.PatientName, instance.PatientID) == ("TEST^DICOM-NODE", "TEST-DICOM-NODE")
        assert instance.SeriesDescription.startswith("TEST ")
        assert instance.StudyDescription.startswith("TEST ")
    again = trial_objects(given.NODE, with_slides=True)
    assert objects == again, "an archive keeps one copy however often the command runs"
    assert len({item.study_instance_uid for item in objects}) == 1


def test_a_pacs_that_takes_everything_gets_one_object_of_each_kind(
    data_dir: Path, result_classes: frozenset[str]
) -> None:
    with SimulatedPacs(sop_class_uids=result_classes) as pacs:
        answer = doctor(data_dir, str(pacs.destination), "--json")
        stored = [item.sop_instance_uid for item in pacs.stored]

    assert answer.status == 0
    trials = answer.json["trials"]
    assert {trial["kind"] for trial in trials if trial["accepted"]} == KINDS_OF_A_MARKED_STUDY
    assert len(set(stored)) == len(stored) == len(trials)
    assert {trial["transfer_syntax"] for trial in trials} == {"Explicit VR Little Endian"}
    assert pacs.violations == []
    (event,) = [
        e
        for e in command("audit", "query", "--json", "--data-dir", data_dir).json
        if e["action"] == "destination.tried"
    ]
    assert "TEST^DICOM-NODE" not in json.dumps(event)


def test_what_a_pacs_does_not_take_is_told_with_the_profile_that_fits(data_dir: Path) -> None:
    with SimulatedPacs(sop_class_uids=frozenset({ENHANCED_SR, COMPREHENSIVE_SR})) as pacs:
        answer = doctor(data_dir, str(pacs.destination), "--json")

    accepted = {trial["kind"]: trial["accepted"] for trial in answer.json["trials"]}
    assert {kind for kind, taken in accepted.items() if taken} == {"text_report", "measurement_report_2d"}
    refused = next(t for t in answer.json["trials"] if t["kind"] == "segmentation")
    assert "does not accept Segmentation Storage" in refused["detail"]
    assert answer.json["profile"] == "stone"
    assert {trial["found"] for trial in answer.json["trials"]} == {None}
    assert "no query" in answer.json["query"]
    assert queries(data_dir) == []


def test_a_destination_may_be_named_by_its_configured_title(
    data_dir: Path, tmp_path: Path, result_classes: frozenset[str]
) -> None:
    with SimulatedPacs("ARCHIVE", sop_class_uids=result_classes) as pacs:
        config = tmp_path / "site.toml"
        config.write_text(f'destinations = ["{pacs.destination}/ohif"]\n')
        answer = doctor(data_dir, "ARCHIVE", "--config", str(config))
        assert answer.status == 0
        assert f'destinations = ["{pacs.destination}/' in answer.out
        assert pacs.stored


def test_a_pacs_that_is_away_is_a_problem(data_dir: Path) -> None:
    with SimulatedPacs() as pacs:
        pacs.behave(Behaviour.REFUSE_CONNECTION)
        answer = doctor(data_dir, str(pacs.destination))
    assert answer.status == 1
    assert "it took nothing" in answer.out


def test_what_is_no_destination_is_refused(data_dir: Path) -> None:
    answer = doctor(data_dir, "NOWHERE")
    assert answer.status == 3
    assert "--pacs" in answer.err


@pytest.mark.parametrize(
    ("accepted", "profile"),
    [
        (set(RESULT_BUILDERS) - {"measurement_report_2d"}, "workstation"),
        ({"text_report", "measurement_report", "segmentation", "lesion_segmentation"}, "ohif"),
        (set(), None),
    ],
)
def test_the_profile_with_the_largest_accepted_share_is_named(
    accepted: set[str], profile: str | None
) -> None:
    assert best_profile(accepted, BUILT_IN) == profile


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[str]:
    """Run a throw-away Orthanc; give its address."""
    program = needs("Orthanc", "orthanc")
    port, folder = free_port(), tmp_path / "orthanc"
    folder.mkdir()
    config = folder / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder),
                "IndexDirectory": str(folder),
                "HttpServerEnabled": False,
                "DicomPort": port,
                "DicomAlwaysAllowFind": True,
                "Plugins": [],
            }
        )
    )
    command = [program, str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: is_open(port), 60, "Orthanc's start")
            yield f"ORTHANC@127.0.0.1:{port}"
        finally:
            process.terminate()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_orthanc_takes_every_object_and_finds_it(data_dir: Path, orthanc: str, tmp_path: Path) -> None:
    config = tmp_path / "laboratory.toml"
    config.write_text('tasks = ["mammography_malignancy", "idc"]\n')
    answer = doctor(data_dir, orthanc, "--json", "--config", str(config))
    assert answer.status == 0
    trials = answer.json["trials"]
    assert {(t["accepted"], t["found"]) for t in trials} == {(True, True)}
    assert {t["kind"] for t in trials} == KINDS_OF_A_MARKED_STUDY | {"slide_segmentation", "slide_report"}
    again = doctor(data_dir, orthanc, "--json", "--config", str(config))
    assert again.json == answer.json
    first, _ = queries(data_dir)
    assert (first["destination"], first["sop_class_uid"]) == (orthanc, STUDY_ROOT_FIND)
    keys = decode(BytesIO(base64.b64decode(first["query"])), is_implicit_vr=True, is_little_endian=True)
    assert keys.QueryRetrieveLevel == "SERIES"
    assert set(keys.keys()) == {0x00080052, 0x0020000D, 0x0020000E}, "no patient is asked for"
