"""Whatever the PACS does: an honest state, a bounded time, nothing left over, and one object in the end."""

from __future__ import annotations

import errno
import io
import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.delivery import association
from dicom_node.delivery.association import request_association
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor, SendResult, SendState, send
from dicom_node.errors import DestinationUnavailableError
from tests.simulators.pacs import Behaviour, SimulatedPacs
from tests.simulators.stored_objects import COMPREHENSIVE_SR, PATIENT_NAME, StoredResult, store_result

TIMEOUT_S = 1.0
# For what must succeed, however busy the machine that runs the tests is.
PATIENCE_S = 40
PATIENT_TIMEOUTS = DeliveryTimeouts(connect_s=PATIENCE_S, acse_s=PATIENCE_S, dimse_s=PATIENCE_S)
# A call that waits for a short time-out or for none takes less, one that waits for a long one takes more.
BOUNDED_S = PATIENCE_S / 2
# More than the kernel's buffers of both sides hold, so that not all of it can leave unread.
LARGE_BYTES = 24_000_000

# What the PACS does, which states are honest then, and how many copies the PACS truly has afterwards.
FAULTS: list[tuple[Behaviour, set[SendState], int]] = [
    (Behaviour.REFUSE_CONNECTION, {SendState.TRY_AGAIN}, 0),
    (Behaviour.IGNORE_ASSOCIATION, {SendState.TRY_AGAIN}, 0),
    (Behaviour.CLOSE_AT_ASSOCIATION, {SendState.TRY_AGAIN}, 0),
    (Behaviour.ABORT_AT_ASSOCIATION, {SendState.TRY_AGAIN}, 0),
    (Behaviour.HALF_ASSOCIATE_AC, {SendState.TRY_AGAIN}, 0),
    (Behaviour.GARBAGE_AT_ASSOCIATION, {SendState.TRY_AGAIN}, 0),
    (Behaviour.DAMAGED_ASSOCIATE_AC, {SendState.TRY_AGAIN}, 0),
    (Behaviour.REJECT_TRANSIENT, {SendState.TRY_AGAIN}, 0),
    (Behaviour.REJECT_PERMANENT, {SendState.TRY_AGAIN}, 0),
    # A small object may leave whole before the line is seen to be dead: then nobody can know.
    (Behaviour.STOP_READING, {SendState.UNKNOWN}, 0),
    (Behaviour.DROP_BEFORE_DATA_SET, {SendState.UNKNOWN, SendState.TRY_AGAIN}, 0),
    (Behaviour.ABORT_BEFORE_DATA_SET, {SendState.UNKNOWN, SendState.TRY_AGAIN}, 0),
    (Behaviour.DROP_DURING_DATA_SET, {SendState.UNKNOWN, SendState.TRY_AGAIN}, 0),
    (Behaviour.ABORT_DURING_DATA_SET, {SendState.UNKNOWN, SendState.TRY_AGAIN}, 0),
    (Behaviour.DROP_AFTER_DATA_SET, {SendState.UNKNOWN}, 0),
    (Behaviour.DROP_AFTER_STORING, {SendState.UNKNOWN}, 1),
    (Behaviour.ABORT_AFTER_STORING, {SendState.UNKNOWN}, 1),
    (Behaviour.NEVER_ANSWER, {SendState.UNKNOWN}, 1),
    (Behaviour.ANSWER_LATE, {SendState.UNKNOWN}, 1),
    (Behaviour.HALF_RESPONSE, {SendState.UNKNOWN}, 1),
    (Behaviour.HALF_HEADER, {SendState.UNKNOWN}, 1),
    (Behaviour.DRIBBLE_RESPONSE, {SendState.UNKNOWN}, 1),
    (Behaviour.WRONG_MESSAGE_ID, {SendState.UNKNOWN}, 1),
    (Behaviour.OTHER_COMMAND, {SendState.UNKNOWN}, 1),
    (Behaviour.OTHER_CONTEXT, {SendState.UNKNOWN}, 1),
    (Behaviour.NO_STATUS, {SendState.UNKNOWN}, 1),
    (Behaviour.GARBAGE_RESPONSE, {SendState.UNKNOWN}, 1),
    (Behaviour.GIANT_RESPONSE, {SendState.UNKNOWN}, 1),
    (Behaviour.DAMAGED_COMMAND_SET, {SendState.UNKNOWN}, 1),
    (Behaviour.RELEASE_INSTEAD_OF_RESPONSE, {SendState.UNKNOWN}, 1),
]
# Whose silence has to be waited out.
SILENT_AT_ASSOCIATION = {Behaviour.IGNORE_ASSOCIATION, Behaviour.HALF_ASSOCIATE_AC}
SILENT_IN_A_MESSAGE = {
    Behaviour.STOP_READING,
    Behaviour.NEVER_ANSWER,
    Behaviour.ANSWER_LATE,
    Behaviour.HALF_RESPONSE,
    Behaviour.HALF_HEADER,
    Behaviour.DRIBBLE_RESPONSE,
}
DELAYS_S = {Behaviour.ANSWER_LATE: 60.0, Behaviour.DRIBBLE_RESPONSE: 0.1}


@pytest.fixture
def pacs() -> Iterator[SimulatedPacs]:
    with SimulatedPacs() as running:
        yield running


def deliver(
    results: list[StoredResult], destination: Destination, timeouts: DeliveryTimeouts = PATIENT_TIMEOUTS
) -> tuple[SendResult, ...]:
    return send(
        [result.outgoing for result in results],
        destination,
        Requestor("DICOM_NODE", timeouts),
        on_result=lambda _uid, _result: None,
    )


def timeouts_for(behaviour: Behaviour, *, silence_s: float = TIMEOUT_S) -> DeliveryTimeouts:
    """Wait briefly for what never comes, and long for everything else."""
    return replace(
        PATIENT_TIMEOUTS,
        acse_s=silence_s if behaviour in SILENT_AT_ASSOCIATION else PATIENCE_S,
        dimse_s=silence_s if behaviour in SILENT_IN_A_MESSAGE else PATIENCE_S,
    )


def sockets_to(port: int) -> int:
    """Count this process's client sockets to the PACS."""
    connections = psutil.Process().net_connections("tcp")
    return sum(1 for item in connections if item.raddr and item.raddr.port == port)


def test_every_behaviour_has_its_expected_outcome() -> None:
    outcomes = {behaviour for behaviour, _, _ in FAULTS}

    assert outcomes == set(Behaviour) - {Behaviour.ACCEPT, Behaviour.IGNORE_RELEASE}


@pytest.mark.parametrize(("behaviour", "states", "copies"), FAULTS, ids=[fault[0].name for fault in FAULTS])
def test_a_fault_is_bounded_and_the_same_bytes_sent_again_end_delivered(
    tmp_path: Path,
    pacs: SimulatedPacs,
    caplog: pytest.LogCaptureFixture,
    behaviour: Behaviour,
    states: set[SendState],
    copies: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    first, second = store_result(tmp_path, 1), store_result(tmp_path, 2)
    pacs.delay_s = DELAYS_S.get(behaviour, pacs.delay_s)
    pacs.behave(behaviour)

    start = time.monotonic()
    faulty, unsent = deliver([first, second], pacs.destination, timeouts_for(behaviour))
    elapsed_s = time.monotonic() - start

    assert faulty.state in states
    assert faulty.status is None
    assert unsent.state is SendState.TRY_AGAIN
    assert elapsed_s < BOUNDED_S
    assert pacs.wait_for(copies, PATIENCE_S), "the node may have given up before the PACS stored what it has"
    assert [item.sop_instance_uid for item in pacs.stored] == [first.uid] * copies
    for text in [faulty.detail, unsent.detail, caplog.text]:
        assert PATIENT_NAME.split("^")[0] not in text
    assert faulty.detail

    pacs.behave(Behaviour.ACCEPT)
    sent = deliver([first, second], pacs.destination)

    assert [result.state for result in sent] == [SendState.DELIVERED, SendState.DELIVERED]
    assert pacs.hashes == {first.uid: {first.sha256}, second.uid: {second.sha256}}


@pytest.mark.parametrize(
    "behaviour",
    sorted(SILENT_AT_ASSOCIATION | SILENT_IN_A_MESSAGE, key=lambda behaviour: behaviour.name),
    ids=lambda behaviour: behaviour.name,
)
def test_a_pacs_that_keeps_silent_holds_a_sender_up_for_its_time_out_and_two_seconds(
    tmp_path: Path, pacs: SimulatedPacs, behaviour: Behaviour
) -> None:
    """T29; the best of three, where other programs keep the machine busy."""
    pacs.delay_s = DELAYS_S.get(behaviour, pacs.delay_s)
    pacs.behave(behaviour)
    result = store_result(
        tmp_path, payload_bytes=LARGE_BYTES if behaviour is Behaviour.STOP_READING else 1000
    )
    took: list[float] = []
    while len(took) < 3 and min(took, default=math.inf) >= TIMEOUT_S + 2:
        start = time.monotonic()
        (sent,) = deliver([result], pacs.destination, timeouts_for(behaviour))
        took.append(time.monotonic() - start)
        assert sent.state in (SendState.UNKNOWN, SendState.TRY_AGAIN)
    assert min(took) < TIMEOUT_S + 2


def test_all_that_was_not_sent_names_the_fault_that_ended_the_association(
    tmp_path: Path, pacs: SimulatedPacs
) -> None:
    pacs.behave(Behaviour.ABORT_BEFORE_DATA_SET)
    faulty, *unsent = deliver([store_result(tmp_path, number) for number in (1, 2, 3)], pacs.destination)
    said = f"not sent: the association had ended ({faulty.detail})"
    assert [(result.detail, result.associated) for result in unsent] == [(said, True)] * 2
    assert not pacs.stored


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.STOP_READING,
        Behaviour.DROP_BEFORE_DATA_SET,
        Behaviour.ABORT_BEFORE_DATA_SET,
        Behaviour.DROP_DURING_DATA_SET,
        Behaviour.ABORT_DURING_DATA_SET,
    ],
    ids=lambda behaviour: behaviour.name,
)
def test_an_object_whose_last_bytes_never_left_is_known_not_to_be_there(
    tmp_path: Path, pacs: SimulatedPacs, behaviour: Behaviour
) -> None:
    result = store_result(tmp_path, payload_bytes=LARGE_BYTES)
    pacs.behave(behaviour)

    start = time.monotonic()
    (sent,) = deliver([result], pacs.destination, timeouts_for(behaviour))

    assert sent.state is SendState.TRY_AGAIN
    assert time.monotonic() - start < BOUNDED_S
    assert pacs.stored == ()

    pacs.behave(Behaviour.ACCEPT)

    assert deliver([result], pacs.destination)[0].state is SendState.DELIVERED
    assert pacs.hashes == {result.uid: {result.sha256}}


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour.WRONG_MESSAGE_ID, Behaviour.NO_STATUS, Behaviour.RELEASE_INSTEAD_OF_RESPONSE],
    ids=lambda behaviour: behaviour.name,
)
def test_a_pacs_whose_answer_is_none_is_told_that_the_association_is_over(
    tmp_path: Path, pacs: SimulatedPacs, behaviour: Behaviour
) -> None:
    pacs.behave(behaviour)

    (sent,) = deliver([store_result(tmp_path)], pacs.destination)

    assert sent.state is SendState.UNKNOWN
    assert pacs.wait_until_idle(PATIENCE_S)
    assert pacs.endings == ["aborted"], "a release would say that all is well"


def test_an_answer_that_is_slow_but_in_time_is_a_success(tmp_path: Path, pacs: SimulatedPacs) -> None:
    result = store_result(tmp_path)
    pacs.behave(Behaviour.ANSWER_LATE)
    pacs.delay_s = 0.3

    (sent,) = deliver([result], pacs.destination)

    assert sent.state is SendState.DELIVERED
    assert len(pacs.stored) == 1


def test_a_large_object_has_the_time_that_its_bytes_take_on_a_slow_line(
    tmp_path: Path, pacs: SimulatedPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = store_result(tmp_path)
    monkeypatch.setattr(association, "SLOWEST_LINE_BYTES_PER_S", result.outgoing.path.stat().st_size / 60)
    pacs.behave(Behaviour.DRIBBLE_RESPONSE)
    pacs.delay_s = 0.01

    start = time.monotonic()
    (sent,) = deliver([result], pacs.destination, replace(PATIENT_TIMEOUTS, dimse_s=0.5))

    assert sent.state is SendState.DELIVERED
    assert time.monotonic() - start > 0.5, "no single wait was as long, and all of them were longer"


def test_a_pacs_that_keeps_silent_at_the_release_takes_nothing_back(
    tmp_path: Path, pacs: SimulatedPacs
) -> None:
    result = store_result(tmp_path)
    pacs.behave(Behaviour.IGNORE_RELEASE)

    start = time.monotonic()
    (sent,) = deliver([result], pacs.destination)

    assert sent.state is SendState.DELIVERED
    assert time.monotonic() - start < BOUNDED_S
    assert pacs.hashes == {result.uid: {result.sha256}}


def test_a_late_fault_leaves_what_was_answered_before_it_delivered(
    tmp_path: Path, pacs: SimulatedPacs
) -> None:
    results = [store_result(tmp_path, ordinal) for ordinal in range(3)]
    seen: list[SendState] = []

    def fail_from_now_on(_uid: str, result: SendResult) -> None:
        seen.append(result.state)
        pacs.behave(Behaviour.DROP_AFTER_STORING)

    sent = send(
        [result.outgoing for result in results],
        pacs.destination,
        Requestor("DICOM_NODE", PATIENT_TIMEOUTS),
        on_result=fail_from_now_on,
    )

    assert [result.state for result in sent] == [SendState.DELIVERED, SendState.UNKNOWN, SendState.TRY_AGAIN]
    assert seen == [result.state for result in sent]
    assert [item.sop_instance_uid for item in pacs.stored] == [results[0].uid, results[1].uid]


def test_a_resent_object_that_the_pacs_calls_a_duplicate_is_delivered(
    tmp_path: Path, pacs: SimulatedPacs
) -> None:
    result = store_result(tmp_path)
    pacs.behave(Behaviour.DROP_AFTER_STORING)
    (unknown,) = deliver([result], pacs.destination)
    pacs.behave(Behaviour.ACCEPT, status=0x0111)
    (sent,) = deliver([result], pacs.destination)

    assert (unknown.state, unknown.status) == (SendState.UNKNOWN, None)
    assert (sent.state, sent.status) == (SendState.DELIVERED, 0x0111)
    assert pacs.hashes == {result.uid: {result.sha256}}


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour.REFUSE_CONNECTION, "is it running"),
        (Behaviour.REJECT_PERMANENT, "Called AE title not recognised"),
        (Behaviour.REJECT_TRANSIENT, "Local limit exceeded"),
        (Behaviour.ABORT_AT_ASSOCIATION, "aborted the association"),
        (Behaviour.WRONG_MESSAGE_ID, "wrong Message ID"),
        (Behaviour.NEVER_ANSWER, "did not answer in time"),
        (Behaviour.GARBAGE_RESPONSE, "no DICOM PDU"),
        (Behaviour.GIANT_RESPONSE, "no DICOM PDU"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_detail_tells_the_operator_what_happened(
    tmp_path: Path, pacs: SimulatedPacs, behaviour: Behaviour, words: str
) -> None:
    pacs.behave(behaviour)

    (sent,) = deliver([store_result(tmp_path)], pacs.destination, timeouts_for(behaviour))

    assert words in sent.detail


def test_a_host_that_has_no_address_is_tried_again(tmp_path: Path) -> None:
    (sent,) = deliver([store_result(tmp_path)], Destination("PACS", "pacs.invalid", 104))

    assert sent.state is SendState.TRY_AGAIN
    assert "host name" in sent.detail


def test_no_thread_and_no_socket_outlives_a_call(tmp_path: Path, pacs: SimulatedPacs) -> None:
    result = store_result(tmp_path)
    before = set(threading.enumerate())
    left_over: set[str] = set()
    for behaviour, _, _ in FAULTS:
        pacs.behave(behaviour)
        pacs.delay_s = DELAYS_S.get(behaviour, 0.2)
        deliver([result], pacs.destination, timeouts_for(behaviour, silence_s=0.1))
        left_over |= {thread.name for thread in set(threading.enumerate()) - before}
        assert sockets_to(pacs.port) == 0

    assert left_over <= {"simulated-pacs"}


def test_a_disk_that_fails_leaves_the_object_for_a_later_attempt(pacs: SimulatedPacs, tmp_path: Path) -> None:
    looping, whole = store_result(tmp_path, 1), store_result(tmp_path, 2)
    looping.outgoing.path.unlink()
    looping.outgoing.path.symlink_to(looping.outgoing.path.name)  # opening it fails with ELOOP

    first, second = deliver([looping, whole], pacs.destination)

    assert (first.state, first.status) == (SendState.TRY_AGAIN, None)
    assert "ELOOP" in first.detail
    assert second.state is SendState.DELIVERED


class FailingDisk(io.BytesIO):
    """A file whose disk fails where the first part of it has been read."""

    def __init__(self, size: int, failure: OSError | None) -> None:
        super().__init__(bytes(size))
        self._failure = failure

    def read(self, size: int | None = -1, /) -> bytes:
        """Give the first part; then fail, or end before the end."""
        if self.tell() == 0:
            return super().read(size)
        if self._failure is not None:
            raise self._failure
        return b""


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), "reading the file failed"),
        (None, "the file became shorter"),
    ],
    ids=["fails", "ends early"],
)
def test_an_object_that_the_disk_gives_a_part_of_is_never_ended_as_if_it_were_whole(
    pacs: SimulatedPacs, failure: OSError | None, words: str
) -> None:
    result = (COMPREHENSIVE_SR, str(ExplicitVRLittleEndian))
    with request_association(pacs.destination, Requestor("DICOM_NODE", PATIENT_TIMEOUTS), [result]) as opened:
        with pytest.raises(DestinationUnavailableError, match=words):
            opened.begin_store(result, "2.25.1", FailingDisk(200_000, failure))
        assert not opened.is_usable

    assert pacs.wait_until_idle(PATIENCE_S)
    assert pacs.endings == ["aborted"]
    assert pacs.stored == ()
