"""Bundles of any task: several classes, a map or none, grey or colour, and what they were released for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from models.class_scores import class_probabilities, score_of, target_logits
from models.classifier import Classifier, predict_study
from models.contract import CodedConcept, ImageView, Laterality
from models.errors import BundleFormatError, BundleIncompleteError, RegistryError, UnsupportedBundleError
from models.lesion_regions import RegionParameters
from models.manifest import LocalisationVerdict, SubgroupMetric, parse, write
from models.tasks import task_named
from tests.unit.answering_bundle import GRID, write_answering_bundle
from tests.unit.small_bundle import write_small_bundle
from training.datasets.phantoms import draw
from training.demonstration.cohort import display_view

MIAS7 = task_named("mias7")
MALIGNANCY = task_named("mammography_malignancy")


@pytest.fixture(scope="module")
def views() -> list[ImageView]:
    places = [(side, view) for side in Laterality for view in ("CC", "MLO")]
    drawn = [draw(laterality=side, view=view, rows=320, columns=260, seed=7) for side, view in places]
    return [display_view(phantom, f"1.2.{number}") for number, phantom in enumerate(drawn, start=1)]


def test_the_task_has_the_classes_of_the_database_with_their_codes() -> None:
    assert MIAS7.classes == ("CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM", "NORM")
    assert [label.value for label in MIAS7.labels] == [
        *("129748009", "129788004", "129788004", "129788004", "129792006", "129790003", "111287")
    ]
    assert {name: margin.value for name, margin in MIAS7.margins.items()} == {
        "CIRC": "129738007",
        "SPIC": "129742005",
        "MISC": "129741003",
    }
    assert MIAS7.gate is MALIGNANCY.gate


def test_a_task_of_several_outputs_must_name_its_negative_class() -> None:
    with pytest.raises(RegistryError, match="negative class"):
        replace(MIAS7, negative_class=None)


def test_probabilities_of_classes_add_up_to_one_and_the_target_is_all_but_the_negative_one() -> None:
    logits = np.array([0.5, -1.0, 2.0, 0.0, 0.3, -0.7, 1.1], dtype=np.float32)
    score = score_of(MIAS7, logits, 1.5)
    by_name = {entry.name: entry.probability for entry in score.classes}
    assert sum(by_name.values()) == pytest.approx(1.0, abs=1e-12)
    assert score.probability == pytest.approx(1.0 - by_name["NORM"], abs=1e-12)
    assert [entry.name for entry in score.classes][:2] == ["SPIC", "NORM"]
    assert score.classes[0].margins == MIAS7.margins["SPIC"]
    assert MIAS7.classes[score.shown_output] == "SPIC"
    expected = special.softmax(logits.astype(np.float64) / 1.5)
    assert np.array_equal(class_probabilities(logits, 1.5), expected)


def test_the_map_shown_is_never_that_of_the_negative_class() -> None:
    logits = np.array([0.5, 0, 0, 0, 0, 0, 9.0], dtype=np.float32)
    score = score_of(MIAS7, logits, 1.0)
    assert score.classes[0].name == "NORM"
    assert MIAS7.classes[score.shown_output] == "CALC"


def test_extreme_outputs_stay_probabilities() -> None:
    for value in (-500.0, 500.0):
        logits = np.zeros(7, dtype=np.float32)
        logits[6] = value
        score = score_of(MIAS7, logits, 0.05)
        assert score.probability in (0.0, 1.0)
        assert np.isfinite(score.logit)


def test_the_target_of_one_output_is_the_output() -> None:
    assert target_logits(np.array([[0.25], [-3.0]]), MALIGNANCY).tolist() == [0.25, -3.0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("head", ["gap", "dense"])
def test_a_study_gets_seven_probabilities_for_each_image(
    tmp_path: Path, views: list[ImageView], head: str, channels: int
) -> None:
    loaded = write_answering_bundle(tmp_path / "b", head=head, channels=channels)
    prediction = predict_study(Classifier.load(loaded.path, threads=1), views, ())
    assert len(prediction.images) == 4
    assert prediction.target == "an abnormality"
    for image in prediction.images:
        assert len(image.classes) == 7
        assert sorted((c.probability for c in image.classes), reverse=True) == [
            c.probability for c in image.classes
        ]
        normal = next(c.probability for c in image.classes if c.name == "NORM")
        assert image.probability == pytest.approx(1.0 - normal)
        assert (image.evidence is not None) == (head == "gap")


def test_a_grey_image_reaches_a_colour_network_in_each_channel(
    tmp_path: Path, views: list[ImageView]
) -> None:
    classifier = Classifier.load(write_answering_bundle(tmp_path / "b", channels=3).path, threads=1)
    grey = np.random.default_rng(1).normal(size=(1, 1, GRID.rows, GRID.columns)).astype(np.float32)
    once, _ = classifier.forward(grey)
    thrice, _ = classifier.forward(np.repeat(grey, 3, axis=1))
    assert np.array_equal(once, thrice)


def test_a_malignancy_bundle_reports_no_classes(tmp_path: Path, views: list[ImageView]) -> None:
    write_small_bundle(tmp_path / "b")
    prediction = predict_study(Classifier.load(tmp_path / "b"), views, ())
    assert prediction.target == "cancer"
    assert [image.classes for image in prediction.images] == [()] * len(views)


def test_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    swapped = ("CALC", "SPIC", "CIRC", "MISC", "ARCH", "ASYM", "NORM")
    with pytest.raises(UnsupportedBundleError, match="mias7"):
        write_answering_bundle(tmp_path / "b", classes=swapped)


def test_several_labels_need_their_classes(tmp_path: Path) -> None:
    with pytest.raises(BundleIncompleteError, match="classes"):
        write_answering_bundle(tmp_path / "b", classes=())


def test_labels_of_another_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedBundleError, match="labels"):
        write_answering_bundle(tmp_path / "b", labels=(CodedConcept("1", "SCT", "Other"),) * 7)


def test_a_map_cannot_be_shown_where_the_network_gave_none(tmp_path: Path) -> None:
    with pytest.raises(BundleIncompleteError, match="evidence_enabled false"):
        write_answering_bundle(tmp_path / "b", head="dense", evidence_enabled=True)


def test_a_map_that_does_not_beat_random_weights_cannot_be_shown(tmp_path: Path) -> None:
    verdict = LocalisationVerdict(0.2, 0.1, 0.3, 0.25, 40, is_better_than_random=False)
    with pytest.raises(BundleFormatError, match="random weights"):
        write_answering_bundle(tmp_path / "b", localisation=verdict)
    kept = write_answering_bundle(tmp_path / "c", localisation=verdict, evidence_enabled=False)
    assert kept.manifest.localisation == verdict


def test_a_bundle_released_for_other_processors_is_refused_here(tmp_path: Path) -> None:
    write_answering_bundle(tmp_path / "b", processors=("cuda",))
    with pytest.raises(UnsupportedBundleError, match="cuda"):
        Classifier.load(tmp_path / "b", device="cpu")
    with pytest.raises(BundleFormatError, match="abacus"):
        write_answering_bundle(tmp_path / "c", processors=("abacus",))


def test_a_bundle_for_parts_that_somebody_chose_answers_for_no_study(
    tmp_path: Path, views: list[ImageView]
) -> None:
    parameters = RegionParameters(rows=GRID.rows, columns=GRID.columns)
    loaded = write_answering_bundle(tmp_path / "b", preprocessing=parameters)
    classifier = Classifier.load(loaded.path)
    with pytest.raises(UnsupportedBundleError, match="not answer for studies"):
        predict_study(classifier, views, ())


def test_everything_that_a_manifest_claims_comes_back(tmp_path: Path) -> None:
    measured = SubgroupMetric("density", "D", "auc", "image", 0.7, 0.6, 0.8, 90)
    verdict = LocalisationVerdict(0.9, 0.8, 0.95, 0.1, 72, is_better_than_random=True)
    manifest = write_answering_bundle(
        tmp_path / "b",
        subgroups=(measured,),
        localisation=verdict,
        scanner_models=("Selenia",),
        trained_by="anna",
        processors=("cpu",),
    ).manifest
    again = parse(write(manifest))
    assert again == manifest
    assert again.digest == manifest.digest


def test_claims_that_say_nothing_leave_the_digest_as_it_was(tmp_path: Path) -> None:
    manifest = write_small_bundle(tmp_path / "b").manifest
    optional = {"classes", "processors", "scanner_models", "trained_by", "localisation", "subgroups"}
    assert not any(f'"{name}"' in write(manifest).decode() for name in optional)
    assert replace(manifest, trained_by="anna").digest != manifest.digest
    assert replace(manifest, trained_by="anna").configuration_digest == manifest.configuration_digest
