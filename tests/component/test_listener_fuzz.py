"""Damaged PDUs and messages by the hundred: the listener answers, ends the association, and serves on.

``make fuzz`` does the same to the real process for as long as wanted.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.handoff import ReceivedInstance
from tests.listening import EXPLICIT_LITTLE, MG_FOR_PRESENTATION, Node, listening
from tests.simulators.conversations import command_set, damaged, good_conversation, say
from tests.simulators.raw_scu import (
    IMPLICIT_LITTLE,
    VERIFICATION,
    AssociationEndedError,
    Proposal,
    RawScu,
    p_data,
)

FUZZED = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Every conversation of these tests ends by itself: nothing but a busy machine takes long.
PATIENCE_S = 30


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One listener for all conversations; what one breaks the next one sees."""
    with listening(
        tmp_path_factory.mktemp("fuzz"),
        acse_timeout_s=PATIENCE_S,
        pdu_timeout_s=PATIENCE_S,
        network_timeout_s=PATIENCE_S,
        message_timeout_s=PATIENCE_S,
    ) as node:
        yield node
        assert len(node.rows.all) == len(node.files()), "each file has its row"


def stored_by_others_than_the_fuzzer(node: Node) -> list[ReceivedInstance]:
    """What associations of :class:`RawScu` stored; a conversation that was said before may still be at it."""
    return [row for row in node.rows.all if row.calling_ae_title == "RAWSCU"]


def assert_serves(node: Node) -> None:
    with node.scu(VERIFICATION, IMPLICIT_LITTLE, source="127.0.0.2") as scu:
        assert scu.echo() == 0x0000
        scu.release()


@FUZZED
@given(seed=st.integers(0, 1 << 32))
def test_a_damaged_conversation_ends_and_the_next_peer_is_served(node: Node, seed: int) -> None:
    say(node.port, damaged(good_conversation(seed % 7), random.Random(seed)))
    assert_serves(node)


@FUZZED
@given(first_bytes=st.binary(max_size=400), is_request=st.booleans())
def test_arbitrary_bytes_end_and_the_next_peer_is_served(
    node: Node, first_bytes: bytes, is_request: bool
) -> None:
    head = struct.pack(">BxI", 1, len(first_bytes)) if is_request else b""
    say(node.port, [head + first_bytes])
    assert_serves(node)


@FUZZED
@given(
    values=st.dictionaries(
        st.sampled_from([0x0002, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x1000, 0x1030]),
        st.binary(max_size=70),
    ),
    data=st.binary(max_size=200),
)
def test_arbitrary_messages_store_nothing(node: Node, values: dict[int, bytes], data: bytes) -> None:
    with RawScu(node.port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu:
        try:
            scu.socket.sendall(p_data(command_set(values), 1, 0x03) + p_data(data, 1, 0x02))
            scu.abort()
        except (AssociationEndedError, ConnectionError):
            pass
    assert_serves(node)
    assert stored_by_others_than_the_fuzzer(node) == []


@FUZZED
@given(data=st.binary(max_size=600))
def test_an_arbitrary_data_set_is_refused_in_words(node: Node, data: bytes) -> None:
    with RawScu(node.port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu:
        assert scu.store(data, MG_FOR_PRESENTATION, "2.25.1") in (0xA900, 0xC000)
        scu.release()
    assert stored_by_others_than_the_fuzzer(node) == []
