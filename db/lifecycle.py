"""Which state may follow which: three tables ``(state, event) -> state``.

Everything that a table does not hold is refused with :class:`db.errors.TransitionRefusedError`. The database
refuses too: every state column has a CHECK over the same members.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from db.errors import TransitionRefusedError


class RevisionState(StrEnum):
    """A study's set of instances."""

    OPEN = "open"  # instances still join it
    COMPLETE = "complete"  # judged complete for a stated reason; its jobs exist; late instances open the next


class CompletionReason(StrEnum):
    """Why a revision was judged complete."""

    ALL_VIEWS = "all_views"  # every standard view of the protocol is there, For Presentation
    COMMAND = "command"  # a person or program said so
    RECALL = "recall"  # the bundle that scored the study before was recalled
    QUIET_PERIOD = "quiet_period"  # nothing more arrived for the configured time


class DeploymentRole(StrEnum):
    """What a bundle does for a task."""

    CHAMPION = "champion"  # answers
    CANARY = "canary"  # answers for a share of the studies
    SHADOW = "shadow"  # scores what the champion scores; its scores are kept, never sent


class JobKind(StrEnum):
    """What a job does; also the name of its queue."""

    SCORE = "score"
    DELIVER = "deliver"
    TRAIN = "train"
    COMMIT = "commit"


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  # waits for a worker, not before its next_try_at
    RUNNING = "running"  # a worker holds its lease; once the lease ended, any worker may claim it again
    DONE = "done"  # its outcome is committed
    FAILED = "failed"  # given up with a stored reason; only a person queues it again


class JobEvent(StrEnum):
    """What happens to a job."""

    CLAIM = "claim"
    FINISH = "finish"
    TRY_LATER = "try_later"
    RELEASE = "release"
    GIVE_UP = "give_up"
    RETRY = "retry"
    REOPEN = "reopen"  # storage commitment has work for it again


class DeliveryState(StrEnum):
    """Where one result object stands at one destination."""

    PENDING = "pending"  # not yet accepted; it was never sent, or the destination certainly did not keep it
    UNKNOWN = "unknown"  # sent, but the answer was lost: the destination may hold it
    DELIVERED = "delivered"  # the destination answered success, a warning, or "already there"
    COMMITTED = "committed"  # ... and it has taken the responsibility for keeping it (PS3.4 annex J)
    REFUSED = "refused"  # the destination will not take it; a person must look
    NOT_NEEDED = "not_needed"  # the destination takes the same content as an object of another class


class DeliveryEvent(StrEnum):
    """What a send attempt or a person does to a delivery."""

    ACCEPTED = "accepted"
    NO_ANSWER = "no_answer"
    TURNED_AWAY = "turned_away"
    REFUSE = "refuse"
    PASS_OVER = "pass_over"
    RETRY = "retry"
    COMMIT = "commit"
    MISS = "miss"


REVISION_TRANSITIONS: Mapping[tuple[RevisionState, CompletionReason], RevisionState] = {
    (RevisionState.OPEN, CompletionReason.ALL_VIEWS): RevisionState.COMPLETE,
    (RevisionState.OPEN, CompletionReason.COMMAND): RevisionState.COMPLETE,
    (RevisionState.OPEN, CompletionReason.QUIET_PERIOD): RevisionState.COMPLETE,
    (RevisionState.OPEN, CompletionReason.RECALL): RevisionState.COMPLETE,
}

JOB_TRANSITIONS: Mapping[tuple[JobState, JobEvent], JobState] = {
    (JobState.QUEUED, JobEvent.CLAIM): JobState.RUNNING,
    (JobState.RUNNING, JobEvent.CLAIM): JobState.RUNNING,  # only once the lease has ended
    (JobState.RUNNING, JobEvent.FINISH): JobState.DONE,
    (JobState.RUNNING, JobEvent.TRY_LATER): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.RELEASE): JobState.QUEUED,
    (JobState.RUNNING, JobEvent.GIVE_UP): JobState.FAILED,
    (JobState.QUEUED, JobEvent.RETRY): JobState.QUEUED,  # a person shortens the backoff
    (JobState.FAILED, JobEvent.RETRY): JobState.QUEUED,
    (JobState.DONE, JobEvent.REOPEN): JobState.QUEUED,
    (JobState.FAILED, JobEvent.REOPEN): JobState.QUEUED,
}

DELIVERY_TRANSITIONS: Mapping[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (DeliveryState.PENDING, DeliveryEvent.ACCEPTED): DeliveryState.DELIVERED,
    (DeliveryState.PENDING, DeliveryEvent.NO_ANSWER): DeliveryState.UNKNOWN,
    (DeliveryState.PENDING, DeliveryEvent.TURNED_AWAY): DeliveryState.PENDING,
    (DeliveryState.PENDING, DeliveryEvent.REFUSE): DeliveryState.REFUSED,
    (DeliveryState.PENDING, DeliveryEvent.PASS_OVER): DeliveryState.NOT_NEEDED,
    (DeliveryState.UNKNOWN, DeliveryEvent.ACCEPTED): DeliveryState.DELIVERED,
    (DeliveryState.UNKNOWN, DeliveryEvent.NO_ANSWER): DeliveryState.UNKNOWN,
    (DeliveryState.UNKNOWN, DeliveryEvent.TURNED_AWAY): DeliveryState.UNKNOWN,
    (DeliveryState.UNKNOWN, DeliveryEvent.REFUSE): DeliveryState.REFUSED,
    (DeliveryState.UNKNOWN, DeliveryEvent.PASS_OVER): DeliveryState.NOT_NEEDED,
    (DeliveryState.REFUSED, DeliveryEvent.RETRY): DeliveryState.PENDING,
    (DeliveryState.DELIVERED, DeliveryEvent.COMMIT): DeliveryState.COMMITTED,
    (DeliveryState.DELIVERED, DeliveryEvent.MISS): DeliveryState.PENDING,  # sent again, the same bytes
}

State = TypeVar("State", bound=StrEnum)
Event = TypeVar("Event", bound=StrEnum)


def next_state(table: Mapping[tuple[State, Event], State], state: State, event: Event) -> State:
    """Return the state that follows, or refuse.

    Raises
    ------
    TransitionRefusedError
        If the table holds no such pair.
    """
    try:
        return table[state, event]
    except KeyError:
        allowed = ", ".join(sorted(str(e) for s, e in table if s == state)) or "nothing"
        raise TransitionRefusedError(
            f"{type(state).__name__} {state.value!r} does not allow {event.value!r}; it allows: {allowed}"
        ) from None


def sources_of(table: Mapping[tuple[State, Event], State], event: Event) -> tuple[State, ...]:
    """Return the states from which an event is allowed, for a compare-and-set."""
    return tuple(state for state, e in table if e == event)
