"""C-ECHO to a destination, as `doctor` asks for it."""

from __future__ import annotations

import time

import pytest

from dicom_node.delivery.destination import Destination
from dicom_node.delivery.dimse import DeliveryTimeouts, echo
from tests.simulators.pacs import Behaviour, SimulatedPacs

TIMEOUTS = DeliveryTimeouts(connect_s=0.4, acse_s=0.4, dimse_s=0.4)
PATIENT_TIMEOUTS = DeliveryTimeouts(connect_s=20, acse_s=20, dimse_s=20)


def test_a_destination_that_listens_is_well() -> None:
    with SimulatedPacs(sop_class_uids=frozenset()) as pacs:
        answer = echo(pacs.destination, calling_ae_title="DICOM_NODE", timeouts=PATIENT_TIMEOUTS)

    assert answer.ok
    assert 0 < answer.seconds < 20
    assert pacs.calling_ae_titles == ["DICOM_NODE"]
    assert pacs.stored == ()


def test_a_destination_without_explicit_vr_is_asked_in_implicit_vr() -> None:
    with SimulatedPacs(transfer_syntax_uids=frozenset({"1.2.840.10008.1.2"})) as pacs:
        assert echo(pacs.destination, calling_ae_title="DICOM_NODE", timeouts=PATIENT_TIMEOUTS).ok


def test_a_destination_without_verification_says_so() -> None:
    with SimulatedPacs(transfer_syntax_uids=frozenset()) as pacs:
        answer = echo(pacs.destination, calling_ae_title="DICOM_NODE", timeouts=PATIENT_TIMEOUTS)

    assert not answer.ok
    assert "verification" in answer.detail


def test_a_failure_status_is_not_well() -> None:
    with SimulatedPacs() as pacs:
        pacs.behave(Behaviour.ACCEPT, status=0x0122)
        answer = echo(pacs.destination, calling_ae_title="DICOM_NODE", timeouts=PATIENT_TIMEOUTS)

    assert not answer.ok
    assert "0122" in answer.detail


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour.REFUSE_CONNECTION, "is the port right"),
        (Behaviour.REJECT_PERMANENT, "AE title"),
        (Behaviour.IGNORE_ASSOCIATION, "did not answer in time"),
        (Behaviour.STOP_READING, "did not answer in time"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_destination_in_trouble_is_reported_in_time(behaviour: Behaviour, words: str) -> None:
    with SimulatedPacs() as pacs:
        pacs.behave(behaviour)
        start = time.monotonic()
        answer = echo(pacs.destination, calling_ae_title="DICOM_NODE", timeouts=TIMEOUTS)

    assert not answer.ok
    assert words in answer.detail
    assert time.monotonic() - start < 2.4


def test_a_host_that_does_not_exist_is_reported() -> None:
    answer = echo(Destination("PACS", "pacs.invalid", 104), calling_ae_title="DICOM_NODE", timeouts=TIMEOUTS)

    assert not answer.ok
    assert "host name" in answer.detail
