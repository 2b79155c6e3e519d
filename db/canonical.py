"""One spelling of a JSON value, so that equal values have equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Mapping[str, Any]) -> str:
    """Return JSON text with sorted keys, no white space, and no NaN or infinity (in the manner of RFC 8785).

    Raises
    ------
    ValueError
        If the value holds a number that JSON cannot say.
    """
    return _ENCODER.encode(value)
