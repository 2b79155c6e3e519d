"""A GPU without memory left: once more, then on the CPU; where that fails too, the job comes again (S8)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.backends import TorchBackend

BATCH = np.ones((2, 1, 4, 4), np.float32)


class Crowded(nn.Module):
    """A network that finds no memory on its first passages; copies share the count."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.left = [failures]

    def __deepcopy__(self, _memo: object) -> Crowded:
        copied = Crowded(0)
        copied.left = self.left
        return copied

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        if self.left[0]:
            self.left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.sum(dim=(1, 2, 3), keepdim=False)[:, None], None


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_the_answer_is_the_same_however_often_the_memory_ran_out(failures: int) -> None:
    logits, maps = TorchBackend(Crowded(failures), torch.device("cpu")).run(BATCH)
    assert logits.tolist() == [[16.0], [16.0]]
    assert maps is None


def test_where_the_cpu_has_no_memory_either_the_attempt_fails() -> None:
    network = Crowded(3)
    with pytest.raises(torch.OutOfMemoryError):
        TorchBackend(network, torch.device("cpu")).run(BATCH)
    assert network.left == [0], "once more, and once on the CPU"
