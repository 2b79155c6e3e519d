"""The validators of others have nothing to say against the fallback objects either."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from models.contract import LesionMark
from tests import results_contexts as given
from tests.programs import needs
from tests.validators import dciodvfy, errors_of, lines, pixelmed, stored

KINDS = {
    "presentation_state": "GrayscaleSoftcopyPresentationState",
    "secondary_capture": "SCImage",
    "key_objects": "KeyObjectSelectionDocument",
    "encapsulated_pdf": "EncapsulatedPDF",
}
# dcmpschk takes for errors the offset from UTC that PS3.5 6.2 lets a DT end in, and names in UTF-8.
WRONG_IN_DCMPSCHK = {"ContributionDateTime", "PatientName"}


def marked() -> ResultContext:
    """Marks, an image shown inverted, oblong pixels, and a name in letters of four alphabets."""
    triangle = ((60.5, 20.0), (80.25, 24.0), (70.0, 44.5))
    said = given.prediction(given.POSITIVE)
    first = replace(said.images[0], marks=(LesionMark((70.0, 30.0), triangle, 0.87),))
    return given.context(
        replace(said, images=(first, *said.images[1:])),
        given.sources(
            PhotometricInterpretation="MONOCHROME1",
            PresentationLUTShape="INVERSE",
            ImagerPixelSpacing=[0.1, 0.05],
            SpecificCharacterSet="ISO_IR 192",
            PatientName="Müller^Eva=王^小东",
        ),
        bundle=replace(given.BUNDLE, localises=True),
    )


def lone() -> ResultContext:
    """Images that lack what is optional, and much of what is not."""
    absent = ("AccessionNumber", "StudyID", "PatientBirthDate", "PatientOrientation", "WindowCenter")
    return given.positive(given.sources(**dict.fromkeys(absent)))


CONTEXTS = [given.positive, given.negative, given.partial, given.refused, given.superseding, marked, lone]


@pytest.mark.parametrize("outcome", CONTEXTS)
def test_dciodvfy_finds_every_object_conformant(
    outcome: Callable[..., ResultContext], tmp_path: Path
) -> None:
    objects = build_all(outcome(), list(KINDS))
    for built, path in zip(objects, stored(objects, tmp_path), strict=True):
        said = dciodvfy(path)
        assert KINDS[built.kind] in said
        assert errors_of(said) == []


def dcmpschk(path: Path) -> list[str]:
    """Give the attributes that dcmpschk finds at fault."""
    needs("dcmpschk", "dcmtk")
    said = lines(["dcmpschk", str(path)])
    assert any("Test" in line for line in said), said
    return [m[1] for line in said if (m := re.search(r"Affected attribute: (\w+)", line))]


@pytest.mark.parametrize("outcome", CONTEXTS)
def test_dcmpschk_reads_every_presentation_state(
    outcome: Callable[..., ResultContext], tmp_path: Path
) -> None:
    for path in stored(build_all(outcome(), ["presentation_state"]), tmp_path):
        assert set(dcmpschk(path)) <= WRONG_IN_DCMPSCHK


def test_dcmpschk_would_tell(tmp_path: Path) -> None:
    (path, *_) = stored(build_all(given.positive(), ["presentation_state"]), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"SCALE TO FIT", b"scale to fit"))
    assert "PresentationSizeMode" in dcmpschk(path)


@pytest.mark.slow
def test_pixelmed_finds_the_key_objects_follow_their_template(tmp_path: Path) -> None:
    built = [o for context in (given.superseding(), marked()) for o in build_all(context, ["key_objects"])]
    assert len(built) == 2
    assert pixelmed("DicomSRValidator", stored(built, tmp_path)) == {}
