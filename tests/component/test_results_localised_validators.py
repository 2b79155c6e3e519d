"""The validators of others have nothing to say against marks, places, map values and slides."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dicom_node.results.builders import build_all
from dicom_node.results.context import BuiltObject, ResultContext
from dicom_node.results.slide import build_slide
from tests import localised_contexts as localised
from tests import slide_contexts as slides
from tests.result_matrix import with_maps
from tests.validators import dciodvfy, errors_of, needs, pixelmed, stored

KINDS = (
    "lesion_segmentation",
    "fractional_segmentation",
    "measurement_report",
    "measurement_report_all_classes",
    "mammography_cad",
    "mammography_cad_srt",
)
CONTEXTS = (
    localised.binary,
    localised.masses,
    localised.calcifications,
    localised.asymmetry,
    localised.nothing_found,
    localised.partial_positive,
    localised.view_missing,
    localised.refused,
    localised.superseding,
)
# A slide has coordinates of its own in place of a patient's orientation (PS3.3 C.7.6.1.1.1), and Container
# Description is type 3 (C.7.6.22).
WRONG_ABOUT_SLIDES = re.compile(r"PatientOrientation|ContainerDescription/: : Missing required attribute")
# PixelMed takes the conditions of TID 4015 for those of TID 4016 and the other way round, which shows where
# the two summaries differ: a view is missing, but no image was missed.
CROSSED_SUMMARIES = re.compile(r"Template 401[56]Mammo.*Missing conditional content item$")


def reports(objects: Iterable[BuiltObject]) -> list[BuiltObject]:
    return [o for o in objects if o.sop_class_uid.startswith("1.2.840.10008.5.1.4.1.1.88.")]


@pytest.mark.parametrize("outcome", CONTEXTS)
def test_dciodvfy_and_dsrdump_find_no_error(outcome: Callable[[], ResultContext], tmp_path: Path) -> None:
    needs("dsrdump", "dcmtk")
    objects = build_all(with_maps(outcome()), KINDS)
    for path in stored(objects, tmp_path):
        assert errors_of(dciodvfy(path)) == [], path.name
    for path in stored(reports(objects), tmp_path):
        done = subprocess.run(["dsrdump", "+Pn", str(path)], capture_output=True, timeout=60, check=False)
        said = done.stderr.decode(errors="replace").splitlines()
        assert (done.returncode, [s for s in said if s.startswith(("E:", "F:"))]) == (0, []), path.name


def test_dciodvfy_finds_no_error_in_the_results_of_a_slide(tmp_path: Path) -> None:
    for path in stored(build_slide(slides.context()), tmp_path):
        assert [e for e in errors_of(dciodvfy(path)) if not WRONG_ABOUT_SLIDES.search(e)] == [], path.name


@pytest.mark.slow_proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("outcome", CONTEXTS)
def test_pixelmed_finds_no_error_in_the_reports_of_marks(
    outcome: Callable[[], ResultContext], tmp_path: Path
) -> None:
    for path in stored(reports(build_all(outcome(), KINDS)), tmp_path):
        found = pixelmed("DicomSRValidator", path)
        if outcome is localised.view_missing:
            found = [error for error in found if not CROSSED_SUMMARIES.search(error)]
        assert found == [], path.name


@pytest.mark.slow_proof
@pytest.mark.timeout(600)
def test_pixelmed_finds_no_error_in_the_results_of_a_slide(tmp_path: Path) -> None:
    overlay, report = stored(build_slide(slides.context()), tmp_path)
    found = pixelmed("DicomInstanceValidator", overlay)
    assert [error for error in found if not WRONG_ABOUT_SLIDES.search(error)] == []
    assert pixelmed("DicomSRValidator", report) == []
