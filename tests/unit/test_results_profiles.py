"""Which results each profile asks for, and how destinations name their profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.delivery.destination import Destination
from dicom_node.errors import SettingsError
from dicom_node.results.builders import OPTION_BUILDERS, RESULT_BUILDERS
from dicom_node.results.profiles import (
    BUILT_IN,
    UNKNOWN,
    Profile,
    Route,
    Wanted,
    kinds_for,
    profile_named,
    split_route,
)
from dicom_node.results.slide import SLIDE_KINDS
from dicom_node.settings import load

THREE_D, COMPREHENSIVE = "measurement_report", "measurement_report_2d"


def wanted(profile: Profile, *, localises: bool = False) -> list[str]:
    return [item.kind for item in profile.wanted(localises=localises)]


@pytest.mark.parametrize("localises", [False, True])
@pytest.mark.parametrize("name", list(BUILT_IN))
def test_every_built_in_profile_asks_for_what_can_be_built_and_for_the_measurements(
    name: str, localises: bool
) -> None:
    kinds = wanted(BUILT_IN[name], localises=localises)
    assert set(kinds) <= set(RESULT_BUILDERS)
    assert {THREE_D, COMPREHENSIVE} & set(kinds)
    assert len(kinds) == len(set(kinds))


def test_an_unknown_pacs_gets_reports_and_bands() -> None:
    assert {"text_report", COMPREHENSIVE, "segmentation"} <= set(wanted(BUILT_IN[UNKNOWN]))
    assert THREE_D not in wanted(BUILT_IN[UNKNOWN])


@pytest.mark.parametrize(
    ("sr_class", "expected"),
    [
        ("3d", [Wanted(THREE_D)]),
        ("comp", [Wanted(COMPREHENSIVE)]),
        ("both", [Wanted(THREE_D), Wanted(COMPREHENSIVE)]),
        ("auto", [Wanted(THREE_D), Wanted(COMPREHENSIVE, fallback_for=THREE_D)]),
    ],
)
def test_the_class_of_the_measurement_report_is_chosen_by_destination(
    sr_class: Any, expected: list[Wanted]
) -> None:
    profile = Profile("mine", ("measurement_report",), sr_class=sr_class)
    assert list(profile.wanted(localises=False)) == expected


def test_old_workstations_get_cad_marks_in_srt() -> None:
    assert wanted(Profile("old", ("mammography_cad",), code_scheme="SRT")) == ["mammography_cad_srt"]
    assert wanted(Profile("new", ("mammography_cad",))) == ["mammography_cad"]


def test_the_picture_is_marks_where_the_bundle_may_point_at_places() -> None:
    profile = Profile("any", ("text_report",), picture=True)
    assert wanted(profile, localises=True) == ["text_report", "presentation_state"]
    assert wanted(profile, localises=False) == ["text_report", "secondary_capture"]


def test_objects_are_built_once_for_all_destinations() -> None:
    here, there = Destination("A", "h", 1), Destination("B", "h", 2)
    routes = [
        Route(here, Profile("a", ("text_report",))),
        Route(there, Profile("b", ("segmentation", "text_report"))),
    ]
    assert kinds_for(routes, lambda p: p.wanted(localises=False)) == ("text_report", "segmentation")
    unasked = kinds_for([], lambda p: p.wanted(localises=False))
    assert set(unasked) == set(wanted(BUILT_IN[UNKNOWN]))


def test_a_compressed_kind_comes_with_the_native_one_for_those_who_do_not_take_it() -> None:
    syntaxes = {"secondary_capture": "jpeg2000", "fractional_segmentation": "rle"}
    profile = Profile("mine", ("fractional_segmentation",), picture=True, transfer_syntaxes=syntaxes)
    assert list(profile.wanted(localises=False)) == [
        Wanted("fractional_segmentation_rle"),
        Wanted("fractional_segmentation", fallback_for="fractional_segmentation_rle"),
        Wanted("secondary_capture_jpeg2000"),
        Wanted("secondary_capture", fallback_for="secondary_capture_jpeg2000"),
    ]
    native = Profile("mine", ("secondary_capture",), transfer_syntaxes={"secondary_capture": "native"})
    assert list(native.wanted(localises=False)) == [Wanted("secondary_capture")]


def test_every_option_asks_for_what_can_be_built() -> None:
    kinds = ("secondary_capture", "fractional_segmentation", "measurement_report", "lesion_segmentation")
    asked: set[str] = set()
    for picture in ("rle", "jpeg2000"):
        syntaxes = {"secondary_capture": picture, "fractional_segmentation": "rle"}
        profile = Profile("mine", kinds, transfer_syntaxes=syntaxes, seg_reference=True)
        asked |= set(wanted(profile))
    assert asked - set(RESULT_BUILDERS) == set(OPTION_BUILDERS)


@pytest.mark.parametrize(
    ("sr_class", "expected"),
    [
        ("3d", [Wanted(f"{THREE_D}_segments")]),
        ("comp", [Wanted(f"{COMPREHENSIVE}_segments")]),
        (
            "auto",
            [
                Wanted(f"{THREE_D}_segments"),
                Wanted(f"{COMPREHENSIVE}_segments", fallback_for=f"{THREE_D}_segments"),
            ],
        ),
    ],
)
def test_a_report_that_names_segments_is_of_the_class_that_is_chosen(
    sr_class: Any, expected: list[Wanted]
) -> None:
    kinds = ("lesion_segmentation", "measurement_report")
    profile = Profile("mine", kinds, sr_class=sr_class, seg_reference=True)
    assert list(profile.wanted(localises=True))[1:] == expected


@pytest.mark.parametrize(
    "options",
    [
        {"transfer_syntaxes": {"text_report": "rle"}},
        {"transfer_syntaxes": {"fractional_segmentation": "jpeg2000"}},
        {"transfer_syntaxes": {"secondary_capture": "jpeg"}},
        {"kinds": ("measurement_report",), "seg_reference": True},
        {"kinds": ("lesion_segmentation",), "seg_reference": True},
        {"slide_kinds": ("segmentation",)},
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="profile mine"):
        Profile("mine", **{"kinds": (), **options})


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_every_built_in_profile_tells_of_slides(name: str) -> None:
    kinds = [item.kind for item in BUILT_IN[name].wanted_of_slides()]
    assert set(kinds) <= set(SLIDE_KINDS)
    assert "text_report" in kinds


@pytest.mark.parametrize(
    ("text", "address", "profile"),
    [
        ("PACS@h:104", "PACS@h:104", UNKNOWN),
        ("PACS@h:104/ohif", "PACS@h:104", "ohif"),
        ("A/B@h:104", "A/B@h:104", UNKNOWN),
        ("A/B@[::1]:104/stone", "A/B@[::1]:104", "stone"),
    ],
)
def test_a_destination_names_its_profile_after_the_port(text: str, address: str, profile: str) -> None:
    assert split_route(text) == (address, profile)


def test_a_profile_of_unknown_name_or_content_is_refused() -> None:
    with pytest.raises(ValueError, match="no profile 'ohiv'; there are ohif, stone"):
        profile_named("ohiv")
    with pytest.raises(ValueError, match="no kind 'letter'"):
        Profile("mine", ("letter",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sr_class"):
        Profile("mine", (), sr_class="4d")  # type: ignore[arg-type]


def settings_of(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "node-of-site.toml"
    file.write_text(f'data_dir = "{tmp_path}"\n{text}')
    return load(config_file=file)


def test_a_site_defines_profiles_of_its_own(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        'destinations = ["PACS@h:1", "OHIF@h:2/ohif", {address = "OLD@h:3", profile = "mine"}]\n'
        '[profiles.mine]\nkinds = ["text_report", "measurement_report"]\n'
        'sr_class = "comp"\nwithdraws = true\nslide_kinds = ["text_report"]\n'
        'transfer_syntaxes = {secondary_capture = "rle"}\n',
    )
    assert [str(r.destination) for r in settings.routes] == ["PACS@h:1", "OHIF@h:2", "OLD@h:3"]
    first, second, third = (route.profile for route in settings.routes)
    assert (first, second) == (BUILT_IN[UNKNOWN], BUILT_IN["ohif"])
    assert third == Profile(
        "mine",
        ("text_report", "measurement_report"),
        sr_class="comp",
        withdraws=True,
        transfer_syntaxes={"secondary_capture": "rle"},
        slide_kinds=("text_report",),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('destinations = ["PACS@h:1/nowhere"]', "no profile 'nowhere'"),
        ('destinations = ["PACS@h:1", "PACS@h:1/ohif"]', "named twice"),
        ('destinations = [{adress = "PACS@h:1"}]', "address, profile and commitment"),
        ('[profiles.ohif]\nkinds = ["text_report"]', "cannot name a profile of your own"),
        ('[profiles.mine]\nkinds = ["letter"]', "kinds"),
        ('[profiles.mine]\ntransfer_syntaxes = {secondary_capture = "jpeg"}', "transfer_syntaxes"),
        ('destinations = ["PACS@h:1/mine"]\n[profiles.mine]\nkinds = []\nseg_reference = true', "needs"),
    ],
)
def test_a_wrong_profile_is_refused_at_the_start(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_of(tmp_path, text)
