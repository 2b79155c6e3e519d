"""Presentation states: which lines and words lie where over which image, and how that image is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from dicom_node.errors import ResultError
from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from models.contract import CodedConcept, ImageScore, LesionMark, StudyPrediction
from tests import results_contexts as given

DENSITY = CodedConcept("129793001", "SCT", "Mammography breast density")


def states(context: ResultContext) -> list[Dataset]:
    return [given.read(built) for built in build_all(context, ["presentation_state"])]


def words(state: Dataset) -> list[str]:
    return [t.UnformattedTextValue for t in state.GraphicAnnotationSequence[0].TextObjectSequence]


def lines(state: Dataset) -> list[Dataset]:
    return list(state.GraphicAnnotationSequence[0].get("GraphicObjectSequence", ()))


def with_first(score_changes: dict[str, Any], said: StudyPrediction) -> StudyPrediction:
    first: ImageScore = replace(said.images[0], **score_changes)
    return replace(said, images=(first, *said.images[1:]))


@pytest.mark.parametrize("outcome", [given.positive, given.negative, given.partial, given.superseding])
def test_every_scored_image_has_one_state_of_its_own_in_one_series(outcome: Any) -> None:
    context = outcome()
    found = states(context)
    assert [
        s.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID for s in found
    ] == [score.sop_instance_uid for score in context.prediction.images]
    assert {(s.SeriesInstanceUID, s.SeriesNumber, s.Modality) for s in found} == {
        (found[0].SeriesInstanceUID, 9301, "PR")
    }
    assert [s.InstanceNumber for s in found] == list(range(1, len(found) + 1))
    assert len({s.SOPInstanceUID for s in found}) == len(found)


def test_a_refused_study_has_no_state() -> None:
    assert states(given.refused()) == []


def test_each_image_says_its_score_its_standing_and_where_its_line_comes_from() -> None:
    shown, _, without, _ = (words(state) for state in states(given.positive()))
    assert shown == [
        "AI: probability of cancer 91.0 %\r\n"
        "at or above the threshold of 50.0 %\r\n"
        "Not verified by a radiologist\r\n"
        "Demonstration, not for clinical use\r\n"
        "Line: AI attention, not an outline"
    ]
    assert without == [
        "AI: probability of cancer 12.0 %\r\n"
        "below the threshold of 50.0 %\r\n"
        "Not verified by a radiologist\r\n"
        "Demonstration, not for clinical use"
    ]


def test_lines_are_short_enough_for_the_air_beside_a_breast() -> None:
    said = replace(
        given.prediction((0.9123456, 0.9, 0.1, 0.1), (given.implant_refusal(),)), threshold=0.9123455
    )
    for state in states(given.context(said)):
        assert max(len(line) for line in words(state)[0].split("\r\n")) <= 45


def test_an_image_below_the_threshold_has_words_and_no_line() -> None:
    for state in states(given.negative()):
        assert lines(state) == []
        assert "below the threshold of" in words(state)[0]


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.5, "AI: probability of cancer 50.0 %\r\nat or above the threshold of 50.0 %\r\n"),
        (0.49999, "AI: probability of cancer 49.999 %\r\nbelow the threshold of 50.000 %\r\n"),
    ],
)
def test_a_score_at_the_threshold_or_just_below_it_is_told_from_it(probability: float, said: str) -> None:
    first, *_ = states(given.context(given.prediction((probability, 0.9, 0.1, 0.1))))
    assert words(first)[0].startswith(said)


def test_every_image_of_a_partial_study_says_that_others_were_not_analysed() -> None:
    found = states(given.partial())
    assert len(found) == 3
    assert all("Study not analysed completely" in words(state)[0] for state in found)
    assert not any("not analysed" in words(state)[0] for state in states(given.negative()))


def test_attention_is_a_closed_line_with_the_tracking_of_its_measurement_group() -> None:
    context = given.positive()
    report = given.only(build_all(context), "measurement_report")
    group = given.named(report, "125007")[0]
    (line,) = lines(states(context)[0])
    points = np.array(line.GraphicData).reshape(-1, 2)
    assert (line.GraphicType, line.GraphicAnnotationUnits, line.GraphicFilled) == ("POLYLINE", "PIXEL", "N")
    assert line.NumberOfGraphicPoints == len(points)
    assert points[0].tolist() == points[-1].tolist()
    # The attention was drawn round the centre of pixel 100, 150.
    assert np.abs((points.min(axis=0) + points.max(axis=0)) / 2 - (100.5, 150.5)).max() <= 1
    assert line.TrackingUID == given.named(group, "112040")[0].UID
    assert line.TrackingID == given.named(group, "112039")[0].TextValue


def test_marks_are_drawn_to_the_fraction_of_a_pixel_with_number_probability_and_finding() -> None:
    triangle = ((60.5, 20.0), (80.25, 24.0), (70.0, 44.5))
    marks = (LesionMark((70.0, 30.0), triangle, 0.87, DENSITY), LesionMark((9.0, 9.0), triangle, 0.5))
    said = with_first({"marks": marks}, given.prediction(given.POSITIVE))
    state = states(given.context(said, bundle=replace(given.BUNDLE, localises=True)))[0]
    assert [np.array(line.GraphicData).reshape(-1, 2).tolist() for line in lines(state)] == [
        [list(point) for point in (*triangle, triangle[0])]
    ] * 2
    assert words(state)[1:] == ["AI 1: 87.0 %, Mammography breast density", "AI 2: 50.0 %"]
    assert "not an outline" not in words(state)[0]
    label = state.GraphicAnnotationSequence[0].TextObjectSequence[1]
    column, row = label.AnchorPoint
    assert 80.25 < column <= given.COLUMNS
    assert row == 24.0


def test_marks_have_the_tracking_that_the_segments_of_the_lesions_have() -> None:
    triangle = ((60.5, 20.0), (80.25, 24.0), (70.0, 44.5))
    marks = (LesionMark((70.0, 30.0), triangle, 0.87), LesionMark((71.0, 31.0), triangle, 0.5))
    said = with_first({"marks": marks}, given.prediction(given.POSITIVE))
    context = given.context(said, bundle=replace(given.BUNDLE, localises=True))
    segments = given.only(build_all(context, ["lesion_segmentation"]), "lesion_segmentation").SegmentSequence
    assert [(line.TrackingID, line.TrackingUID) for line in lines(states(context)[0])] == [
        (segment.TrackingID, segment.TrackingUID) for segment in segments
    ]


def test_a_bundle_that_does_not_localise_marks_nothing() -> None:
    marks = (LesionMark((70.0, 30.0), ((60.0, 20.0), (80.0, 24.0), (70.0, 44.0)), 0.87),)
    state = states(given.context(with_first({"marks": marks}, given.prediction(given.POSITIVE))))[0]
    (line,) = lines(state)
    assert line.TrackingID == "AI image score R CC"
    assert len(words(state)) == 1


def test_words_stand_in_the_air_beside_the_breast() -> None:
    for state, score in zip(states(given.positive()), given.positive().prediction.images, strict=True):
        text = state.GraphicAnnotationSequence[0].TextObjectSequence[0]
        assert (text.AnchorPointAnnotationUnits, text.AnchorPointVisibility) == ("PIXEL", "N")
        # A right breast has its chest wall at the right edge of the image.
        assert (text.AnchorPoint[0] < given.COLUMNS / 2) == (score.laterality == "R")


def test_everything_is_in_the_one_layer_that_a_reader_switches() -> None:
    for state in states(given.positive()):
        (layer,) = state.GraphicLayerSequence
        assert layer.GraphicLayer == "AI_MARKS"
        assert {a.GraphicLayer for a in state.GraphicAnnotationSequence} == {"AI_MARKS"}
        assert state.ContentCreatorName == "AI^Node"


def test_the_whole_image_is_displayed_in_its_own_shape() -> None:
    area = states(given.positive())[0].DisplayedAreaSelectionSequence[0]
    assert area.DisplayedAreaTopLeftHandCorner == [1, 1]
    assert area.DisplayedAreaBottomRightHandCorner == [given.COLUMNS, given.ROWS]
    assert area.PresentationPixelAspectRatio == [1, 1]
    oblong = given.positive(given.sources(ImagerPixelSpacing=[0.1, 0.05]))
    assert states(oblong)[0].DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio == [1000, 500]
    (shape,) = (
        state.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio
        for state in states(given.positive(given.sources(ImagerPixelSpacing=None, PixelAspectRatio=[2, 1])))[
            :1
        ]
    )
    assert shape == [2, 1], "of an image without a spacing"


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_the_first_window_of_the_image_is_kept_to_the_digit(implicit: bool) -> None:
    windows = {
        "WindowCenter": ["2047.333333333", "1"],
        "WindowWidth": ["4095.5", "2"],
        "VOILUTFunction": "SIGMOID",
    }
    state = states(given.positive(given.sources(implicit=implicit, **windows)))[0]
    (item,) = state.SoftcopyVOILUTSequence
    assert (str(item.WindowCenter), str(item.WindowWidth)) == ("2047.333333333", "4095.5")
    assert item.VOILUTFunction == "SIGMOID"
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (1, 0, "US")


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_a_look_up_table_goes_before_a_window_and_keeps_every_value(implicit: bool) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (np.arange(4096) * 16).astype("<u2").tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    headers = given.sources(implicit=implicit, VOILUTSequence=[table])
    (item,) = states(given.positive(headers))[0].SoftcopyVOILUTSequence
    assert "WindowCenter" not in item
    (kept,) = item.VOILUTSequence
    assert kept.LUTDescriptor == [4096, 0, 16]
    assert np.frombuffer(kept.LUTData, "<u2").tolist() == (np.arange(4096) * 16).tolist()


def test_a_damaged_look_up_table_stops_the_state_and_says_why() -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0]
    table.LUTData = b"\0\0"
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    with pytest.raises(ResultError, match="LUTDescriptor"):
        states(given.positive(given.sources(VOILUTSequence=[table])))


@pytest.mark.parametrize(
    ("photometric", "shape", "expected"),
    [
        ("MONOCHROME2", "IDENTITY", "IDENTITY"),
        ("MONOCHROME1", "INVERSE", "INVERSE"),
        ("MONOCHROME1", None, "INVERSE"),
    ],
)
def test_an_image_that_is_shown_inverted_stays_so(photometric: str, shape: str | None, expected: str) -> None:
    headers = given.sources(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert states(given.positive(headers))[0].PresentationLUTShape == expected


def test_a_frame_that_was_scored_is_named_wherever_its_image_is() -> None:
    said = with_first({"frame": 3}, given.prediction(given.POSITIVE))
    first, second, *_ = states(given.context(said))
    for state, frame in ((first, 3), (second, None)):
        references = [
            item.ReferencedImageSequence[0]
            for sequence in (
                state.ReferencedSeriesSequence,
                state.DisplayedAreaSelectionSequence,
                state.GraphicAnnotationSequence,
                state.SoftcopyVOILUTSequence,
            )
            for item in sequence
        ]
        assert [reference.get("ReferencedFrameNumber") for reference in references] == [frame] * 4
