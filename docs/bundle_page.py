"""The page of a bundle's form: its files, and what its manifest claims.

Fields are those of the docstrings of :mod:`models.manifest` and its neighbours.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields

from reference_pages import code, table

from models import bundle
from models.archive import MAX_BYTES, MAX_ENTRIES, SUFFIXES
from models.bundle import Golden
from models.calibration import OperatingPoint
from models.manifest import FORMAT, PROCESSORS, LocalisationVerdict, Manifest, Metric, SubgroupMetric
from models.network_inputs import PARAMETERS

_FIELD = re.compile(r"^(?P<names>\w[\w, ]*) : (?P<type>.+)\n(?P<meaning>(?:    .+\n?)+)", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")
# What the code calls by a name that a reader of the file does not know.
_WORDS = {
    "`FORMAT`": str(FORMAT),
    "The kinds of `PROCESSORS`": f"Those of {', '.join(map(code, PROCESSORS))}",
    "The algorithm, `VERSION`.": "The algorithm, as above.",
    "AnyParameters": "[preprocessing](#preprocessing-breast-grid-1)",
    "tuple of OperatingPoint": "list of [operating points](#operating-point)",
    "tuple of CodedConcept": "list of codes: `value`, `scheme`, `meaning`",
    "tuple of Metric": "list of [metrics](#metric)",
    "tuple of SubgroupMetric": "list of [subgroup metrics](#subgroup-metric)",
    "LocalisationVerdict or None": "[localisation verdict](#localisation-verdict)",
    "tuple of str": "list of str",
    "Mapping": "object",
    "numpy.ndarray or None": "tensor, may be absent",
    "numpy.ndarray": "tensor",
}


def bundle_form() -> str:
    """Return how a bundle looks on the disk."""
    files = {
        bundle.MANIFEST: "what the bundle claims, and the SHA-256 digest of every other file",
        bundle.METADATA: "MONAI's metadata; `name`, `version` and `network_data_format` are needed",
        bundle.WEIGHTS: "the network's state dictionary, every number finite",
        bundle.GOLDEN: "inputs and the released network's answers to them",
        bundle.CARD: "the model card, Markdown",
    }
    parts = [
        "# Form of a bundle",
        "For whoever brings a model that was trained elsewhere. `dicom-node train run --name` and `train "
        "package` write this form ([how to](../how-to/train-on-your-data.md)). `dicom-node model add` "
        "refuses whatever departs from it, and says where ([how to](../how-to/manage-bundles.md#add)). "
        "Nothing in a bundle is ever run.",
        table(("file", "holds"), [(code(name), meaning) for name, meaning in files.items()]),
        "More files may be there: JSON, safetensors, Markdown or text, each named in the manifest, none of "
        "them a link or open to everybody's writing. An archive "
        f"({', '.join(map(code, SUFFIXES))}) holds one such folder, of at most {MAX_ENTRIES} entries and "
        f"{MAX_BYTES >> 30} GiB.",
        "## Manifest\nThe digest of a bundle is the SHA-256 of its manifest in one spelling: keys sorted, no "
        "spaces, ASCII.",
        _fields(Manifest),
    ]
    kinds = (
        ("Operating point", OperatingPoint),
        ("Metric", Metric),
        ("Subgroup metric", SubgroupMetric),
        ("Localisation verdict", LocalisationVerdict),
    )
    parts += [f"### {title}\n{_opening(kind)}\n\n{_fields(kind)}" for title, kind in kinds]
    for version, parameters in PARAMETERS.items():
        parts.append(f"### Preprocessing `{version}`\n{_opening(parameters)}\n\n{_fields(parameters)}")
    parts.append(f"## Golden cases\nTensors of `{bundle.GOLDEN}`.\n\n{_fields(Golden)}")
    return "\n\n".join(parts)


def _opening(kind: type) -> str:
    return _plain((inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " "))


def _fields(kind: type) -> str:
    """Return the table of a class's attributes, as its docstring tells them."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes\n----------\n")
    optional = {each.name for each in fields(kind) if each.default is not MISSING}
    rows = []
    for found in _FIELD.finditer(section):
        names = found["names"].split(", ")
        left_out = " Optional." if optional.issuperset(names) else ""
        rows.append((", ".join(map(code, names)), _plain(found["type"]), _plain(found["meaning"]) + left_out))
    return table(("field", "is", "meaning"), rows)


def _plain(text: str) -> str:
    """Return words of a docstring as Markdown in one line."""
    words = " ".join(_ROLE.sub(r"`\1`", text).replace("``", "`").split())
    for name, meaning in _WORDS.items():
        words = words.replace(name, meaning)
    return words
