"""A resolver that does not answer holds nobody up, and takes no known sink away."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dicom_node.audit_messages.host_lookup import HostLookup
from dicom_node.audit_messages.syslog import UdpSink
from dicom_node.errors import SinkUnavailableError

PATIENCE_S = 60


class Resolver:
    """The system's resolver, whose name servers can be taken away."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer
        self.answers = threading.Event()
        self.answers.set()
        self.questions = 0

    def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        self.questions += 1
        assert self.answers.wait(PATIENCE_S)
        return self._answer(*args, **kwargs)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.answers.set()  # whoever still asks ends


def lookup() -> HostLookup:
    return HostLookup("localhost", 514, socket.SOCK_DGRAM, timeout_s=0.05)


def test_a_dead_resolver_is_waited_for_so_long_and_no_longer(resolver: Resolver) -> None:
    resolver.answers.clear()
    asked = lookup()
    begun = time.monotonic()

    with pytest.raises(socket.gaierror, match="no name server answers in time"):
        asked.addresses()

    assert 0.05 <= time.monotonic() - begun < 5


def test_behind_a_dead_resolver_no_questions_pile_up_and_its_late_answer_counts(resolver: Resolver) -> None:
    resolver.answers.clear()
    asked = lookup()
    for _ in range(3):
        with pytest.raises(socket.gaierror):
            asked.addresses()
    assert resolver.questions == 1

    resolver.answers.set()

    (question,) = [thread for thread in threading.enumerate() if thread.name == "host-lookup"]
    question.join(PATIENCE_S)
    assert asked.addresses()[0][3][1] == 514
    assert resolver.questions == 1


def test_a_sink_whose_name_is_known_gets_messages_while_nobody_answers(resolver: Resolver) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE_S)
        sink = UdpSink("127.0.0.1", receiver.getsockname()[1], timeout_s=0.05)
        sink.send([b"first"])
        resolver.answers.clear()

        sink.send([b"second"])

        assert [receiver.recv(100), receiver.recv(100)] == [b"first", b"second"]
    assert resolver.questions == 2, "it is asked again each time: an address may change"


def test_a_host_that_is_unknown_is_not_sent_to_where_it_once_was(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = lookup()
    assert asked.addresses()

    def unknown(*_args: Any, **_kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror, match="not known"):
        asked.addresses()


def test_messages_wait_where_a_name_cannot_be_looked_up_in_time(resolver: Resolver) -> None:
    resolver.answers.clear()

    with pytest.raises(SinkUnavailableError, match="no name server answers in time"):
        UdpSink("localhost", 514, timeout_s=0.05).send([b"message"])
