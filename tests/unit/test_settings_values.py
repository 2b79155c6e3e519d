"""What settings mean once they are read, and which of those that name the same thing counts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from dicom_node.errors import SettingsError
from dicom_node.settings import Settings, load, remember


@pytest.mark.parametrize(
    ("offset", "minutes"), [("+0000", 0), ("+0100", 60), ("+0545", 345), ("-0330", -210), ("-1100", -660)]
)
def test_the_zone_of_the_site_is_as_far_from_utc_as_its_offset_says(offset: str, minutes: int) -> None:
    zone = Settings(timezone_offset=offset).default_zone
    assert zone.utcoffset(None) == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("R CC,L CC", ["R CC", "L CC"]),
        (" R MLO , L MLO,", ["R MLO", "L MLO"]),
        ("L CC", ["L CC"]),
        ("", []),
    ],
)
def test_a_list_in_the_environment_is_separated_by_commas_and_an_empty_one_is_a_list_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, views: list[str]
) -> None:
    monkeypatch.setenv("DICOM_NODE_COMPLETENESS__STANDARD_VIEWS", text)
    assert load(flags={"data_dir": tmp_path}).completeness.standard_views == views
    assert Settings(completeness={"standard_views": views}).completeness.standard_views == views


@pytest.mark.parametrize("view", ["R XX", "CC", "r cc", "R CC ", "RCC", "L CC MLO"])
def test_what_is_no_standard_view_is_refused(view: str) -> None:
    with pytest.raises(ValidationError, match="not a standard view"):
        Settings(completeness={"standard_views": [view]})


def test_a_destination_may_be_a_table_of_its_address_alone_or_with_all_that_there_is() -> None:
    tables = [{"address": "A@h:1"}, {"address": "B@h:1", "profile": "ohif", "commitment": True}]
    assert Settings(destinations=tables).destinations == ["A@h:1", "B@h:1/ohif+commitment"]


@pytest.mark.parametrize(
    "given",
    [{"address": "A@h:1", "commitement": True}, {"profile": "ohif"}, {}, 104, ["A@h:1"]],
    ids=["misspelt", "no address", "empty", "number", "list"],
)
def test_what_is_no_destination_is_refused(given: object) -> None:
    with pytest.raises(ValidationError, match="a destination is"):
        Settings(destinations=[given])


def test_what_is_reached_over_tls_is_a_destination_or_takes_answers_to_commitment_requests() -> None:
    files = {"certificate": "/a.pem", "private_key": "/a.key", "authority": "/b.pem"}
    secure = {"tls": {**files, "destinations": ["PACS@h:1", "MAMMO1@m:104"]}}
    callers = [{"title": "MAMMO1", "commitment_address": "MAMMO1@m:104"}]
    found = Settings(destinations=["PACS@h:1"], callers=callers, delivery=secure)
    assert found.delivery.tls.destinations == ["PACS@h:1", "MAMMO1@m:104"]
    with pytest.raises(ValidationError, match="MAMMO1@m:104 is none of the destinations"):
        Settings(destinations=["PACS@h:1"], delivery=secure)


@pytest.mark.parametrize("offset", ["0100", "+1500", "+0060", "+1", "CET"])
def test_what_is_no_offset_is_refused(offset: str) -> None:
    with pytest.raises(ValidationError, match="not an offset"):
        Settings(timezone_offset=offset)


def test_a_flag_counts_before_the_environment_that_before_a_file_and_that_before_an_earlier_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    where = {"data_dir": tmp_path}
    started = {**where, "ae_title": "START", "institution": "start", "host": "127.0.0.4", "port": 4}
    remember(load(flags=started), flags=started, config_file=None)
    file.write_text('ae_title = "FILE"\ninstitution = "file"\nhost = "127.0.0.3"\n')
    monkeypatch.setenv("DICOM_NODE_AE_TITLE", "ENVIRONMENT")
    monkeypatch.setenv("DICOM_NODE_INSTITUTION", "environment")

    found = load(config_file=file, flags={**where, "ae_title": "FLAG"})

    assert (found.ae_title, found.institution, found.host, found.port) == (
        "FLAG",
        "environment",
        "127.0.0.3",
        4,
    )


def test_the_folder_of_a_start_is_not_remembered_in_it(tmp_path: Path) -> None:
    flags = {"data_dir": tmp_path, "ae_title": "START"}
    remember(load(flags=flags), flags=flags, config_file=None)
    assert "data_dir" not in (tmp_path / "node.toml").read_text()


def test_the_file_of_a_start_is_read_by_every_later_command_wherever_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text('ae_title = "FILE"\n')
    (tmp_path / "other.toml").write_text('institution = "other"\n')
    flags = {"data_dir": tmp_path / "data"}
    flags["data_dir"].mkdir()
    monkeypatch.chdir(tmp_path)
    remember(load(flags=flags), flags=flags, config_file=Path("settings.toml"))

    monkeypatch.chdir("/")
    assert load(flags=flags).ae_title == "FILE"
    told = load(flags=flags, config_file=tmp_path / "other.toml")
    assert (told.ae_title, told.institution) == ("DICOM_NODE", "other"), "another file counts instead"
    (tmp_path / "settings.toml").unlink()
    with pytest.raises(SettingsError, match="there is no configuration file"):
        load(flags=flags)


def test_what_is_remembered_is_that_of_the_folder_which_ranks_highest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: tmp_path / name for name in ("flag", "environment", "file")}
    for name, folder in folders.items():
        folder.mkdir()
        flags = {"data_dir": folder, "institution": name}
        remember(load(flags=flags), flags=flags, config_file=None)
    file = tmp_path / "settings.toml"
    file.write_text(f'data_dir = "{folders["file"]}"\n')

    assert load(config_file=file).institution == "file"
    monkeypatch.setenv("DICOM_NODE_DATA_DIR", str(folders["environment"]))
    assert load(config_file=file).institution == "environment"
    found = load(config_file=file, flags={"data_dir": folders["flag"]})
    assert (found.institution, found.data_dir) == ("flag", folders["flag"])


def test_every_wrong_setting_of_a_file_is_told_at_once_each_with_what_would_be_right(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        'port = 99999\nae_titel = "X"\nunheard = 1\ndestinations = ["nowhere"]\n'
        '[jobs]\nlease_s = 0\n[[callers]]\ntitle = "A"\nadresses = ["10.0.0.1"]\n'
    )
    with pytest.raises(SettingsError) as refused:
        load(config_file=file, flags={"data_dir": tmp_path})
    first, *lines = str(refused.value).splitlines()
    absent = "there is no such setting"
    shown = "'dicom-node config show' lists all"
    assert first == "wrong setting"
    assert sorted(lines) == [
        f"  ae_titel: {absent}; did you mean ae_title? {shown}",
        f"  callers.adresses: {absent}; did you mean addresses? {shown}",
        "  destinations: 'nowhere' is not AE@HOST:PORT, for example PACS@pacs.example.org:104",
        "  jobs.lease_s: Input should be greater than or equal to 1; for example lease_s = 60",
        "  port: Input should be less than or equal to 65535; for example port = 11112",
        f"  unheard: {absent}; {shown}",
    ]


@pytest.mark.parametrize(
    "content", [b"institution = '\xff'", b"port = = 1", None], ids=["bytes", "form", "folder"]
)
def test_a_file_that_cannot_be_read_is_named_and_stops_the_start(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "settings.toml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"settings\.toml is not a readable TOML file"):
        load(config_file=file, flags={"data_dir": tmp_path})


def test_a_misspelt_variable_is_found_among_those_that_are_none_of_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONFIG", "TEST_POSTGRES", "DATA", "AE_TITLE", "LISTENER__PLAIN"):
        monkeypatch.setenv(f"DICOM_NODE_{name}", "true")
    assert load(flags={"data_dir": tmp_path}).ae_title == "true"
    monkeypatch.setenv("DICOM_NODE_LISTENER__PLAINE", "false")
    with pytest.raises(SettingsError, match=r"LISTENER__PLAINE names no setting; did you mean PLAIN\?"):
        load(flags={"data_dir": tmp_path})
