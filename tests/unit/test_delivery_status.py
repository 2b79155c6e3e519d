"""What each C-STORE response status means for the object that was sent (PS3.4 B.2.3, PS3.7 Annex C)."""

from __future__ import annotations

import pytest

from dicom_node.delivery.status import SendState, meaning_of


@pytest.mark.parametrize("status", [0x0000, 0x0111])
def test_success_and_duplicate_mean_delivered(status: int) -> None:
    assert meaning_of(status).state is SendState.DELIVERED
    assert not meaning_of(status).is_warning


@pytest.mark.parametrize("status", [0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007, 0xB123, 0xBFFF])
def test_warnings_mean_delivered_but_are_no_clean_success(status: int) -> None:
    assert meaning_of(status).state is SendState.DELIVERED
    assert meaning_of(status).is_warning


@pytest.mark.parametrize("status", [0x0110, 0x0210, 0x0213, 0xA700, 0xA701, 0xA7FF])
def test_lack_of_resources_and_processing_failures_are_tried_again(status: int) -> None:
    assert meaning_of(status).state is SendState.TRY_AGAIN


@pytest.mark.parametrize(
    "status", [0x0117, 0x0122, 0x0124, 0x0211, 0x0212, 0xA900, 0xA9FF, 0xC000, 0xC123, 0xCFFF]
)
def test_objects_that_the_destination_does_not_want_are_refused(status: int) -> None:
    assert meaning_of(status).state is SendState.REFUSED


@pytest.mark.parametrize("status", [0xFE00, 0xFF00, 0xFF01])
def test_statuses_that_end_no_store_say_nothing_about_the_object(status: int) -> None:
    assert meaning_of(status).state is SendState.UNKNOWN


def test_every_possible_status_has_a_meaning_and_none_unlisted_is_a_success() -> None:
    delivered = [status for status in range(0x10000) if meaning_of(status).state is SendState.DELIVERED]

    assert [status for status in delivered if status < 0xB000] == [0x0000, 0x0001, 0x0107, 0x0111, 0x0116]
    assert [status for status in delivered if status >= 0xB000] == list(range(0xB000, 0xC000))


def test_nothing_is_tried_again_or_left_open_but_what_the_standard_says_may_pass_or_ends_nothing() -> None:
    passing = [status for status in range(0x10000) if meaning_of(status).state is SendState.TRY_AGAIN]
    unknown = [status for status in range(0x10000) if meaning_of(status).state is SendState.UNKNOWN]

    assert passing == [0x0110, 0x0210, 0x0213, *range(0xA700, 0xA800)]
    assert unknown == [0xFE00, 0xFF00, 0xFF01]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA700, "out of resources"),
        (0xA900, "data set does not match SOP class"),
        (0xA901, "data set does not match SOP class"),
        (0xC000, "cannot understand"),
        (0xCFFF, "cannot understand"),
        (0xD000, "failure that the standard does not list"),
        (0xB006, "elements discarded"),
        (0xB008, "warning of the destination's own"),
        (0x0117, "invalid SOP instance"),
        (0x0122, "SOP class not supported"),
        (0x0124, "not authorised"),
        (0x0211, "unrecognised operation"),
        (0x0212, "mistyped argument"),
        *((status, "failure that the standard does not list") for status in (0x0118, 0x0123, 0x0125, 0x0214)),
    ],
)
def test_a_status_is_told_in_the_standards_words(status: int, words: str) -> None:
    assert meaning_of(status).meaning == words


@pytest.mark.parametrize("number", [-1, 0x10000])
def test_a_number_that_is_no_status_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="not a DIMSE status"):
        meaning_of(number)
