"""Training every variant of a source under both protocols, each in a folder that can be gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save

from benchmarks.sources.variants import Places, Sizes, Source, Variant
from models.tasks import task_named
from training import evaluated_run
from training.atomic_file import write_atomically
from training.evaluated_run import EvaluatedRun
from training.fold import read_result
from training.material import parameters_of, read_records
from training.networks import build_network, full_arguments
from training.run import run
from training.run_config import TrainingConfig, checked
from training.run_folder import RunFolder
from training.splits import AS_WRITTEN, BY_GROUP

PROTOCOLS = (AS_WRITTEN, BY_GROUP)
_RANDOM_BASE = 7  # its seed

Runs = dict[str, dict[str, EvaluatedRun]]
"""Protocol to variant to what it predicted."""


def run_source(source: Source, sizes: Sizes, places: Places, *, tell: Callable[[str], None]) -> Runs:
    """Train all variants under both protocols; finished ones are taken as they are."""
    found: Runs = {}
    for protocol in PROTOCOLS:
        for variant in source.under(protocol):
            folder = places.work / source.name / protocol / variant.name
            tell(f"{source.name} {protocol} {variant.name}")
            run(
                config_of(source, variant, protocol, sizes, places),
                folder,
                resume=True,
                advance=_each_epoch(tell),
            )
            found.setdefault(protocol, {})[variant.name] = evaluated_run.of_folder(folder)
    return found


def training_seconds(source: Source, sizes: Sizes, places: Places) -> float:
    """Return how long the epochs of all runs took, validation included, whenever they were run."""
    total = 0.0
    for protocol in PROTOCOLS:
        for variant in source.under(protocol):
            folder = RunFolder(places.work / source.name / protocol / variant.name)
            for number in range(sizes.run_folds):
                result = read_result(folder.fold(number))
                total += result.seconds_per_epoch * result.epochs
    return total


def config_of(
    source: Source, variant: Variant, protocol: str, sizes: Sizes, places: Places
) -> TrainingConfig:
    """Return the options of one run; a base that nobody pretrained is a random one, in a file of its own."""
    options: dict[str, Any] = {
        "data_folder": places.data / source.folder,
        "cache": places.work / "prepared",
        "rows": sizes.side,
        "columns": sizes.side,
        "epochs": sizes.epochs,
        "folds": sizes.folds,
        "run_folds": sizes.run_folds,
        "batch_size": sizes.batch_size,
        "threads": sizes.threads,
        "seed": sizes.seed,
        "device": sizes.device,
        "patience": sizes.epochs,
        "leave_out_unusable": True,
        "protocol": protocol,
        **source.options,
        **variant.options,
    }
    if protocol == AS_WRITTEN:
        options |= source.as_written
    if not variant.rests_on_weights:
        return checked(options)
    given = places.weights.get(options["architecture"])
    if given is not None:
        return checked(options | {"weights": given[0], "weights_sha256": given[1]})
    if options.get("mode", "scratch") != "features":
        return checked(options)
    path, digest = _random_base(checked({**options, "mode": "scratch"}), places.work / "random-bases")
    return checked(options | {"weights": path, "weights_sha256": digest})


def _random_base(config: TrainingConfig, folder: Path) -> tuple[Path, str]:
    """Write a network's random weights: a frozen base must come from a file."""
    whole = read_records(config, lambda *_: None)
    parameters = parameters_of(config, whole)
    arguments = full_arguments(
        config.architecture, config.architecture_arguments, task_named(config.task), parameters
    )
    network = build_network(config.architecture, arguments, parameters, seed=(_RANDOM_BASE,))
    content = save({name: value.contiguous() for name, value in network.state_dict().items()})
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{digest}.safetensors"
    if not path.exists():
        write_atomically(path, content)
    return path, digest


def _each_epoch(tell: Callable[[str], None]) -> Callable[[str, int, int], None]:
    def advance(stage: str, done: int, total: int) -> None:
        if stage.startswith("fold"):
            tell(f"  {stage}: epoch {done} of {total}")

    return advance
