"""Time one image on each backend, and hold its answer against torch: ``python -m benchmarks.backends``.

Weights are drawn, and the statistics of batch norm follow from the images. Networks of drawn weights carry
rounding further than trained ones do: what the gate says here is the worst case, and a bundle's golden inputs
decide. The ratio is torch's time over the backend's; each time is the least of several.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.tables import table
from models import architectures
from models.backends import BACKENDS, REFERENCE, Backend, gate, open_backend
from models.calibration import probabilities
from models.errors import BackendError
from models.tasks import task_named

CPU = torch.device("cpu")
TASK = task_named("mammography_malignancy")


@dataclass(frozen=True)
class Timing:
    """One architecture on one backend."""

    architecture: str
    backend: str
    parameters: int
    load_s: float
    image_ms: float
    ratio: float
    probability_difference: float
    verdict: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Time and print."""
    options = _options().parse_args(arguments)
    torch.set_num_threads(options.threads)
    names = options.architectures or [
        name for name in architectures.architecture_names() if name != "compact"
    ]
    timings: list[Timing] = []
    for name in names:
        timings += _timings(name, (options.channels, options.rows, options.columns), options)
        if not options.json:
            print(f"{name} is done", flush=True)
    if options.json:
        print(json.dumps([asdict(timing) for timing in timings], indent=2))
    else:
        print(_page(timings))
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architectures", nargs="*", help="which; all but the demonstration's by default")
    parser.add_argument("--rows", type=int, default=224)
    parser.add_argument("--columns", type=int, default=224)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=4, help="how many answers are compared")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    return parser


def _timings(name: str, shape: tuple[int, int, int], options: argparse.Namespace) -> list[Timing]:
    images = np.random.default_rng(5).normal(size=(options.images, *shape)).astype(np.float32)
    network = _network(name, shape, images)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    reference = open_backend(REFERENCE, network, shape, CPU)
    reference_ms = _least_ms(lambda: reference.run(images[:1]), options.repeats)
    expected = _probabilities(reference, images)
    timings = [Timing(name, REFERENCE, parameters, 0.0, reference_ms, 1.0, 0.0, "passes")]
    for backend_name in BACKENDS[1:]:
        begun = time.perf_counter()
        candidate = open_backend(backend_name, network, shape, CPU, threads=options.threads)
        load_s = time.perf_counter() - begun
        image_ms = _least_ms(lambda: candidate.run(images[:1]), options.repeats)  # noqa: B023 called at once
        difference = float(np.abs(_probabilities(candidate, images) - expected).max())
        verdict = _verdict(reference, candidate, images)
        ratio = reference_ms / image_ms
        timings.append(Timing(name, backend_name, parameters, load_s, image_ms, ratio, difference, verdict))
    return timings


def _network(name: str, shape: tuple[int, int, int], images: NDArray[np.float32]) -> nn.Module:
    torch.manual_seed(5)
    arguments = {"channels": shape[0]}
    if name == "ann":
        arguments |= {"rows": shape[1], "columns": shape[2]}
    network = architectures.build(name, arguments).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = None  # the plain mean over all batches
    with torch.no_grad():
        network(torch.from_numpy(images))
    return network.eval()


def _verdict(reference: Backend, candidate: Backend, images: NDArray[np.float32]) -> str:
    try:
        gate(reference, candidate, images, task=TASK, temperature=1.0, thresholds=[])
    except BackendError as error:
        return str(error).rpartition(": ")[2]
    return "passes"


def _probabilities(backend: Backend, images: NDArray[np.float32]) -> NDArray[np.float64]:
    return probabilities([float(backend.run(image[np.newaxis])[0][0, 0]) for image in images], 1.0)


def _least_ms(run: Callable[[], object], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return 1000.0 * min(times)


def _page(timings: Sequence[Timing]) -> str:
    rows = [
        [
            timing.architecture,
            timing.backend,
            f"{timing.parameters:,}",
            f"{timing.load_s:.1f}",
            f"{timing.image_ms:.1f}",
            f"{timing.ratio:.1f}",
            f"{timing.probability_difference:.1e}",
            timing.verdict,
        ]
        for timing in timings
    ]
    header = ["network", "backend", "parameters", "load s", "image ms", "ratio", "|dp|", "gate"]
    return table(header, rows)


if __name__ == "__main__":
    raise SystemExit(main())
