"""What is tried again, when, and how often. It decides; the claim loop obeys.

Two kinds of failure are told apart by type: those that pass by themselves (a PACS that is down, a database
that is locked, memory that ran out) and those that do not (a damaged input, a refused object).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from db.errors import DatabaseUnavailableError
from dicom_node.errors import DestinationUnavailableError, NodeError, SpoolError
from workers.inputs import DamagedInputError
from workers.training_run import TrainingRefusedError


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient the node is.

    Attributes
    ----------
    attempts : int
        Attempts until a job that keeps failing is given up.
    backoff_max_s : float
        Longest wait between attempts, seconds.
    """

    attempts: int
    backoff_max_s: float


@dataclass(frozen=True, slots=True)
class TryLater:
    """Put the job back for so many seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail the job; a person must look."""


Verdict = TryLater | GiveUp


class UndeliverableError(NodeError):
    """A destination refused an object for good; look at the delivery's status with ``result list``."""


class NotCommittedError(UndeliverableError):
    """A destination keeps reporting objects missing that it took; look into its log, then retry the job."""


def decide(error: Exception, attempt: int, policy: Policy) -> Verdict:
    """Decide what follows a failed attempt.

    Parameters
    ----------
    error : Exception
        What ended the attempt.
    attempt : int
        Number of the attempt, counted from 1.
    policy : Policy
        The node's patience.
    """
    if isinstance(error, UndeliverableError | DamagedInputError | TrainingRefusedError):
        return GiveUp()
    # An unreachable PACS, database or disk comes back one day: results wait for it without limit.
    waits_for_others = isinstance(error, DestinationUnavailableError | DatabaseUnavailableError | SpoolError)
    if attempt >= policy.attempts and not waits_for_others:
        return GiveUp()
    return TryLater(backoff_s(attempt, policy.backoff_max_s))


def backoff_s(attempt: int, longest_s: float) -> float:
    """Return the wait before the next attempt: doubling from 1 s, capped, with up to a fifth of jitter.

    Jitter keeps many jobs that failed together from coming back together.
    """
    wait = min(2.0 ** min(attempt - 1, 30), longest_s)
    return wait * random.uniform(0.9, 1.1)


def code_of(error: Exception) -> str:
    """Return the stable code under which a failure is stored and queried."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(("_" + c if c.isupper() and i else c) for i, c in enumerate(name)).upper()


def reason_of(error: Exception) -> str:
    """Return words for a failure that never carry patient data.

    Our own errors are written without; anybody else's text is not trusted and stays in the exception chain.
    """
    module = type(error).__module__.partition(".")[0]
    if module in {"db", "dicom_node", "models", "workers"}:
        return str(error)
    return f"unexpected {type(error).__name__}; the worker's log has the traceback"
