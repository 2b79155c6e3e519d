"""What the reports say of classes and of marked places, and that every object names a place alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydicom import Dataset

from dicom_node.results.builders import RESULT_BUILDERS, build_all
from dicom_node.results.context import ResultContext
from tests import localised_contexts as localised
from tests import results_contexts as given


def groups(context: ResultContext, kind: str = "measurement_report") -> list[Dataset]:
    return given.named(given.only(build_all(context, [kind]), kind), "125007")


def meaning(group: Dataset, code_value: str) -> str:
    (item,) = [i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == code_value]
    return str(item.ConceptCodeSequence[0].CodeMeaning)


def names(group: Dataset) -> list[str]:
    return [str(item.ConceptNameCodeSequence[0].CodeValue) for item in group.ContentSequence]


def text(group: Dataset, code_value: str) -> str:
    (item,) = given.named(group, code_value)
    return str(item.get("TextValue") or item.get("UID"))


def certainties(group: Dataset) -> list[tuple[str, float]]:
    return [
        (
            " ".join(str(m.ConceptCodeSequence[0].CodeMeaning) for m in item.ContentSequence),
            float(item.MeasuredValueSequence[0].NumericValue),
        )
        for item in given.named(group, "111012")
    ]


def test_the_groups_of_the_places_come_after_those_of_the_images() -> None:
    named = [text(group, "112039") for group in groups(localised.binary())]
    assert named == [
        *(f"AI image score {side} {view}" for side, view in given.VIEWS),
        "AI lesion R CC 1",
        "AI lesion R MLO 1",
        "AI lesion R MLO 2",
    ]


def test_the_region_of_a_place_is_its_outline_closed_and_on_its_image() -> None:
    context = localised.binary()
    marks = [(score, mark) for score in context.prediction.images for mark in score.marks]
    for group, (score, mark) in zip(groups(context)[4:], marks, strict=True):
        (region,) = given.named(group, "111030")
        data = [float(value) for value in region.GraphicData]
        points = list(zip(data[::2], data[1::2], strict=True))
        assert region.GraphicType == "POLYLINE"
        assert points == [pytest.approx(point, abs=1e-4) for point in (*mark.outline, mark.outline[0])]
        (image,) = region.ContentSequence
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == score.sop_instance_uid


def test_a_place_carries_its_own_probability_finding_and_margins() -> None:
    group = groups(localised.masses())[4]
    assert meaning(group, "121071") == "Mammographic breast mass"
    assert meaning(group, "111037") == "Spiculated lesion"
    assert meaning(group, "278201002") == "Malignant"
    (probability,) = given.named(group, "111047")
    assert probability.MeasuredValueSequence[0].NumericValue == 90
    unknown = groups(localised.binary())[4]
    assert meaning(unknown, "121071") == "Lesion"
    assert "111037" not in names(unknown)


def test_report_outline_and_presentation_state_name_a_place_alike() -> None:
    context = localised.binary()
    built = build_all(context, ["lesion_segmentation", "presentation_state", "measurement_report"])
    in_report = [(text(g, "112039"), text(g, "112040")) for g in groups(context)[4:]]
    in_overlays = [
        (segment.TrackingID, segment.TrackingUID)
        for o in built
        if o.kind == "lesion_segmentation"
        for segment in given.read(o).SegmentSequence
    ]
    in_states = [
        (line.TrackingID, line.TrackingUID)
        for o in built
        if o.kind == "presentation_state"
        for annotation in given.read(o).GraphicAnnotationSequence
        for line in annotation.get("GraphicObjectSequence", ())
    ]
    assert in_report == in_overlays == in_states
    assert len(set(in_report)) == 3


def test_the_identity_of_a_place_stays_through_revisions_and_changes_with_the_model() -> None:
    first = [text(group, "112040") for group in groups(localised.masses())]
    assert [text(group, "112040") for group in groups(localised.superseding())] == first
    other = replace(localised.masses(), bundle=replace(given.BUNDLE, localises=True, digest="ef56" * 16))
    assert not {text(group, "112040") for group in groups(other)} & set(first)


def test_a_place_that_is_told_by_its_segment_names_the_frame_which_shows_it() -> None:
    built = build_all(localised.binary(), ["lesion_segmentation", "measurement_report_segments"])
    overlays = [item for item in built if item.kind == "lesion_segmentation"]
    shown = {
        str(segment.TrackingUID): (item.sop_instance_uid, int(segment.SegmentNumber))
        for item in overlays
        for segment in given.read(item).SegmentSequence
    }
    told = {}
    for group in given.named(given.only(built, "measurement_report_segments"), "125007")[4:]:
        (frame,) = given.named(group, "121214")
        (reference,) = frame.ReferencedSOPSequence
        numbers = (str(reference.ReferencedSOPInstanceUID), int(reference.ReferencedFrameNumber))
        told[text(group, "112040")] = numbers
    assert told == shown
    assert sorted(number for _, number in told.values()) == [1, 1, 2]


def test_a_bundle_that_does_not_localise_reports_no_places() -> None:
    context = localised.binary()
    assert len(groups(replace(context, bundle=given.BUNDLE))) == 4


@pytest.mark.parametrize(
    ("top", "finding", "margins"),
    [
        ("CALC", "Radiographic calcification finding", None),
        ("CIRC", "Mammographic breast mass", "Circumscribed lesion"),
        ("SPIC", "Mammographic breast mass", "Spiculated lesion"),
        ("MISC", "Mammographic breast mass", "Indistinct lesion"),
        ("ARCH", "Architectural distortion of breast", None),
        ("ASYM", "Asymmetric breast tissue", None),
        ("NORM", "Normal breast tissue", None),
    ],
)
def test_the_most_probable_class_is_the_finding_of_its_image(
    top: str, finding: str, margins: str | None
) -> None:
    context = localised.marked(given.positive(), {}, dict.fromkeys(range(4), top))
    for group in groups(context):
        assert meaning(group, "121071") == finding
        assert (meaning(group, "111037") if "111037" in names(group) else None) == margins
        assert certainties(group) == [(" ".join(filter(None, (finding, margins))), 70.0)]
        assert "111047" in names(group)


def test_a_binary_bundle_gives_no_finding_but_its_opinion() -> None:
    found = groups(given.positive())
    assert all("121071" not in names(group) for group in found)
    assert [meaning(group, "278201002") for group in found] == ["Malignant", "Malignant", "Benign", "Benign"]


def test_every_class_is_reported_only_by_the_kind_that_is_named_so() -> None:
    context = localised.masses()
    group = groups(context, "measurement_report_all_classes")[0]
    scored = certainties(group)
    assert len(scored) == len({name for name, _ in scored}) == 7
    assert sum(percent for _, percent in scored) == pytest.approx(100, abs=0.001)
    assert meaning(group, "121071") == "Mammographic breast mass"
    assert build_all(given.positive(), ["measurement_report_all_classes"]) == ()


@pytest.mark.parametrize("kind", ["text_report", "measurement_report"])
def test_the_words_name_the_finding_and_the_places(kind: str) -> None:
    said = " ".join(given.texts(given.only(build_all(localised.masses(), [kind]), kind)))
    assert "R CC: most probable finding mammographic breast mass, spiculated (70.0 %)." in said
    assert "L MLO: most probable finding normal breast tissue (70.0 %)." in said
    assert "R MLO: places marked: AI 1: 90.0 %, Mammographic breast mass." in said
    assert said.isascii()
    plain = " ".join(given.texts(given.only(build_all(given.positive(), [kind]), kind)))
    assert "most probable finding" not in plain
    assert "places marked" not in plain


@pytest.mark.parametrize(
    "outcome",
    [
        localised.binary,
        localised.masses,
        localised.calcifications,
        localised.asymmetry,
        localised.nothing_found,
        localised.partial_positive,
        localised.superseding,
    ],
)
def test_reports_of_places_are_the_same_bytes_when_built_again(
    outcome: Callable[[], ResultContext],
) -> None:
    kinds = [kind for kind in RESULT_BUILDERS if kind.startswith(("measurement", "lesion", "text"))]
    assert [o.content for o in build_all(outcome(), kinds)] == [
        o.content for o in build_all(outcome(), kinds)
    ]
