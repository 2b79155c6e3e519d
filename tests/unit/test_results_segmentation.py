"""What the overlay shows, and that it calls itself attention and nothing else."""

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
from tests import results_contexts as given


def overlays(context: ResultContext) -> list[Dataset]:
    return [given.read(built) for built in build_all(context) if built.kind == "segmentation"]


def test_each_image_with_evidence_gets_an_overlay_and_no_other_does() -> None:
    context = given.positive()
    referenced = [o.referenced_sop_instance_uids for o in build_all(context) if o.kind == "segmentation"]
    assert referenced == [(s.sop_instance_uid,) for s in context.prediction.images[:2]]
    assert overlays(given.negative()) == []
    assert overlays(given.refused()) == []


def test_an_empty_evidence_map_gives_no_overlay() -> None:
    said = given.positive().prediction
    empty = tuple(replace(s, evidence=np.zeros((given.ROWS, given.COLUMNS), np.uint8)) for s in said.images)
    assert overlays(given.context(replace(said, images=empty))) == []


def test_highdicom_reads_back_the_three_bands_pixel_for_pixel() -> None:
    context = given.positive()
    built = [o for o in build_all(context) if o.kind == "segmentation"]
    for segmentation, score in zip(built, context.prediction.images[:2], strict=True):
        segment = hd.seg.segread(BytesIO(segmentation.content))
        pixels = segment.get_pixels_by_source_instance(
            [score.sop_instance_uid], combine_segments=True, skip_overlap_checks=False
        )
        assert score.evidence is not None
        assert np.array_equal(pixels[0], score.evidence)
        assert set(np.unique(pixels)) == {0, 1, 2, 3}


def test_a_size_that_fills_no_whole_byte_is_packed_without_gaps() -> None:
    rows, columns = 21, 13
    headers = given.sources(Rows=rows, Columns=columns)
    random = np.random.default_rng(0)
    said = given.positive().prediction
    scores = tuple(
        replace(
            score,
            region=replace(score.region, left=0.0, top=0.0, right=13.0, bottom=21.0),
            evidence=random.integers(0, 4, (rows, columns), np.uint8),
        )
        for score in said.images
    )
    for overlay, score in zip(
        overlays(given.context(replace(said, images=scores), headers)), scores, strict=True
    ):
        frames = overlay.pixel_array
        assert np.array_equal(sum(band * frames[band - 1] for band in (1, 2, 3)), score.evidence)
        assert len(overlay.PixelData) % 2 == 0


def test_the_bands_are_coded_and_described_as_attention_with_three_colours() -> None:
    for overlay, side in zip(overlays(given.positive()), ("Right", "Right"), strict=True):
        assert [s.SegmentLabel for s in overlay.SegmentSequence] == [
            "AI attention, 30-60 % of the maximum in this image",
            "AI attention, 60-85 % of the maximum in this image",
            "AI attention, 85-100 % of the maximum in this image",
        ]
        assert len({tuple(s.RecommendedDisplayCIELabValue) for s in overlay.SegmentSequence}) == 3
        for segment in overlay.SegmentSequence:
            assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Class activation"
            category = segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning
            assert category == "Spatial and Relational Concept"
            assert "not the outline of a lesion" in segment.SegmentDescription
            assert segment.SegmentAlgorithmType == "AUTOMATIC"
            (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
            assert algorithm.AlgorithmParameters == "decision threshold 0.5000"
            assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("phantom-mammography", "1.2.0")
            (region,) = segment.AnatomicRegionSequence
            assert region.AnatomicRegionModifierSequence[0].CodeMeaning == side
        assert overlay.SeriesDescription.startswith("AI attention R ")


def test_the_strongest_band_has_the_tracking_uid_of_the_measurement_group() -> None:
    context = given.positive()
    report = given.only(build_all(context), "measurement_report")
    groups = [str(item.UID) for item in given.named(report, "112040")]
    for overlay, group in zip(overlays(context), groups[:2], strict=True):
        tracking = [str(segment.TrackingUID) for segment in overlay.SegmentSequence]
        assert tracking[2] == group
        assert len(set(tracking)) == 3
        assert not set(tracking[:2]) & set(groups)


def test_viewers_find_what_they_need() -> None:
    for overlay, source in zip(overlays(given.positive()), given.images()[:2], strict=True):
        assert (overlay.Rows, overlay.Columns) == (source.Rows, source.Columns)
        assert overlay.PatientOrientation == source.PatientOrientation
        assert "FrameOfReferenceUID" not in overlay
        assert "Laterality" not in overlay
        (series,) = overlay.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == source.SeriesInstanceUID
        (shared,) = overlay.SharedFunctionalGroupsSequence
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        assert list(orientation) == [1, 0, 0, 0, 1, 0]
        (measures,) = shared.PixelMeasuresSequence
        assert measures.PixelSpacing == source.ImagerPixelSpacing
        assert measures.SliceThickness == source.BodyPartThickness
        for number, frame in enumerate(overlay.PerFrameFunctionalGroupsSequence, 1):
            assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
            (image,) = frame.DerivationImageSequence[0].SourceImageSequence
            assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_an_image_of_unknown_spacing_still_has_the_item_that_ohif_reads() -> None:
    for overlay in overlays(given.positive(given.sources(ImagerPixelSpacing=None))):
        (measures,) = overlay.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        assert len(measures) == 0


def test_an_overlay_of_a_lossy_image_says_lossy() -> None:
    lossy = given.sources(LossyImageCompression="01", LossyImageCompressionRatio="12.5")
    assert [o.LossyImageCompression for o in overlays(given.positive(lossy))] == ["01", "01"]
    assert [o.LossyImageCompressionRatio for o in overlays(given.positive(lossy))] == [12.5, 12.5]
    assert [o.LossyImageCompression for o in overlays(given.positive())] == ["00", "00"]


def test_a_frame_of_reference_is_taken_over() -> None:
    headers = given.sources(FrameOfReferenceUID="2.25.77")
    assert [o.FrameOfReferenceUID for o in overlays(given.positive(headers))] == ["2.25.77"] * 2


@pytest.mark.parametrize(
    "evidence",
    [np.ones((given.ROWS, given.COLUMNS - 1), np.uint8), np.full((given.ROWS, given.COLUMNS), 4, np.uint8)],
)
def test_evidence_that_does_not_fit_its_image_is_refused(evidence: np.ndarray) -> None:
    said = given.positive().prediction
    scores = (replace(said.images[0], evidence=evidence), *said.images[1:])
    with pytest.raises(ResultError, match="does not fit"):
        build_all(given.context(replace(said, images=scores)))
