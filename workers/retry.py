"""What is tried again, when, and how often. It decides; the claim loop obeys.

Two kinds of failure are told apart by type: those that pass by themselves (a PACS that is down, a database
that is locked, memory that ran out) and those that do not (a damaged input, a refused object).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from db.errors import DatabaseUnavailableError
from dicom_node.errors import DestinationAwayError, DestinationUnavailableError, NodeError, SpoolError
from models.errors import DeviceMemoryError
from workers.inputs import DamagedInputError
from workers.training_run import TrainingRefusedError

FIRST_S = 1.0
"""Wait after a first failed attempt of which nothing else is known."""

FULL_GPU_S = 60.0
"""Wait after the first attempt that found no memory on the GPU; who has it has it for minutes."""

HELD_UP_S = 1.0
"""An attempt that a destination ended no sooner has held its worker up."""

DOUBTED_REFUSAL_S = 30.0
"""Wait after the first status that refuses an object; a PACS that is busy is so for longer than a second."""


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
    """Put the job back.

    Attributes
    ----------
    delay_s : float
        Seconds until it is due again.
    destination_pause_s : float
        Seconds for which all other jobs for its destination wait, too.
    """

    delay_s: float
    destination_pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail the job; a person must look."""


Verdict = TryLater | GiveUp


class UndeliverableError(NodeError):
    """A destination refused an object for good; look at the delivery's status with ``result list``."""


class RefusalDoubtedError(NodeError):
    """A destination refused an object, which is sent again before that is believed.

    No other job waits for it: the destination is there and answers.

    Parameters
    ----------
    reason : str
        For the operator; never patient data.
    refusals : int
        How often it refused the object that it refused most often.
    """

    def __init__(self, reason: str, *, refusals: int) -> None:
        super().__init__(reason)
        self.refusals = refusals


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
    first_s = FULL_GPU_S if isinstance(error, DeviceMemoryError) else FIRST_S
    delay_s = backoff_s(attempt, policy.backoff_max_s, first_s=first_s)
    if isinstance(error, RefusalDoubtedError):
        # Refusals are counted by object, whatever else the job met before.
        doubt_s = backoff_s(error.refusals, policy.backoff_max_s, first_s=DOUBTED_REFUSAL_S)
        return TryLater(max(delay_s, doubt_s))
    if attempt >= policy.attempts and not waits_for_others:
        return GiveUp()
    return TryLater(delay_s, delay_s if isinstance(error, DestinationAwayError) else 0.0)


def leaving_others_time(verdict: TryLater, error: Exception, *, took_s: float) -> TryLater:
    """Let a destination that held its worker up leave it to the others for as long.

    One that is connected to and then keeps silent costs a time-out for each job that waits for it: ten of
    them would keep a worker for minutes from the destinations that answer. The job that asked waits longest,
    so that another one asks next: the silence may be about its objects alone.

    Parameters
    ----------
    verdict : TryLater
        What was decided.
    error : Exception
        What ended the attempt.
    took_s : float
        How long the attempt took, in seconds.
    """
    if took_s < HELD_UP_S or not isinstance(error, DestinationUnavailableError):
        return verdict
    return TryLater(verdict.delay_s + took_s, verdict.destination_pause_s + took_s)


def is_refusal_believed(refusals: int, refused_tries: int) -> bool:
    """Decide whether an object that a destination refused by a status waits for a person.

    Many a PACS gives such a status for a trouble that passes: a busy database, a study that is locked.

    Parameters
    ----------
    refusals : int
        How often the destination refused the object, the last time included.
    refused_tries : int
        How often it must refuse an object until that is believed.
    """
    return refusals >= refused_tries


def backoff_s(attempt: int, longest_s: float, *, first_s: float = FIRST_S) -> float:
    """Return the wait before the next attempt: doubling from the first, capped, with up to a fifth of jitter.

    Jitter keeps many jobs that failed together from coming back together.
    """
    wait = min(first_s * 2.0 ** min(attempt - 1, 30), longest_s)
    return wait * random.uniform(0.9, 1.1)


def code_of(error: Exception) -> str:
    """Return the stable code under which a failure is stored and queried."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(("_" + c if c.isupper() and i else c) for i, c in enumerate(name)).upper()


def reason_of(error: Exception) -> str:
    """Return words for a failure that never carry patient data.

    Our own errors are written without; anybody else's text is not trusted and stays in the exception chain.
    """
    if isinstance(error, DeviceMemoryError):
        return f"{error} Then 'dicom-node job retry' tries it at once."
    module = type(error).__module__.partition(".")[0]
    if module in {"db", "dicom_node", "models", "workers"}:
        return str(error)
    return f"unexpected {type(error).__name__}; the worker's log has the traceback"
