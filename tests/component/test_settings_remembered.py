"""What a node remembers of its start, and how folders among the settings are read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node import installation
from dicom_node.cli.wiring import load_settings, remember_start
from dicom_node.settings import Settings, load

SERVED = {"ae_title": "MAMMO_AI", "destinations": ["PACS@10.0.0.1:104"]}


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that another program has, so that a listener ends where it would begin to listen."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def data_dir(tmp_path: Path, taken_port: int) -> Path:
    """A node that ``serve`` was started on."""
    folder = tmp_path / "data"
    flags = {**SERVED, "port": taken_port}
    remember_start(load_settings(folder, None, flags), config=None, flags=flags)
    return folder


def listen(data_dir: Path, *flags: str, config: Path | None = None) -> None:
    """Start a listener in a process of its own; it ends at the taken port."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DICOM_NODE_")}
    ended = subprocess.run(
        [*installation.console_script(), "listen", "--data-dir", str(data_dir), *flags],
        env={**kept, **({"DICOM_NODE_CONFIG": str(config)} if config else {})},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert "cannot be listened on" in ended.stderr, ended.stderr


def remembered(data_dir: Path) -> Settings:
    return load(flags={"data_dir": data_dir})


def test_a_configuration_file_in_the_environment_of_listen_erases_nothing_of_serve(
    data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('institution = "General"\n')
    before = (data_dir / "node.toml").read_bytes()
    listen(data_dir, config=file)
    assert (data_dir / "node.toml").read_bytes() == before


def test_a_flag_of_listen_is_remembered_beside_those_of_serve(data_dir: Path, taken_port: int) -> None:
    listen(data_dir, "--ae-title", "OTHER")
    found = remembered(data_dir)
    assert (found.ae_title, found.port, found.destinations) == (
        "OTHER",
        taken_port,
        ["PACS@10.0.0.1:104"],
    )


def test_a_restart_without_a_flag_keeps_what_it_said(data_dir: Path, taken_port: int) -> None:
    flags = {"ae_title": "AGAIN", "port": None, "destinations": None}
    remember_start(load_settings(data_dir, None, flags), config=None, flags=flags)
    found = remembered(data_dir)
    assert (found.ae_title, found.port, found.destinations) == ("AGAIN", taken_port, ["PACS@10.0.0.1:104"])


def test_the_name_of_an_institution_is_read_and_remembered_as_utf_8_whatever_the_locale(
    tmp_path: Path,
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('institution = "Universitätsklinikum"\n', encoding="utf-8")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dicom_node.cli.wiring import load_settings, remember_start\n"
        "data_dir, file = map(Path, sys.argv[1:])\n"
        "remember_start(load_settings(data_dir, file), config=file, flags={})\n"
        "print(ascii(load_settings(data_dir, None).institution))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "data", file],
        # As on a machine whose locale is none of UTF-8.
        env={**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout.strip() == ascii("Universitätsklinikum"), told.stderr


def test_folders_of_the_audit_trail_are_read_as_the_data_directory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "settings.toml"
    file.write_text('[audit]\nkey_dir = "~/keys"\ncheckpoint_dir = "signed"\n')
    found = load(config_file=file, flags={"data_dir": "data"})
    assert found.key_dir == tmp_path / "home" / "keys"
    assert found.checkpoint_dir == tmp_path / "signed"
    assert found.data_dir == tmp_path / "data"
