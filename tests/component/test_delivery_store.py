"""Results reach the PACS: the stored bytes, one association, and an answer recorded per object."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicom_node.delivery.destination import Destination
from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor, SendResult, SendState, send
from tests.simulators.pacs import Behaviour, SimulatedPacs
from tests.simulators.stored_objects import (
    COMPREHENSIVE_3D_SR,
    COMPREHENSIVE_SR,
    SEGMENTATION,
    StoredResult,
    store_result,
)

TIMEOUTS = DeliveryTimeouts(connect_s=60, acse_s=60, dimse_s=60)


def deliver(results: list[StoredResult], destination: Destination) -> tuple[SendResult, ...]:
    return send(
        [result.outgoing for result in results],
        destination,
        Requestor("DICOM_NODE", TIMEOUTS),
        on_result=lambda _uid, _result: None,
    )


@pytest.mark.parametrize("maximum_length", [0, 16, 128, 16384, 16385, 1 << 20])
def test_the_pacs_gets_the_stored_bytes_whatever_length_of_pdu_it_takes(
    tmp_path: Path, maximum_length: int
) -> None:
    result = store_result(tmp_path, payload_bytes=3000 if maximum_length == 16 else 200_000)
    with SimulatedPacs(maximum_length=maximum_length) as pacs:
        (sent,) = deliver([result], pacs.destination)

    assert (sent.state, sent.status, sent.is_warning) == (SendState.DELIVERED, 0x0000, False)
    assert pacs.hashes == {result.uid: {result.sha256}}
    assert len(pacs.stored) == 1
    assert pacs.violations == []


def test_a_pacs_whose_pdus_hold_nothing_is_given_up_without_sending(tmp_path: Path) -> None:
    with SimulatedPacs(maximum_length=7) as pacs:
        (sent,) = deliver([store_result(tmp_path)], pacs.destination)

    assert sent.state is SendState.TRY_AGAIN
    assert pacs.stored == ()


def test_all_objects_use_one_association_with_one_context_per_class_and_syntax(tmp_path: Path) -> None:
    """Beside the syntax of a file in Explicit VR Little Endian the default one is proposed (PS3.5 10.1)."""
    kinds = [
        (COMPREHENSIVE_SR, ExplicitVRLittleEndian),
        (SEGMENTATION, RLELossless),
        (SEGMENTATION, ExplicitVRLittleEndian),
        (SEGMENTATION, RLELossless),
        (COMPREHENSIVE_3D_SR, ImplicitVRLittleEndian),
        (COMPREHENSIVE_3D_SR, DeflatedExplicitVRLittleEndian),
    ]
    results = [
        store_result(tmp_path, ordinal, sop_class_uid=sop_class, transfer_syntax_uid=syntax)
        for ordinal, (sop_class, syntax) in enumerate(kinds)
    ]
    with SimulatedPacs() as pacs:
        sent = deliver(results, pacs.destination)

    assert [result.state for result in sent] == [SendState.DELIVERED] * 6
    assert [result.sop_instance_uid for result in sent] == [result.uid for result in results]
    assert pacs.proposed == [
        [
            (COMPREHENSIVE_SR, [ExplicitVRLittleEndian]),
            (COMPREHENSIVE_SR, [ImplicitVRLittleEndian]),
            (SEGMENTATION, [RLELossless]),
            (SEGMENTATION, [ExplicitVRLittleEndian]),
            (SEGMENTATION, [ImplicitVRLittleEndian]),
            (COMPREHENSIVE_3D_SR, [ImplicitVRLittleEndian]),
            (COMPREHENSIVE_3D_SR, [DeflatedExplicitVRLittleEndian]),
        ]
    ]
    assert [(item.sop_class_uid, item.transfer_syntax_uid) for item in pacs.stored] == kinds
    assert pacs.hashes == {result.uid: {result.sha256} for result in results}
    assert pacs.message_ids == [1, 2, 3, 4, 5, 6]
    assert pacs.calling_ae_titles == ["DICOM_NODE"]
    assert pacs.endings == ["released"]
    assert pacs.violations == []


def test_each_result_is_handed_over_before_the_next_object_is_sent(tmp_path: Path) -> None:
    results = [store_result(tmp_path, ordinal) for ordinal in range(3)]
    seen: list[tuple[str, SendState, int]] = []
    with SimulatedPacs() as pacs:
        sent = send(
            [result.outgoing for result in results],
            pacs.destination,
            Requestor("DICOM_NODE", TIMEOUTS),
            on_result=lambda uid, result: seen.append((uid, result.state, len(pacs.stored))),
        )

    assert seen == [(result.uid, SendState.DELIVERED, n) for n, result in enumerate(results, start=1)]
    assert len(sent) == 3


def test_when_a_result_cannot_be_recorded_nothing_more_is_sent(tmp_path: Path) -> None:
    results = [store_result(tmp_path, ordinal) for ordinal in range(3)]

    def fail(_uid: str, _result: SendResult) -> None:
        raise RuntimeError("the database is away")

    with SimulatedPacs() as pacs:
        with pytest.raises(RuntimeError, match="the database is away"):
            send(
                [result.outgoing for result in results],
                pacs.destination,
                Requestor("DICOM_NODE", TIMEOUTS),
                on_result=fail,
            )
        assert pacs.wait_until_idle(60)

    assert [item.sop_instance_uid for item in pacs.stored] == [results[0].uid]
    assert pacs.endings == ["aborted"]


@pytest.mark.parametrize(
    ("status", "state", "is_warning"),
    [
        (0x0111, SendState.DELIVERED, False),
        (0xB000, SendState.DELIVERED, True),
        (0xB007, SendState.DELIVERED, True),
        (0x0110, SendState.TRY_AGAIN, False),
        (0xA700, SendState.TRY_AGAIN, False),
        (0x0122, SendState.REFUSED, False),
        (0xA900, SendState.REFUSED, False),
        (0xC000, SendState.REFUSED, False),
        (0xC123, SendState.REFUSED, False),
        (0xFF00, SendState.UNKNOWN, False),
    ],
)
def test_the_status_of_the_answer_decides_and_is_kept(
    tmp_path: Path, status: int, state: SendState, is_warning: bool
) -> None:
    result = store_result(tmp_path)
    with SimulatedPacs() as pacs:
        pacs.behave(Behaviour.ACCEPT, status=status)
        (sent,) = deliver([result], pacs.destination)

    assert (sent.state, sent.status, sent.is_warning) == (state, status, is_warning)
    assert f"{status:04X}" in sent.detail


def test_an_object_that_is_refused_does_not_keep_back_those_after_it(tmp_path: Path) -> None:
    results = [store_result(tmp_path, ordinal) for ordinal in range(3)]
    with SimulatedPacs() as pacs:
        pacs.behave(Behaviour.ACCEPT, status=0xC000, times=1)
        sent = deliver(results, pacs.destination)

    assert [result.state for result in sent] == [SendState.REFUSED, SendState.DELIVERED, SendState.DELIVERED]
    assert set(pacs.hashes) == {results[1].uid, results[2].uid}
    assert len(pacs.proposed) == 1


def test_an_object_is_delivered_once_the_pacs_has_room_again(tmp_path: Path) -> None:
    result = store_result(tmp_path)
    with SimulatedPacs() as pacs:
        pacs.behave(Behaviour.ACCEPT, status=0xA700, times=2)
        states = [deliver([result], pacs.destination)[0].state for _ in range(3)]

    assert states == [SendState.TRY_AGAIN, SendState.TRY_AGAIN, SendState.DELIVERED]
    assert [item.sha256 for item in pacs.stored] == [result.sha256]


def test_a_class_that_the_pacs_does_not_take_is_refused_by_name_and_the_others_arrive(tmp_path: Path) -> None:
    report = store_result(tmp_path, 1, sop_class_uid=COMPREHENSIVE_3D_SR)
    overlay = store_result(tmp_path, 2, sop_class_uid=SEGMENTATION)
    with SimulatedPacs(sop_class_uids=frozenset({SEGMENTATION})) as pacs:
        refused, delivered = deliver([report, overlay], pacs.destination)

    assert (refused.state, refused.status) == (SendState.REFUSED, None)
    assert "Comprehensive 3D SR Storage" in refused.detail
    assert "SOP class not supported" in refused.detail
    assert delivered.state is SendState.DELIVERED
    assert pacs.hashes == {overlay.uid: {overlay.sha256}}


def test_a_syntax_that_the_pacs_does_not_take_is_refused_and_never_converted(tmp_path: Path) -> None:
    plain = store_result(tmp_path, 1, sop_class_uid=SEGMENTATION)
    compressed = store_result(tmp_path, 2, sop_class_uid=SEGMENTATION, transfer_syntax_uid=RLELossless)
    with SimulatedPacs(transfer_syntax_uids=frozenset({ExplicitVRLittleEndian})) as pacs:
        refused, delivered = deliver([compressed, plain], pacs.destination)

    assert refused.state is SendState.REFUSED
    assert "RLE Lossless" in refused.detail
    assert delivered.state is SendState.DELIVERED
    assert pacs.hashes == {plain.uid: {plain.sha256}}


def test_a_pacs_that_takes_nothing_refuses_everything(tmp_path: Path) -> None:
    results = [store_result(tmp_path, ordinal) for ordinal in range(2)]
    with SimulatedPacs(sop_class_uids=frozenset()) as pacs:
        sent = deliver(results, pacs.destination)
        assert pacs.wait_until_idle(60)

    assert [result.state for result in sent] == [SendState.REFUSED, SendState.REFUSED]
    assert pacs.stored == ()


def _missing(path: Path) -> None:
    path.unlink()


def _no_part_10(path: Path) -> None:
    path.write_bytes(b"not DICOM at all")


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:150])


def _without_data_set(path: Path) -> None:
    content = path.read_bytes()
    # PS3.10 7.1: the file meta information's group length stands right after its first element's header.
    (length,) = struct.unpack_from("<I", content, 140)
    path.write_bytes(content[: 144 + length])


def _garbage_in_the_header(path: Path) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 140)
    garbage = struct.pack("<HH2sxxI", 2, 0x0102, b"SQ", 0xFFFFFFFF) + bytes(range(1, 9))
    grown = struct.pack("<I", length + len(garbage))
    path.write_bytes(content[:140] + grown + content[144 : 144 + length] + garbage + content[144 + length :])


def _another_object(path: Path) -> None:
    other = store_result(path.parent, 99)
    path.write_bytes(other.outgoing.path.read_bytes())


@pytest.mark.parametrize(
    "damage",
    [_missing, _no_part_10, _cut_short, _without_data_set, _garbage_in_the_header, _another_object],
)
def test_a_damaged_stored_file_is_never_sent_and_the_others_arrive(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damaged, sound = store_result(tmp_path, 1), store_result(tmp_path, 2)
    damage(damaged.outgoing.path)
    with SimulatedPacs() as pacs:
        refused, delivered = deliver([damaged, sound], pacs.destination)

    assert (refused.state, refused.status) == (SendState.REFUSED, None)
    assert "restore" in refused.detail
    assert delivered.state is SendState.DELIVERED
    assert pacs.hashes == {sound.uid: {sound.sha256}}


def test_every_address_of_a_host_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def two_addresses(_host: str, port: int, **options: Any) -> list[Any]:
        return [info for host in ("127.0.0.2", "127.0.0.1") for info in look_up(host, port, **options)]

    with SimulatedPacs() as pacs:
        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
        (sent,) = deliver([store_result(tmp_path)], replace(pacs.destination, host="pacs.example"))

    assert sent.state is SendState.DELIVERED


def test_sending_nothing_asks_for_no_association() -> None:
    with SimulatedPacs() as pacs:
        assert deliver([], pacs.destination) == ()

    assert pacs.proposed == []


def test_64_kinds_of_object_fit_in_one_association_and_65_are_refused_before_it(tmp_path: Path) -> None:
    results = [store_result(tmp_path, n, sop_class_uid=f"1.2.840.10008.5.1.4.1.1.{n}") for n in range(1, 66)]
    with SimulatedPacs() as pacs:
        with pytest.raises(ValueError, match="at most 128"):
            deliver(results, pacs.destination)
        assert pacs.proposed == []
        sent = deliver(results[:64], pacs.destination)

    assert {result.state for result in sent} == {SendState.DELIVERED}
    assert len(pacs.proposed) == 1
