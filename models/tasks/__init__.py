"""The registry of clinical tasks: one file each, with one frozen ``TASK``.

A task says what is asked of a study, which images answer it and which are refused. Nothing here imports
torch: the process that receives images knows the tasks too.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from models.contract import CodedConcept, ImageView, Laterality, Refusal, RefusalCode
from models.errors import RegistryError, UnknownTaskError

if TYPE_CHECKING:
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
    gate : callable
        ``gate(views, unreadable) -> GateVerdict``; `unreadable` are refusals of images that could not even
        be read.
    """

    name: str
    title: str
    modality: str
    scored_sop_classes: frozenset[str]
    refused_sop_classes: Mapping[str, RefusalCode]
    standard_views: tuple[tuple[Laterality, str], ...]
    labels: tuple[CodedConcept, ...]
    gate: Gate

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
