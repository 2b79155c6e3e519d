"""Which woman is in which part. A woman is never in two: her breasts resemble each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from models.manifest import canonical
from training.errors import LeakError, TrainingError


@dataclass(frozen=True, slots=True)
class Split:
    """Women by part.

    Raises
    ------
    LeakError
        If a woman is in two parts, or twice in one.
    """

    training: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def __post_init__(self) -> None:
        women = [*self.training, *self.validation, *self.test]
        if len(set(women)) != len(women):
            raise LeakError("A woman is in two parts of the split, or twice in one: list each once.")

    @property
    def sha256(self) -> str:
        """Digest of who is where."""
        return hashlib.sha256(canonical(asdict(self))).hexdigest()


def split_by_woman(strata: Sequence[str], *, validation: int, test: int, seed: int) -> Split:
    """Split women so that each stratum is spread evenly over the parts.

    Parameters
    ----------
    strata : sequence of str
        What each woman has; woman ``i`` is ``strata[i]``.
    validation, test : int
        Women in these parts, the others are for training.
    seed : int
        Of the order within a stratum.

    Raises
    ------
    TrainingError
        If no woman is left for training.
    """
    if validation + test >= len(strata):
        raise TrainingError(f"{len(strata)} women are too few for {validation} + {test} outside training.")
    random = np.random.default_rng(seed)
    place: dict[int, float] = {}
    for stratum in sorted(set(strata)):
        women = [woman for woman, has in enumerate(strata) if has == stratum]
        for rank, woman in enumerate(random.permutation(women)):
            place[int(woman)] = (rank + 0.5) / len(women)
    # In this order every stretch holds each stratum in its own proportion.
    order = sorted(place, key=lambda woman: (place[woman], woman))
    return Split(
        training=tuple(sorted(order[validation + test :])),
        validation=tuple(sorted(order[:validation])),
        test=tuple(sorted(order[validation : validation + test])),
    )
