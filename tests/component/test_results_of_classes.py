"""The seven MIAS classes in every kind of report, coded as what they are; an abnormality is no cancer."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_node.results.builders import OPTION_BUILDERS, RESULT_BUILDERS, build_all
from dicom_node.results.context import ResultContext
from models.class_scores import score_of
from models.classifier import Classifier, predict_study
from models.contract import Outcome
from models.tasks import task_named
from tests import localised_contexts as localised
from tests import results_contexts as given
from tests.unit.answering_bundle import write_answering_bundle
from tests.validators import dciodvfy, errors_of, pixelmed, stored
from training.datasets.phantoms import draw
from training.demonstration.cohort import display_view

MIAS7 = task_named("mias7")
ALL_KINDS = {**RESULT_BUILDERS, **OPTION_BUILDERS}
EVERY_CODE = {
    "CALC": ("129748009", None),
    "CIRC": ("129788004", "129738007"),
    "SPIC": ("129788004", "129742005"),
    "MISC": ("129788004", "129741003"),
    "ARCH": ("129792006", None),
    "ASYM": ("129790003", None),
    "NORM": ("111287", None),
}


def of_abnormality(context: ResultContext) -> ResultContext:
    return replace(context, prediction=replace(context.prediction, target=MIAS7.target))


@cache
def kinds_of_report() -> tuple[Dataset, ...]:
    return tuple(map(given.read, build_all(of_abnormality(localised.masses()), ALL_KINDS)))


@pytest.mark.parametrize("top", EVERY_CODE)
def test_each_class_of_the_network_is_coded_as_its_finding_and_margins(top: str) -> None:
    logits = [6.0 if name == top else 0.0 for name in MIAS7.classes]
    score = score_of(MIAS7, logits, 1.0)
    found = given.positive()
    images = tuple(
        replace(image, probability=score.probability, classes=score.classes)
        for image in found.prediction.images
    )
    prediction = replace(found.prediction, images=images, target=MIAS7.target)
    built = build_all(replace(found, prediction=prediction), ["measurement_report_all_classes"])
    (report,) = map(given.read, built)
    finding, margins = EVERY_CODE[top]
    groups = given.named(report, "125007")
    assert len(groups) == 4
    for group in groups:
        own = [i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121071"]
        assert [item.ConceptCodeSequence[0].CodeValue for item in own] == [finding]
        side = [i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111037"]
        assert [item.ConceptCodeSequence[0].CodeValue for item in side] == [margins] * bool(margins)
        certainties = given.named(group, "111012")
        # One of any abnormality, and one of each class.
        assert len(certainties) == 8
        percent = [float(item.MeasuredValueSequence[0].NumericValue) for item in certainties]
        assert percent[0] == pytest.approx(100 * score.probability, abs=1e-3)
        assert sum(percent[1:]) == pytest.approx(100, abs=0.01)


def test_no_kind_of_report_takes_an_abnormality_for_cancer() -> None:
    for report in kinds_of_report():
        assert given.named(report, "111047") == []
        assert given.named(report, "278201002") == []
        assert "cancer" not in str(report).lower()
    said = [text for report in kinds_of_report() for text in given.texts(report)]
    assert any("probability of an abnormality" in text for text in said)


def test_reports_of_cancer_stay_as_they_were() -> None:
    reports = [given.read(o) for o in build_all(localised.masses(), ["measurement_report", "text_report"])]
    assert [bool(given.named(report, "111047")) for report in reports] == [False, True]
    assert any("robability of cancer" in text for report in reports for text in given.texts(report))


def test_the_validators_of_others_find_no_error_in_them(tmp_path: Path) -> None:
    built = build_all(of_abnormality(localised.masses()), ALL_KINDS)
    for path in stored(built, tmp_path):
        assert errors_of(dciodvfy(path)) == [], path.name


@pytest.mark.slow_proof
@pytest.mark.timeout(3600)
def test_pixelmed_finds_no_error_in_them(tmp_path: Path) -> None:
    built = [
        o
        for context in (localised.masses(), localised.calcifications(), localised.asymmetry())
        for o in build_all(of_abnormality(context), ALL_KINDS)
        if o.sop_class_uid.startswith("1.2.840.10008.5.1.4.1.1.88.")
    ]
    assert pixelmed("DicomSRValidator", stored(built, tmp_path)) == {}


def test_a_bundle_of_seven_classes_reports_on_a_study_from_its_pixels(tmp_path: Path) -> None:
    write_answering_bundle(tmp_path / "bundle")
    classifier = Classifier.load(tmp_path / "bundle")
    sources = given.sources()
    views = [
        display_view(
            draw(laterality=source.ImageLaterality, view=source.ViewPosition, rows=320, columns=260, seed=7),
            str(source.SOPInstanceUID),
        )
        for source in sources
    ]
    prediction = predict_study(classifier, views, ())
    assert (prediction.outcome, prediction.target) == (Outcome.SCORED, "an abnormality")
    for source in sources:
        source.Rows, source.Columns = 320, 260
    context = replace(
        given.positive(sources),
        prediction=prediction,
        bundle=classifier.identity,
        renderings={view.sop_instance_uid: view.pixels for view in views},
    )
    built = build_all(context, ["text_report", "measurement_report", "measurement_report_all_classes"])
    assert [item.kind for item in built] == [
        "text_report",
        "measurement_report",
        "measurement_report_all_classes",
    ]
    said = " ".join(given.texts(given.read(built[0])))
    assert "probability of an abnormality" in said
    assert "most probable finding" in said
