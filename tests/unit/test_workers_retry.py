"""What is tried again, when and how often; what is stored about it."""

from __future__ import annotations

import pytest

from db.errors import DatabaseUnavailableError, UnknownRecordError
from dicom_node.errors import (
    DestinationAwayError,
    DestinationUnavailableError,
    ResultError,
    SpoolError,
    SpoolFullError,
)
from models.errors import DeviceMemoryError
from workers.inputs import DamagedInputError, MissingInputError
from workers.retry import (
    GiveUp,
    Policy,
    RefusalDoubtedError,
    TryLater,
    UndeliverableError,
    backoff_s,
    code_of,
    decide,
    is_refusal_believed,
    leaving_others_time,
    reason_of,
)

POLICY = Policy(attempts=5, backoff_max_s=300)
PATIENT = "ZZCANARY^NAME"


class ForeignError(Exception):
    """An error of somebody else's library, whose text may quote a data set."""


@pytest.mark.parametrize("attempt", [1, 4])
@pytest.mark.parametrize(
    "error",
    [ResultError("x"), ForeignError("x"), MemoryError(), UnknownRecordError("x")],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_for_an_unknown_reason_is_tried_again_at_first(error: Exception, attempt: int) -> None:
    assert isinstance(decide(error, attempt, POLICY), TryLater)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 60), (2, 120), (3, 240), (4, 300)])
def test_a_gpu_without_memory_is_left_to_others_for_minutes(attempt: int, seconds: float) -> None:
    verdict = decide(DeviceMemoryError("full"), attempt, POLICY)
    assert isinstance(verdict, TryLater)
    assert 0.9 * seconds <= verdict.delay_s <= 1.1 * seconds


@pytest.mark.parametrize("attempt", [5, 6, 500])
@pytest.mark.parametrize(
    "error",
    [ResultError("x"), ForeignError("x"), MemoryError(), DeviceMemoryError("x")],
    ids=lambda error: type(error).__name__,
)
def test_what_keeps_failing_is_given_up_at_the_last_attempt(error: Exception, attempt: int) -> None:
    assert isinstance(decide(error, attempt, POLICY), GiveUp)


@pytest.mark.parametrize("attempt", [1, 5, 100_000])
@pytest.mark.parametrize(
    "error",
    [DestinationUnavailableError("x"), DatabaseUnavailableError("x"), SpoolError("x"), SpoolFullError("x")],
    ids=lambda error: type(error).__name__,
)
def test_what_waits_for_others_is_tried_without_limit(error: Exception, attempt: int) -> None:
    assert isinstance(decide(error, attempt, POLICY), TryLater)


def test_all_that_waits_for_a_destination_that_is_away_waits_as_long_as_the_job_that_asked() -> None:
    verdict = decide(DestinationAwayError("x"), 3, POLICY)
    assert isinstance(verdict, TryLater)
    assert verdict.destination_pause_s == verdict.delay_s
    others = decide(DestinationUnavailableError("x"), 3, POLICY)
    assert isinstance(others, TryLater)
    assert others.destination_pause_s == 0


@pytest.mark.parametrize("error", [DestinationUnavailableError("x"), DestinationAwayError("x")])
def test_a_destination_that_held_a_worker_up_leaves_it_to_the_others_for_as_long(error: Exception) -> None:
    verdict = decide(error, 1, POLICY)
    assert isinstance(verdict, TryLater)
    later = leaving_others_time(verdict, error, took_s=30)
    assert later.destination_pause_s == verdict.destination_pause_s + 30
    assert later.delay_s >= later.destination_pause_s, "another job asks next, or at the same moment"
    assert leaving_others_time(verdict, error, took_s=0.1) == verdict


def test_work_that_took_long_and_failed_by_itself_keeps_nobody_waiting() -> None:
    verdict = TryLater(1)
    assert leaving_others_time(verdict, ResultError("x"), took_s=300) == verdict


@pytest.mark.parametrize("attempt", [1, 5, 100_000])
@pytest.mark.parametrize(("refusals", "seconds"), [(1, 30), (2, 60), (3, 120), (99, 300)])
def test_a_refusal_that_is_doubted_waits_by_the_number_of_refusals_and_never_shorter_than_any_other_failure(
    attempt: int, refusals: int, seconds: float
) -> None:
    verdict = decide(RefusalDoubtedError("x", refusals=refusals), attempt, POLICY)
    assert isinstance(verdict, TryLater)
    longest = 300 if attempt == 100_000 else seconds
    assert 0.9 * longest <= verdict.delay_s <= 1.1 * longest


def test_a_destination_that_refused_an_object_has_answered_and_keeps_nobody_waiting() -> None:
    error = RefusalDoubtedError("x", refusals=1)
    verdict = decide(error, 1, POLICY)
    assert isinstance(verdict, TryLater)
    assert verdict.destination_pause_s == 0
    assert leaving_others_time(verdict, error, took_s=300) == verdict


@pytest.mark.parametrize("attempt", [1, 5])
def test_a_refusal_that_is_believed_waits_for_a_person_at_once(attempt: int) -> None:
    assert isinstance(decide(UndeliverableError("x"), attempt, POLICY), GiveUp)


def test_a_damaged_input_waits_for_a_person_at_once_and_a_missing_one_does_not() -> None:
    assert isinstance(decide(DamagedInputError("x"), 1, POLICY), GiveUp)
    assert isinstance(decide(MissingInputError("x"), 1, POLICY), TryLater), "its disk may come back"
    assert isinstance(decide(MissingInputError("x"), 5, POLICY), GiveUp)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (9, 256), (10, 300), (11, 300), (100_000, 300)]
)
def test_the_wait_doubles_from_a_second_to_the_longest(attempt: int, seconds: float) -> None:
    waits = [backoff_s(attempt, 300) for _ in range(200)]
    assert all(0.9 * seconds <= wait <= 1.1 * seconds for wait in waits)
    assert len(set(waits)) > 1, "jobs that failed together must not come back together"


@pytest.mark.parametrize(("refusals", "tries", "believed"), [(1, 1, True), (1, 3, False), (2, 3, False)])
def test_a_refusal_is_believed_as_soon_as_it_came_as_often_as_is_set(
    refusals: int, tries: int, believed: bool
) -> None:
    assert is_refusal_believed(refusals, tries) is believed
    assert is_refusal_believed(tries, tries)
    assert is_refusal_believed(tries + 1, tries), "fewer were set meanwhile"


def test_a_failure_is_stored_under_a_code_that_stays() -> None:
    assert code_of(RefusalDoubtedError("x", refusals=1)) == "REFUSAL_DOUBTED"
    assert code_of(DestinationUnavailableError("x")) == "DESTINATION_UNAVAILABLE"
    assert code_of(UndeliverableError("x")) == "UNDELIVERABLE"
    assert code_of(ForeignError("x")) == "FOREIGN"
    assert code_of(MemoryError()) == "MEMORY"


def test_words_of_our_own_are_stored_and_words_of_strangers_are_not() -> None:
    assert reason_of(ResultError("the report has no region")) == "the report has no region"
    told = reason_of(ForeignError(f"invalid value {PATIENT!r}"))
    assert "ForeignError" in told
    assert PATIENT not in told
