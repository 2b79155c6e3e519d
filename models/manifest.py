"""A bundle's manifest: what it claims, read strictly, and the digests that identify it.

Knows no files: bytes in, values out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from models.calibration import OperatingPoint
from models.contract import CodedConcept
from models.errors import BundleFormatError, BundleIncompleteError
from models.network_inputs import AnyParameters, fault_of, parameters_class

FORMAT = 1
"""Version of the manifest's own form."""

_T = TypeVar("_T")

# Fields that bundles released before them lack; left out where they claim nothing, or digests would change.
_OPTIONAL = frozenset(
    {"localises", "classes", "processors", "scanner_models", "trained_by", "localisation", "subgroups"}
)

# What turns the same weights into other results.
_CONFIGURATION = frozenset(
    {"preprocessing", "temperature", "operating_points", "evidence_enabled", "localises", "scanner_models"}
)

PROCESSORS = ("cpu", "cuda")
"""The kinds of processor that a bundle may be released for."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number.

    Attributes
    ----------
    name, level : str
        The metric, such as ``"auc"``, and the level it was measured at, such as ``"study"``.
    value, low, high : float
        The number with its 95 % interval.
    cases : int
        How many cases.
    """

    name: str
    level: str
    value: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True, slots=True)
class SubgroupMetric:
    """One measured number for a part of the test cases, such as those of one scanner.

    Attributes
    ----------
    subgroup, value_of_subgroup : str
        What the cases were told apart by, such as ``"density"``, and which part these are, such as ``"D"``.
    name, level : str
        The metric and the level it was measured at.
    value, low, high : float
        The number with its 95 % interval.
    cases : int
        How many cases.
    """

    subgroup: str
    value_of_subgroup: str
    name: str
    level: str
    value: float
    low: float
    high: float
    cases: int


@dataclass(frozen=True, slots=True)
class LocalisationVerdict:
    """Whether the map points at drawn lesions more often than the map of random weights does.

    Attributes
    ----------
    pointing_game : float
        Share of images with lesions whose map's peak hits one, 0..1.
    low, high : float
        Its 95 % interval.
    random_weights : float
        The same share for a network of random weights, 0..1.
    lesions : int
        Number of images with lesions.
    is_better_than_random : bool
        The verdict; without it a bundle's map must be switched off.
    """

    pointing_game: float
    low: float
    high: float
    random_weights: float
    lesions: int
    is_better_than_random: bool


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
    preprocessing : AnyParameters
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
    classes : tuple of str
        Short names of the task's classes in the order of the outputs; needed for several outputs, whose
        labels alone may not tell two classes apart.
    processors : tuple of str
        The kinds of :data:`PROCESSORS` that it was released for; empty for all.
    scanner_models : tuple of str
        Manufacturer's Model Name (0008,1090) of the devices that it was validated for; empty for all.
    trained_by : str
        Who trained it, so that nobody approves their own.
    localisation : LocalisationVerdict or None
        How well the map points, where that was measured.
    subgroups : tuple of SubgroupMetric
        Measured on parts of the test split.
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
    preprocessing: AnyParameters
    temperature: float
    operating_points: tuple[OperatingPoint, ...]
    evidence_enabled: bool
    training_data_sha256: str
    split_sha256: str
    metrics: tuple[Metric, ...]
    files: Mapping[str, str]
    localises: bool = False
    classes: tuple[str, ...] = ()
    processors: tuple[str, ...] = ()
    scanner_models: tuple[str, ...] = ()
    trained_by: str = ""
    localisation: LocalisationVerdict | None = None
    subgroups: tuple[SubgroupMetric, ...] = ()

    @property
    def digest(self) -> str:
        """``sha256`` of the canonical manifest, which holds the digest of every file: the bundle's name."""
        return hashlib.sha256(canonical(_claims(self))).hexdigest()

    @property
    def configuration_digest(self) -> str:
        """``sha256`` of what turns the same weights into other results."""
        chosen = {name: value for name, value in _claims(self).items() if name in _CONFIGURATION}
        return hashlib.sha256(canonical(chosen)).hexdigest()


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
    _require_answerable(manifest)
    if fault := fault_of(manifest.preprocessing):
        raise BundleFormatError(f"manifest.json: preprocessing: {fault}.")
    return manifest


def _require_answerable(manifest: Manifest) -> None:
    """Refuse what leaves a score without its meaning."""
    if not manifest.operating_points:
        raise BundleIncompleteError(
            "manifest.json names no operating point: without one nothing is positive; package the run again."
        )
    if not manifest.labels:
        raise BundleIncompleteError("manifest.json names no label: package the run again.")
    if len(manifest.labels) > 1 and not manifest.classes:
        raise BundleIncompleteError("manifest.json has several labels and no classes: package the run again.")
    if not manifest.temperature > 0.0:
        raise BundleFormatError("manifest.json: temperature must be above 0; calibrate the run again.")
    for point in manifest.operating_points:
        if not 0.0 <= point.threshold <= 1.0:
            raise BundleFormatError(f"manifest.json: threshold of {point.name!r} must lie in 0..1.")
    if unknown := sorted(set(manifest.processors) - set(PROCESSORS)):
        raise BundleFormatError(
            f"manifest.json: no processor is called {unknown[0]!r}; there are: {', '.join(PROCESSORS)}."
        )
    verdict = manifest.localisation
    if manifest.evidence_enabled and verdict is not None and not verdict.is_better_than_random:
        raise BundleFormatError(
            "manifest.json: the map does not point better than random weights; release it with "
            "evidence_enabled false."
        )


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


def _record(kind: type[_T], raw: Any, where: str) -> _T:
    """Build a dataclass from a JSON object that has exactly its fields, each of its type."""
    if not isinstance(raw, dict):
        raise BundleFormatError(f"{where} must be an object.")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if missing := [name for name in names if name not in raw and name not in _OPTIONAL]:
        raise BundleIncompleteError(f"{where} lacks {', '.join(missing)}: package the run again.")
    if unknown := sorted(set(raw) - set(names)):
        raise BundleFormatError(f"{where} has unknown fields: {', '.join(unknown)}; update this program.")
    hints = get_type_hints(kind)
    given = [name for name in names if name in raw]
    return kind(**{name: _value(hints[name], name, raw[name], f"{where}: {name}") for name in given})


def _value(hint: Any, name: str, raw: Any, where: str) -> Any:
    if name == "preprocessing":
        return _preprocessing(raw, where)
    if get_origin(hint) is tuple and isinstance(raw, list):
        return tuple(_value(get_args(hint)[0], "", item, where) for item in raw)
    kinds = [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and is_dataclass(kind)]
    if kinds and get_origin(hint) is not tuple:
        return _record(kinds[0], raw, where)
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    if hint is bool or isinstance(raw, bool):
        is_right = hint is bool and isinstance(raw, bool)
    elif hint in (int, str):
        is_right = isinstance(raw, hint)
    elif name == "files":
        is_right = isinstance(raw, dict) and all(isinstance(digest, str) for digest in raw.values())
    else:
        is_right = name == "architecture_arguments" and isinstance(raw, dict)
    if not is_right:
        raise BundleFormatError(f"{where} has a wrong type; package the run again.")
    return raw


def _preprocessing(raw: Any, where: str) -> AnyParameters:
    """Read the parameters of the algorithm that the version names."""
    version = raw.get("version") if isinstance(raw, dict) else None
    if not isinstance(version, str):
        raise BundleFormatError(f"{where} must name its version; package the run again.")
    return _record(parameters_class(version), raw, where)
