"""The validators of others have nothing to say against marks, places, map values and slides."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.results.builders import build_all
from dicom_node.results.context import BuiltObject, ResultContext
from dicom_node.results.slide import build_slide_study
from models.contract import SlideStudyPrediction
from tests import localised_contexts as localised
from tests import slide_contexts as slides
from tests.programs import needs
from tests.result_matrix import with_maps
from tests.validators import dciodvfy, errors_of, pixelmed, stored

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


SLIDE_STUDIES: tuple[SlideStudyPrediction | None, ...] = (None, slides.partly(), slides.refused())


def of_slides(prediction: SlideStudyPrediction | None) -> tuple[BuiltObject, ...]:
    sources = (slides.slide(), slides.slide(SOPInstanceUID=slides.OTHER_UID))
    return build_slide_study(slides.study(prediction, sources if prediction else None))


@pytest.mark.parametrize("prediction", SLIDE_STUDIES)
def test_dciodvfy_finds_no_error_in_the_results_of_slides(
    prediction: SlideStudyPrediction | None, tmp_path: Path
) -> None:
    for path in stored(of_slides(prediction), tmp_path):
        assert [e for e in errors_of(dciodvfy(path)) if not WRONG_ABOUT_SLIDES.search(e)] == [], path.name


@pytest.mark.slow_proof
@pytest.mark.timeout(3600)
def test_pixelmed_finds_no_error_in_the_reports_of_marks(tmp_path: Path) -> None:
    found = pixelmed("DicomSRValidator", of_each(CONTEXTS, tmp_path))
    crossed = [name for name, errors in found.items() if all(map(CROSSED_SUMMARIES.search, errors))]
    assert {name.split("-")[0] for name in crossed} <= {"view_missing"}
    assert {name: errors for name, errors in found.items() if name not in crossed} == {}


def of_each(outcomes: Iterable[Callable[[], ResultContext]], folder: Path) -> Iterator[Path]:
    for outcome in outcomes:
        for path in stored(reports(build_all(outcome(), KINDS)), folder):
            yield path.rename(folder / f"{outcome.__name__}-{path.name}")


@pytest.mark.slow_proof
@pytest.mark.timeout(3600)
def test_pixelmed_finds_no_error_in_the_results_of_slides(tmp_path: Path) -> None:
    maps, documents = [], []
    for outcome, prediction in zip(("scored", "partly", "refused"), SLIDE_STUDIES, strict=True):
        built = of_slides(prediction)
        for item, path in zip(built, stored(built, tmp_path), strict=True):
            kept = maps if item.kind == "slide_segmentation" else documents
            kept.append(path.rename(tmp_path / f"{outcome}-{path.name}"))
    assert (len(maps) >= 2, len(documents) >= 5) == (True, True)
    assert pixelmed("DicomSRValidator", documents) == {}
    found = pixelmed("DicomInstanceValidator", maps)
    wrong = [e for errors in found.values() for e in errors if not WRONG_ABOUT_SLIDES.search(e)]
    assert wrong == []


@pytest.mark.slow_proof
@pytest.mark.timeout(3600)
def test_pixelmed_tells_a_broken_report_from_the_good_ones_beside_it(tmp_path: Path) -> None:
    (built,) = build_all(localised.binary(), ["measurement_report"])
    good, broken, after = (tmp_path / f"{name}.dcm" for name in ("good", "broken", "after"))
    good.write_bytes(built.content)
    after.write_bytes(built.content)
    report = dcmread(good)
    # TID 1004 demands the Device Observer UID of an observer that is a device.
    kept = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue != "121012"]
    assert len(kept) == len(report.ContentSequence) - 1
    report.ContentSequence = kept
    report.save_as(broken)
    assert set(pixelmed("DicomSRValidator", [good, broken, after])) == {"broken.dcm"}
