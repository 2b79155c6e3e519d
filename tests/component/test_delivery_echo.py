"""C-ECHO to a destination, as `doctor` asks for it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from dicom_node.delivery.destination import Destination
from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor, echo
from tests.simulators.pacs import Behaviour, SimulatedPacs

PATIENCE_S = 40
PATIENT_TIMEOUTS = DeliveryTimeouts(connect_s=PATIENCE_S, acse_s=PATIENCE_S, dimse_s=PATIENCE_S)
# For what never comes, and for nothing else: also a busy machine has to come to it.
SHORT_S = 1.0


def test_a_destination_that_listens_is_well() -> None:
    with SimulatedPacs(sop_class_uids=frozenset()) as pacs:
        answer = echo(pacs.destination, Requestor("DICOM_NODE", PATIENT_TIMEOUTS))

    assert answer.ok
    assert 0 < answer.seconds < PATIENCE_S
    assert pacs.calling_ae_titles == ["DICOM_NODE"]
    assert pacs.stored == ()
    assert pacs.endings == ["released"]
    assert pacs.violations == []


def test_a_destination_without_explicit_vr_is_asked_in_implicit_vr() -> None:
    with SimulatedPacs(transfer_syntax_uids=frozenset({"1.2.840.10008.1.2"})) as pacs:
        assert echo(pacs.destination, Requestor("DICOM_NODE", PATIENT_TIMEOUTS)).ok


def test_a_destination_without_verification_says_so() -> None:
    with SimulatedPacs(transfer_syntax_uids=frozenset()) as pacs:
        answer = echo(pacs.destination, Requestor("DICOM_NODE", PATIENT_TIMEOUTS))

    assert not answer.ok
    assert "verification" in answer.detail


def test_a_failure_status_is_not_well() -> None:
    with SimulatedPacs() as pacs:
        pacs.behave(Behaviour.ACCEPT, status=0x0122)
        answer = echo(pacs.destination, Requestor("DICOM_NODE", PATIENT_TIMEOUTS))

    assert not answer.ok
    assert "0122" in answer.detail


@pytest.mark.parametrize(
    ("behaviour", "short", "words"),
    [
        (Behaviour.REFUSE_CONNECTION, {}, "is the port right"),
        (Behaviour.REJECT_PERMANENT, {}, "AE title"),
        (Behaviour.IGNORE_ASSOCIATION, {"acse_s": SHORT_S}, "did not answer in time"),
        (Behaviour.STOP_READING, {"dimse_s": SHORT_S}, "did not answer in time"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_destination_in_trouble_is_reported_in_time(
    behaviour: Behaviour, short: dict[str, float], words: str
) -> None:
    timeouts = replace(PATIENT_TIMEOUTS, **short)
    with SimulatedPacs() as pacs:
        pacs.behave(behaviour)
        start = time.monotonic()
        answer = echo(pacs.destination, Requestor("DICOM_NODE", timeouts))

    assert not answer.ok
    assert words in answer.detail
    assert time.monotonic() - start < PATIENCE_S / 2, "no long time-out was waited for"


def test_a_host_that_does_not_exist_is_reported() -> None:
    nowhere = Destination("PACS", "pacs.invalid", 104)
    answer = echo(nowhere, Requestor("DICOM_NODE", PATIENT_TIMEOUTS))

    assert not answer.ok
    assert "host name" in answer.detail
