"""Which results each profile asks for, and how destinations name their profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_node.delivery.destination import Destination
from dicom_node.errors import SettingsError
from dicom_node.results.builders import RESULT_BUILDERS
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
    assert kinds_for(routes, localises=False) == ("text_report", "segmentation")
    unasked = kinds_for([], localises=False)
    assert set(unasked) == set(wanted(BUILT_IN[UNKNOWN]))


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
        'sr_class = "comp"\nwithdraws = true\n',
    )
    assert [str(r.destination) for r in settings.routes] == ["PACS@h:1", "OHIF@h:2", "OLD@h:3"]
    first, second, third = (route.profile for route in settings.routes)
    assert (first, second) == (BUILT_IN[UNKNOWN], BUILT_IN["ohif"])
    assert third == Profile("mine", ("text_report", "measurement_report"), sr_class="comp", withdraws=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('destinations = ["PACS@h:1/nowhere"]', "no profile 'nowhere'"),
        ('destinations = ["PACS@h:1", "PACS@h:1/ohif"]', "named twice"),
        ('destinations = [{adress = "PACS@h:1"}]', "address and profile"),
        ('[profiles.ohif]\nkinds = ["text_report"]', "cannot name a profile of your own"),
        ('[profiles.mine]\nkinds = ["letter"]', "kinds"),
    ],
)
def test_a_wrong_profile_is_refused_at_the_start(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_of(tmp_path, text)
