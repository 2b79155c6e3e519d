"""What the training loop costs beside the network itself.

``python -m benchmarks.training`` trains each architecture on noise for one epoch, and runs the same number of
bare forward and backward passes with an optimiser's step. The ratio says what loading, augmentation, the
moving average, validation and the checkpoint add. It is one of processor time, so that other programs on the
machine change it little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import table
from models.lesion_regions import RegionParameters
from models.networks import ImageNetwork
from models.tasks import task_named
from training.determinism import deterministic
from training.examples import Examples
from training.imbalance import ClassBalance, Imbalance
from training.loop import train
from training.modes import parse_mode
from training.networks import build_network, full_arguments
from training.run_config import TrainingConfig, checked
from training.run_log import RunLog

ARCHITECTURES = (
    "cnn3",
    "ann",
    "alexnet",
    "vgg16",
    "vgg19",
    "resnet50",
    "resnet101",
    "densenet121",
    "densenet201",
    "inception_v3",
)
_VALIDATION_SHARE = 4  # one validation image for so many training images


@dataclass(frozen=True, slots=True)
class Cost:
    """What training one architecture costs.

    Attributes
    ----------
    architecture : str
        Its name.
    parameters : int
        Weights that are trained; the checkpoint holds each five times.
    epoch_s : float
        One epoch of the loop, validation and checkpoint included, seconds on the clock.
    epoch_processor_s, bare_processor_s : float
        Seconds of the processor, all threads together: of that epoch, and of as many forward passes,
        backward passes and steps alone.
    images_per_s, bare_images_per_s : float
        Training images in a second of the processor, of either.
    """

    architecture: str
    parameters: int
    epoch_s: float
    epoch_processor_s: float
    bare_processor_s: float
    images_per_s: float
    bare_images_per_s: float

    @property
    def ratio(self) -> float:
        """Processor time of the loop as a multiple of the bare passes."""
        return self.epoch_processor_s / self.bare_processor_s


def measure(architecture: str, *, side: int, images: int, batch: int, augmentation: float) -> Cost:
    """Time one epoch of the loop and as many bare steps."""
    config = checked(
        {
            "task": "mammography_malignancy",
            "data_set": "noise",
            "data_folder": ".",
            "architecture": architecture,
            "rows": side,
            "columns": side,
            "epochs": 1,
            "batch_size": batch,
            "augmentation": augmentation,
        }
    )
    parameters = RegionParameters(rows=side, columns=side)
    arguments = full_arguments(architecture, {}, task_named(config.task), parameters)
    random = np.random.default_rng(0)
    count = images + images // _VALIDATION_SHARE
    examples = Examples(
        images=random.normal(size=(count, *parameters.shape)).astype(np.float32),
        labels=np.arange(count) % 2,
        training=np.arange(images),
        validation=np.arange(images, count),
    )
    network = build_network(architecture, arguments, parameters, seed=(0,))
    weights = sum(value.numel() for value in network.parameters())
    bare_s = _bare(network, examples, batch)
    network = build_network(architecture, arguments, parameters, seed=(0,))
    started = time.process_time()
    epoch_s = _epoch(network, examples, config)
    epoch_processor_s = time.process_time() - started
    shown = max(1, images // batch) * min(batch, images)
    return Cost(
        architecture=architecture,
        parameters=weights,
        epoch_s=epoch_s,
        epoch_processor_s=epoch_processor_s,
        bare_processor_s=bare_s,
        images_per_s=shown / epoch_processor_s,
        bare_images_per_s=shown / bare_s,
    )


def _bare(network: ImageNetwork, examples: Examples, batch: int) -> float:
    """Processor seconds of an epoch's passes, without the first one, which builds plans."""
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters())
    balance = ClassBalance(Imbalance.NONE, (0.5, 0.5))
    images = torch.from_numpy(np.stack([examples.images[i] for i in range(batch)]))
    images = images.to(memory_format=torch.channels_last)
    labels = torch.from_numpy(examples.labels[:batch])
    started = 0.0
    for step in range(1 + max(1, len(examples.training) // batch)):
        if step == 1:
            started = time.process_time()
        optimiser.zero_grad()
        answers = network.training_answers(images)
        torch.stack([weight * balance.loss(outputs, labels) for outputs, weight in answers]).sum().backward()
        optimiser.step()
    return time.process_time() - started


def _epoch(network: ImageNetwork, examples: Examples, config: TrainingConfig) -> float:
    mode = parse_mode(config.mode)
    mode.apply(network)
    with tempfile.TemporaryDirectory() as folder, RunLog(Path(folder, "log.jsonl")) as log:
        trained = train(
            network,
            examples,
            ClassBalance(Imbalance.NONE, (0.5, 0.5)),
            config,
            fold=0,
            dihedral=True,
            set_training=mode.set_training,
            checkpoint_file=Path(folder, "checkpoint.safetensors"),
            log=log,
            advance=lambda epochs: None,
        )
    return trained.seconds_per_epoch


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("architectures", nargs="*", metavar="NAME", help="which networks; all")
    parser.add_argument("--side", type=int, default=96, help="rows and columns of the images")
    parser.add_argument("--images", type=int, default=64, help="training images in the epoch")
    parser.add_argument("--batch", type=int, default=16, help="images in a step")
    parser.add_argument("--augmentation", type=float, default=0.5, help="strength, 0..1")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--json", action="store_true", help="print for programs")
    given = parser.parse_args(arguments)
    costs = []
    with deterministic(given.threads):
        for name in given.architectures or ARCHITECTURES:
            costs.append(
                measure(
                    name,
                    side=given.side,
                    images=given.images,
                    batch=given.batch,
                    augmentation=given.augmentation,
                )
            )
    if given.json:
        print(json.dumps([{**asdict(cost), "ratio": cost.ratio} for cost in costs], indent=2))
        return
    header = ("architecture", "parameters M", "epoch s", "processor s", "images/s", "bare images/s", "ratio")
    rows = [
        (
            cost.architecture,
            f"{cost.parameters / 1e6:.1f}",
            f"{cost.epoch_s:.1f}",
            f"{cost.epoch_processor_s:.1f}",
            f"{cost.images_per_s:.1f}",
            f"{cost.bare_images_per_s:.1f}",
            f"{cost.ratio:.2f}",
        )
        for cost in costs
    ]
    print(table(header, rows))


if __name__ == "__main__":
    main()
