"""The validators of others have nothing to say against our results: dciodvfy, dsrdump and PixelMed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from tests import results_contexts as given
from tests.programs import needs
from tests.validators import dciodvfy, errors_of, pixelmed, stored

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
    for path in stored(objects_of(outcome, overrides), tmp_path):
        said = dciodvfy(path)
        assert any(re.fullmatch(r"\w+SR|Segmentation", line) for line in said), said
        assert not errors_of(said)


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


@pytest.mark.slow
def test_pixelmed_finds_the_reports_follow_their_templates(tmp_path: Path) -> None:
    objects = [
        *build_all(given.superseding()),
        *build_all(given.partial(), ["segmentation", "measurement_report_2d"]),
        *build_all(given.refused()),
    ]
    reports = stored((o for o in objects if "report" in o.kind), tmp_path)
    assert pixelmed("DicomSRValidator", reports) == {}


@pytest.mark.slow
def test_pixelmed_finds_the_overlay_conformant(tmp_path: Path) -> None:
    overlay = next(o for o in build_all(given.positive()) if o.kind == "segmentation")
    assert pixelmed("DicomInstanceValidator", stored([overlay], tmp_path)) == {}


def test_dciodvfy_would_tell(tmp_path: Path) -> None:
    (path, *_) = stored((o for o in build_all(given.positive()) if o.kind == "measurement_report"), tmp_path)
    broken = dcmread(path)
    del broken.CompletionFlag
    broken.save_as(path)
    assert any("CompletionFlag" in s for s in dciodvfy(path) if s.startswith("Error"))
