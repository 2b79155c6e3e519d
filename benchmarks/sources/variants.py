"""What a source is: the variants that it compares, and the options that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from training.splits import BY_GROUP


@dataclass(frozen=True, slots=True)
class Variant:
    """One network of a source.

    Attributes
    ----------
    name : str
        Short; names its folder and its row.
    options : Mapping
        Options of its run, beside the source's.
    rests_on_weights : bool
        Whether its base is meant to be pretrained. Without weights the base is random, and said to be.
    honest_alone : bool
        Whether it is run with the honest split alone: it asks a question that the source did not.
    """

    name: str
    options: Mapping[str, Any]
    rests_on_weights: bool = False
    honest_alone: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A published system.

    Attributes
    ----------
    name, title : str
        Such as ``"s3"``, and what people call it.
    claim : str
        What its page reports.
    folder : str
        Of the data set, within the folder of all data.
    options : Mapping
        Options of every run.
    as_written : Mapping
        Further options of the runs under its own protocol.
    variants : tuple of Variant
        What is trained.
    remarks : tuple of str
        What the source leaves open and how it was decided.
    tells_all : bool
        Whether the page holds everything measured on the first variant: levels, calibration, operating
        point, subgroups, maps.
    reference : str or None
        Variant that the others are held against in a table of differences; None for no such table.
    """

    name: str
    title: str
    claim: str
    folder: str
    options: Mapping[str, Any]
    variants: tuple[Variant, ...]
    as_written: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    remarks: tuple[str, ...] = ()
    tells_all: bool = False
    reference: str | None = None

    def under(self, protocol: str) -> tuple[Variant, ...]:
        """Return the variants that are run under a protocol."""
        return tuple(v for v in self.variants if protocol == BY_GROUP or not v.honest_alone)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the runs are; what a machine has time for.

    Attributes
    ----------
    side : int
        Rows and columns of the network's grid.
    epochs : int
        Most epochs.
    folds, run_folds : int
        Folds of the split and how many of them are run.
    batch_size, threads, seed : int
        As in a run.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    side: int
    epochs: int
    folds: int
    run_folds: int
    batch_size: int
    threads: int
    seed: int
    device: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie.

    Attributes
    ----------
    data : Path
        Folder of all data sets.
    work : Path
        Folder of the runs; a benchmark that was ended goes on there.
    weights : Mapping of str to (Path, str)
        Published weights by architecture, with their digests.
    """

    data: Path
    work: Path
    weights: Mapping[str, tuple[Path, str]]
