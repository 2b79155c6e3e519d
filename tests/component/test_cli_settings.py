"""How settings reach a command, which of them rank above others, and how wrong ones are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import command
from tests.filled_node import data_dir

__all__ = ["data_dir"]

SECRET = "hunter2"
TLS_FILES_THAT_ARE_NOT_THERE = """[listener.tls]
certificate = "/nowhere/node.pem"
private_key = "/nowhere/node.key"
authority = "/nowhere/authority.pem"
"""


@pytest.mark.parametrize("json_flag", [("--json",), ()], ids=["json", "table"])
def test_config_show_masks_secrets(data_dir: Path, json_flag: tuple[str, ...]) -> None:
    secret = {
        "DICOM_NODE_DATABASE_URL": f"postgresql+psycopg://node:{SECRET}@db/node",
        "DICOM_NODE_BROKER_URL": f"rediss://:{SECRET}@redis:6379/0",
    }
    answer = command("config", "show", *json_flag, "--data-dir", data_dir, environment=secret)
    assert answer.status == 0
    assert "database_url" in answer.out
    assert SECRET not in answer.out + answer.err


def test_config_show_spells_values_as_a_configuration_file_does(data_dir: Path) -> None:
    callers = {"DICOM_NODE_CALLERS": '[{"title": "MAMMO1", "operations": ["echo"]}]'}
    shown = command("config", "show", "--data-dir", data_dir, environment=callers)
    assert '[{title = "MAMMO1", addresses = [], operations = ["echo"], user_identity = false}]' in shown.out
    assert re.search(r"^listener\.plain +true ", shown.out, re.MULTILINE)


def test_flags_rank_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicom_node import settings

    def in_force(**flags: Any) -> tuple[str, int, str]:
        found = settings.load(config_file=file, flags={"data_dir": tmp_path, **flags})
        return found.ae_title, found.port, found.institution

    file: Path | None = None
    assert in_force() == ("DICOM_NODE", 11112, "")
    file = tmp_path / "settings.toml"
    file.write_text('ae_title = "FILE"\nport = 1\ninstitution = "File"\n')
    assert in_force() == ("FILE", 1, "File")
    monkeypatch.setenv("DICOM_NODE_AE_TITLE", "ENVIRONMENT")
    monkeypatch.setenv("DICOM_NODE_PORT", "2")
    assert in_force() == ("ENVIRONMENT", 2, "File")
    assert in_force(ae_title="FLAG") == ("FLAG", 2, "File")


def test_config_check_accepts_right_settings(data_dir: Path) -> None:
    assert command("config", "check", "--data-dir", data_dir).status == 0


@pytest.mark.parametrize(
    ("text", "names", "example"),
    [
        ('port = "many"', "port", "11112"),
        ("port = 99999", "port", "11112"),
        ('ae_title = "WAY_TOO_LONG_FOR_AN_AE_TITLE"', "ae_title", "DICOM_NODE"),
        ('destinations = ["nowhere"]', "destinations", "PACS@pacs.example.org:104"),
        ("[jobs]\nlease_s = 0", "jobs.lease_s", "60"),
        ('[completeness]\nstandard_views = ["R XX"]', "completeness.standard_views", "R CC"),
        ('database_url = "mysql://node:secret@db/node"', "database_url", "postgresql+psycopg://"),
        (
            '[[callers]]\ntitle = "A"\noperations = ["stor"]',
            "callers.operations",
            'operations = ["store", "echo"]',
        ),
        ('[[callers]]\ntitle = "A"\nadresses = ["10.0.0.1"]', "callers.adresses", "did you mean addresses?"),
        ("prot = 11112", "prot", "config show"),
        ("[listener]\nplain = 7", "listener.plain", "for example plain = false"),
        ("[listener]\nallowed_ae_titles = 7", "allowed_ae_titles", '= ["MAMMO1", "MAMMO2"]'),
        ("port = ", "settings.toml", "TOML"),
    ],
)
@pytest.mark.parametrize("what", [("config", "check"), ("listen",), ("serve",)], ids=lambda w: w[0])
def test_a_wrong_setting_is_refused_with_its_name_and_an_example(
    tmp_path: Path, what: tuple[str, ...], text: str, names: str, example: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    answer = command(*what, "--data-dir", tmp_path / "data", "--config", file)
    assert (answer.status, answer.out) == (3, "")
    said = " ".join(answer.err.split())
    assert names in said
    assert example in said
    assert not (tmp_path / "data").exists(), "nothing is made before the settings are right"


def test_a_misspelt_variable_is_refused_with_what_was_probably_meant(tmp_path: Path) -> None:
    misspelt = {"DICOM_NODE_DESTINATION": "PACS@h:104"}
    answer = command("config", "check", "--data-dir", tmp_path, environment=misspelt)
    assert answer.status == 3
    assert "DESTINATIONS" in " ".join(answer.err.split())


def test_an_unknown_task_is_refused_by_config_check(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('tasks = ["palmistry"]')
    answer = command("config", "check", "--data-dir", tmp_path, "--config", file)
    assert answer.status == 3
    assert "palmistry" in answer.err


def test_certificates_that_cannot_be_read_are_refused_by_config_check(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(TLS_FILES_THAT_ARE_NOT_THERE)
    answer = command("config", "check", "--data-dir", tmp_path, "--config", file)
    assert answer.status == 3
    assert "/nowhere/node.key cannot be read" in " ".join(answer.err.split())


@pytest.mark.parametrize("text", ['tasks = ["palmistry"]', TLS_FILES_THAT_ARE_NOT_THERE])
def test_serve_refuses_what_its_listener_would_refuse_before_it_makes_anything(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    answer = command("serve", "--data-dir", tmp_path / "data", "--config", file)
    assert answer.status == 3
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("what", ["listen", "dispatch"])
def test_a_process_refuses_an_unknown_task_as_a_setting_so_that_serve_stops(
    tmp_path: Path, what: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('tasks = ["palmistry"]\nport = 0\n')
    answer = command(what, "--data-dir", tmp_path / "data", "--config", file)
    assert answer.status == 3
    assert "palmistry" in answer.err


def test_an_unknown_queue_is_refused(data_dir: Path) -> None:
    answer = command("work", "--queues", "score,dance", "--data-dir", data_dir)
    assert answer.status == 3
    assert "score,deliver" in " ".join(answer.err.split())


def test_every_command_finds_a_started_node_by_its_data_directory_alone(
    data_dir: Path, tmp_path: Path
) -> None:
    from dicom_node.cli.wiring import load_settings, remember_start

    file = tmp_path / "settings.toml"
    file.write_text('institution = "General"\n')
    flags = {"port": 4242, "ae_title": "MAMMO_AI", "destinations": ["PACS@10.0.0.1:104"]}
    remember_start(load_settings(data_dir, file, flags), config=file, flags=flags)
    found = command("config", "show", "--json", "--data-dir", data_dir).json
    assert (found["port"], found["ae_title"], found["destinations"]) == (
        4242,
        "MAMMO_AI",
        ["PACS@10.0.0.1:104"],
    )
    assert found["institution"] == "General"
