"""The registry of clinical tasks: one file each, with one frozen ``TASK``.

A task says what is asked of a study, which images answer it and which are refused. Nothing here imports
torch or numpy: the process that receives images knows the tasks too, and reads no pixels.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from models.contract import CodedConcept, ImageView, Laterality, Refusal, RefusalCode
from models.errors import RegistryError, UnknownTaskError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.preprocessing import Breast


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What a task's gate decided about a study.

    Attributes
    ----------
    accepted : tuple of ImageView
        The images to score, in the task's order.
    breasts : tuple of Breast
        Where the gate found the breast in each of them, so that nobody has to look again.
    refusals : tuple of Refusal
        Why the others are not scored, study-wide reasons first.
    is_complete : bool
        Whether every image that the task wants was accepted.
    """

    accepted: tuple[ImageView, ...]
    breasts: tuple[Breast, ...]
    refusals: tuple[Refusal, ...]
    is_complete: bool


Gate = Callable[[Sequence[ImageView], Sequence[Refusal]], GateVerdict]


@dataclass(frozen=True, slots=True)
class SlideReading:
    """How whole slides are read, patch by patch.

    Attributes
    ----------
    pixel_mm : float
        Side of a pixel as the network sees it, millimetres on the slide.
    tissue : callable
        ``tissue(patches) -> (n,)`` bool says which of ``(n, rows, columns, 3)`` uint8 RGB patches hold enough
        tissue to be scored.
    """

    pixel_mm: float
    tissue: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Task:
    """A question that a bundle can answer.

    Attributes
    ----------
    name : str
        Stable name: in the database, in bundles and in messages.
    title : str
        For people.
    modality : str
        Modality (0008,0060) of the images.
    scored_sop_classes : frozenset of str
        UIDs of the SOP classes that are scored.
    refused_sop_classes : mapping of str to RefusalCode
        UIDs of the SOP classes that belong to such a study and are refused, each with its reason.
    standard_views : tuple of (Laterality, str)
        Side and view of the images that make a complete study, in the order of results.
    labels : tuple of CodedConcept
        What each output of the network is the probability of.
    classes : tuple of str
        Short names of the classes that an image is labelled with, in the order of the outputs. A task with
        one output has two, the one that the output is *not* the probability of first; a task with more
        outputs has one class for each.
    gate : callable
        ``gate(views, unreadable) -> GateVerdict``; `unreadable` are refusals of images that could not even
        be read.
    slides : SlideReading or None
        For a task whose images are whole slides: how they are read. None for tasks that score whole images.
    negative_class : str or None
        For several outputs, the class that means that there is nothing: an image's probability is that of all
        others together. None for one output, whose probability is the output's.
    margins : mapping of str to CodedConcept
        For classes that are masses: their margins (PS3.16 CID 6006).
    target : str
        What the probability is the probability of, as reports say it.
    """

    name: str
    title: str
    modality: str
    scored_sop_classes: frozenset[str]
    refused_sop_classes: Mapping[str, RefusalCode]
    standard_views: tuple[tuple[Laterality, str], ...]
    labels: tuple[CodedConcept, ...]
    classes: tuple[str, ...]
    gate: Gate
    slides: SlideReading | None = None
    negative_class: str | None = None
    margins: Mapping[str, CodedConcept] = field(default_factory=lambda: MappingProxyType({}))
    target: str = "cancer"

    def __post_init__(self) -> None:
        wanted = 2 if len(self.labels) == 1 else len(self.labels)
        if len(self.classes) != wanted:
            raise RegistryError(f"Task {self.name!r} has {len(self.labels)} outputs: name {wanted} classes.")
        if len(self.labels) > 1 and self.negative_class not in self.classes:
            raise RegistryError(f"Task {self.name!r} has several outputs: name its negative class.")

    @property
    def outputs(self) -> int:
        """Number of logits that a network for this task gives."""
        return len(self.labels)

    @property
    def sop_classes(self) -> frozenset[str]:
        """UIDs of every SOP class that makes a study one for this task."""
        return self.scored_sop_classes | self.refused_sop_classes.keys()

    def reason_against(self, sop_class_uid: str) -> RefusalCode:
        """Return why instances of a class that is not scored are refused."""
        return self.refused_sop_classes.get(sop_class_uid, RefusalCode.UNSUPPORTED_SOP_CLASS)


@cache
def all_tasks() -> Mapping[str, Task]:
    """All tasks by name, in the order of their names.

    Raises
    ------
    RegistryError
        If a file has no ``TASK`` or two have the same name.
    """
    return MappingProxyType(scan(__name__, __path__))


def task_named(name: str) -> Task:
    """Return the task called `name`.

    Raises
    ------
    UnknownTaskError
        If there is none.
    """
    tasks = all_tasks()
    if name not in tasks:
        raise UnknownTaskError(f"No task is called {name!r}; there are: {', '.join(tasks)}.")
    return tasks[name]


def scan(package: str, path: Iterable[str]) -> dict[str, Task]:
    """Import every module of `package` and collect its ``TASK`` by name, sorted.

    Raises
    ------
    RegistryError
        If a file has no ``TASK`` or two have the same name.
    """
    tasks: dict[str, Task] = {}
    for module_name in sorted(module.name for module in pkgutil.iter_modules(path)):
        task = getattr(importlib.import_module(f"{package}.{module_name}"), "TASK", None)
        if not isinstance(task, Task):
            raise RegistryError(f"{package}.{module_name} has no TASK; add one or remove the file.")
        if task.name in tasks:
            raise RegistryError(f"{package}.{module_name}: another file already has the task {task.name!r}.")
        tasks[task.name] = task
    return dict(sorted(tasks.items()))
