"""What an acceptor agreed to: nothing is sent in a context, or in a syntax, that it did not name."""

from __future__ import annotations

import struct

import pytest

from dicom_node.delivery.negotiation import decoded_acceptance
from tests.simulators.pdu_bytes import item

SR, SEG = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.66.4"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
CONTEXTS = [(SR, EXPLICIT), (SEG, EXPLICIT)]


def acceptance_of(*results: tuple[int, int, str], maximum_length: int = 16384) -> bytes:
    """Encode an A-ASSOCIATE-AC PDU (PS3.8 9.3.3) with (context id, result, transfer syntax) of contexts."""
    contexts = b"".join(
        item(0x21, struct.pack(">BxBx", context_id, result) + item(0x40, syntax.encode()))
        for context_id, result, syntax in results
    )
    about = item(0x51, struct.pack(">I", maximum_length)) + item(0x52, b"1.2.3.4")
    body = (
        struct.pack(">Hxx16s16s32x", 1, b"PACS".ljust(16), b"DICOM_NODE".ljust(16))
        + item(0x10, b"1.2.840.10008.3.1.1.1")
        + contexts
        + item(0x50, about)
    )
    return struct.pack(">BxI", 0x02, len(body)) + body


def test_contexts_are_accepted_one_by_one() -> None:
    found = decoded_acceptance(acceptance_of((1, 0, EXPLICIT), (3, 4, ""), maximum_length=4096), CONTEXTS)
    assert found.context_ids == {(SR, EXPLICIT): 1}
    assert found.reasons == {(SEG, EXPLICIT): "transfer syntax not supported"}
    assert found.maximum_length == 4096


def test_a_context_that_is_accepted_in_a_syntax_that_was_not_proposed_is_not_used() -> None:
    found = decoded_acceptance(acceptance_of((1, 0, IMPLICIT), (3, 0, EXPLICIT)), CONTEXTS)
    assert found.context_ids == {(SEG, EXPLICIT): 3}
    assert set(found.reasons) == {(SR, EXPLICIT)}


def test_a_context_that_is_not_answered_is_not_used() -> None:
    found = decoded_acceptance(acceptance_of((3, 0, EXPLICIT)), CONTEXTS)
    assert found.context_ids == {(SEG, EXPLICIT): 3}
    assert found.reasons == {(SR, EXPLICIT): "no reason given"}


@pytest.mark.parametrize("damaged", [b"", acceptance_of((1, 0, EXPLICIT))[:90], b"\x02" + bytes(80)], ids=len)
def test_what_is_no_acceptance_is_told_in_one_way(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="not a readable A-ASSOCIATE-AC"):
        decoded_acceptance(damaged, CONTEXTS)
