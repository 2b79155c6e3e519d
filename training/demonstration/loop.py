"""The demonstration's training loop: first find the lesion in a crop, then score the whole image.

A lesion covers 1 % of an image, so the image's label alone teaches a fresh network nothing in an hour. Where
lesions are marked, the class activation map itself is trained to light up on them; the image's score follows,
because it is the mean of the map's highest cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models import architectures
from training.demonstration.cohort import Example
from training.demonstration.config import DemonstrationConfig

CROP_ROWS, CROP_COLUMNS = 96, 64
_LESION_CORE = 0.8  # of the radius: its border is as dark as its surroundings
_LESION_WEIGHT = 5.0  # cells of lesions are rare
_INITIAL_BIAS = -3.0  # log-odds of a cell before anything is learnt
_WEIGHT_DECAY = 1e-3


@dataclass(frozen=True, slots=True)
class _Cases:
    """The examples as tensors: images, maps of lesions, labels."""

    images: torch.Tensor
    maps: torch.Tensor
    labels: torch.Tensor
    lesions: Sequence[tuple[float, float, float] | None]


@dataclass(frozen=True, slots=True)
class _Stage:
    """What is learnt in a number of epochs: the loss of the cases at some positions, and how fast."""

    loss: Callable[[torch.Tensor], torch.Tensor]
    epochs: int
    rate: float
    batch_size: int


def train(
    examples: Sequence[Example], config: DemonstrationConfig, *, advance: Callable[[], None]
) -> nn.Module:
    """Train the compact network; the same examples and options give the same bytes on one kind of processor.

    Parameters
    ----------
    examples : sequence of Example
        The training part.
    config : DemonstrationConfig
        Width, epochs, rates and seed.
    advance : callable
        Called after each epoch.

    Returns
    -------
    torch.nn.Module
        The network, in evaluation mode.
    """
    torch.manual_seed(config.seed)
    random = torch.Generator().manual_seed(config.seed)
    network = architectures.build("compact", {"channels": list(config.channels)})
    nn.init.constant_(network.get_parameter("head.bias"), _INITIAL_BIAS)
    with torch.inference_mode():
        _, activation = network.eval()(torch.from_numpy(examples[0].tensor[np.newaxis]))
    cases = _as_cases(examples, (activation.shape[2], activation.shape[3]))
    network.train()

    def localising_loss(batch: torch.Tensor) -> torch.Tensor:
        images, maps = _crops(cases, batch, random)
        _, activations = network(images)
        return _map_loss(activations, maps)

    def scoring_loss(batch: torch.Tensor) -> torch.Tensor:
        images, maps = cases.images[batch], cases.maps[batch]
        if _draw(random, 0, 2):
            images, maps = images.flip(2), maps.flip(2)
        logits, activations = network(images)
        image_loss = functional.binary_cross_entropy_with_logits(logits[:, 0], cases.labels[batch])
        return image_loss + _map_loss(activations, maps)

    for stage in (
        _Stage(localising_loss, config.localising_epochs, config.localising_rate, batch_size=16),
        _Stage(scoring_loss, config.scoring_epochs, config.scoring_rate, batch_size=8),
    ):
        _run_stage(network, stage, len(examples), random, advance)
    return network.eval()


def _run_stage(
    network: nn.Module, stage: _Stage, cases: int, random: torch.Generator, advance: Callable[[], None]
) -> None:
    if not stage.epochs:
        return
    batches = max(1, cases // stage.batch_size)
    optimiser = torch.optim.AdamW(network.parameters(), lr=stage.rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, stage.rate, total_steps=stage.epochs * batches, pct_start=0.2
    )
    for _ in range(stage.epochs):
        order = torch.randperm(cases, generator=random)
        for start in range(0, min(cases, batches * stage.batch_size), stage.batch_size):
            optimiser.zero_grad()
            stage.loss(order[start : start + stage.batch_size]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        advance()


def _as_cases(examples: Sequence[Example], map_shape: tuple[int, int]) -> _Cases:
    images = torch.from_numpy(np.stack([example.tensor for example in examples]))
    maps = np.stack([_lesion_map(example, map_shape) for example in examples])
    labels = torch.tensor([float(example.is_malignant) for example in examples])
    return _Cases(images, torch.from_numpy(maps), labels, [example.lesion for example in examples])


def _lesion_map(
    example: Example, shape: tuple[int, int]
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """Return ``(1, h, w)`` float32: 1 where a cell's centre lies in the core of a malignant lesion."""
    marked = np.zeros((1, *shape), dtype=np.float32)
    if example.lesion is not None and example.is_malignant:
        cell = example.tensor.shape[1] / shape[0]
        x, y, radius = example.lesion
        rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
        marked[0] = np.hypot(columns * cell - x, rows * cell - y) < max(radius * _LESION_CORE, 0.75 * cell)
    return marked


def _map_loss(activations: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    weight = torch.tensor(_LESION_WEIGHT)
    return functional.binary_cross_entropy_with_logits(activations, maps, pos_weight=weight)


def _crops(cases: _Cases, batch: torch.Tensor, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut one crop per case, near its lesion or anywhere in the breast, and flip it at random."""
    cell = cases.images.shape[2] // cases.maps.shape[2]
    height, width = (
        min(side, full) for side, full in zip((CROP_ROWS, CROP_COLUMNS), cases.images.shape[2:], strict=True)
    )
    images, maps = [], []
    for case in batch.tolist():
        x, y = _crop_centre(cases, case, random)
        top = _crop_start(y, height, cases.images.shape[2], cell)
        left = _crop_start(x, width, cases.images.shape[3], cell)
        image = cases.images[case, :, top : top + height, left : left + width]
        marked = cases.maps[
            case, :, top // cell : (top + height) // cell, left // cell : (left + width) // cell
        ]
        axes = [axis for axis in (1, 2) if _draw(random, 0, 2)]
        images.append(image.flip(axes))
        maps.append(marked.flip(axes))
    return torch.stack(images), torch.stack(maps)


def _crop_centre(cases: _Cases, case: int, random: torch.Generator) -> tuple[float, float]:
    lesion = cases.lesions[case]
    if lesion is not None:
        return lesion[0] + _draw(random, -16, 17), lesion[1] + _draw(random, -24, 25)
    inside = cases.images[case, 0, ::8, ::8].nonzero()
    row, column = inside[_draw(random, 0, len(inside))].tolist()
    return 8.0 * column, 8.0 * row


def _crop_start(centre: float, length: int, full: int, cell: int) -> int:
    """First grid line of a crop, on a border of the map's cells and inside the grid."""
    start = round((centre - length / 2) / cell) * cell
    return min(max(start, 0), full - length)


def _draw(random: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=random))
