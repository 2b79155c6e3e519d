"""The same bytes again: threads and kernels as a run asks for, put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def deterministic(threads: int = 1, *, strict: bool = True) -> Iterator[None]:
    """Fix the number of threads and, where `strict`, allow deterministic kernels alone.

    Sums in another order are other bytes, so the number of threads is a part of a run's options. A GPU lacks
    deterministic kernels for some layers: there `strict` is false, and runs agree but for roundings.
    """
    before, was_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(was_deterministic)


def seed_torch(seed: Sequence[int]) -> None:
    """Let everything that torch draws from now on follow from `seed`: numbers of a run, fold and epoch."""
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
