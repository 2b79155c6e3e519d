"""The reference page of the networks: what each is made of, counted on the networks themselves."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from reference_pages import code, table

from models import architectures
from models.backends import MAP_TOLERANCES, PROBABILITY_TOLERANCES
from models.heads import HEADS
from models.networks import ImageNetwork
from models.published_weights import architectures_with_weights


def networks() -> str:
    """Return what can be trained, and how."""
    return "\n\n".join(
        [
            "# Networks",
            "Parameters are counted with one output and three channels. A block is what `finetune:K` counts, "
            "from the top.",
            table(
                (
                    "architecture",
                    "parameters, `gap`",
                    "parameters, `dense`",
                    "blocks",
                    "least image side",
                    "arguments",
                ),
                [_row(name) for name in architectures.architecture_names()],
            ),
            "`compact` has one output, one channel and a head of its own: its logit is the mean of the "
            "highest cells of its map. `ann` takes images of one size alone, `rows` x `columns`.",
            _heads(),
            _modes(),
            _weights(),
            _backends(),
        ]
    )


def _row(name: str) -> tuple[str, ...]:
    builder = importlib.import_module(f"{architectures.__name__}.{name}").build
    arguments = inspect.signature(builder).parameters
    counts = {head: _parameters(name, {"head": head}) for head in HEADS} if "head" in arguments else {}
    if name == "ann":
        counts = {"dense": _parameters(name, {})}
    network = _network(name, {})
    return (
        code(name),
        counts.get("gap", "" if counts else _parameters(name, {})),
        counts.get("dense", ""),
        str(len(network.blocks)),
        "" if name == "ann" else str(network.smallest_side),
        ", ".join(code(f"{p.name}={p.default!r}") for p in arguments.values()),
    )


def _network(name: str, arguments: dict[str, Any]) -> ImageNetwork:
    with torch.device("meta"):
        network = architectures.build(name, arguments)
    assert isinstance(network, ImageNetwork)
    return network


def _parameters(name: str, arguments: dict[str, Any]) -> str:
    if (name, arguments.get("head")) == ("ann", "gap"):
        return ""
    return f"{sum(p.numel() for p in _network(name, arguments).parameters()):,}"


def _heads() -> str:
    rows = [
        ("`gap`", "global average pooling, dropout, linear", "exact: its mean is the logit"),
        ("`dense`", "dense layer, ReLU, batch norm, dropout, linear", "none, so no evidence is shown"),
    ]
    return (
        f"## Heads\n\n{table(('head', 'layers', 'class activation map'), rows)}\n\n"
        "`dense` without a number of hidden units is, on AlexNet and VGG, their two published dense layers "
        "with dropout. On `cnn3` and `ann` it has no batch norm."
    )


def _modes() -> str:
    rows = [
        ("`scratch`", "everything", "nothing"),
        ("`features`", "the head", "the base, statistics of its batch norms included"),
        ("`finetune:K`", "the head and the K upper blocks", "the blocks below"),
        ("`adapt-bn`", "the head; scale, shift and statistics of all batch norms", "every other layer"),
    ]
    return (
        f"## Modes\n\n{table(('mode', 'learns', 'stays the same to the bit'), rows)}\n\n"
        "AlexNet, VGG and `cnn3` have no batch norm in their base: `adapt-bn` trains their head alone."
    )


def _weights() -> str:
    return (
        "## Published weights\n\n"
        f"{', '.join(code(name) for name in architectures_with_weights())} take the state dictionary that "
        "torchvision publishes for them, as a `.pth` or `.safetensors` file with its SHA-256 digest. Nothing "
        "is downloaded. The layer of the 1000 classes is left out, and the published dense layers where the "
        "head is another; any other name that is missing or too many is an error. With one channel the first "
        "layer's weights are summed over the colours."
    )


def _backends() -> str:
    rows = [("`torch`", "the reference", "", "")]
    rows += [
        (code(name), "OpenVINO on the CPU", f"{PROBABILITY_TOLERANCES[name]:g}", f"{MAP_TOLERANCES[name]:g}")
        for name in PROBABILITY_TOLERANCES
    ]
    columns = ("`scoring.backend`", "what runs the network", "probability may differ by", "map may differ by")
    return (
        f"## Backends\n\n{table(columns, rows)}\n\n"
        "The map's difference is a share of its largest value. A score worker tries the backend on the "
        "golden inputs of each bundle that it loads. Where an answer differs by more, an image changes sides "
        "at an operating point or the same image is answered differently twice, torch runs that bundle, and "
        "the log says why (`bundle.backend_refused`). `openvino-bf16` needs a processor with bfloat16. "
        "Install OpenVINO with `pip install 'dicom-node[openvino]'`."
    )
