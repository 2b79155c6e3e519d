"""A mark lands on the lesion within one pixel, in every object, whatever the image's side, view and form.

A bright spot is painted into asymmetric phantoms; the map that points at it is what the network's input shows
of it, so that decoding, cropping, flipping and scaling are undone by the node alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.uid import BreastTomosynthesisImageStorage

from dicom_node.images.reader import ImageReader, read_header
from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from models.contract import (
    BreastScore,
    ImageScore,
    ImageView,
    Laterality,
    LesionMark,
    Outcome,
    StudyPrediction,
)
from models.evidence import band_image, marks_of
from models.preprocessing import Parameters, prepare
from tests import results_contexts as given
from training.datasets.phantom_objects import data_set
from training.datasets.phantoms import LesionKind, Phantom, draw

ROWS, COLUMNS, SEED = 400, 320, 5
KINDS = ("segmentation", "lesion_segmentation", "presentation_state", "measurement_report", "mammography_cad")
STUDY = "2.25.900"
WITHIN = 1.0  # pixels

Pixels = NDArray[np.uint16]
Point = tuple[float, float]


@dataclass(frozen=True)
class Form:
    """An image in another form: its cells, where the lesion is in them, and what its header says."""

    pixels: Pixels
    point: Point
    elements: dict[str, Any]


def plain(pixels: Pixels, point: Point, spacing: float) -> Form:
    return Form(pixels, point, {})


def monochrome1(pixels: Pixels, point: Point, spacing: float) -> Form:
    inverted = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    return Form((4095 - pixels).astype(np.uint16), point, inverted)


def upside_down(pixels: Pixels, point: Point, spacing: float) -> Form:
    return Form(pixels[::-1], (point[0], pixels.shape[0] - point[1]), {"PatientOrientation": ["P", "H"]})


def cropped(pixels: Pixels, point: Point, spacing: float) -> Form:
    return Form(pixels[37:-11], (point[0], point[1] - 37), {})


def padded(pixels: Pixels, point: Point, spacing: float) -> Form:
    """Put air round the field: 13 rows above, 40 below and 21 columns beside the breast."""
    is_right = pixels[:, -1].sum() > pixels[:, 0].sum()
    beside = (21, 0) if is_right else (0, 21)
    wider = np.pad(pixels, ((13, 40), beside))
    return Form(wider, (point[0] + beside[0], point[1] + 13), {})


def oblong(pixels: Pixels, point: Point, spacing: float) -> Form:
    """Join two rows to one: pixels twice as high as wide."""
    joined = (pixels[::2].astype(np.uint32) + pixels[1::2]) // 2
    distance = [f"{2 * spacing:.6g}", f"{spacing:.6g}"]
    return Form(joined.astype(np.uint16), (point[0], point[1] / 2), {"ImagerPixelSpacing": distance})


def without_spacing(pixels: Pixels, point: Point, spacing: float) -> Form:
    return Form(pixels, point, {"ImagerPixelSpacing": None})


FORMS = (plain, monochrome1, upside_down, cropped, padded, oblong, without_spacing)


@pytest.fixture(scope="module")
def reader() -> Iterator[ImageReader]:
    with ImageReader() as opened:
        yield opened


def painted(phantom: Phantom, point: Point) -> Pixels:
    rows, columns = np.mgrid[: phantom.pixels.shape[0], : phantom.pixels.shape[1]] + 0.5
    spot = 1500 * np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / (2 * 6.0**2))
    return np.clip(phantom.pixels + spot, 0, 4095).astype(np.uint16)


def stored(phantom: Phantom, form: Form, number: int, path: Path) -> Path:
    image = data_set(
        replace(phantom, pixels=np.ascontiguousarray(form.pixels)),
        study_instance_uid=STUDY,
        series_instance_uid=f"2.25.91{number}",
        sop_instance_uid=f"2.25.92{number}",
        **form.elements,
    )
    dcmwrite(path, image, enforce_file_format=True)
    return path


def scored(with_spot: ImageView, without: ImageView) -> ImageScore:
    """Point at what is brighter on the network's grid with the spot than without it."""
    spacing = with_spot.spacing_mm or (1.0, 1.0)
    grid = Parameters(rows=2 * with_spot.rows, columns=2 * with_spot.columns, pixel_mm=min(spacing) / 2)
    prepared = prepare(with_spot, grid)
    difference = prepared.tensor[0] - prepare(without, grid, prepared.breast).tensor[0]
    activation = np.clip(difference, 0, None).astype(np.float32)
    side, view = with_spot.laterality, with_spot.view
    assert side is not None
    assert view is not None
    return ImageScore(
        sop_instance_uid=with_spot.sop_instance_uid,
        laterality=side,
        view=view,
        logit=2.0,
        probability=0.9,
        region=prepared.region,
        evidence=band_image(activation, prepared),
        marks=marks_of(activation, prepared, 0.9),
    )


def context_of(headers: list[Dataset], scores: list[ImageScore]) -> ResultContext:
    breasts = tuple(
        BreastScore(side, 0.9, tuple(s.sop_instance_uid for s in scores if s.laterality is side))
        for side in Laterality
        if any(s.laterality is side for s in scores)
    )
    said = StudyPrediction(given.BUNDLE.task, Outcome.SCORED, 0.5, tuple(scores), breasts, 0.9)
    return given.context(said, tuple(headers), bundle=replace(given.BUNDLE, localises=True))


def middle_of_polygon(flat: list[float]) -> Point:
    x, y = np.array(flat, np.float64).reshape(-1, 2).T
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    area = cross.sum() / 2
    return (
        float(((x[:-1] + x[1:]) * cross).sum() / (6 * area)),
        float(((y[:-1] + y[1:]) * cross).sum() / (6 * area)),
    )


def middle_of_pixels(mask: NDArray[Any]) -> Point:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def points_of(context: ResultContext) -> Iterator[tuple[str, str, Point]]:
    """Read from every object, for each image, where it says that the lesion is."""
    for built in build_all(context, KINDS):
        item = given.read(built)
        if built.kind in ("segmentation", "lesion_segmentation"):
            frames = item.pixel_array.reshape(-1, item.Rows, item.Columns)
            yield built.kind, built.referenced_sop_instance_uids[0], middle_of_pixels(frames[-1])
        elif built.kind == "presentation_state":
            (line,) = item.GraphicAnnotationSequence[0].GraphicObjectSequence
            (uid,) = built.referenced_sop_instance_uids
            yield built.kind, uid, middle_of_polygon(list(line.GraphicData))
        elif built.kind == "measurement_report":
            for group in given.named(item, "125007")[len(context.prediction.images) :]:
                (region,) = given.named(group, "111030")
                uid = str(region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
                yield built.kind, uid, middle_of_polygon(list(region.GraphicData))
        else:
            for finding in given.named(item, "111059"):
                (centre,) = given.named(finding, "111010")
                library = item.ContentSequence[1].ContentSequence
                image = library[centre.ContentSequence[0].ReferencedContentItemIdentifier[-1] - 1]
                uid = str(image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
                yield built.kind, uid, (float(centre.GraphicData[0]), float(centre.GraphicData[1]))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_object_marks_the_lesion_of_every_view(
    form: Callable[[Pixels, Point, float], Form], reader: ImageReader, tmp_path: Path
) -> None:
    headers, scores, wanted, sizes = [], [], {}, {}
    for number, (side, view) in enumerate(given.VIEWS):
        place = draw(laterality=side, view=view, rows=ROWS, columns=COLUMNS, seed=SEED, kind=LesionKind.CIRC)
        empty = draw(laterality=side, view=view, rows=ROWS, columns=COLUMNS, seed=SEED)
        assert place.lesion is not None
        point, spacing = place.lesion.centre, empty.spacing_mm
        marked = form(painted(empty, point), point, spacing)
        path = stored(empty, marked, number, tmp_path / f"{number}.dcm")
        bare = stored(empty, form(empty.pixels, point, spacing), number, tmp_path / f"{number}-bare.dcm")
        uid = f"2.25.92{number}"
        headers.append(read_header(path, uid))
        scores.append(scored(reader.read(path, uid).view, reader.read(bare, uid).view))
        wanted[uid], sizes[uid] = marked.point, marked.pixels.shape
    found = list(points_of(context_of(headers, scores)))
    assert len(found) == len(KINDS) * len(given.VIEWS)
    for kind, uid, (column, row) in found:
        off = np.hypot(column - wanted[uid][0], row - wanted[uid][1])
        assert off <= WITHIN, f"{kind} of {uid} is {off:.2f} pixels off"
        # Were it mirrored either way, it would be somewhere else altogether.
        rows, columns = sizes[uid]
        assert abs(columns - 2 * wanted[uid][0]) > 2 * WITHIN
        assert abs(rows - 2 * wanted[uid][1]) > 2 * WITHIN
    assert {score.sop_instance_uid for score in scores} == set(wanted)


def test_a_mark_in_a_tomosynthesis_frame_names_its_frame_and_lies_in_its_plane() -> None:
    (source, *_) = given.images()
    spaced = Dataset()
    spaced.PixelSpacing, spaced.SliceThickness = [0.1, 0.1], 1
    turned = Dataset()
    turned.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [spaced], [turned]
    frames = []
    for number in range(4):
        position, groups = Dataset(), Dataset()
        position.ImagePositionPatient = [number, 0, 0]
        groups.PlanePositionSequence = [position]
        frames.append(groups)
    header = given.header(
        source,
        overrides={
            "SOPClassUID": BreastTomosynthesisImageStorage,
            "FrameOfReferenceUID": "2.25.77",
            "NumberOfFrames": 4,
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": frames,
        },
    )
    score = replace(given.positive().prediction.images[0], frame=3)
    outline = ((40.0, 60.0), (48.0, 60.0), (48.0, 70.0), (40.0, 70.0))
    context = context_of([header], [replace(score, marks=(LesionMark((44.0, 65.0), outline, 0.9),))])
    found = {kind: point for kind, _, point in points_of(context)}
    assert {found[kind] for kind in KINDS if kind != "segmentation"} == {(44.0, 65.0)}
    for built in build_all(context, ("segmentation", "lesion_segmentation")):
        overlay = given.read(built)
        assert overlay.FrameOfReferenceUID == "2.25.77"
        (groups,) = overlay.SharedFunctionalGroupsSequence
        assert list(groups.PlanePositionSequence[0].ImagePositionPatient) == [2, 0, 0]
        assert list(groups.PlaneOrientationSequence[0].ImageOrientationPatient) == [0, 1, 0, 0, 0, -1]
        assert list(groups.PixelMeasuresSequence[0].PixelSpacing) == [0.1, 0.1]
        for frame in overlay.PerFrameFunctionalGroupsSequence:
            (image,) = frame.DerivationImageSequence[0].SourceImageSequence
            assert image.ReferencedFrameNumber == 3
    report = given.only(build_all(context, ["measurement_report"]), "measurement_report")
    for region in given.named(report, "111030"):
        assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 3
    cad = given.only(build_all(context, ["mammography_cad"]), "mammography_cad")
    (image,) = cad.ContentSequence[1].ContentSequence
    assert image.ReferencedSOPSequence[0].ReferencedFrameNumber == 3
