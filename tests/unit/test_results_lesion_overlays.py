"""What the overlays of marked places and of the map's values show."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset

from dicom_node.errors import ResultError
from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from dicom_node.results.polygons import filled
from tests import localised_contexts as localised
from tests import results_contexts as given

KINDS = ("lesion_segmentation", "fractional_segmentation")


def overlays(context: ResultContext, kind: str = "lesion_segmentation") -> list[Dataset]:
    return [given.read(built) for built in build_all(context, [kind])]


def with_values(context: ResultContext) -> ResultContext:
    """Ask for the map's values too."""
    values = np.zeros((given.ROWS, given.COLUMNS), np.uint8)
    values[100:160, 80:121] = np.arange(60, dtype=np.uint8)[:, None] * 4 + 19
    values[0, 0] = 3
    images = tuple(
        replace(score, attention=values if score.evidence is not None else None)
        for score in context.prediction.images
    )
    return replace(context, prediction=replace(context.prediction, images=images))


def test_each_image_with_marks_gets_one_overlay_with_a_segment_for_each_mark() -> None:
    built = build_all(localised.binary(), ["lesion_segmentation"])
    assert [o.referenced_sop_instance_uids for o in built] == [
        (str(image.SOPInstanceUID),) for image in given.images()[:2]
    ]
    assert [len(given.read(o).SegmentSequence) for o in built] == [1, 2]
    assert len({o.series_instance_uid for o in built}) == 2


@pytest.mark.parametrize("outcome", [localised.nothing_found, localised.partial, localised.refused])
def test_without_marks_there_is_no_overlay(outcome: object) -> None:
    assert callable(outcome)
    assert overlays(outcome()) == []


def test_a_bundle_that_does_not_localise_outlines_nothing_whatever_it_says() -> None:
    context = localised.binary()
    silent = replace(context, bundle=replace(context.bundle, localises=False))
    assert overlays(silent) == []


def test_highdicom_reads_back_the_pixels_inside_each_outline() -> None:
    context = localised.binary()
    built = build_all(context, ["lesion_segmentation"])
    for item, score in zip(built, context.prediction.images[:2], strict=True):
        pixels = hd.seg.segread(BytesIO(item.content)).get_pixels_by_source_instance(
            [score.sop_instance_uid], combine_segments=False
        )
        assert pixels.shape == (1, given.ROWS, given.COLUMNS, len(score.marks))
        for number, mark in enumerate(score.marks):
            inside = filled(mark.outline, (given.ROWS, given.COLUMNS))
            assert np.array_equal(pixels[0, :, :, number], inside)
            assert inside.any()


def test_a_segment_says_what_is_marked_how_probable_it_is_and_on_which_side() -> None:
    segments = overlays(localised.masses())[1].SegmentSequence
    (segment,) = segments
    assert segment.SegmentLabel == segment.TrackingID == "AI lesion R MLO 1"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Mammographic breast mass"
    category = segment.SegmentedPropertyCategoryCodeSequence[0]
    assert category.CodeMeaning == "Morphologically Abnormal Structure"
    assert segment.SegmentDescription == "Marked by the AI model, probability of cancer 90.0 %"
    region = segment.AnatomicRegionSequence[0]
    assert region.AnatomicRegionModifierSequence[0].CodeMeaning == "Right"
    (unknown,) = overlays(localised.binary())[0].SegmentSequence
    assert unknown.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"


def test_marks_that_overlap_are_declared_as_such() -> None:
    context = localised.marked(
        given.positive(),
        {0: (localised.mark(100, 150), localised.mark(104, 150)), 1: (localised.mark(9, 9),)},
    )
    assert [o.SegmentsOverlap for o in overlays(context)] == ["YES", "NO"]


def test_the_map_is_shown_by_value_only_where_somebody_asked_for_it() -> None:
    assert overlays(given.positive(), "fractional_segmentation") == []
    context = with_values(given.positive())
    shown = overlays(context, "fractional_segmentation")
    assert len(shown) == 2
    for overlay, score in zip(shown, context.prediction.images, strict=False):
        assert score.attention is not None
        assert (overlay.SegmentationType, overlay.MaximumFractionalValue) == ("FRACTIONAL", 255)
        assert np.array_equal(overlay.pixel_array, np.where(score.attention < 6, 0, score.attention))
        assert "no probability" in overlay.ContentDescription
        assert overlay.SegmentSequence[0].SegmentLabel == "AI heat map"


def test_no_two_segments_of_a_study_share_a_tracking_uid() -> None:
    context = with_values(localised.binary())
    built = [given.read(o) for o in build_all(context, ["segmentation", *KINDS])]
    uids = [segment.TrackingUID for overlay in built for segment in overlay.SegmentSequence]
    assert len(uids) == len(set(uids)) == 2 * 3 + 3 + 2


def test_rebuilt_they_are_the_same_bytes_in_series_of_their_own() -> None:
    first, again = (build_all(with_values(localised.binary()), ["segmentation", *KINDS]) for _ in range(2))
    assert [o.content for o in first] == [o.content for o in again]
    numbers = [given.read(o).SeriesNumber for o in first]
    assert len(set(numbers)) == len({o.series_instance_uid for o in first}) == len(first)


def test_a_map_of_another_size_is_refused() -> None:
    context = given.positive()
    images = (replace(context.prediction.images[0], attention=np.ones((3, 3), np.uint8)),)
    said = replace(context.prediction, images=(*images, *context.prediction.images[1:]))
    with pytest.raises(ResultError, match="does not fit"):
        build_all(given.context(said), ["fractional_segmentation"])


def test_a_polygon_holds_the_pixels_whose_centres_it_holds() -> None:
    square = ((2.0, 1.0), (5.0, 1.0), (5.0, 3.0), (2.0, 3.0))
    inside = filled(square, (4, 6))
    assert inside.sum() == 6
    assert inside[1:3, 2:5].all()
    assert np.array_equal(filled(square[::-1], (4, 6)), inside)
    assert filled(((-4.0, -4.0), (9.0, -4.0), (9.0, 9.0), (-4.0, 9.0)), (4, 6)).all()
    assert not filled(((7.0, 0.0), (9.0, 0.0), (9.0, 4.0)), (4, 6)).any()
    triangle = filled(((0.0, 0.0), (6.0, 0.0), (0.0, 6.0)), (6, 6))
    assert np.array_equal(triangle, np.add.outer(np.arange(6), np.arange(6)) < 5)
