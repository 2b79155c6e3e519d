"""What settings mean once they are read, and which of those that name the same thing counts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from dicom_node.settings import Settings, load, remember


@pytest.mark.parametrize(
    ("offset", "minutes"), [("+0000", 0), ("+0100", 60), ("+0545", 345), ("-0330", -210), ("-1100", -660)]
)
def test_the_zone_of_the_site_is_as_far_from_utc_as_its_offset_says(offset: str, minutes: int) -> None:
    zone = Settings(timezone_offset=offset).default_zone
    assert zone.utcoffset(None) == timedelta(minutes=minutes)


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
