"""Prepared images with their labels, as the loop takes them: by position, in batches that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from training.augmentation import Augmentation
from training.imbalance import ClassBalance

EVALUATION_BATCH = 64


class Images(Protocol):
    """Prepared images by position."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Return ``(channels, rows, columns)`` float32."""


@dataclass(frozen=True, slots=True)
class Examples:
    """The labelled images of one fold.

    Attributes
    ----------
    images : Images
        Every image of the data set.
    labels : numpy.ndarray
        ``(n,)`` int64 index into the task's classes, for every image.
    training, validation : numpy.ndarray
        Positions of the images of these parts.
    """

    images: Images
    labels: NDArray[np.int64]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OrientedImages:
    """Each image in several of its eight orientations, as if all of them had been collected.

    Copy ``c`` of image ``i`` is at ``i * copies + c``; copy 0 is the image itself. Made before a split,
    copies of one image come into several parts of it: that is what experiments "as written" do.

    Attributes
    ----------
    images : Images
        The images.
    copies : int
        1..8.
    """

    images: Images
    copies: int

    def __len__(self) -> int:
        return len(self.images) * self.copies

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        image = self.images[index // self.copies]
        turns, is_mirrored = index % self.copies % 4, index % self.copies >= 4
        if image.shape[1] != image.shape[2]:
            # A grid that is not square keeps its form under half turns and mirrors alone.
            turns = 2 * (turns % 2)
        oriented = np.rot90(image, turns, axes=(1, 2))
        return np.ascontiguousarray(oriented[:, :, ::-1] if is_mirrored else oriented)


class _Varied(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Training images by what decides their variation: seed, fold, epoch, place in the epoch, image."""

    def __init__(self, examples: Examples, augmentation: Augmentation) -> None:
        self._examples = examples
        self._augmentation = augmentation

    def __getitem__(self, key: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        image = self._augmentation(self._examples.images[key[-1]], key)
        return torch.from_numpy(image), torch.tensor(self._examples.labels[key[-1]])


def training_batches(
    examples: Examples,
    balance: ClassBalance,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: tuple[int, int, int],
    workers: int,
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Return one epoch's batches of images and labels.

    A last batch that is not full is left out unless it is the only one: batch norm needs company, and the
    next epoch has another order.

    Parameters
    ----------
    examples : Examples
        The fold.
    balance : ClassBalance
        Decides how often each case is shown.
    augmentation : Augmentation
        How images are varied.
    batch_size : int
        Images in a batch.
    seed : tuple of int
        Seed of the run, fold and epoch.
    workers : int
        Processes that prepare batches; changes no byte.
    """
    order = balance.order(examples.labels[examples.training], np.random.default_rng(seed))
    keys: list[tuple[int, ...]] = [
        (*seed, place, int(examples.training[position])) for place, position in enumerate(order)
    ]
    count = max(1, len(keys) // batch_size)
    batches = [keys[number * batch_size : (number + 1) * batch_size] for number in range(count)]
    return DataLoader(
        _Varied(examples, augmentation),
        batch_sampler=batches,
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
    )


def plain_batches(images: Images, positions: NDArray[np.int64]) -> Iterator[torch.Tensor]:
    """Yield the images at `positions` unchanged, in batches."""
    for start in range(0, len(positions), EVALUATION_BATCH):
        chosen = positions[start : start + EVALUATION_BATCH]
        yield torch.from_numpy(np.stack([images[int(position)] for position in chosen]))
