"""A bundle at work: verified answers, the same to the bit, put together to breasts and a study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from models import bundle
from models.architectures import architecture_names, build
from models.calibration import OperatingPoint, probabilities
from models.classifier import Classifier, predict_study
from models.contract import ImageView, Laterality, Outcome, Refusal, RefusalCode
from models.errors import (
    DeviceUnavailableError,
    GoldenMismatchError,
    RegistryError,
    UnknownArchitectureError,
    WeightsError,
)
from models.store import released_bundle
from tests.unit.refused_bundles import release_again
from tests.unit.small_bundle import write_small_bundle
from training.datasets.phantoms import LesionKind, draw
from training.demonstration.cohort import display_view

PLACES = [(side, view) for side in (Laterality.RIGHT, Laterality.LEFT) for view in ("CC", "MLO")]


def study(lesion_side: Laterality | None = None, rows: int = 320, seed: int = 11) -> list[ImageView]:
    views = []
    for number, (side, view) in enumerate(PLACES, start=1):
        is_malignant = side is lesion_side
        phantom = draw(
            laterality=side,
            view=view,
            kind=LesionKind.SPIC if is_malignant else LesionKind.NORM,
            malignant=is_malignant,
            rows=rows,
            columns=rows * 13 // 16,
            seed=seed,
        )
        views.append(display_view(phantom, f"1.2.{number}"))
    return views


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    point = OperatingPoint("default", 0.0, 0.9, 0.8, 0.95, False)
    folder = tmp_path_factory.mktemp("bundles") / "small"
    write_small_bundle(folder, operating_points=(point,))
    return Classifier.load(folder, threads=1)


@pytest.fixture(scope="module")
def released() -> Classifier:
    return Classifier.load(released_bundle(), threads=1)


def test_a_study_is_scored_by_image_breast_and_study(small: Classifier) -> None:
    views = study()
    prediction = predict_study(small, views[::-1], ())
    assert prediction.outcome is Outcome.SCORED
    assert [(i.laterality, i.view) for i in prediction.images] == PLACES
    for image in prediction.images:
        assert image.probability == float(probabilities(image.logit, 1.5))
    right, left = prediction.breasts
    assert right.laterality is Laterality.RIGHT
    assert right.probability == pytest.approx(np.mean([i.probability for i in prediction.images[:2]]))
    assert right.sop_instance_uids == ("1.2.1", "1.2.2")
    assert prediction.study_probability == max(right.probability, left.probability)
    assert prediction.threshold == 0.0
    assert prediction.is_positive


def test_an_image_scores_the_same_to_the_bit_whatever_else_is_in_the_study(small: Classifier) -> None:
    views = study()
    whole = predict_study(small, views, ())
    for view, image in zip(views, whole.images, strict=True):
        (alone,) = predict_study(small, [view], ()).images
        assert alone.logit == image.logit
        assert np.array_equal(alone.evidence, image.evidence)


def test_a_reloaded_classifier_scores_the_same_to_the_bit(small: Classifier) -> None:
    again = Classifier.load(small.bundle.path, threads=1)
    views = study()
    first, second = (predict_study(c, views, ()) for c in (small, again))
    assert [i.logit for i in first.images] == [i.logit for i in second.images]


def test_missing_views_make_a_partial_prediction(small: Classifier) -> None:
    prediction = predict_study(small, study()[:2], [Refusal(RefusalCode.PIXEL_DATA, "1.2.77")])
    assert prediction.outcome is Outcome.PARTIAL
    assert [r.code for r in prediction.refusals] == [RefusalCode.VIEWS_MISSING, RefusalCode.PIXEL_DATA]
    assert prediction.refusals[0].detail == "L CC, L MLO"
    assert [b.laterality for b in prediction.breasts] == [Laterality.RIGHT]


def test_a_study_without_a_scorable_image_is_refused_and_has_no_score(small: Classifier) -> None:
    blank = [replace(view, pixels=np.zeros_like(view.pixels)) for view in study()]
    prediction = predict_study(small, blank, ())
    assert prediction.outcome is Outcome.REFUSED
    assert prediction.images == prediction.breasts == ()
    assert prediction.study_probability is None
    assert not prediction.is_positive
    assert prediction.refusals[0].code is RefusalCode.NO_SCORABLE_IMAGE


def test_each_stage_is_timed_once(small: Classifier) -> None:
    entered = []

    @contextmanager
    def stopwatch(stage: str) -> Iterator[None]:
        entered.append(stage)
        yield

    predict_study(small, study(), (), stopwatch=stopwatch)
    assert entered == ["preprocess", "forward", "evidence"]


@pytest.mark.parametrize(("threshold", "enabled"), [(1.0, True), (0.0, False)])
def test_no_map_is_made_below_the_threshold_or_when_switched_off(
    tmp_path: Path, threshold: float, enabled: bool
) -> None:
    point = OperatingPoint("default", threshold, 0.9, 0.8, 0.95, False)
    write_small_bundle(tmp_path / "b", operating_points=(point,), evidence_enabled=enabled)
    views = study()
    prediction = predict_study(Classifier.load(tmp_path / "b"), views, ())
    assert [image.evidence for image in prediction.images] == [None] * len(views)


def test_evidence_is_as_large_as_the_source(small: Classifier) -> None:
    for view, image in zip(study(), predict_study(small, study(), ()).images, strict=True):
        assert image.evidence is not None
        assert image.evidence.shape == view.pixels.shape


def test_the_logit_is_the_mean_of_the_highest_cells_of_its_map(small: Classifier) -> None:
    batch = small.bundle.golden.inputs[:1]
    logits, maps = small.forward(batch)
    cells = np.sort(maps[0].ravel())[::-1]
    assert logits[0, 0] == pytest.approx(cells[: round(0.01 * cells.size) or 1].mean(), abs=1e-6)


def test_a_network_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "b")
    weights = load_file(tmp_path / "b" / bundle.WEIGHTS)
    weights["head.bias"] += 1e-3
    save_file(weights, tmp_path / "b" / bundle.WEIGHTS)
    release_again(tmp_path / "b", bundle.WEIGHTS)
    with pytest.raises(GoldenMismatchError, match="released answers"):
        Classifier.load(tmp_path / "b")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_small_bundle(tmp_path / "b", architecture_arguments={"channels": [4, 4, 8]})
    with pytest.raises(WeightsError, match="compact"):
        Classifier.load(tmp_path / "b")


def test_an_unknown_or_absent_device_is_refused(small: Classifier) -> None:
    with pytest.raises(DeviceUnavailableError, match="auto"):
        Classifier.load(small.bundle.path, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceUnavailableError, match="cpu"):
            Classifier.load(small.bundle.path, device="cuda")
        assert Classifier.load(small.bundle.path, device="auto").device == "cpu"


def test_a_gpu_gives_the_released_answers(released: Classifier) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    on_gpu = Classifier.load(released.bundle.path, device="cuda")
    expected = [i.logit for i in predict_study(released, study(Laterality.LEFT), ()).images]
    seen = [i.logit for i in predict_study(on_gpu, study(Laterality.LEFT), ()).images]
    assert seen == pytest.approx(expected, abs=1e-3)


def test_architectures_are_known_by_their_files() -> None:
    assert "compact" in architecture_names()
    with pytest.raises(UnknownArchitectureError, match="compact"):
        build("oracle", {})
    with pytest.raises(RegistryError, match="compact"):
        build("compact", {"colour": "red"})
    with pytest.raises(RegistryError, match="three"):
        build("compact", {"channels": [1, 2]})


@pytest.mark.parametrize("rows", [640, 2048])
def test_the_released_bundle_finds_a_lesion_at_any_resolution(released: Classifier, rows: int) -> None:
    normal = predict_study(released, study(None, rows), ())
    assert normal.outcome is Outcome.SCORED
    assert not normal.is_positive
    malignant = predict_study(released, study(Laterality.LEFT, rows), ())
    assert malignant.is_positive
    right, left = malignant.breasts
    assert left.probability > malignant.threshold > right.probability
    for image in malignant.images[2:]:
        lesion = draw(
            laterality=Laterality.LEFT, view=image.view, kind=LesionKind.SPIC, malignant=True,
            rows=rows, columns=rows * 13 // 16, seed=11,
        ).lesion  # fmt: skip
        assert lesion is not None
        assert image.evidence is not None
        ys, xs = np.nonzero(image.evidence == 3)
        assert np.hypot(xs.mean() - lesion.centre[0], ys.mean() - lesion.centre[1]) < lesion.radius
