"""The identity of a result: same images and same model give the same UIDs and bytes, all else others."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from dicom_node.errors import ResultError
from dicom_node.results import identity
from dicom_node.results.builders import DEFAULT_KINDS, build_all
from dicom_node.results.context import PredecessorDocument
from dicom_node.results.measurement_report import COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR
from models.contract import BundleIdentity
from tests import results_contexts as given


def model(digest: str, configuration: str) -> BundleIdentity:
    return replace(given.BUNDLE, digest=digest, configuration_digest=configuration)


def test_a_uid_is_a_uuid_under_2_25_whatever_the_order_of_the_sources() -> None:
    uid = identity.uid_for("segmentation", model("a", "b"), ["1.2.3", "1.2.4"], 0)
    assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", uid)
    assert uid == identity.uid_for("segmentation", model("a", "b"), ["1.2.4", "1.2.3"], 0)


@pytest.mark.parametrize(
    ("revision", "uid"),
    [
        (1, "2.25.24814898426226679297990011925917044826"),
        (2, "2.25.199437074266029969299921738499497891456"),
    ],
)
def test_uids_stay_from_one_version_of_the_node_to_the_next(revision: int, uid: str) -> None:
    sources = ["1.2.3", "1.2.4"]
    assert identity.uid_for("segmentation", model("a" * 64, "b" * 64), sources, revision=revision) == uid


@pytest.mark.parametrize(
    "other",
    [
        ("text_report", "a", "b", ["1.2.3"], 0),
        ("segmentation", "A", "b", ["1.2.3"], 0),
        ("segmentation", "a", "B", ["1.2.3"], 0),
        ("segmentation", "a", "b", ["1.2.3", "1.2.4"], 0),
        ("segmentation", "a", "b", ["1.2.3"], 1),
        ("segmentation", "", "ab", ["1.2.3"], 0),
    ],
)
def test_another_kind_model_setting_image_or_ordinal_gives_another_uid(
    other: tuple[str, str, str, list[str], int],
) -> None:
    kind, digest, configuration, sources, ordinal = other
    first = identity.uid_for("segmentation", model("a", "b"), ["1.2.3"], 0)
    assert identity.uid_for(kind, model(digest, configuration), sources, ordinal) != first


def test_another_weight_or_another_setting_is_another_device() -> None:
    uids = {
        identity.device_uid(model(*digests)) for digests in (("a", "b"), ("A", "b"), ("a", "B"), ("a", "b"))
    }
    assert len(uids) == 3


def test_objects_built_again_have_the_same_bytes() -> None:
    first, second = build_all(given.positive()), build_all(given.positive())
    assert [o.content for o in first] == [o.content for o in second]


def test_a_study_in_another_order_is_the_same_study() -> None:
    there = {o.sop_instance_uid for o in build_all(given.positive())}
    back = {o.sop_instance_uid for o in build_all(given.positive(given.sources()[::-1]))}
    assert there == back


def test_each_object_is_alone_in_its_series_and_its_uids_are_used_once() -> None:
    objects = build_all(given.positive())
    uids = [uid for o in objects for uid in (o.sop_instance_uid, o.series_instance_uid)]
    uids += [str(image.SeriesInstanceUID) for image in given.images()[:1]]
    assert len(uids) == len(set(uids)) == 2 * len(objects) + 1
    for built in objects:
        assert (given.read(built).SOPInstanceUID, given.read(built).SeriesInstanceUID) == (
            built.sop_instance_uid,
            built.series_instance_uid,
        )


def test_another_model_makes_other_objects_of_the_same_images() -> None:
    retrained = replace(given.BUNDLE, digest="ef56" * 16)
    old = {o.sop_instance_uid for o in build_all(given.positive())}
    new = {o.sop_instance_uid for o in build_all(given.positive(bundle=retrained))}
    assert not old & new


def test_the_two_sr_classes_are_two_objects_and_the_others_stay() -> None:
    default = {o.kind: o for o in build_all(given.negative())}
    both = {o.kind: o for o in build_all(given.negative(), (*DEFAULT_KINDS, "measurement_report_2d"))}
    older = both.pop("measurement_report_2d")
    assert both == default
    assert both["measurement_report"].sop_class_uid == COMPREHENSIVE_3D_SR
    assert older.sop_class_uid == COMPREHENSIVE_SR
    assert older.sop_instance_uid != both["measurement_report"].sop_instance_uid


def test_tracking_stays_when_a_later_revision_has_more_images() -> None:
    early = given.context(given.prediction(given.POSITIVE))
    late = replace(early, sources=(*early.sources, *given.sources(SOPInstanceUID="2.25.99")[:1]), revision=2)
    group = [str(i.UID) for i in given.named(given.only(build_all(early), "measurement_report"), "112040")]
    again = [str(i.UID) for i in given.named(given.only(build_all(late), "measurement_report"), "112040")]
    assert group == again
    assert not {o.sop_instance_uid for o in build_all(early)} & {o.sop_instance_uid for o in build_all(late)}


def test_an_input_that_could_not_be_read_makes_other_objects() -> None:
    read = tuple(str(source.SOPInstanceUID) for source in given.sources())
    stated = {o.sop_instance_uid for o in build_all(given.positive(input_uids=read))}
    longer = {o.sop_instance_uid for o in build_all(given.positive(input_uids=(*read, "2.25.5")))}
    assert stated == {o.sop_instance_uid for o in build_all(given.positive())}
    assert not stated & longer
    with pytest.raises(ResultError, match="not among the revision's inputs"):
        given.positive(input_uids=read[1:])


def test_a_report_cannot_replace_itself() -> None:
    context = given.positive()
    text = next(o for o in build_all(context) if o.kind == "text_report")
    itself = PredecessorDocument(
        text.sop_class_uid, text.sop_instance_uid, text.series_instance_uid, text.study_instance_uid
    )
    with pytest.raises(ResultError, match="replace itself"):
        build_all(replace(context, predecessors=(itself,)))


def test_every_time_is_the_start_of_the_analysis_in_the_zone_of_the_images() -> None:
    for built in build_all(given.positive(given.sources(TimezoneOffsetFromUTC="+0900"))):
        instance = given.read(built)
        for name in ("InstanceCreation", "Series", "Content"):
            assert instance[f"{name}Date"].value == "20260106"
            assert instance[f"{name}Time"].value == "083015"
        assert instance.TimezoneOffsetFromUTC == "+0900"
        assert instance.ContributingEquipmentSequence[-1].ContributionDateTime == "20260106083015+0900"


def test_images_without_a_zone_get_that_of_the_site() -> None:
    site = timezone(-timedelta(hours=3, minutes=30))
    report = given.only(build_all(given.positive(default_zone=site)), "text_report")
    assert (report.ContentDate, report.ContentTime) == ("20260105", "200015")
    assert report.TimezoneOffsetFromUTC == "-0330"
