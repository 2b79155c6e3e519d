"""Single values of settings: read from text, checked, and spelled in one way."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, SecretStr

from dicom_node.delivery.destination import Destination, checked_ae_title
from dicom_node.results.profiles import BUILT_IN, UNKNOWN, split_route

_VIEW = re.compile(r"([RL]) (CC|MLO)")
_OFFSET = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
COMMITMENT = "+commitment"
_DATABASES = ("postgresql+psycopg", "postgresql", "sqlite")
_PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def as_toml(value: Any) -> str:
    """Spell a value as it stands in a configuration file, in one line.

    Parameters
    ----------
    value : bool, int, float, str, path, list, tuple or mapping
        The value of one setting. What is None in a table is left out: TOML has no word for it.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, Mapping):
        given = (f"{key} = {as_toml(each)}" for key, each in value.items() if each is not None)
        return f"{{{', '.join(given)}}}"
    return json.dumps(str(value), ensure_ascii=False)  # a basic string of TOML escapes as JSON does


def split_list(value: Any) -> Any:
    """Accept a comma-separated list where an environment variable gives one string."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def standard_view(value: str) -> str:
    if not _VIEW.fullmatch(value):
        raise ValueError(f"{value!r} is not a standard view")
    return value


def destination_text(value: Any) -> Any:
    """Read a destination: text, or a table; keep it as ``AE@HOST:PORT/PROFILE+commitment``."""
    if isinstance(value, Mapping):
        if not {"address"} <= set(value) <= {"address", "profile", "commitment"}:
            raise ValueError(
                "a destination is a table of address, profile and commitment, or "
                '"AE@HOST:PORT/PROFILE+commitment"'
            )
        if not isinstance(value.get("commitment", False), bool):
            raise ValueError("commitment is true or false")
        suffix = COMMITMENT if value.get("commitment") else ""
        value = "/".join(str(value[key]) for key in ("address", "profile") if key in value) + suffix
    if not isinstance(value, str):
        raise ValueError("a destination is text or a table")
    address, profile = split_route(value.removesuffix(COMMITMENT))
    text = str(Destination.parse(address))
    text = text if profile == UNKNOWN else f"{text}/{profile}"
    return text + COMMITMENT if value.endswith(COMMITMENT) else text


def database_address(value: SecretStr) -> SecretStr:
    """Refuse another kind of database; the words say nothing of the value, which holds a password."""
    if value.get_secret_value().partition("://")[0] not in _DATABASES:
        raise ValueError("it is no URL of PostgreSQL, which begins with postgresql+psycopg://")
    return value


def own_profile_name(value: str) -> str:
    if not _PROFILE_NAME.fullmatch(value) or value in BUILT_IN:
        raise ValueError(
            f"{value!r} cannot name a profile of your own: lower-case letters, digits, _ and -, and none of "
            f"{', '.join(BUILT_IN)}"
        )
    return value


def utc_offset(value: str) -> str:
    if not _OFFSET.fullmatch(value):
        raise ValueError(f"{value!r} is not an offset from UTC")
    return value


def network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError(f"{value!r} is no address or network, for example 10.1.2.0/24") from None


def destination_address(value: str) -> str:
    return str(Destination.parse(value))


def absolute_path(value: Path) -> Path:
    return value.expanduser().absolute()


AETitle = Annotated[str, AfterValidator(checked_ae_title)]
Directory = Annotated[Path, AfterValidator(absolute_path)]
