"""A5: audit messages reach a syslog sink, in order, whatever happens to the sink and to the node."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from structlog.testing import capture_logs

import workers.audit_forwarder
from db.audit import sink_cursor
from dicom_node.audit_messages.syslog import Sink, TlsSink, UdpSink
from dicom_node.errors import SinkUnavailableError
from tests.audit_schema import faults
from tests.running_node import until
from tests.simulators.certificates import Authority
from tests.simulators.syslog_sink import SyslogSink
from tests.steered_node import SteeredNode, on_sqlite
from workers.audit_forwarder import AuditForwarder

# RFC 5424 section 6, as far as PS3.15 A.6 fixes it.
HEADER = re.compile(
    r"<(?P<priority>\d+)>1 (?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) [!-~]{1,255} dicom-node \d+ "
    r"DICOM\+RFC3881 - \ufeff(?P<xml><\?xml .*)",
    re.DOTALL,
)


PATIENCE_S = 60


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def sink(authority: Authority, tmp_path: Path) -> Iterator[SyslogSink]:
    with SyslogSink(authority.issue("sink", "127.0.0.1"), tmp_path) as made:
        yield made


def tls(sink: SyslogSink, authority: Authority, **options: bool) -> TlsSink:
    files = authority.issue("node", "127.0.0.1")
    return TlsSink("127.0.0.1", sink.port, files.client_context, timeout_s=PATIENCE_S, **options)


def forwarder(node: SteeredNode, sink: Sink, name: str = "dispatch@host-a:7") -> AuditForwarder:
    return AuditForwarder(node.database, sink, name=name, ae_title="DICOM_NODE", site="General")


def add_users(node: SteeredNode, *names: str) -> None:
    with node.transaction("anna@host-a") as tx:
        for name in names:
            tx.audit("account.added", detail={"user": name})


def users(messages: list[str]) -> list[str]:
    """The users that the messages are about, in their order."""
    return [alert(message)["detail"]["user"] for message in messages]


def alert(message: str) -> dict[str, dict[str, str]]:
    (detail,) = xml(message).iter("ParticipantObjectDetail")
    told = json.loads(base64.b64decode(detail.attrib["value"]))
    return {**told, "detail": json.loads(told["detail"])}


def xml(message: str) -> ET.Element:
    found = HEADER.fullmatch(message)
    assert found, message
    return ET.fromstring(found["xml"].encode())


def position(node: SteeredNode) -> int:
    with node.reading() as session:
        return sink_cursor.position(session, "syslog")


def test_messages_arrive_over_tls_in_the_trails_order_and_form(
    node: SteeredNode, sink: SyslogSink, authority: Authority
) -> None:
    sink.start()
    add_users(node, "bert", "carl", "dora")

    moved = forwarder(node, tls(sink, authority)).forward()

    assert moved == position(node) == node.audited()[-1].seq
    assert users(sink.messages) == ["bert", "carl", "dora"]
    assert [faults(xml(message)) for message in sink.messages] == [[], [], []]
    assert {HEADER.fullmatch(m)["priority"] for m in sink.messages} == {"85"}  # type: ignore[index]
    (source,) = xml(sink.messages[0]).iter("AuditSourceIdentification")
    assert source.attrib == {"AuditEnterpriseSiteID": "General", "AuditSourceID": "DICOM_NODE"}


@on_sqlite
def test_what_a_sink_is_told_is_durable_before(node: SteeredNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut must not take an event that a repository knows, and give its number to another."""
    done: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    class Noting:
        def send(self, messages: Sequence[str]) -> None:
            done.append("told")

    add_users(node, "bert")
    monkeypatch.setattr(os, "fsync", noted)
    forwarder(node, Noting()).forward()
    assert done == [f"{Path(str(node.database.engine.url.database)).name}-wal", "told"]


def test_nothing_new_means_no_connection(node: SteeredNode, sink: SyslogSink, authority: Authority) -> None:
    sink.start()
    add_users(node, "bert")
    sending = forwarder(node, tls(sink, authority))
    sending.forward()
    sink.kill()

    assert sending.forward() == 0, "it would have failed"


@on_sqlite
def test_a_sink_that_is_down_means_that_messages_wait(
    node: SteeredNode, sink: SyslogSink, authority: Authority
) -> None:
    sink.start()
    sending = forwarder(node, tls(sink, authority))
    sink.kill()
    add_users(node, "bert", "carl")

    for _ in range(3):
        with pytest.raises(SinkUnavailableError, match="they wait"):
            sending.forward()
        assert position(node) == 0

    sink.start()
    sending.forward()
    assert users(sink.messages) == ["bert", "carl"]


class MistakenOnce:
    """A sink that raises what nobody expects of one, and then takes messages."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._has_failed = False

    def send(self, messages: Sequence[bytes]) -> None:
        if not self._has_failed:
            self._has_failed = True
            raise KeyError("a mistake of ours")
        self.messages += messages


@on_sqlite
def test_a_mistake_in_handing_over_is_told_and_tried_again(node: SteeredNode) -> None:
    add_users(node, "bert")
    sink = MistakenOnce()
    sending = forwarder(node, sink)
    with capture_logs() as logs:
        sending.start()
        until(lambda: bool(sink.messages), PATIENCE_S, "the second try")
        sending.stop()

    assert [entry["event"] for entry in logs] == ["audit.not_forwarded"]
    assert users([message.decode() for message in sink.messages]) == ["bert"]


@on_sqlite
def test_a_sink_that_is_killed_in_the_middle_and_restarted_has_every_message_in_order(
    node: SteeredNode, sink: SyslogSink, authority: Authority
) -> None:
    names = [
        f"user-{number:03}" for number in range(600)
    ]  # more than one batch, and than socket buffers hold
    sink.start(freeze_after=137)
    add_users(node, *names)
    sending = forwarder(node, tls(sink, authority))
    sending.start()

    assert sink.told() == "frozen\n"
    sink.kill()
    before = users(sink.messages)
    sink.start()
    until(lambda: position(node) >= node.audited()[-1].seq, PATIENCE_S, "the end of the trail at the sink")
    sending.stop()

    assert before == names[:137]
    after = users(sink.messages)[137:]
    assert after == names, "what the killed sink may not have kept was sent again, in order"


@on_sqlite
def test_a_sink_that_closes_without_a_word_gets_the_messages_again(
    node: SteeredNode, sink: SyslogSink, authority: Authority
) -> None:
    sink.start(close_abruptly=True)
    add_users(node, "bert")

    with pytest.raises(SinkUnavailableError):
        forwarder(node, tls(sink, authority)).forward()
    assert position(node) == 0

    assert forwarder(node, tls(sink, authority, wait_for_close=False)).forward() > 0
    assert users(sink.messages) == ["bert", "bert"]


@on_sqlite
def test_a_sink_of_another_authority_gets_nothing(
    node: SteeredNode, sink: SyslogSink, tmp_path: Path
) -> None:
    sink.start()
    add_users(node, "bert")

    with pytest.raises(SinkUnavailableError, match="certificate was refused"):
        forwarder(node, tls(sink, Authority(tmp_path / "stranger"))).forward()

    assert (sink.messages, position(node)) == ([], 0)


@on_sqlite
def test_a_sink_whose_certificate_names_another_host_gets_nothing(
    node: SteeredNode, authority: Authority, tmp_path: Path
) -> None:
    add_users(node, "bert")
    with SyslogSink(authority.issue("elsewhere", "sink.example.org"), tmp_path) as elsewhere:
        elsewhere.start()
        with pytest.raises(SinkUnavailableError, match="certificate was refused"):
            forwarder(node, tls(elsewhere, authority)).forward()
        assert elsewhere.messages == []


def test_of_two_processes_one_hands_over_until_it_dies(
    node: SteeredNode, sink: SyslogSink, authority: Authority
) -> None:
    sink.start()
    first, second = (forwarder(node, tls(sink, authority), f"dispatch@host-{h}:7") for h in "ab")
    add_users(node, "bert")
    assert first.forward() > 0
    add_users(node, "carl")

    assert second.forward() == 0, "the first has the lease"
    node.clock.advance(121)
    assert second.forward() > 0
    assert users(sink.messages) == ["bert", "carl"]


@on_sqlite
def test_a_process_that_stops_hands_over_what_there_is_and_lets_another_go_on_at_once(
    node: SteeredNode, sink: SyslogSink, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.audit_forwarder, "LOOK_EVERY_S", 3600.0)
    sink.start()
    first, second = (forwarder(node, tls(sink, authority), f"dispatch@host-{h}:7") for h in "ab")
    add_users(node, "bert")
    first.start()
    until(lambda: position(node) > 0, PATIENCE_S, "the first message")
    add_users(node, "carl")
    first.stop()
    assert users(sink.messages) == ["bert", "carl"]

    add_users(node, "dora")
    assert second.forward() > 0, "without waiting for the lease of the first to end"
    assert users(sink.messages) == ["bert", "carl", "dora"]


class AbsentSink:
    """A sink that takes nothing, and counts who came."""

    def __init__(self) -> None:
        self.tries = 0
        self.was_tried = threading.Event()
        self.was_tried_again = threading.Event()

    def send(self, messages: Sequence[bytes]) -> None:
        self.tries += 1
        (self.was_tried_again if self.was_tried.is_set() else self.was_tried).set()
        raise SinkUnavailableError("the sink is away; they wait")


@on_sqlite
def test_a_sink_that_is_away_is_left_in_peace_for_a_while_and_a_stop_does_not_wait_for_it(
    node: SteeredNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.audit_forwarder, "LOOK_EVERY_S", 3600.0)
    monkeypatch.setattr(workers.audit_forwarder, "LONGEST_PAUSE_S", 3600.0)
    add_users(node, "bert")
    sink = AbsentSink()
    sending = forwarder(node, sink)
    sending.start()
    assert sink.was_tried.wait(PATIENCE_S)
    assert not sink.was_tried_again.wait(0.3)
    sending.stop()

    assert sink.tries == 2, "once more at the end, and no more"
    assert position(node) == 0


@on_sqlite
def test_events_that_are_no_audit_messages_are_passed_over_without_asking_the_sink(node: SteeredNode) -> None:
    with node.transaction("listen@host-a:9") as tx:
        tx.audit("destination.tried", detail={"destination": "PACS@127.0.0.1:104"})
    sink = AbsentSink()

    assert forwarder(node, sink).forward() == position(node) == node.audited()[-1].seq
    assert sink.tries == 0


@on_sqlite
def test_a_hostile_value_neither_breaks_the_document_nor_the_line(
    node: SteeredNode, sink: SyslogSink, authority: Authority
) -> None:
    hostile = '"/><AuditMessage>\x00\x1b[2J\r\n<85>1 - & \ud800 \u2028'
    sink.start()
    with node.transaction("listen@host-a:9") as tx:
        detail = {"calling_ae_title": hostile, "peer_address": "10.0.0.7", "reason": hostile}
        tx.audit("association.rejected", detail=detail)

    forwarder(node, tls(sink, authority)).forward()

    (message,) = sink.messages
    assert faults(xml(message)) == []
    assert HEADER.fullmatch(message)["priority"] == "84", "a warning"  # type: ignore[index]
    assert [p.attrib.get("NetworkAccessPointID") for p in xml(message).iter("ActiveParticipant")] == [
        "host-a",
        "10.0.0.7",
    ]


@on_sqlite
def test_messages_go_out_over_udp_one_a_datagram(node: SteeredNode) -> None:
    add_users(node, "bert", "carl")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE_S)

        forwarder(node, UdpSink("127.0.0.1", receiver.getsockname()[1])).forward()

        messages = [receiver.recv(65535).decode() for _ in range(2)]
    assert users(messages) == ["bert", "carl"]
    assert [faults(xml(message)) for message in messages] == [[], []]


@on_sqlite
def test_a_host_that_nobody_knows_makes_udp_messages_wait(node: SteeredNode) -> None:
    add_users(node, "bert")
    with pytest.raises(SinkUnavailableError, match=r"audit\.syslog"):
        forwarder(node, UdpSink("sink.invalid", 514)).forward()
    assert position(node) == 0
