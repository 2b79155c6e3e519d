"""The page of settings: each with its default and an example, spelled as in a configuration file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined
from reference_pages import code, table

from dicom_node.settings import ENVIRONMENT_PREFIX, Settings
from dicom_node.settings.sections import CallerSettings, ProfileSettings
from dicom_node.settings.values import as_toml


def settings() -> str:
    """Return every setting."""
    columns = ("setting", "default", "meaning", "example")
    rows = [(*row, code(_variable(name))) for name, row in _setting_rows(Settings, "")]
    return "\n\n".join(
        [
            "# Settings",
            "Read once per process, in this order, the later ranking over the earlier: defaults; what "
            "`serve` or `listen` was started with (`DATA_DIR/node.toml`); a TOML file (`--config`, or "
            f"`{ENVIRONMENT_PREFIX}CONFIG`); environment variables; command-line options. A wrong setting, "
            f"and an environment variable that begins with `{ENVIRONMENT_PREFIX}` and names none, stops the "
            "start with exit status 3. `dicom-node config show` prints what is in force; secrets are masked "
            "wherever settings are shown.",
            "Defaults and examples are spelled as in the TOML file. A setting with a dot lives in a section:",
            '```toml\ndata_dir = "/var/lib/dicom-node"\ndestinations = ["PACS@pacs.example.org:104"]\n\n'
            "[completeness]\nquiet_period_s = 120\n```",
            table((*columns, "environment variable"), rows),
            "In the environment text has no quotes, lists are separated by commas "
            f"(`{ENVIRONMENT_PREFIX}DESTINATIONS=PACS@10.0.0.5:104,ARCHIVE@10.0.0.6:11112`), and tables are "
            f'JSON (`{ENVIRONMENT_PREFIX}CALLERS=[{{"title": "MAMMO1"}}]`).',
            "## A caller\nA table `[[callers]]` for each "
            "([how](../how-to/secure-the-node.md#1-name-who-may-come-in)):",
            table(columns, [row for _, row in _setting_rows(CallerSettings, "")]),
            "## A profile of your own\nA table `[profiles.NAME]` for each "
            "([how](../how-to/connect-a-pacs.md#choose-what-it-receives)):",
            table(columns, [row for _, row in _setting_rows(ProfileSettings, "")]),
        ]
    )


def _setting_rows(model: type[BaseModel], prefix: str) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Yield for each setting its name, and name, default, meaning and example as cells."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _setting_rows(field.annotation, f"{prefix}{name}.")
            continue
        meaning = (field.description or "") + _choices(field.annotation)
        if SecretStr.__name__ in str(field.annotation):
            meaning += " Secret."
        default = "must be given" if field.is_required() else "none"
        if field.default not in (None, "", PydanticUndefined):
            default = code(as_toml(field.default))
        yield (
            prefix + name,
            (code(prefix + name), default, meaning, code(as_toml((field.examples or [""])[0]))),
        )


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.replace(".", "__").upper()


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is not Literal:
        return ""
    return f" One of {', '.join(code(as_toml(choice)) for choice in get_args(annotation))}."
