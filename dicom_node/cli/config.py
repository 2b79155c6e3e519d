"""``dicom-node config``: the settings in force, and checking a file before a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer
from pydantic import BaseModel

from dicom_node.cli.options import ConfigFile, DataDir, Json
from dicom_node.cli.output import console, print_json, print_rows
from dicom_node.cli.wiring import asked_tasks, load_settings
from dicom_node.settings import ENVIRONMENT_PREFIX
from dicom_node.settings.values import as_toml

app = typer.Typer(no_args_is_help=True, help="Settings.")


@app.command("show")
def show(data_dir: DataDir = None, config: ConfigFile = None, json: Json = False) -> None:
    """Show every setting with the value in force; secrets are masked."""
    settings = load_settings(data_dir, config)
    if json:
        print_json(settings.model_dump(mode="json"))
        return
    rows = list(_rows(settings, settings.model_dump(mode="json"), ""))
    print_rows(rows, ("setting", "value", "meaning"), as_json=False, empty="no settings")


@app.command("check")
def check(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Check the settings, and the certificates that they name.

    A wrong one is named with its problem and an example.
    """
    from dicom_node.cli.security import tls_files

    settings = load_settings(data_dir, config)
    asked_tasks(settings)
    for _, files in tls_files(settings):
        files.server_context()
    console.print(f"The settings are right. Environment variables begin with {ENVIRONMENT_PREFIX}.")


def _rows(model: BaseModel, shown: Mapping[str, Any], prefix: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each setting, with its value as a configuration file spells it."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _rows(value, shown[name], f"{prefix}{name}.")
        else:
            spelled = "" if value is None else as_toml(shown[name])
            yield {"setting": f"{prefix}{name}", "value": spelled, "meaning": field.description}
