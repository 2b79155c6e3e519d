"""Settings as the audit trail may hold them: which differ from their defaults, and a digest of all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dicom_node.settings.model import Settings
from dicom_node.settings.values import absolute_path


def differences(settings: Settings) -> dict[str, Any]:
    """Return the settings that differ from their defaults, by dotted name, as JSON values; secrets masked."""
    return dict(_differing(settings, settings.model_dump(mode="json"), ""))


def digest(settings: Settings) -> str:
    """Return the SHA-256 of all settings in force, as 64 hexadecimal digits; secrets count as masked."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _differing(model: BaseModel, shown: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in type(model).model_fields.items():
        value, default = getattr(model, name), field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            yield from _differing(value, shown[name], f"{prefix}{name}.")
        elif value != (absolute_path(default) if isinstance(default, Path) else default):
            yield f"{prefix}{name}", shown[name]
