"""Which state may follow which: every pair of state and event once, allowed or refused."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from typing import Any

import pytest

from db.errors import TransitionRefusedError
from db.lifecycle import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    REVISION_TRANSITIONS,
    CompletionReason,
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
    RevisionState,
    next_state,
    sources_of,
)

# The specification, written down once more on purpose: rows are states, columns events, "-" is refused.
REVISIONS = """
             all_views  command   quiet_period  recall
open         complete   complete  complete      complete
complete     -          -         -             -
"""
JOBS = """
             claim    finish  try_later  release  give_up  retry   reopen
queued       running  -       -          -        -        queued  -
running      running  done    queued     queued   failed   -       -
done         -        -       -          -        -        -       queued
failed       -        -       -          -        -        queued  queued
"""
DELIVERIES = """
             accepted   no_answer  turned_away  refuse   retry    pass_over   commit     miss
pending      delivered  unknown    pending      refused  -        not_needed  -          -
unknown      delivered  unknown    unknown      refused  -        not_needed  -          -
delivered    -          -          -            -        -        -           committed  pending
committed    -          -          -            -        -        -           -          -
refused      -          -          -            -        pending  -           -          -
not_needed   -          -          -            -        -        -           -          -
"""

Machine = tuple[Mapping[Any, Any], type[StrEnum], type[StrEnum], str]
MACHINES: list[Machine] = [
    (REVISION_TRANSITIONS, RevisionState, CompletionReason, REVISIONS),
    (JOB_TRANSITIONS, JobState, JobEvent, JOBS),
    (DELIVERY_TRANSITIONS, DeliveryState, DeliveryEvent, DELIVERIES),
]


def _cells(specification: str) -> dict[tuple[str, str], str]:
    head, *rows = (line.split() for line in specification.strip().splitlines())
    return {(row[0], event): cell for row in rows for event, cell in zip(head, row[1:], strict=True)}


def _pairs(machine: Machine) -> list[Any]:
    table, states, events, specification = machine
    cells = _cells(specification)
    return [
        pytest.param(table, state, event, cells[state, event], id=f"{states.__name__}-{state}-{event}")
        for state, event in product(states, events)
    ]


@pytest.mark.parametrize(("table", "state", "event", "cell"), [p for m in MACHINES for p in _pairs(m)])
def test_each_pair_of_state_and_event_is_allowed_or_refused(
    table: Mapping[Any, Any], state: StrEnum, event: StrEnum, cell: str
) -> None:
    if cell == "-":
        with pytest.raises(TransitionRefusedError) as refusal:
            next_state(table, state, event)
        assert repr(state.value) in str(refusal.value)
        assert repr(event.value) in str(refusal.value)
    else:
        assert next_state(table, state, event) == type(state)(cell)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine[1].__name__)
def test_the_specification_names_every_member(machine: Machine) -> None:
    _, states, events, specification = machine

    assert set(_cells(specification)) == {(s.value, e.value) for s, e in product(states, events)}


def test_a_refusal_says_what_the_state_allows() -> None:
    with pytest.raises(TransitionRefusedError, match=r"it allows: claim, retry$"):
        next_state(JOB_TRANSITIONS, JobState.QUEUED, JobEvent.FINISH)
    with pytest.raises(TransitionRefusedError, match=r"it allows: nothing$"):
        next_state(DELIVERY_TRANSITIONS, DeliveryState.COMMITTED, DeliveryEvent.RETRY)


def test_a_compare_and_set_learns_from_which_states_an_event_is_allowed() -> None:
    assert set(sources_of(JOB_TRANSITIONS, JobEvent.CLAIM)) == {JobState.QUEUED, JobState.RUNNING}
    assert set(sources_of(JOB_TRANSITIONS, JobEvent.FINISH)) == {JobState.RUNNING}
    assert set(sources_of(DELIVERY_TRANSITIONS, DeliveryEvent.RETRY)) == {DeliveryState.REFUSED}
