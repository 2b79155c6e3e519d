"""A GPU without memory left: in halves, then on the CPU; where that fails too, the job comes again (S8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from models import bundle
from models.backends import TorchBackend
from models.classifier import Classifier
from models.errors import DeviceMemoryError
from tests.unit.small_bundle import write_small_bundle

CPU = torch.device("cpu")


def batch_of(count: int) -> NDArray[np.float32]:
    """Return images that differ: each is full of its number."""
    return np.repeat(np.arange(1, count + 1, dtype=np.float32), 16).reshape(count, 1, 4, 4)


class Notes(list[tuple[int, ...]]):
    """What a network and its copies note together."""

    def __deepcopy__(self, _memo: object) -> Self:
        return self


class Crowded(nn.Module):
    """Answers with the sum of each image, where the memory suffices.

    Parameters
    ----------
    is_short : callable
        Whether there is no room for a batch, by the number of the passage (from 0) and its images.
    """

    def __init__(self, is_short: Callable[[int, int], bool], *, has_maps: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("offset", torch.zeros(1))
        self._is_short = is_short
        self._has_maps = has_maps
        self.passages = Notes()
        self.places = Notes()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        number = len(self.passages)
        self.passages.append(tuple(images.shape[:1]))
        self.places.append((self.scale.data_ptr(), self.get_buffer("offset").data_ptr()))
        if self._is_short(number, len(images)):
            raise torch.OutOfMemoryError("CUDA out of memory")
        scaled = images * self.scale + self.get_buffer("offset")
        return scaled.sum(dim=(1, 2, 3))[:, None], scaled if self._has_maps else None


def first(failures: int) -> Callable[[int, int], bool]:
    """Say that so many passages find no memory."""
    return lambda number, _images: number < failures


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_the_answer_is_the_same_however_often_the_memory_ran_out(failures: int) -> None:
    backend = TorchBackend(Crowded(first(failures)), CPU)
    logits, maps = backend.run(batch_of(2))
    assert logits.tolist() == [[16.0], [32.0]]
    assert maps is None
    assert (backend.batches, backend.cpu_batches) == (1, failures == 2)


@pytest.mark.parametrize("count", [2, 3, 64])
def test_a_batch_that_does_not_fit_is_answered_in_halves_and_not_by_the_cpu(count: int) -> None:
    network = Crowded(lambda _number, images: images >= count, has_maps=True)
    backend = TorchBackend(network, CPU)
    logits, maps = backend.run(batch_of(count))
    assert logits.ravel().tolist() == [16.0 * number for number in range(1, count + 1)]
    assert maps is not None
    assert maps.tolist() == batch_of(count).tolist()
    assert network.passages == [(count,), ((count + 1) // 2,), (count // 2,)]
    assert (backend.batches, backend.cpu_batches) == (1, 0)


def test_an_image_that_does_not_fit_is_tried_once_more_and_then_on_the_cpu() -> None:
    network = Crowded(first(2))
    logits, _ = TorchBackend(network, CPU).run(batch_of(1))
    assert logits.tolist() == [[16.0]]
    assert network.passages == [(1,), (1,), (1,)]


def test_what_goes_to_the_cpu_is_not_copied_on_the_full_gpu_first() -> None:
    network = Crowded(first(2))
    TorchBackend(network, CPU).run(batch_of(2))
    assert len(network.places) == 3
    assert len(set(network.places)) == 1, "from the CPU to the CPU nothing needs a place of its own"


def test_where_the_cpu_has_no_memory_either_the_attempt_fails() -> None:
    network = Crowded(first(9))
    with pytest.raises(DeviceMemoryError, match="batch of 2"):
        TorchBackend(network, CPU).run(batch_of(2))
    assert network.passages == [(2,), (1,), (2,)], "once, once in halves, and once on the CPU"


def test_a_processor_without_memory_is_no_lasting_fault() -> None:
    backend = TorchBackend(Crowded(first(3)), CPU)
    with pytest.raises(DeviceMemoryError):
        backend.run(batch_of(2))
    assert backend.run(batch_of(2))[0].tolist() == [[16.0], [32.0]]


@pytest.mark.parametrize(("processors", "answers"), [((), True), (("cpu", "cuda"), True), (("cuda",), False)])
def test_the_cpu_answers_only_for_bundles_that_were_released_for_it(
    tmp_path: Path, processors: tuple[str, ...], answers: bool
) -> None:
    write_small_bundle(tmp_path / "bundle")
    loaded = bundle.read(tmp_path / "bundle")
    released = replace(loaded, manifest=replace(loaded.manifest, processors=processors))
    network = Crowded(first(2))
    classifier = Classifier(released, network, CPU)
    if answers:
        assert classifier.forward(batch_of(1))[0].shape == (1, 1)
        assert (classifier.cpu_batches, len(network.passages)) == (1, 3)
    else:
        with pytest.raises(DeviceMemoryError):
            classifier.forward(batch_of(1))
        assert (classifier.cpu_batches, len(network.passages)) == (0, 2)


def test_a_bundle_for_which_there_is_no_memory_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    write_small_bundle(tmp_path / "bundle")
    monkeypatch.setattr(nn.Module, "to", full)
    with pytest.raises(DeviceMemoryError, match="end what else runs there"):
        Classifier.load(tmp_path / "bundle")
