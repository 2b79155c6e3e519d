"""Destinations that take the default transfer syntax alone (PS3.5 10.1) get the results, too."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dicom_node.delivery.destination import Destination
from dicom_node.delivery.dimse import DeliveryTimeouts, Outgoing, Requestor, SendState, echo, send
from dicom_node.results.builders import build_all
from tests import results_contexts as given
from tests.free_ports import free_port
from tests.programs import needs
from tests.running_node import until
from tests.simulators.pacs import SimulatedPacs
from tests.simulators.stored_objects import SEGMENTATION, store_result

PATIENCE_S = 60
NODE = Requestor("DICOM_NODE", DeliveryTimeouts(PATIENCE_S, PATIENCE_S, PATIENCE_S))


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[Destination]:
    """Run DCMTK's storage SCP."""
    needs("/usr/bin/storescp", "dcmtk")
    archive = Destination("ARCHIVE", "127.0.0.1", free_port())
    command = ["/usr/bin/storescp", *options, "--output-directory", str(folder), str(archive.port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: echo(archive, NODE).ok, PATIENCE_S, "an answer of storescp")
            yield archive
        finally:
            process.terminate()


def test_dcmtk_that_takes_implicit_vr_alone_gets_every_value_of_every_object(tmp_path: Path) -> None:
    built, files, archive = build_all(given.positive()), tmp_path / "results", tmp_path / "archive"
    files.mkdir()
    archive.mkdir()
    outgoing = []
    for ordinal, item in enumerate(built):
        path = files / f"{ordinal}.dcm"
        path.write_bytes(item.content)
        outgoing.append(Outgoing(item.sop_instance_uid, item.sop_class_uid, item.transfer_syntax_uid, path))
    with storescp(archive, "--implicit", "+B") as destination:
        results = send(outgoing, destination, NODE, on_result=lambda _uid, _result: None)

    assert {(result.state, result.status) for result in results} == {(SendState.DELIVERED, 0x0000)}
    arrived = {str(each.SOPInstanceUID): each for each in map(dcmread, archive.iterdir())}
    assert {each.file_meta.TransferSyntaxUID for each in arrived.values()} == {ImplicitVRLittleEndian}
    sent = {item.sop_instance_uid: dcmread(BytesIO(item.content)) for item in built}
    for each in sent.values():
        if "PixelData" in each:
            each["PixelData"].VR = "OW"  # PS3.5 A.1: whatever it was before
    assert arrived == sent


def test_a_destination_that_takes_both_gets_the_stored_bytes(tmp_path: Path) -> None:
    result = store_result(tmp_path)
    syntaxes = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian})
    with SimulatedPacs(transfer_syntax_uids=syntaxes) as pacs:
        send([result.outgoing], pacs.destination, NODE, on_result=lambda _uid, _result: None)

    assert pacs.hashes == {result.uid: {result.sha256}}


def test_a_compressed_object_is_refused_where_the_default_transfer_syntax_alone_is_taken(
    tmp_path: Path,
) -> None:
    plain = store_result(tmp_path, 1, sop_class_uid=SEGMENTATION)
    compressed = store_result(tmp_path, 2, sop_class_uid=SEGMENTATION, transfer_syntax_uid=RLELossless)
    with SimulatedPacs(transfer_syntax_uids=frozenset({ImplicitVRLittleEndian})) as pacs:
        results = send(
            [compressed.outgoing, plain.outgoing],
            pacs.destination,
            NODE,
            on_result=lambda _uid, _result: None,
        )

    assert [result.state for result in results] == [SendState.REFUSED, SendState.DELIVERED]
    assert [stored.sop_instance_uid for stored in pacs.stored] == [plain.uid]


def test_a_damaged_result_is_not_rewritten_into_a_sound_one(tmp_path: Path) -> None:
    result = store_result(tmp_path)
    path = result.outgoing.path
    path.write_bytes(path.read_bytes()[:-3])
    with SimulatedPacs(transfer_syntax_uids=frozenset({ImplicitVRLittleEndian})) as pacs:
        (refused,) = send([result.outgoing], pacs.destination, NODE, on_result=lambda _uid, _result: None)

    assert refused.state is SendState.REFUSED
    assert "restore" in refused.detail
    assert pacs.stored == ()
