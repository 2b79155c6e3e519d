"""The validators of others have nothing to say against our results: dciodvfy, dsrdump and PixelMed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from tests import results_contexts as given

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# Java 17 stops PixelMed's style sheets at a limit of XPath operators; 0 lifts it.
JAVA = [
    "java",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    *(f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprGrp", "ExprOp", "TotalOp")),
    "-cp",
    str(PIXELMED),
]

# dciodvfy of 2022 does not know Device UID in Contributing Equipment Sequence, which IHE AIR wants.
NEWER_THAN_DCIODVFY = re.compile(r"\(0x0018,0x1002\)|Standard Extended SOP Class")
# CID 100 is a baseline group, which any procedure's code may extend; Patient Orientation has two values;
# Derivation Image may be in each frame; PS3.3 A.51.3 leaves Laterality out of a Segmentation.
WRONG_IN_PIXELMED = re.compile(
    r"not found in context group 100$|PatientOrientation: Incorrect value multiplicity"
    r"|GeneralSeriesModule/Laterality|DerivationImageSequence/: SharedFunctionalGroupsSequence"
)

OUTCOMES: dict[str, Callable[..., ResultContext]] = {
    "positive": given.positive,
    "negative": given.negative,
    "partial": given.partial,
    "refused": given.refused,
    "superseding": given.superseding,
}
HEADERS: dict[str, dict[str, Any]] = {
    "Japanese": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
    "Korean": {"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "Hong^Gildong=洪^吉洞"},
    "Greek": {"SpecificCharacterSet": "ISO_IR 126", "PatientName": "Διονυσιος^Α"},
    "German": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Äneas^Rüdiger"},
    "bare": dict.fromkeys(("AccessionNumber", "StudyID", "PatientBirthDate", "PatientAge", "StudyTime")),
}


def needs(tool: str, package: str) -> None:
    """Skip where a validator is missing, but never in CI."""
    if shutil.which(tool) or Path(tool).exists():
        return
    message = f"{tool} is not installed; apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def lines(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, errors="replace")
    return (done.stdout + done.stderr).splitlines()


def stored(objects: Any, folder: Path) -> Iterator[Path]:
    for number, built in enumerate(objects):
        path = folder / f"{number}-{built.kind}.dcm"
        path.write_bytes(built.content)
        yield path


def contexts() -> Iterator[Any]:
    for name, outcome in OUTCOMES.items():
        yield pytest.param(outcome, {}, id=name)
    for name, overrides in HEADERS.items():
        yield pytest.param(given.positive, overrides, id=name)


def objects_of(outcome: Callable[..., ResultContext], overrides: dict[str, Any]) -> Any:
    return build_all(outcome(given.sources(**overrides)))


@pytest.mark.parametrize(("outcome", "overrides"), list(contexts()))
def test_dciodvfy_finds_every_object_conformant(
    outcome: Callable[..., ResultContext], overrides: dict[str, Any], tmp_path: Path
) -> None:
    needs("dciodvfy", "dicom3tools")
    for path in stored(objects_of(outcome, overrides), tmp_path):
        said = lines(["dciodvfy", str(path)])
        assert any(re.fullmatch(r"\w+SR|Segmentation", line) for line in said), said
        assert not [s for s in said if s.startswith(("Error", "Abort")) and not NEWER_THAN_DCIODVFY.search(s)]


@pytest.mark.parametrize(("outcome", "overrides"), list(contexts()))
def test_dsrdump_reads_every_report(
    outcome: Callable[..., ResultContext], overrides: dict[str, Any], tmp_path: Path
) -> None:
    needs("dsrdump", "dcmtk")
    for path in stored((o for o in objects_of(outcome, overrides) if "report" in o.kind), tmp_path):
        done = subprocess.run(["dsrdump", "+Pn", str(path)], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0
        assert not [
            s for s in done.stderr.decode(errors="replace").splitlines() if s.startswith(("E:", "F:"))
        ]


def pixelmed(validator: str, path: Path) -> list[str]:
    needs("java", "openjdk-17-jre-headless")
    needs(str(PIXELMED), "libpixelmed-java")
    said = lines([*JAVA, f"com.pixelmed.validate.{validator}", str(path)])
    assert any("IOD validation complete" in line for line in said), said
    return [s for s in said if s.startswith("Error") and not WRONG_IN_PIXELMED.search(s)]


@pytest.mark.slow
def test_pixelmed_finds_the_reports_follow_their_templates(tmp_path: Path) -> None:
    objects = [
        *build_all(given.superseding()),
        *build_all(given.partial(), ["segmentation", "measurement_report_2d"]),
        *build_all(given.refused()),
    ]
    for path in stored((o for o in objects if "report" in o.kind), tmp_path):
        assert pixelmed("DicomSRValidator", path) == []


@pytest.mark.slow
def test_pixelmed_finds_the_overlay_conformant(tmp_path: Path) -> None:
    overlay = next(o for o in build_all(given.positive()) if o.kind == "segmentation")
    (path,) = stored([overlay], tmp_path)
    assert pixelmed("DicomInstanceValidator", path) == []


def test_dciodvfy_would_tell(tmp_path: Path) -> None:
    needs("dciodvfy", "dicom3tools")
    (path, *_) = stored((o for o in build_all(given.positive()) if o.kind == "measurement_report"), tmp_path)
    broken = dcmread(path)
    del broken.CompletionFlag
    broken.save_as(path)
    assert any("CompletionFlag" in s for s in lines(["dciodvfy", str(path)]) if s.startswith("Error"))
