"""What a check of ``doctor`` tells."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        What was looked at.
    verdict : Verdict
        How it is.
    found : str
        In words.
    advice : str
        What to do next; empty where all is well.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""
