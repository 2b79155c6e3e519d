"""What the results of a whole slide show: one pixel for each patch, where the patch lies, and one score."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset

from dicom_node.errors import ResultError
from dicom_node.results.slide import SlideContext, build_slide
from tests import results_contexts as given
from tests import slide_contexts as slides


def built(context: SlideContext) -> tuple[Dataset, Dataset]:
    overlay, report = build_slide(context)
    assert (overlay.kind, report.kind) == ("slide_segmentation", "slide_report")
    return given.read(overlay), given.read(report)


def test_each_patch_is_one_pixel_and_bare_glass_is_nothing() -> None:
    overlay, _ = built(slides.context())
    expected = np.rint(np.nan_to_num(slides.patches()) * 255)
    assert np.array_equal(overlay.pixel_array, expected)
    assert (overlay.SegmentationType, overlay.MaximumFractionalValue) == ("FRACTIONAL", 255)
    assert (overlay.TotalPixelMatrixRows, overlay.TotalPixelMatrixColumns) == (slides.ROWS, slides.COLUMNS)
    assert overlay.DimensionOrganizationType == "TILED_FULL"
    assert overlay.LossyImageCompression == "01"


def test_highdicom_reads_the_map_as_a_total_pixel_matrix() -> None:
    overlay, _ = build_slide(slides.context())
    read = hd.seg.segread(BytesIO(overlay.content))
    matrix = read.get_total_pixel_matrix(rescale_fractional=True)
    assert matrix[..., 0] == pytest.approx(np.nan_to_num(slides.patches()), abs=0.002)


def test_a_pixel_of_the_map_lies_in_the_middle_of_its_patch() -> None:
    source, (down, across) = slides.slide(), (0.0005, 0.0004)
    (groups,) = source.SharedFunctionalGroupsSequence
    groups.PixelMeasuresSequence[0].PixelSpacing = [down, across]
    overlay, _ = built(slides.context(source=source))
    (origin,) = overlay.TotalPixelMatrixOriginSequence
    # Half a patch from the outer corner of the first pixel, whose centre is the slide's origin. The row of
    # this slide runs along -Y and its column along -X.
    middle = slides.PATCH / 2 - 0.5
    assert float(origin.XOffsetInSlideCoordinateSystem) == pytest.approx(20 - middle * down)
    assert float(origin.YOffsetInSlideCoordinateSystem) == pytest.approx(40 - middle * across)
    (groups,) = overlay.SharedFunctionalGroupsSequence
    spacing = groups.PixelMeasuresSequence[0].PixelSpacing
    assert list(spacing) == pytest.approx([slides.PATCH * down, slides.PATCH * across])
    assert list(overlay.ImageOrientationSlide) == list(source.ImageOrientationSlide)
    assert overlay.FrameOfReferenceUID == source.FrameOfReferenceUID


def test_the_region_of_the_report_is_what_was_analysed_on_the_slide() -> None:
    _, report = built(slides.context())
    (region,) = given.named(report, "111030")
    assert (region.ValueType, region.GraphicType) == ("SCOORD3D", "POLYGON")
    assert region.ReferencedFrameOfReferenceUID == "2.25.8105"
    points = np.array(region.GraphicData).reshape(-1, 3)
    side, half = slides.PATCH * 0.0005, 0.00025
    right, bottom = 40 + half - 28 * side, 20 + half - 24 * side
    assert points[0] == pytest.approx(points[-1])
    assert points[:, 0].max() == pytest.approx(20 + half - 3 * side, abs=1e-5)
    assert points[:, 0].min() == pytest.approx(bottom, abs=1e-5)
    assert points[:, 1].max() == pytest.approx(40 + half, abs=1e-5)
    assert points[:, 1].min() == pytest.approx(right, abs=1e-5)
    assert not points[:, 2].any()


@pytest.mark.parametrize(
    ("probability", "word", "opinion"), [(0.96, "POSITIVE", "Malignant"), (0.2, "NEGATIVE", "Benign")]
)
def test_the_report_says_score_opinion_and_what_was_left_out(
    probability: float, word: str, opinion: str
) -> None:
    _, report = built(slides.context(slides.said(probability)))
    (comment,) = [t for t in given.texts(report) if t.startswith("AI result")]
    assert comment.startswith(f"AI result of slide 1: {word}.")
    assert "588 of 768 patches analysed" in comment
    assert "Not verified by a radiologist or pathologist." in comment
    assert "Demonstration model" in comment
    (score,) = given.named(report, "111047")
    assert float(score.MeasuredValueSequence[0].NumericValue) == pytest.approx(100 * probability)
    (item,) = given.named(report, "278201002")
    assert item.ConceptCodeSequence[0].CodeMeaning == opinion


def test_specimen_and_slide_are_those_of_the_image() -> None:
    source = slides.slide()
    overlay, report = built(slides.context(source=source))
    assert overlay.ContainerIdentifier == source.ContainerIdentifier
    assert overlay.SpecimenDescriptionSequence == source.SpecimenDescriptionSequence
    (specimen,) = given.named(report, "121039")
    assert specimen.UID == "2.25.8104"
    assert report.PatientName == overlay.PatientName == source.PatientName
    (procedure,) = given.named(report, "121058")
    assert procedure.ConceptCodeSequence[0].CodeMeaning == "Anatomic pathology procedure"


def test_map_and_report_are_tied_by_tracking_uid_and_evidence() -> None:
    overlay, report = built(slides.context())
    (tracking,) = given.named(report, "112040")
    assert overlay.SegmentSequence[0].TrackingUID == tracking.UID
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    listed = [
        r.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for r in s.ReferencedSOPSequence
    ]
    assert listed == [slides.SLIDE_UID, overlay.SOPInstanceUID]


def test_built_again_they_are_the_same_bytes_and_a_revision_makes_others() -> None:
    first, again = (build_slide(slides.context()) for _ in range(2))
    assert [o.content for o in first] == [o.content for o in again]
    later = build_slide(slides.context(revision=2))
    assert not {o.sop_instance_uid for o in first} & {o.sop_instance_uid for o in later}
    tracking = {given.read(o[0]).SegmentSequence[0].TrackingUID for o in (first, later)}
    assert len(tracking) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: slides.context(slides.said(patches=np.full((3, 3), np.nan, np.float32))),
        lambda: slides.context(slides.said(patches=np.full((3, 3), 1.5, np.float32))),
        lambda: slides.context(slides.said(1.5)),
        lambda: slides.context(slides.said(patches=np.zeros((25, 32), np.float32))),
        lambda: slides.context(slides.said(patches=np.zeros((24, 33), np.float32))),
        lambda: slides.context(slides.said(patch_pixels=0)),
        lambda: slides.context(slides.said(sop_instance_uid="2.25.1")),
        lambda: slides.context(source=slides.slide(FrameOfReferenceUID=None)),
    ],
)
def test_what_contradicts_itself_or_its_slide_is_refused(wrong: Callable[[], SlideContext]) -> None:
    with pytest.raises(ResultError):
        wrong()
