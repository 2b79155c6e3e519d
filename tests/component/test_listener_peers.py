"""Peers that stall, lie about lengths, leave, or come all at once: one must not harm the others."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from dicom_node.cli.processes.listener import listener_limits
from dicom_node.listener.limits import ListenerLimits
from dicom_node.settings import Settings
from tests.listening import (
    EXPLICIT_LITTLE,
    MG_FOR_PRESENTATION,
    PATIENT_ID,
    PATIENT_NAME,
    Node,
    encoded,
    listening,
    mammogram,
    uid_of,
)
from tests.simulators.raw_scu import (
    IMPLICIT_LITTLE,
    VERIFICATION,
    AssociationEndedError,
    AssociationRejectedError,
    Proposal,
    RawScu,
    associate_request,
    p_data,
)

C_STORE_RQ = 0x0001
NO_REQUEST = (
    "the first PDU is no association request",
    "an association request that cannot be decoded",
    "the peer took longer than the node waits",
)
# Beside many others, this is all the time that a good peer has from its connection to its request.
SHORT_ACSE_TIMEOUT_S = 1.5
# Half of the shortest time for which a peer may keep the node waiting: whoever waits for that is not quick.
QUICK_S = ListenerLimits().acse_timeout_s / 2
PATIENCE_S = 60


def assert_echo_is_quick(node: Node) -> None:
    """A good peer at another address is served."""
    started = time.monotonic()
    with node.scu(VERIFICATION, IMPLICIT_LITTLE, source="127.0.0.2") as scu:
        assert scu.echo() == 0x0000
        scu.release()
    assert time.monotonic() - started < QUICK_S


def closes_within(connection: socket.socket, seconds: float) -> bool:
    """Whether the node ends this connection in time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def wait_until_closed(port: int) -> None:
    """Knock until nobody opens; one that comes in between is answered at its second try."""
    with pytest.raises(ConnectionError):
        while True:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what the node tells nobody of."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)


def test_two_associations_store_at_once(tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE_S)
    with listening(tmp_path) as node:
        # Both objects are durable before either row is committed: neither association waits for the other.
        node.rows.before = lambda: meeting.wait() and None

        def send(ordinal: int) -> int:
            dataset = mammogram(ordinal)
            with node.scu() as scu:
                status = scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset))
                scu.release()
                return status

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(send, (1, 2))) == [0x0000, 0x0000]
        assert len(node.rows.all) == 2


@pytest.mark.parametrize("rows", [64, 40_000], ids=["in memory", "on disk"])
def test_an_abort_in_the_middle_of_an_object_leaves_nothing(tmp_path: Path, rows: int) -> None:
    dataset = mammogram(Rows=rows, PixelData=bytes(rows * 96))
    with listening(tmp_path) as node:
        scu = node.scu()
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
        scu.send_data(encoded(dataset)[:-3000], is_whole=False)
        if rows > 64:
            wait_for(node.files)
        scu.abort()
        assert node.event_happened.wait(PATIENCE_S)
        ((action, detail),) = node.events
        assert (action, detail["reason"]) == ("association.aborted", "by the peer")
        assert node.stored_nothing()
        assert_echo_is_quick(node)


def test_a_connection_lost_in_the_middle_of_a_pdu_leaves_nothing(tmp_path: Path) -> None:
    dataset = mammogram()
    with listening(tmp_path) as node:
        scu = node.scu()
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
        scu.socket.sendall(p_data(encoded(dataset), 1, 0x02)[:2000])
        scu.socket.close()
        assert node.event_happened.wait(PATIENCE_S)
        assert [detail["reason"] for _, detail in node.events] == ["the peer closed the connection"]
        assert node.stored_nothing()
        assert_echo_is_quick(node)


@pytest.mark.parametrize(
    "first_bytes",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"\x01\x00\x00", id="half a header"),
        pytest.param(struct.pack(">BxI", 1, 200) + b"\x00\x01", id="body withheld"),
    ],
)
def test_a_connection_without_a_whole_request_is_closed_when_the_time_for_one_is_over(
    tmp_path: Path, first_bytes: bytes
) -> None:
    with listening(tmp_path, acse_timeout_s=SHORT_ACSE_TIMEOUT_S, pdu_timeout_s=2 * PATIENCE_S) as node:
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            connection.sendall(first_bytes)
            assert closes_within(connection, PATIENCE_S)
        assert_echo_is_quick(node)


def test_the_time_for_a_request_begins_with_the_connection_and_not_with_each_part(tmp_path: Path) -> None:
    request = associate_request((Proposal(VERIFICATION, IMPLICIT_LITTLE),), "RAWSCU", "NODE")
    pause_s = SHORT_ACSE_TIMEOUT_S / 10
    with listening(tmp_path, acse_timeout_s=SHORT_ACSE_TIMEOUT_S, pdu_timeout_s=2 * PATIENCE_S) as node:
        with socket.create_connection(("127.0.0.1", node.port), timeout=pause_s) as connection:
            said = 0
            for byte in request:
                connection.sendall(bytes([byte]))
                said += 1
                with suppress(TimeoutError):
                    connection.recv(1)
                    break
        assert said < len(request) / 2
        assert node.event_happened.wait(PATIENCE_S)
        assert [detail["reason"] for _, detail in node.events] == [NO_REQUEST[2]]
        assert_echo_is_quick(node)


def test_half_a_pdu_on_an_association_is_closed(tmp_path: Path) -> None:
    with listening(tmp_path, pdu_timeout_s=0.3) as node, node.scu() as scu:
        scu.socket.sendall(struct.pack(">BxI", 4, 1000) + b"\x00")
        scu.wait_for_end()
        assert node.stored_nothing()


def test_a_message_that_trickles_in_is_ended_at_its_deadline(tmp_path: Path) -> None:
    dataset = mammogram()
    with listening(tmp_path, message_timeout_s=0.3) as node, node.scu() as scu:
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
        scu.send_data(encoded(dataset)[:100], is_whole=False)
        scu.wait_for_end()
        assert node.stored_nothing()


def test_silent_connections_of_one_address_do_not_lock_out_another(tmp_path: Path) -> None:
    # More than the node has connections for, if one address could have them all.
    with listening(tmp_path, max_associations=4, max_silent_connections=8) as node:
        silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(50)]
        try:
            assert_echo_is_quick(node)
        finally:
            for connection in silent:
                connection.close()
        assert_echo_is_quick(node)


def test_connections_that_close_at_once_take_no_place(tmp_path: Path) -> None:
    with listening(tmp_path, max_associations=2, max_silent_connections=2) as node:
        for _ in range(20):
            socket.create_connection(("127.0.0.1", node.port)).close()
        assert_echo_is_quick(node)


def test_one_association_too_many_is_rejected_as_transient(tmp_path: Path) -> None:
    with listening(tmp_path, max_associations=2) as node, node.scu() as first, node.scu() as second:
        with pytest.raises(AssociationRejectedError) as rejection:
            node.scu()
        assert rejection.value.args == ((2, 3, 2),)
        dataset = mammogram()
        assert first.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000
        second.release()
        first.release()


def test_one_peer_cannot_take_the_places_of_others(tmp_path: Path) -> None:
    with listening(tmp_path, max_associations_per_peer=2) as node, node.scu() as first, node.scu() as second:
        with pytest.raises(AssociationRejectedError) as rejection:
            node.scu()
        assert rejection.value.args == ((2, 3, 2),)
        assert [detail["reason"] for _, detail in node.events] == ["too many associations of this peer"]
        assert_echo_is_quick(node)
        first.release()
        second.release()


@pytest.mark.parametrize("limit", ["max_associations", "max_associations_per_peer"])
def test_peers_that_knock_at_once_get_no_more_places_than_there_are(tmp_path: Path, limit: str) -> None:
    knocking, answered = (threading.Barrier(4, timeout=PATIENCE_S) for _ in range(2))

    def all_are_here() -> bool:
        knocking.wait()
        return False

    def knock(_: int) -> bool:
        scu: RawScu | None = None
        try:
            scu = node.scu()
        except AssociationRejectedError as rejection:
            assert rejection.args == ((2, 3, 2),)
        answered.wait()
        if scu is not None:
            scu.release()
        return scu is not None

    with (
        listening(tmp_path, is_congested=all_are_here, **{limit: 2}) as node,
        ThreadPoolExecutor(4) as pool,
    ):
        assert sum(pool.map(knock, range(4))) == 2


def test_a_peer_may_open_all_its_associations_at_the_same_moment(tmp_path: Path) -> None:
    limits = listener_limits(Settings(data_dir=tmp_path))
    most = limits.max_associations_per_peer
    knocking = threading.Barrier(most, timeout=PATIENCE_S)

    def all_are_here() -> bool:
        knocking.wait()
        return False

    def echo(_: int) -> int:
        with node.scu(VERIFICATION, IMPLICIT_LITTLE) as scu:
            status = scu.echo()
            scu.release()
            return status

    with (
        listening(tmp_path, is_congested=all_are_here, **asdict(limits)) as node,
        ThreadPoolExecutor(most) as pool,
    ):
        assert list(pool.map(echo, range(most))) == [0x0000] * most


def test_a_peer_on_which_the_node_cannot_decide_does_not_come_in(tmp_path: Path) -> None:
    causes = [OSError("a disk that fails")]

    def decide() -> bool:
        if causes:
            raise causes.pop()
        return False

    with listening(tmp_path, is_congested=decide) as node:
        with pytest.raises(AssociationRejectedError) as rejection:
            node.scu()
        assert rejection.value.args == ((2, 3, 1),)
        assert [action for action, _ in node.events] == ["association.rejected"]
        assert_echo_is_quick(node)


def test_while_too_much_work_waits_associations_are_rejected_as_transient(tmp_path: Path) -> None:
    is_congested = True
    with listening(tmp_path, is_congested=lambda: is_congested) as node:
        with pytest.raises(AssociationRejectedError) as rejection:
            node.scu()
        assert rejection.value.args == ((2, 3, 1),)
        is_congested = False
        assert_echo_is_quick(node)


@pytest.mark.parametrize("is_established", [False, True])
def test_a_pdu_over_the_limit_is_not_read(tmp_path: Path, is_established: bool) -> None:
    limits = {"max_any_pdu_bytes": 1 << 20, "max_request_pdu_bytes": 1 << 18}
    waits = {"acse_timeout_s": 2 * PATIENCE_S, "pdu_timeout_s": 2 * PATIENCE_S}
    with listening(tmp_path, **limits, **waits) as node:
        if is_established:
            connection = node.scu().socket
        else:
            connection = socket.create_connection(("127.0.0.1", node.port))
        with connection:
            connection.sendall(struct.pack(">BxI", 4 if is_established else 1, 0xFFFFFFFF))
            assert closes_within(connection, PATIENCE_S)
        assert_echo_is_quick(node)


def test_the_limits_of_pdus_and_command_sets_are_those_of_the_last_byte_that_is_read(tmp_path: Path) -> None:
    """T7, T8: 256 KB before there is an association, 1 MB and command sets of 64 KB after it, by default."""

    def ended_because(node: Node, connection: socket.socket, *pieces: bytes) -> str:
        before = len(node.events)
        node.event_happened.clear()
        with connection:
            for piece in pieces:
                connection.sendall(piece)
            assert closes_within(connection, PATIENCE_S)
        assert node.event_happened.wait(PATIENCE_S)
        ((_, detail),) = node.events[before:]
        return str(detail["reason"])

    def header(kind: int, length: int) -> bytes:
        return struct.pack(">BxI", kind, length)

    with listening(tmp_path) as node:

        def connected() -> socket.socket:
            return socket.create_connection(("127.0.0.1", node.port))

        request, largest, command = 256 * 1024, 1024 * 1024, 64 * 1024
        assert ended_because(node, connected(), header(1, request), bytes(request)) == NO_REQUEST[1]
        too_long = "an association request is longer than the node reads"
        assert ended_because(node, connected(), header(1, request + 1)) == too_long

        dataset = mammogram(PixelData=b"")
        dataset.PixelData = bytes(largest - 6 - len(encoded(dataset)))
        with node.scu() as scu:
            scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
            whole = p_data(encoded(dataset), 1, 0x02)
            assert len(whole) == 6 + largest
            scu.socket.sendall(whole)
            assert scu.read_status() == 0x0000
            scu.release()
        assert ended_because(node, node.scu().socket, header(4, largest + 1)) == (
            "a PDU is longer than the node reads"
        )

        most = p_data(bytes(command), 1, 0x03)
        assert "longer" not in ended_because(node, node.scu().socket, most)
        assert ended_because(node, node.scu().socket, p_data(bytes(command + 1), 1, 0x01)) == (
            "a command set is longer than the node reads"
        )


def test_a_message_over_the_limit_is_ended(tmp_path: Path) -> None:
    with listening(tmp_path, max_message_bytes=100_000) as node, node.scu() as scu:
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, "2.25.1")
        with pytest.raises((AssociationEndedError, ConnectionError)):
            for _ in range(1000):
                scu.send_data(bytes(32_000), is_whole=False)
            scu.read_pdu()
        assert node.stored_nothing()


def test_the_limit_of_a_message_is_none_of_an_association(tmp_path: Path) -> None:
    with listening(tmp_path, max_message_bytes=10_000) as node, node.scu() as scu:
        for ordinal in range(3):
            data = encoded(dataset := mammogram(ordinal))
            assert 5_000 < len(data) < 10_000
            assert scu.store(data, MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000


def test_a_command_set_over_the_limit_is_ended(tmp_path: Path) -> None:
    with listening(tmp_path) as node, node.scu() as scu:
        with pytest.raises((AssociationEndedError, ConnectionError)):
            for _ in range(1000):
                scu.socket.sendall(p_data(bytes(8000), 1, 0x01))
            scu.read_pdu()
        assert node.stored_nothing()


def test_requests_sent_ahead_are_all_answered_in_turn(tmp_path: Path) -> None:
    with listening(tmp_path) as node, node.scu() as scu:
        for ordinal in range(10):
            dataset = mammogram(ordinal)
            scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
            scu.send_data(encoded(dataset))
        assert [scu.read_status() for _ in range(10)] == [0x0000] * 10
        assert len(node.rows.all) == 10


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", id="HTTP"),
        pytest.param(bytes(range(256)) * 8, id="noise"),
        pytest.param(b"\x16\x03\x01\x02\x00" + bytes(512), id="TLS"),
        pytest.param(associate_request((), "RAWSCU", "NODE")[:80], id="request cut short"),
    ],
)
def test_what_is_no_dicom_is_ended_and_the_node_serves_on(tmp_path: Path, request_bytes: bytes) -> None:
    with listening(tmp_path, acse_timeout_s=SHORT_ACSE_TIMEOUT_S, pdu_timeout_s=0.3) as node:
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            connection.sendall(request_bytes)
            assert closes_within(connection, PATIENCE_S)
        assert node.event_happened.wait(PATIENCE_S)
        ((action, detail),) = node.events
        assert (action, detail["peer_address"]) == ("association.aborted", "127.0.0.1")
        assert detail["reason"] in NO_REQUEST
        assert_echo_is_quick(node)


@pytest.mark.parametrize("says_so", [True, False])
def test_an_association_that_ends_because_nothing_was_accepted_says_so(tmp_path: Path, says_so: bool) -> None:
    with listening(tmp_path) as node, node.scu(MG_FOR_PRESENTATION, "1.2.840.10008.1.2.1.99") as scu:
        scu.abort() if says_so else scu.socket.close()
        assert node.event_happened.wait(PATIENCE_S)
        ((_, detail),) = node.events
        assert detail["reason"] == "none of the proposed presentation contexts is for this caller"
        assert detail["proposed"] == [MG_FOR_PRESENTATION]


def test_a_peer_that_leaves_politely_because_nothing_was_accepted_is_told_of(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        with node.scu("1.2.840.10008.5.1.4.1.1.88.33") as scu:
            scu.release()
        assert node.event_happened.wait(PATIENCE_S)
        with node.scu() as scu:
            scu.release()
        ((action, detail),) = node.events
    assert action == "association.unserved"
    assert detail == {
        "calling_ae_title": "RAWSCU",
        "peer_address": "127.0.0.1",
        "reason": "none of the proposed presentation contexts is for this caller",
        "proposed": ["1.2.840.10008.5.1.4.1.1.88.33"],
    }


def test_looking_whether_the_port_is_open_is_no_event(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert closes_within(connection, PATIENCE_S)
        assert node.events == []


def test_stopping_finishes_the_object_in_hand(tmp_path: Path) -> None:
    in_hand, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        in_hand.set()
        assert go_on.wait(PATIENCE_S)

    dataset = mammogram()
    with listening(tmp_path) as node, node.scu() as scu:
        node.rows.before = pause
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
        scu.send_data(encoded(dataset))
        assert in_hand.wait(PATIENCE_S)
        stopping = threading.Thread(target=node.listener.stop, args=(PATIENCE_S,))
        stopping.start()
        wait_until_closed(node.port)
        go_on.set()
        assert scu.read_status() == 0x0000
        scu.wait_for_end()
        stopping.join(PATIENCE_S)
        assert not stopping.is_alive()
        assert len(node.rows.all) == len(node.files()) == 1


def test_stopping_waits_for_the_rest_of_an_object_that_is_half_received(tmp_path: Path) -> None:
    dataset = mammogram(Rows=40_000, PixelData=bytes(40_000 * 96))
    data = encoded(dataset)
    half = len(data) // 2
    with listening(tmp_path) as node, node.scu() as scu:
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
        scu.send_data(data[:-half], is_whole=False)
        wait_for(node.files)
        stopping = threading.Thread(target=node.listener.stop, args=(PATIENCE_S,))
        stopping.start()
        wait_until_closed(node.port)
        scu.send_data(data[-half:])
        assert scu.read_status() == 0x0000
        stopping.join(PATIENCE_S)
        assert not stopping.is_alive()
        assert len(node.rows.all) == len(node.files()) == 1


def test_stopping_does_not_wait_for_an_idle_association(tmp_path: Path) -> None:
    with listening(tmp_path) as node, node.scu() as scu:
        started = time.monotonic()
        node.listener.stop(deadline_s=PATIENCE_S)
        scu.wait_for_end()
        assert time.monotonic() - started < PATIENCE_S / 3


def test_an_object_that_is_not_finished_by_the_deadline_gets_no_success(tmp_path: Path) -> None:
    dataset = mammogram()
    with listening(tmp_path) as node, node.scu() as scu:
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
        scu.send_data(encoded(dataset)[:100], is_whole=False)
        node.listener.stop(deadline_s=0.2)
        scu.wait_for_end()
        assert node.stored_nothing()


def test_a_restart_binds_the_same_port_at_once(tmp_path: Path) -> None:
    with listening(tmp_path) as node, node.scu(VERIFICATION, IMPLICIT_LITTLE) as scu:
        assert scu.echo() == 0x0000
        port = node.port
        node.listener.stop(deadline_s=5)
        node.listener.start()
        assert node.port == port
        assert_echo_is_quick(node)


def test_no_patient_data_in_logs_events_and_file_names(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    canaries = (PATIENT_ID, PATIENT_NAME, "1.2.SECRET")
    good, bad = mammogram(1), mammogram(2, StudyInstanceUID=None)
    with (
        listening(tmp_path) as node,
        RawScu(node.port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu,
    ):
        assert scu.store(encoded(good), MG_FOR_PRESENTATION, uid_of(good)) == 0x0000
        assert scu.store(encoded(bad), MG_FOR_PRESENTATION, uid_of(bad)) == 0xC000
        wrong = encoded(good).replace(b"2.25.101", b"1.SECRET")
        assert scu.store(wrong, MG_FOR_PRESENTATION, uid_of(good)) == 0xC000
        written = repr(node.events) + repr(node.files()) + caplog.text + "".join(capfd.readouterr())
    assert "instance.refused" in written
    assert not [canary for canary in canaries if canary in written]
    assert "SECRET" not in written
