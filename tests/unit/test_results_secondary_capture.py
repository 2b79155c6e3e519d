"""Secondary captures: what is drawn where, which words are burnt in, and what the header owns up to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.errors import ResultError
from dicom_node.results.builders import build_all
from dicom_node.results.context import ResultContext
from dicom_node.results.overlay_picture import BAND_COLOURS, captioned, overlay_picture
from models.contract import LesionMark
from tests import results_contexts as given

WARNING = "AI - not verified - not for diagnosis"
LINE = (64, 224, 255)


def captures(context: ResultContext) -> list[Dataset]:
    return [given.read(built) for built in build_all(context, ["secondary_capture"])]


def words(width: int, *sentences: str) -> NDArray[np.uint8]:
    """Draw the words alone, as they should stand above a picture."""
    return captioned(np.zeros((0, width, 3), np.uint8), WARNING, sentences)


def image_part(capture: Dataset) -> NDArray[np.uint8]:
    """Give the picture below the words."""
    part: NDArray[np.uint8] = capture.pixel_array[-given.ROWS :]
    return part


def coloured(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(np.ptp(picture.astype(int), axis=2) > 0)


def test_each_image_with_attention_has_a_picture_in_one_series() -> None:
    found = captures(given.positive())
    assert [c.SourceImageSequence[0].ReferencedSOPInstanceUID for c in found] == [
        image.SOPInstanceUID for image in given.images()[:2]
    ]
    assert {(c.SeriesInstanceUID, c.SeriesNumber, c.Modality) for c in found} == {
        (found[0].SeriesInstanceUID, 9401, "OT")
    }
    assert [c.InstanceNumber for c in found] == [1, 2]
    assert len({c.SOPInstanceUID for c in found}) == 2


def test_attention_is_coloured_where_it_lies_and_the_rest_of_the_image_is_as_displayed() -> None:
    for capture, score in zip(
        captures(given.positive()), given.positive().prediction.images[:2], strict=True
    ):
        picture = image_part(capture)
        assert score.evidence is not None
        inside = score.evidence > 0
        assert np.array_equal(coloured(picture), inside)
        shown = (given.renderings()[score.sop_instance_uid] >> 8).astype(np.uint8)
        assert np.array_equal(picture[~inside], np.repeat(shown[~inside][:, np.newaxis], 3, axis=1))
        for band, colour in enumerate(BAND_COLOURS, start=1):
            row, column = np.argwhere(score.evidence == band)[0]
            expected = 0.6 * shown[row, column] + 0.4 * np.array(colour)
            assert np.abs(picture[row, column] - expected).max() <= 1


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("reduction", [1, 2])
def test_a_mark_lands_within_a_pixel_of_its_place(number: int, reduction: int) -> None:
    # No two of the four sides lie alike, so a flip, a swap or a shift of the axes cannot pass.
    left, top, right, bottom = 21.0, 200.0, 61.0, 290.0
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    score = given.image_scores((0.9,) * 4)[number]
    marked = replace(score, evidence=None, marks=(LesionMark((41.0, 245.0), corners, 0.9),))
    picture = overlay_picture(given.positive(bundle=replace(given.BUNDLE, localises=True)), marked, reduction)
    rows, columns = np.nonzero((picture == LINE).all(axis=2))
    # Of the label, which is in the same colour, nothing lies to the left of the mark's right side.
    on_mark = (columns + 0.5) * reduction <= right + 1
    edges = [*(columns[on_mark].min(), rows[on_mark].min()), *(columns[on_mark].max(), rows[on_mark].max())]
    centres = (np.array(edges) + 0.5) * reduction
    assert np.abs(centres - (left, top, right, bottom)).max() <= reduction / 2


def test_large_images_are_halved_and_small_ones_are_not() -> None:
    columns, rows = 1030, 1101
    uid = str(given.images()[0].SOPInstanceUID)
    headers = given.sources(Rows=rows, Columns=columns)
    first = given.image_scores(given.POSITIVE)[0]
    evidence = np.zeros((rows, columns), np.uint8)
    evidence[400:440, 600:700] = 3
    said = given.prediction(given.POSITIVE)
    said = replace(
        said,
        images=(replace(first, evidence=evidence), *(replace(s, evidence=None) for s in said.images[1:])),
    )
    grey = np.full((rows, columns), 20_000, np.uint16)
    (capture,) = captures(given.context(said, headers, renderings={uid: grey}))
    picture = capture.pixel_array[-551:]
    assert capture.Columns == 515
    where = np.argwhere(coloured(picture))
    assert where.min(axis=0).tolist() == [200, 300]
    assert where.max(axis=0).tolist() == [219, 349]
    assert captures(given.positive())[0].Columns == given.COLUMNS


def test_the_words_above_the_picture_are_complete() -> None:
    capture = captures(given.positive())[0]
    expected = words(
        given.COLUMNS,
        "R CC: probability of cancer 91.0 %, at or above the threshold of 50.0 %.",
        "Colours: where the AI model looked, most in red; not the outline of a lesion.",
        "AI result: POSITIVE. Probability of cancer 87.0 %, at or above the threshold of 50.0 %.",
        "Not verified by a radiologist.",
        "Demonstration model, not for clinical use.",
        "Right breast: probability of cancer 87.0 % (CC 91.0 %, MLO 83.0 %).",
        "Left breast: probability of cancer 10.0 % (CC 12.0 %, MLO 8.0 %).",
        "AI model phantom-mammography, version 1.2.0 (ab12ab12ab12).",
    )
    assert np.array_equal(capture.pixel_array[: -given.ROWS], expected)
    assert (expected == (255, 214, 10)).all(axis=2).any()


@pytest.mark.parametrize(
    ("outcome", "sentences"),
    [
        (
            given.negative,
            (
                "AI result: NEGATIVE. Probability of cancer 10.0 %, below the threshold of 50.0 %.",
                "Not verified by a radiologist.",
                "Demonstration model, not for clinical use.",
                "Right breast: probability of cancer 10.0 % (CC 11.0 %, MLO 9.0 %).",
                "Left breast: probability of cancer 10.0 % (CC 12.0 %, MLO 8.0 %).",
            ),
        ),
        (
            given.partial,
            (
                "AI result: INCOMPLETE. Probability of cancer in what was analysed 11.0 %, "
                "below the threshold of 50.0 %.",
                "Not analysed: R MLO.",
                "What was not analysed may contain disease.",
                "Not verified by a radiologist.",
                "Demonstration model, not for clinical use.",
                "Right breast: probability of cancer 11.0 % (CC 11.0 %, MLO not analysed).",
                "Left breast: probability of cancer 10.0 % (CC 12.0 %, MLO 8.0 %).",
                "R MLO not analysed: breast implant present.",
            ),
        ),
        (
            given.refused,
            (
                "AI result: NONE. The study was not scored; this does not mean that it is normal.",
                "What was not analysed may contain disease.",
                "Not verified by a radiologist.",
                "Demonstration model, not for clinical use.",
                "Study incomplete: standard views are missing (L MLO).",
                "R MLO not analysed: breast implant present.",
            ),
        ),
    ],
)
def test_a_study_without_anything_to_show_has_one_card_in_words(
    outcome: Any, sentences: tuple[str, ...]
) -> None:
    (card,) = captures(outcome())
    expected = words(1024, *sentences, "AI model phantom-mammography, version 1.2.0 (ab12ab12ab12).")
    assert np.array_equal(card.pixel_array[: len(expected)], expected)
    assert not card.pixel_array[len(expected) :].any()
    assert len(card.SourceImageSequence) == 4


def test_a_card_needs_no_pixels_and_a_picture_says_that_it_does() -> None:
    assert len(captures(replace(given.negative(), renderings={}))) == 1
    with pytest.raises(ResultError, match="rendering"):
        captures(replace(given.positive(), renderings={}))
    with pytest.raises(ResultError, match="rendering"):
        uid = str(given.images()[0].SOPInstanceUID)
        captures(replace(given.positive(), renderings={uid: np.zeros((2, 2), np.uint16)}))


@pytest.mark.parametrize("outcome", [given.positive, given.refused])
def test_the_header_owns_up_to_what_the_picture_is(outcome: Any) -> None:
    for capture in captures(outcome()):
        assert capture.BurnedInAnnotation == "YES"
        assert capture.ConversionType == "WSD"
        assert capture.ImageType == ["DERIVED", "SECONDARY"]
        assert capture.PhotometricInterpretation == "RGB"
        assert "AI result" in capture.DerivationDescription
        assert "PixelSpacing" not in capture
        for source in capture.SourceImageSequence:
            assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert capture.SeriesDescription == "AI result pictures (not verified)"


def test_a_picture_of_pixels_that_are_not_square_says_so() -> None:
    oblong = captures(given.positive(given.sources(ImagerPixelSpacing=[0.1, 0.05])))
    assert [list(capture.PixelAspectRatio) for capture in oblong] == [[1000, 500]] * 2
    assert not any("PixelAspectRatio" in capture for capture in captures(given.positive()))


def test_what_was_lossy_stays_lossy() -> None:
    lossy = given.sources(
        LossyImageCompression="01", LossyImageCompressionRatio=12, LossyImageCompressionMethod="ISO_10918_1"
    )
    capture = captures(given.positive(lossy))[0]
    assert (capture.LossyImageCompression, capture.LossyImageCompressionRatio) == ("01", 12)
    assert "LossyImageCompression" not in captures(given.positive())[0]


def test_a_frame_that_was_scored_is_named() -> None:
    said = given.prediction(given.POSITIVE)
    said = replace(said, images=(replace(said.images[0], frame=3), *said.images[1:]))
    first, second = captures(given.context(said))
    assert first.SourceImageSequence[0].ReferencedFrameNumber == 3
    assert "ReferencedFrameNumber" not in second.SourceImageSequence[0]
