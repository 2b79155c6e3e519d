"""What the node shows of settings can be put into a configuration file as it stands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dicom_node.settings import Settings
from dicom_node.settings.sections import CallerSettings, ProfileSettings
from dicom_node.settings.values import as_toml


def examples(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from examples(field.annotation)
        else:
            yield from ((name, example) for example in field.examples or [])


EXAMPLES = [each for model in (Settings, CallerSettings, ProfileSettings) for each in examples(model)]


def read(spelled: str) -> Any:
    return tomllib.loads(f"setting = {spelled}")["setting"]


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_every_example_of_a_setting_is_read_again_from_a_configuration_file(name: str, example: Any) -> None:
    assert read(as_toml(example)) == example


@pytest.mark.parametrize(
    "value", [True, 0.5, 'a "quoted" \\ value', "Krankenhaus Süd", [], {}, [[1], [2]]], ids=str
)
def test_any_value_is_read_again(value: Any) -> None:
    assert read(as_toml(value)) == value


def test_a_path_is_text_and_what_is_not_given_is_left_out_of_a_table() -> None:
    assert read(as_toml(Path("/etc/node.pem"))) == "/etc/node.pem"
    assert read(as_toml([{"title": "MAMMO1", "certificate": None}])) == [{"title": "MAMMO1"}]
