"""The trail tells what the processes were set to, and each change of it, without secrets (A4, A8)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from db.configurations import tell_configuration
from db.session import Database
from dicom_node.cli.wiring import audit_configuration
from dicom_node.settings import Settings
from dicom_node.settings.disclosure import differences, digest
from tests.steered_node import SteeredNode

PORT = {"port": 11113}


def told(node: SteeredNode) -> list[Mapping[str, Any]]:
    return [json.loads(event.detail) for event in node.audited() if event.action == "node.configured"]


def tell(node: SteeredNode, settings: Mapping[str, Any], *, digest: str, software: str = "1.0") -> bool:
    with node.transaction("listen@host:1") as tx:
        return tell_configuration(tx, software=software, digest=digest, settings=settings)


def test_what_is_told_already_is_not_told_again(node: SteeredNode) -> None:
    assert tell(node, PORT, digest="a")
    assert not tell(node, PORT, digest="a")
    assert told(node) == [{"software": "1.0", "digest": "a", "settings": PORT, "changed": ["port"]}]


def test_a_change_is_told_with_the_names_that_changed_and_the_old_values_stand_in_the_event_before(
    node: SteeredNode,
) -> None:
    tell(node, {"port": 11113, "institution": "General", "callers": []}, digest="a")
    tell(node, {"port": 11114, "callers": [], "host": "10.0.0.1"}, digest="b")

    before, after = told(node)
    assert after["changed"] == ["host", "institution", "port"]
    assert (before["settings"]["port"], after["settings"]["port"]) == (11113, 11114)


def test_other_settings_again_are_told_again(node: SteeredNode) -> None:
    """The newest event before a start tells what it started with, whatever was told before that."""
    for each in ("a", "b", "a"):
        assert tell(node, PORT, digest=each)


def test_a_new_version_is_told(node: SteeredNode) -> None:
    tell(node, PORT, digest="a")
    assert tell(node, PORT, digest="a", software="1.1")
    assert told(node)[1]["changed"] == []


def test_settings_differ_from_defaults_by_name_and_secrets_are_masked() -> None:
    settings = Settings(
        database_url="postgresql+psycopg://node:ZZSECRET@db/node",
        broker_url="rediss://:ZZSECRET@redis:6379/0",
        callers=[{"title": "MAMMO1", "addresses": ["10.1.2.0/24"]}],
        listener={"commitment": True},
    )

    shown = differences(settings)

    assert sorted(shown) == ["broker_url", "callers", "database_url", "listener.commitment"]
    assert "ZZSECRET" not in json.dumps(shown)
    assert shown["callers"][0]["addresses"] == ["10.1.2.0/24"]
    assert differences(Settings()) == {}


@pytest.mark.parametrize(
    ("changes", "is_another"),
    [({}, False), ({"data_dir": Path("/elsewhere")}, True), ({"jobs": {"attempts": 6}}, True)],
)
def test_a_digest_stands_for_all_settings(changes: dict[str, Any], is_another: bool) -> None:
    assert (digest(Settings(**changes)) != digest(Settings())) is is_another
    assert len(digest(Settings())) == 64


def test_a_process_tells_its_settings_at_its_start(database: Database) -> None:
    node = SteeredNode(database)
    audit_configuration(Settings(port=11113), node.database, "dispatch@host:1")

    (event,) = node.audited()
    assert (event.actor, event.action) == ("dispatch@host:1", "node.configured")
    assert json.loads(event.detail)["settings"] == PORT
    node.database.close()
