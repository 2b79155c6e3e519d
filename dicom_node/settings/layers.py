"""The layers of settings, lowest first: defaults, what a start left, a file, environment, flags."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError

from dicom_node.errors import SettingsError
from dicom_node.settings.model import ENVIRONMENT_PREFIX, Settings
from dicom_node.settings.values import absolute_path, as_toml

REMEMBERED_FILE = "node.toml"
# What --config reads when it is not given, and the tests' own variables.
_OTHER_VARIABLES = (f"{ENVIRONMENT_PREFIX}CONFIG", f"{ENVIRONMENT_PREFIX}TEST_")
_TEST_DATA = f"{ENVIRONMENT_PREFIX}DATA"


def load(*, config_file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings of this process.

    Parameters
    ----------
    config_file : pathlib.Path, optional
        A TOML file; without it the file that ``serve`` or ``listen`` was started with counts.
    flags : mapping, optional
        Values from the command line by setting name; they rank highest.

    Raises
    ------
    SettingsError
        Naming the setting, what is wrong with it, and an example of a right value.
    """
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    _refuse_unknown_variables(os.environ)
    file = _read_toml(config_file) if config_file else {}
    remembered = _read_remembered(_data_dir(flags, file))
    if not config_file and "config_file" in remembered:
        file = _read_toml(Path(remembered["config_file"]))
    remembered.pop("config_file", None)
    sources = (file, remembered)
    layered = type("Settings", (Settings,), {"lower_sources": sources, "__module__": __name__})
    try:
        settings: Settings = layered(**flags)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    return settings


def remember(settings: Settings, *, flags: Mapping[str, Any], config_file: Path | None) -> None:
    """Keep the flags that a node was started with, for the commands that follow and for its next start.

    What is not given this time stays as it was: a restart without flags must not lose the destinations. Only
    the node's name and addresses are kept, never a secret.

    Parameters
    ----------
    settings : Settings
        Whose data directory keeps them.
    flags : mapping
        Values from the command line by setting name; None where a flag was not given.
    config_file : pathlib.Path or None
        The TOML file of the start.
    """
    kept = _read_remembered(settings.data_dir)
    kept.update({name: value for name, value in flags.items() if value is not None and name != "data_dir"})
    if config_file:
        kept["config_file"] = str(config_file.absolute())
    path = settings.data_dir / REMEMBERED_FILE
    part = path.with_suffix(".part")
    # TOML is UTF-8, whatever the locale.
    part.write_text(
        "# Written by dicom-node at its start; edit the configuration file instead.\n" + tomli_w.dumps(kept),
        encoding="utf-8",
    )
    part.replace(path)


def _data_dir(flags: Mapping[str, Any], file: Mapping[str, Any]) -> Path:
    default = Settings.model_fields["data_dir"].default
    stated = flags.get("data_dir") or os.environ.get(f"{ENVIRONMENT_PREFIX}DATA_DIR") or file.get("data_dir")
    return absolute_path(Path(stated or default))


def _read_remembered(data_dir: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        return _read_toml(data_dir / REMEMBERED_FILE)
    return {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        if path.name == REMEMBERED_FILE:
            raise
        raise SettingsError(f"there is no configuration file {path}; check --config") from None
    except PermissionError as error:
        raise SettingsError(
            f"{path} is closed to this user; run this as the node's user, or correct the file's owner"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is not a readable TOML file: {error}") from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Refuse a misspelt variable: silence would run the node with a default instead."""
    for variable in environment:
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith(_OTHER_VARIABLES):
            continue
        if variable == _TEST_DATA:
            continue
        model: type[BaseModel] | None = Settings
        for name in variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"):
            names = set(model.model_fields) if model else set()
            if name in names and model is not None:
                section = model.model_fields[name].annotation
                model = section if isinstance(section, type) and issubclass(section, BaseModel) else None
                continue
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0].upper()}?" if near else ""
            raise SettingsError(f"the environment variable {variable} names no setting{hint}")


def _explain(error: ValidationError) -> str:
    """Say for each wrong setting its name, the value's problem, and an example."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        path = [str(part) for part in problem["loc"] if not isinstance(part, int)]
        name = ".".join(path)
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(path[-1], _names_beside(path), n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            lines.append(f"{name}: there is no such setting; {hint}'dicom-node config show' lists all")
            continue
        example = _example(path)
        message = problem["msg"].removeprefix("Value error, ")
        has_example = example is None or "for example" in message
        if not path:
            lines.append(message)
            continue
        lines.append(
            f"{name}: {message}" + ("" if has_example else f"; for example {path[-1]} = {as_toml(example)}")
        )
    return "wrong setting\n  " + "\n  ".join(lines)


def _names_beside(path: list[str]) -> set[str]:
    """Return the settings of the table that a path leads into."""
    model: type[BaseModel] = Settings
    for part in path[:-1]:
        field = model.model_fields.get(part)
        section = _section_of(field.annotation) if field else None
        if section is None:
            return set()
        model = section
    return set(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """Return which settings a setting holds, if any: a table, or each table of a list."""
    held = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    return held if isinstance(held, type) and issubclass(held, BaseModel) else None


def _example(path: list[str]) -> Any:
    model: type[BaseModel] = Settings
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            return None
        section = _section_of(field.annotation)
        if section is not None and part is not path[-1]:
            model = section
            continue
        return field.examples[0] if field.examples else None
    return None
