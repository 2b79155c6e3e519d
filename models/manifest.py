"""A bundle's manifest: what it claims, read strictly, and the digests that identify it.

Knows no files: bytes in, values out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn, TypeVar, get_type_hints

from models.calibration import OperatingPoint
from models.contract import CodedConcept
from models.errors import BundleFormatError, BundleIncompleteError
from models.preprocessing import Parameters

FORMAT = 1
"""Version of the manifest's own form."""

_T = TypeVar("_T")

# Fields that bundles released before them lack; left out where they claim nothing, or digests would change.
_OPTIONAL = frozenset({"localises"})


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number with its 95 % interval, the level it was measured at and the number of cases."""

    name: str
    level: str
    value: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle claims about itself.

    Attributes
    ----------
    format : int
        :data:`FORMAT`.
    task : str
        Name of the task it answers.
    labels : tuple of CodedConcept
        What each output is the probability of.
    manufacturer, licence, intended_use : str
        For people and for reports.
    demonstration : bool
        Trained on made-up data, not for clinical use.
    architecture : str
        Name of the network.
    architecture_arguments : Mapping
        Its arguments.
    preprocessing : Parameters
        How images reach the network.
    temperature : float
        Divides logits; above 0.
    operating_points : tuple of OperatingPoint
        At least one; the first is the one in use.
    evidence_enabled : bool
        Whether the class activation map is good enough to be shown.
    training_data_sha256, split_sha256 : str
        Digests of what it was trained on and how that was split.
    metrics : tuple of Metric
        Measured on the test split.
    files : Mapping of str to str
        Relative path to ``sha256`` hex digest of every other file.
    localises : bool
        Whether the map was validated against drawn lesions, so that results may point at places.
    """

    format: int
    task: str
    labels: tuple[CodedConcept, ...]
    manufacturer: str
    licence: str
    intended_use: str
    demonstration: bool
    architecture: str
    architecture_arguments: Mapping[str, Any]
    preprocessing: Parameters
    temperature: float
    operating_points: tuple[OperatingPoint, ...]
    evidence_enabled: bool
    training_data_sha256: str
    split_sha256: str
    metrics: tuple[Metric, ...]
    files: Mapping[str, str]
    localises: bool = False

    @property
    def digest(self) -> str:
        """``sha256`` of the canonical manifest, which holds the digest of every file: the bundle's name."""
        return hashlib.sha256(canonical(_claims(self))).hexdigest()

    @property
    def configuration_digest(self) -> str:
        """``sha256`` of what turns the same weights into other results."""
        everything = _claims(self)
        chosen = {"preprocessing", "temperature", "operating_points", "evidence_enabled", *_OPTIONAL}
        return hashlib.sha256(canonical({n: v for n, v in everything.items() if n in chosen})).hexdigest()


def _claims(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as its file holds it."""
    return {name: value for name, value in asdict(manifest).items() if value or name not in _OPTIONAL}


def canonical(value: Any) -> bytes:
    """Return `value` as JSON of one spelling: sorted keys, no spaces, ASCII, finite numbers only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def write(manifest: Manifest) -> bytes:
    """Return the manifest as the bytes of ``manifest.json``, indented for people."""
    return (json.dumps(_claims(manifest), sort_keys=True, indent=2, allow_nan=False) + "\n").encode("ascii")


def parse(content: bytes) -> Manifest:
    """Read the bytes of ``manifest.json``.

    Raises
    ------
    BundleFormatError
        If it is not JSON, a field has a wrong type or value, or a field is unknown.
    BundleIncompleteError
        If a field is missing, the operating points among them.
    """
    raw = strict_json(content, "manifest.json")
    if raw.get("format") != FORMAT:
        raise BundleFormatError(
            f"manifest.json has the form {raw.get('format')!r}, this program reads {FORMAT}: update it."
        )
    manifest = _record(Manifest, raw, "manifest.json")
    if not manifest.operating_points:
        raise BundleIncompleteError(
            "manifest.json names no operating point: without one nothing is positive."
        )
    if not manifest.labels:
        raise BundleIncompleteError("manifest.json names no label.")
    if not manifest.temperature > 0.0:
        raise BundleFormatError("manifest.json: temperature must be above 0.")
    grid = manifest.preprocessing
    if min(grid.rows, grid.columns) < 1 or not grid.pixel_mm > 0.0 or not grid.clip_low < grid.clip_high:
        raise BundleFormatError("manifest.json: preprocessing describes no grid.")
    for point in manifest.operating_points:
        if not 0.0 <= point.threshold <= 1.0:
            raise BundleFormatError(f"manifest.json: threshold of {point.name!r} must lie in 0..1.")
    return manifest


def strict_json(content: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object without NaN, infinities and repeated keys.

    Raises
    ------
    BundleFormatError
        If `content`, called `name`, is anything else.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key is repeated")
        return dict(pairs)

    try:
        value = json.loads(content, parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"{name} is not well-formed JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleFormatError(f"{name} is not a JSON object.")
    return value


_NESTED: dict[str, type] = {
    "labels": CodedConcept,
    "preprocessing": Parameters,
    "operating_points": OperatingPoint,
    "metrics": Metric,
}


def _record(kind: type[_T], raw: Any, where: str) -> _T:
    """Build a dataclass from a JSON object that has exactly its fields, each of its type."""
    if not isinstance(raw, dict):
        raise BundleFormatError(f"{where} must be an object.")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if missing := [name for name in names if name not in raw and name not in _OPTIONAL]:
        raise BundleIncompleteError(f"{where} lacks {', '.join(missing)}.")
    if unknown := sorted(set(raw) - set(names)):
        raise BundleFormatError(f"{where} has unknown fields: {', '.join(unknown)}.")
    hints = get_type_hints(kind)
    given = [name for name in names if name in raw]
    return kind(**{name: _value(hints[name], name, raw[name], f"{where}: {name}") for name in given})


def _value(hint: Any, name: str, raw: Any, where: str) -> Any:
    if isinstance(raw, list) and name in _NESTED:
        return tuple(_record(_NESTED[name], item, where) for item in raw)
    if name in _NESTED:
        return _record(_NESTED[name], raw, where)
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    if hint is bool or isinstance(raw, bool):
        is_right = hint is bool and isinstance(raw, bool)
    elif hint in (int, str):
        is_right = isinstance(raw, hint)
    elif name == "files":
        is_right = isinstance(raw, dict) and all(isinstance(digest, str) for digest in raw.values())
    else:
        is_right = isinstance(raw, dict)
    if not is_right:
        raise BundleFormatError(f"{where} has a wrong type.")
    return raw
