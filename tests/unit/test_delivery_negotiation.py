"""What is proposed, and what an acceptor agreed to: nothing is sent in a context that it did not name."""

from __future__ import annotations

import struct

import pytest
from pynetdicom.pdu import A_ASSOCIATE_RQ

from dicom_node.delivery.destination import Destination
from dicom_node.delivery.negotiation import (
    MOST_CONTEXTS,
    decoded_acceptance,
    encoded_request,
    rejection_reason,
)
from dicom_node.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.simulators.pdu_bytes import associate_acceptance

SR, SEG = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.66.4"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
CONTEXTS = [(SR, EXPLICIT), (SEG, EXPLICIT)]


def request_of(contexts: list[tuple[str, str]], *, as_provider: bool = False) -> A_ASSOCIATE_RQ:
    """Encode a request and let the library read it."""
    request = A_ASSOCIATE_RQ()
    request.decode(
        encoded_request(Destination("PACS", "host", 104), "DICOM_NODE", contexts, as_provider=as_provider)
    )
    return request


def test_a_request_says_who_asks_whom_and_what_reads_its_answers() -> None:
    request = request_of(CONTEXTS)
    assert (request.calling_ae_title, request.called_ae_title) == ("DICOM_NODE", "PACS")
    assert request.application_context_name == "1.2.840.10008.3.1.1.1"
    about = request.user_information
    assert (about.maximum_length, about.implementation_class_uid, about.implementation_version_name) == (
        16382,
        IMPLEMENTATION_CLASS_UID,
        IMPLEMENTATION_VERSION_NAME,
    )


def test_the_most_contexts_are_proposed_each_alone_under_odd_numbers() -> None:
    contexts = [(f"1.2.3.{number}", EXPLICIT) for number in range(MOST_CONTEXTS)]
    proposed = request_of(contexts).presentation_context
    assert [item.context_id for item in proposed] == list(range(1, 256, 2))
    assert [(item.abstract_syntax, item.transfer_syntax) for item in proposed] == [
        (sop_class_uid, [syntax]) for sop_class_uid, syntax in contexts
    ]


def test_only_who_reports_proposes_to_be_the_provider() -> None:
    assert request_of(CONTEXTS).user_information.role_selection == {}
    roles = request_of(CONTEXTS, as_provider=True).user_information.role_selection
    assert {uid: (role.scu_role, role.scp_role) for uid, role in roles.items()} == dict.fromkeys(
        (SR, SEG), (False, True)
    )


def test_contexts_are_accepted_one_by_one() -> None:
    found = decoded_acceptance(
        associate_acceptance((1, 0, EXPLICIT), (3, 4, ""), maximum_length=4096), CONTEXTS
    )
    assert found.context_ids == {(SR, EXPLICIT): 1}
    assert found.reasons == {(SEG, EXPLICIT): "transfer syntax not supported"}
    assert found.maximum_length == 4096


def test_a_context_that_is_accepted_in_a_syntax_that_was_not_proposed_is_not_used() -> None:
    found = decoded_acceptance(associate_acceptance((1, 0, IMPLICIT), (3, 0, EXPLICIT)), CONTEXTS)
    assert found.context_ids == {(SEG, EXPLICIT): 3}
    assert set(found.reasons) == {(SR, EXPLICIT)}


def test_a_context_that_is_not_answered_is_not_used() -> None:
    found = decoded_acceptance(associate_acceptance((3, 0, EXPLICIT)), CONTEXTS)
    assert found.context_ids == {(SEG, EXPLICIT): 3}
    assert found.reasons == {(SR, EXPLICIT): "no reason given"}


def test_an_acceptor_that_names_no_maximum_length_has_none() -> None:
    found = decoded_acceptance(associate_acceptance((1, 0, EXPLICIT), maximum_length=None), CONTEXTS)
    assert found.maximum_length == 0


@pytest.mark.parametrize(
    "damaged", [b"", associate_acceptance((1, 0, EXPLICIT))[:90], b"\x02" + bytes(80)], ids=len
)
def test_what_is_no_acceptance_is_told_in_one_way(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="not a readable A-ASSOCIATE-AC"):
        decoded_acceptance(damaged, CONTEXTS)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (1, "user rejection"),
        (2, "no reason given"),
        (3, "SOP class not supported"),
        (4, "transfer syntax not supported"),
        (77, "no reason given"),
    ],
)
def test_a_rejected_context_has_the_reason_of_the_standard(result: int, reason: str) -> None:
    found = decoded_acceptance(associate_acceptance((1, result, EXPLICIT)), CONTEXTS[:1])
    assert found.context_ids == {}
    assert found.reasons == {CONTEXTS[0]: reason}


@pytest.mark.parametrize(
    ("pdu", "words"),
    [
        (struct.pack(">BxIxBBB", 3, 4, 1, 1, 7), "permanently: Called AE title not recognised"),
        (struct.pack(">BxIxBBB", 3, 4, 2, 3, 2), "for now: Local limit exceeded"),
        (struct.pack(">BxIxBBB", 3, 4, 9, 9, 9), "for a reason that cannot be read"),
        (b"\x03", "for a reason that cannot be read"),
    ],
    ids=["permanent", "transient", "numbers that mean nothing", "cut short"],
)
def test_a_rejection_is_told_in_the_words_of_the_standard(pdu: bytes, words: str) -> None:
    assert rejection_reason(pdu) == words
