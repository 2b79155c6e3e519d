"""The demonstration's own PACS, sent to by the node's own delivery."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from dicom_node.delivery.dimse import DeliveryTimeouts, Requestor, SendResult, SendState, echo, send
from dicom_node.demo_pacs import ArchivedObject, DemoPacs
from tests.simulators.stored_objects import (
    COMPREHENSIVE_3D_SR,
    PATIENT_NAME,
    SEGMENTATION,
    StoredResult,
    store_result,
)

TIMEOUTS = DeliveryTimeouts(connect_s=60, acse_s=60, dimse_s=60)
MAMMOGRAPHY = "1.2.840.10008.5.1.4.1.1.1.2"


def deliver(results: list[StoredResult], pacs: DemoPacs) -> tuple[SendResult, ...]:
    return send(
        [result.outgoing for result in results],
        pacs.destination,
        Requestor("DICOM_NODE", TIMEOUTS),
        on_result=lambda _uid, _result: None,
    )


def test_it_keeps_every_class_and_syntax_as_readable_files_with_the_same_data_set(tmp_path: Path) -> None:
    kinds = [
        (COMPREHENSIVE_3D_SR, ExplicitVRLittleEndian),
        (SEGMENTATION, RLELossless),
        (MAMMOGRAPHY, JPEG2000Lossless),
    ]
    results = [
        store_result(tmp_path, n, sop_class_uid=sop_class, transfer_syntax_uid=syntax, payload_bytes=70_000)
        for n, (sop_class, syntax) in enumerate(kinds)
    ]
    told: list[ArchivedObject] = []
    with DemoPacs(tmp_path / "pacs" / "archive", on_stored=told.append) as pacs:
        sent = deliver(results, pacs)
        assert pacs.wait_for(3, timeout_s=60)
        archived = pacs.archived

    assert {result.state for result in sent} == {SendState.DELIVERED}
    assert tuple(told) == archived
    assert [(item.sop_class_uid, item.transfer_syntax_uid) for item in archived] == kinds
    for item, result in zip(archived, results, strict=True):
        data_set = dcmread(item.path)
        assert data_set.SOPInstanceUID == data_set.file_meta.MediaStorageSOPInstanceUID == result.uid
        assert data_set.file_meta.TransferSyntaxUID == item.transfer_syntax_uid
        content = item.path.read_bytes()
        start = content.index(b"\x08\x00\x16\x00UI")
        assert hashlib.sha256(content[start:]).hexdigest() == result.sha256


def test_its_file_names_come_from_the_class_and_never_from_the_sender(tmp_path: Path) -> None:
    result = store_result(tmp_path, sop_class_uid=SEGMENTATION)
    with DemoPacs(tmp_path / "archive") as pacs:
        deliver([result], pacs)

    names = [path.name for path in (tmp_path / "archive").iterdir()]

    assert names == ["0001-Segmentation.dcm"]
    assert PATIENT_NAME not in names[0]


def test_the_same_object_again_is_accepted_and_kept_once(tmp_path: Path) -> None:
    result = store_result(tmp_path)
    with DemoPacs(tmp_path / "archive") as pacs:
        states = [deliver([result], pacs)[0].state for _ in range(2)]

    assert states == [SendState.DELIVERED, SendState.DELIVERED]
    assert len(list((tmp_path / "archive").iterdir())) == 1


def test_other_bytes_under_a_known_uid_are_refused_and_the_first_stay(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, other = store_result(tmp_path), store_result(tmp_path / "other", payload_bytes=64)
    with DemoPacs(tmp_path / "archive") as pacs:
        deliver([first], pacs)
        (kept,) = pacs.archived
        before = kept.path.read_bytes()
        (sent,) = deliver([other], pacs)

    assert (sent.state, sent.status) == (SendState.REFUSED, 0x0117)
    assert kept.path.read_bytes() == before
    assert len(list((tmp_path / "archive").iterdir())) == 1


def test_waiting_for_objects_that_do_not_come_ends(tmp_path: Path) -> None:
    with DemoPacs(tmp_path) as pacs:
        assert pacs.wait_for(0, timeout_s=0)
        assert not pacs.wait_for(1, timeout_s=0.05)


def test_it_answers_echo_and_nothing_listens_once_it_has_ended(tmp_path: Path) -> None:
    with DemoPacs(tmp_path) as pacs:
        while_running = echo(pacs.destination, Requestor("DICOM_NODE", TIMEOUTS))
    afterwards = echo(pacs.destination, Requestor("DICOM_NODE", TIMEOUTS))

    assert while_running.ok
    assert not afterwards.ok
