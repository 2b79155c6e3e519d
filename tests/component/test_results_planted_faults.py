"""The node's own checker names every planted fault, and has nothing to say against good objects."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node.errors import ResultError
from dicom_node.results.builders import OPTION_BUILDERS, RESULT_BUILDERS, build_all
from dicom_node.results.checks import together
from dicom_node.results.checks.checker import RULES_OF_CLASS, check_objects, faults_of_file, refuse_faulty
from dicom_node.results.checks.header import RULES as HEADER_RULES
from dicom_node.results.context import BuiltObject, ResultContext
from tests import localised_contexts as localised
from tests import results_contexts as given
from tests.planted_faults import ALL, Planted

KINDS = {**RESULT_BUILDERS, **OPTION_BUILDERS}
PLANTED = [planted for planted in ALL if planted.kind in KINDS]
LEAST_FAULTS = 40
REPORT_CLASSES = ("1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.88.34")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"


@cache
def context() -> ResultContext:
    """A mass in two views, with everything that any kind of object shows."""
    found = localised.masses()
    images = tuple(
        replace(score, attention=np.where(score.evidence > 0, 60 * score.evidence, 0).astype(np.uint8))
        if score.evidence is not None
        else score
        for score in found.prediction.images
    )
    return replace(found, prediction=replace(found.prediction, images=images))


@cache
def built() -> tuple[BuiltObject, ...]:
    return build_all(context(), KINDS)


def objects() -> list[Dataset]:
    return [dcmread(BytesIO(item.content)) for item in built()]


def spoilt(planted: Planted) -> tuple[list[Dataset], Dataset]:
    """Plant a fault into the first object of its kind; rules across objects see the others, too."""
    first = next(item for item in built() if item.kind == planted.kind)
    target = dcmread(BytesIO(first.content))
    planted.plant(target)
    others = [item for item in built() if item is not first and planted.rule.startswith("SET")]
    return [*(dcmread(BytesIO(item.content)) for item in others), target], target


def test_every_kind_of_object_is_built_and_without_fault() -> None:
    assert {item.kind for item in built()} >= set(KINDS) - {"mammography_cad_srt"}
    assert check_objects(objects(), context().sources) == []


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted.kind}: {planted.name}")
@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
def test_a_planted_fault_is_named_by_its_rule(planted: Planted) -> None:
    everything, target = spoilt(planted)
    faults = check_objects(everything, context().sources)
    assert planted.rule in {fault.rule for fault in faults if fault.sop_instance_uid == target.SOPInstanceUID}
    for fault in faults:
        assert "Phantom" not in str(fault)


def rules_broken_by(objects: list[Dataset], sources: Iterable[Dataset] = ()) -> dict[str, set[str]]:
    """Hold objects against the rules; give the objects that break each of them."""
    found: dict[str, set[str]] = {}
    for fault in check_objects(objects, sources):
        found.setdefault(fault.rule, set()).add(fault.sop_instance_uid)
    return found


def test_two_objects_of_one_identity_are_named() -> None:
    one, *others = objects()
    uids = {str(one.SOPInstanceUID)}
    assert rules_broken_by([one, one, *others])["SET-01"] == uids


def test_a_report_in_the_series_of_another_is_named_and_pictures_may_share_one() -> None:
    text, measurements = (next(o for o in objects() if o.SOPClassUID == uid) for uid in REPORT_CLASSES)
    measurements.SeriesInstanceUID = text.SeriesInstanceUID
    both = {str(text.SOPInstanceUID), str(measurements.SOPInstanceUID)}
    assert rules_broken_by([text, measurements])["SET-02"] == both
    picture = next(o for o in objects() if o.SOPClassUID == SECONDARY_CAPTURE)
    other = deepcopy(picture)
    other.SOPInstanceUID = "2.25.1"
    assert "SET-02" not in rules_broken_by([picture, other])


def test_a_place_in_an_image_of_several_frames_needs_the_frame() -> None:
    report = next(o for o in objects() if o.SOPClassUID == REPORT_CLASSES[1])
    several = [deepcopy(source) for source in context().sources]
    for source in several:
        source.NumberOfFrames = 2
    assert rules_broken_by([report], several)["SR-19"] == {str(report.SOPInstanceUID)}


def test_what_lies_on_the_border_of_its_image_lies_inside() -> None:
    border = [0.0, 0.0, float(given.COLUMNS), 0.0, float(given.COLUMNS), float(given.ROWS), 0.0, 0.0]
    report = next(o for o in objects() if o.SOPClassUID == REPORT_CLASSES[1])
    for region in given.named(report, "111030"):
        region.GraphicData = border
    state = next(o for o in objects() if o.SOPClassUID == PRESENTATION_STATE)
    for annotation in state.GraphicAnnotationSequence:
        for drawn in annotation.get("GraphicObjectSequence", ()):
            drawn.GraphicType, drawn.GraphicData, drawn.NumberOfGraphicPoints = "POLYLINE", border, 4
        for number, words in enumerate(annotation.get("TextObjectSequence", ())):
            words.AnchorPointAnnotationUnits = "PIXEL"
            words.AnchorPoint = border[4:6] if number % 2 else border[:2]
    broken = rules_broken_by([report, state], context().sources)
    assert broken.keys().isdisjoint({"SR-08", "SR-09", "PR-03", "PR-04"})


@pytest.mark.parametrize("percent", ["0", "100"])
def test_a_probability_may_be_nothing_or_everything(percent: str) -> None:
    report = next(o for o in objects() if o.SOPClassUID == REPORT_CLASSES[1])
    for number in given.named(report, "111047"):
        number.MeasuredValueSequence[0].NumericValue = percent
    assert "SR-11" not in rules_broken_by([report])


@pytest.mark.parametrize(
    ("zone", "differs"), [("+0530", True), ("-0000", False), ("half past", False), ("", False)]
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_result_has_the_zone_of_its_images_where_they_name_one(zone: str, differs: bool) -> None:
    first, *others = (deepcopy(source) for source in context().sources)
    first.TimezoneOffsetFromUTC = zone
    report = objects()[0]
    assert report.TimezoneOffsetFromUTC != zone
    assert ("SRC-03" in rules_broken_by([report], [first, *others])) is differs


def test_faults_of_every_kind_are_planted() -> None:
    assert len(PLANTED) >= LEAST_FAULTS
    assert {planted.kind for planted in PLANTED} >= set(KINDS) - {
        "measurement_report_2d",
        "measurement_report_2d_segments",
        "measurement_report_all_classes",
        "mammography_cad_srt",
    }


def test_every_rule_about_one_object_has_an_identity_of_its_own() -> None:
    rules = {rule for kind in RULES_OF_CLASS.values() for rule in kind}
    rules |= {*HEADER_RULES, *together.SOURCE_RULES}
    assert len({rule.id for rule in rules}) == len(rules)


def test_an_object_without_anything_is_full_of_faults_and_breaks_no_rule_itself() -> None:
    for sop_class_uid in RULES_OF_CLASS:
        empty = Dataset()
        empty.SOPClassUID = sop_class_uid
        assert {"OBJ-03", "OBJ-04", "OBJ-06"} <= {fault.rule for fault in check_objects([empty])}


def test_the_message_names_a_few_faults_and_counts_the_others() -> None:
    empty = objects()[0]
    for keyword in ("SeriesNumber", "SeriesDescription", "Modality", "SegmentSequence", "DeviceSerialNumber"):
        delattr(empty, keyword)
    buffer = BytesIO()
    empty.save_as(buffer, enforce_file_format=True)
    with pytest.raises(ResultError, match=r"failed its own check: OBJ-03 .*; and \d+ more"):
        refuse_faulty([buffer.getvalue()])


def test_a_stored_object_is_held_against_its_rules_without_its_images(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_bytes(built()[-1].content)
    assert faults_of_file(path) == []
