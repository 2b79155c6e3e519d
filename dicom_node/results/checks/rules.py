"""What a rule is, and what it looks at.

A rule only reports; it never repairs. Its answers carry places and counts, never values of the patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from pydicom.dataset import Dataset

from dicom_node.results.checks.tree import Node, nodes_of


class Level(StrEnum):
    """Who asks for it."""

    STANDARD = "standard"  # DICOM PS3
    IHE_AIR = "ihe-air"  # IHE Radiology, AI Results
    VIEWER = "viewer"  # a widespread viewer fails or shows nothing without it
    PROJECT = "project"  # this project's own promise


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule that an object breaks.

    Attributes
    ----------
    rule : str
        The rule's id, such as ``"SR-06"``; stable.
    level : Level
        Who asks for it.
    text : str
        The rule in words.
    sop_instance_uid : str
        The object; empty where it names none.
    where : str
        Place or detail, such as the path of a content item (``"1.9.1"``); no patient data. May be empty.
    """

    rule: str
    level: Level
    text: str
    sop_instance_uid: str
    where: str = ""

    def __str__(self) -> str:
        """The fault in one line."""
        return f"{self.rule} {self.text}{f' ({self.where})' if self.where else ''}"


@dataclass(frozen=True)
class Subject:
    """One object under the rules.

    Attributes
    ----------
    instance : pydicom.dataset.Dataset
        The object, as read from its file.
    sources : mapping of str to pydicom.dataset.Dataset
        Headers of the images it was made from by SOP Instance UID; empty where they are not at hand, and
        then the rules that need them are silent.
    """

    instance: Dataset
    sources: Mapping[str, Dataset]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Its content items with their paths, root first."""
        return tuple(nodes_of(self.instance))

    @property
    def uid(self) -> str:
        """Its SOP Instance UID; empty where it has none."""
        return str(self.instance.get("SOPInstanceUID", ""))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule about one object.

    Attributes
    ----------
    id : str
        Stable; never given to another rule.
    level : Level
        Who asks for it.
    text : str
        What must hold.
    broken_at : callable
        Gives a place for each breach; nothing for a good object.
    """

    id: str
    level: Level
    text: str
    broken_at: Callable[[Subject], Iterable[str]]


class RuleBook:
    """The rules of one module, in the order in which they are written down."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def rule(
        self, identifier: str, level: Level, text: str
    ) -> Callable[[Callable[[Subject], Iterable[str]]], Callable[[Subject], Iterable[str]]]:
        """Take a function as a rule."""

        def take(broken_at: Callable[[Subject], Iterable[str]]) -> Callable[[Subject], Iterable[str]]:
            self._rules.append(Rule(identifier, level, text, broken_at))
            return broken_at

        return take

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)


def faults_of(subject: Subject, rules: Iterable[Rule]) -> list[Fault]:
    """Hold one object against rules.

    Parameters
    ----------
    subject : Subject
        The object.
    rules : iterable of Rule
        What must hold.
    """
    found = []
    for rule in rules:
        try:
            places: Sequence[str] = list(rule.broken_at(subject))
        except (AttributeError, LookupError, TypeError, ValueError) as exc:
            # What the rule looks at is not even there to be looked at; the cause may quote patient data.
            places = [f"could not be looked at: {type(exc).__name__}"]
        found += [Fault(rule.id, rule.level, rule.text, subject.uid, place) for place in places]
    return found


def unless(condition: object, place: str = "") -> Iterator[str]:
    """Give the place as a breach unless the condition holds."""
    if not condition:
        yield place
