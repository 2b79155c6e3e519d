"""Which level of a slide is read, which patches are scored, and what the slide's score is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.classifier import Classifier
from models.contract import Outcome, Refusal, RefusalCode, SlideStudyPrediction, SlideView
from models.errors import UnsupportedBundleError
from models.slide_classifier import predict_slides, slide_probability
from models.tasks import task_named
from models.tasks.idc import tissue
from tests.idc_bundle import write_idc_bundle
from tests.slide_phantoms import slide_pixels
from tests.unit.small_bundle import write_small_bundle

ROWS, COLUMNS = 620, 830
TUMOUR = (225, 525, 80)  # in the middle of the patch in row 4 and column 10


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = tmp_path_factory.mktemp("bundle") / "idc"
    write_idc_bundle(folder)
    return Classifier.load(folder)


def view_of(
    pixels: NDArray[np.uint8], uid: str = "2.25.1", spacing_mm: float = 0.004, **more: str
) -> SlideView:
    return SlideView(
        sop_instance_uid=uid,
        slide_uid=more.get("slide_uid", "2.25.9"),
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        spacing_mm=spacing_mm,
        read=lambda top, bottom: pixels[top:bottom],
    )


def predicted(
    classifier: Classifier,
    *views: SlideView,
    unreadable: tuple[Refusal, ...] = (),
    refusal_of: Callable[[SlideView, Exception], Refusal | None] = lambda _view, _error: None,
) -> SlideStudyPrediction:
    return predict_slides(
        classifier, views, unreadable, stopwatch=lambda _: nullcontext(), refusal_of=refusal_of
    )


@pytest.fixture(scope="module")
def tumour() -> NDArray[np.uint8]:
    return slide_pixels(7, rows=ROWS, columns=COLUMNS, tumour=TUMOUR)


def test_patches_of_the_tumour_are_high_those_of_tissue_low_and_glass_is_not_scored(
    classifier: Classifier, tumour: NDArray[np.uint8]
) -> None:
    said = predicted(classifier, view_of(tumour))
    assert (said.outcome, said.refusals) == (Outcome.SCORED, ())
    (slide,) = said.slides
    # The last 20 rows and 30 columns hold no whole patch.
    assert (slide.patches.shape, slide.patch_pixels) == ((12, 16), 50)
    assert slide.patches[4, 10] > 0.9
    assert slide.patches[8, 4] < 0.1
    assert np.isnan([slide.patches[0, 0], slide.patches[0, -1], slide.patches[-1, 0]]).all()
    assert 0.3 < np.isnan(slide.patches).mean() < 0.6
    assert said.is_positive and said.study_probability == slide.probability


def test_a_slide_without_tumour_is_negative(classifier: Classifier) -> None:
    said = predicted(classifier, view_of(slide_pixels(8, rows=ROWS, columns=COLUMNS)))
    assert not said.is_positive
    assert said.outcome is Outcome.SCORED


def test_a_patch_scores_the_same_whatever_else_the_slide_holds(
    classifier: Classifier, tumour: NDArray[np.uint8]
) -> None:
    alone = np.full_like(tumour, 243)
    alone[200:250, 500:550] = tumour[200:250, 500:550]
    (whole,) = predicted(classifier, view_of(tumour)).slides
    (single,) = predicted(classifier, view_of(alone)).slides
    assert np.flatnonzero(~np.isnan(single.patches)).tolist() == [4 * 16 + 10]
    assert single.patches[4, 10] == whole.patches[4, 10]


def test_of_the_levels_of_a_slide_the_coarsest_that_is_fine_enough_is_read(
    classifier: Classifier, tumour: NDArray[np.uint8]
) -> None:
    fine = view_of(np.repeat(np.repeat(tumour, 2, 0), 2, 1), "2.25.1", 0.002)
    coarse = view_of(tumour[::4, ::4], "2.25.3", 0.016)
    said = predicted(classifier, coarse, view_of(tumour, "2.25.2", 0.004), fine)
    assert [slide.sop_instance_uid for slide in said.slides] == ["2.25.2"]
    assert {r.sop_instance_uid: r.code for r in said.refusals} == {
        "2.25.1": RefusalCode.OTHER_SLIDE_LEVEL,
        "2.25.3": RefusalCode.OTHER_SLIDE_LEVEL,
    }
    assert said.outcome is Outcome.SCORED


def test_a_finer_level_is_averaged_to_the_scale_of_the_network(
    classifier: Classifier, tumour: NDArray[np.uint8]
) -> None:
    fine = view_of(np.repeat(np.repeat(tumour, 2, 0), 2, 1), spacing_mm=0.002)
    (from_fine,) = predicted(classifier, fine).slides
    (own,) = predicted(classifier, view_of(tumour)).slides
    assert from_fine.patch_pixels == 100
    assert np.array_equal(from_fine.patches, own.patches, equal_nan=True)


def test_a_slide_without_a_fine_level_is_refused(classifier: Classifier, tumour: NDArray[np.uint8]) -> None:
    said = predicted(classifier, view_of(tumour, spacing_mm=0.016))
    assert (said.outcome, said.study_probability) == (Outcome.REFUSED, None)
    assert [r.code for r in said.refusals] == [
        RefusalCode.NO_SCORABLE_IMAGE,
        RefusalCode.SLIDE_RESOLUTION,
    ]


@pytest.mark.parametrize("rows", [ROWS, 30])
def test_bare_glass_is_refused_and_so_is_a_slide_smaller_than_a_patch(
    rows: int, classifier: Classifier
) -> None:
    glass = np.full((rows, COLUMNS, 3), 243, np.uint8)
    said = predicted(classifier, view_of(glass))
    assert [r.code for r in said.refusals] == [RefusalCode.NO_SCORABLE_IMAGE, RefusalCode.NO_TISSUE]


def test_one_bad_slide_leaves_the_others_scored_and_the_study_partial(
    classifier: Classifier, tumour: NDArray[np.uint8]
) -> None:
    def broken(top: int, bottom: int) -> NDArray[np.uint8]:
        raise ValueError("a tile")

    bad = replace(view_of(tumour, "2.25.5", slide_uid="2.25.8"), read=broken)
    label = Refusal(RefusalCode.NOT_SLIDE_TISSUE, "2.25.6")
    said = predicted(
        classifier,
        bad,
        view_of(tumour),
        unreadable=(label,),
        refusal_of=lambda view, _error: Refusal(RefusalCode.PIXEL_DATA, view.sop_instance_uid),
    )
    assert said.outcome is Outcome.PARTIAL
    assert [(r.sop_instance_uid, r.code) for r in said.refusals] == [
        ("2.25.5", RefusalCode.PIXEL_DATA),
        ("2.25.6", RefusalCode.NOT_SLIDE_TISSUE),
    ]
    with pytest.raises(ValueError, match="a tile"):
        predicted(classifier, bad)


def test_labels_and_overviews_leave_a_study_whole(classifier: Classifier, tumour: NDArray[np.uint8]) -> None:
    label = Refusal(RefusalCode.NOT_SLIDE_TISSUE, "2.25.6")
    assert predicted(classifier, view_of(tumour), unreadable=(label,)).outcome is Outcome.SCORED


def test_the_score_of_a_slide_is_the_mean_of_its_ten_highest_patches() -> None:
    patches = np.full((5, 6), np.nan, np.float32)
    patches[0] = 0.9
    patches[1] = 0.5
    patches[2] = 0.1
    assert slide_probability(patches) == pytest.approx((6 * 0.9 + 4 * 0.5) / 10)
    assert slide_probability(patches[:1]) == pytest.approx(0.9)


def test_stained_patches_are_tissue_and_grey_ones_are_glass_or_dust() -> None:
    pink = np.broadcast_to(np.array([222, 160, 196], np.uint8), (50, 50, 3))
    grey = np.full((50, 50, 3), 120, np.uint8)
    corner = grey.copy()
    corner[:20, :20] = (222, 160, 196)
    speck = grey.copy()
    speck[:10, :10] = (222, 160, 196)
    assert tissue(np.stack([pink, grey, corner, speck])).tolist() == [True, False, True, False]


def test_a_bundle_of_mammograms_reads_no_slides(tmp_path: Path, tumour: NDArray[np.uint8]) -> None:
    write_small_bundle(tmp_path / "small")
    with pytest.raises(UnsupportedBundleError):
        predicted(Classifier.load(tmp_path / "small"), view_of(tumour))


def test_a_single_image_is_no_slide() -> None:
    unreadable = Refusal(RefusalCode.UNREADABLE, "2.25.1")
    verdict = task_named("idc").gate((), (unreadable,))
    assert [r.code for r in verdict.refusals] == [RefusalCode.NO_SCORABLE_IMAGE, RefusalCode.UNREADABLE]
    assert not verdict.accepted
