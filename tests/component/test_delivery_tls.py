"""Delivery over TLS: results go to the destination that proves its name, and to nobody else."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset

from dicom_node.delivery.connection import Deadline, connect
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.dimse import DeliveryTimeouts, Outgoing, Requestor, SendResult, echo, send
from dicom_node.delivery.status import SendState
from dicom_node.tls import ServerTls
from tests.free_ports import free_port
from tests.listening import EXPLICIT_LITTLE, MG_FOR_PRESENTATION, encoded, listening, mammogram
from tests.programs import needs
from tests.running_node import until
from tests.simulators.certificates import Authority

TIMEOUTS = DeliveryTimeouts(connect_s=60, acse_s=60, dimse_s=60)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def outgoing(tmp_path: Path) -> Outgoing:
    dataset = mammogram()
    encoded(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    path = tmp_path / "outgoing.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return Outgoing(dataset.SOPInstanceUID, MG_FOR_PRESENTATION, EXPLICIT_LITTLE, path)


def deliver(
    item: Outgoing, port: int, context: ssl.SSLContext | None, timeouts: DeliveryTimeouts = TIMEOUTS
) -> SendResult:
    (result,) = send(
        [item],
        Destination("NODE", "127.0.0.1", port),
        Requestor("DICOM_NODE", timeouts, lambda _: context),
        on_result=lambda _uid, _result: None,
    )
    return result


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_d1_an_object_is_delivered_over_each_allowed_version(
    authority: Authority, outgoing: Outgoing, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = authority.issue("node").client_context()
    context.minimum_version = context.maximum_version = version
    with listening(tmp_path, tls=ServerTls(authority.issue("pacs", "127.0.0.1"))) as pacs:
        asked = echo(
            Destination("NODE", "127.0.0.1", pacs.port),
            Requestor("DICOM_NODE", TIMEOUTS, lambda _: context),
        )
        assert asked.ok, asked.detail
        assert deliver(outgoing, pacs.port, context).state is SendState.DELIVERED
        assert [row.sop_instance_uid for row in pacs.rows.all] == [outgoing.sop_instance_uid]


def test_what_came_along_with_an_answer_is_not_missed(authority: Authority) -> None:
    """A report right behind the response to its request, in one record, leaves the line itself empty."""
    release = struct.pack(">BxI4x", 5, 4)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def send_two_at_once() -> None:
            line, _ = server.accept()
            context = ServerTls(authority.issue("pacs", "127.0.0.1")).context()
            with context.wrap_socket(line, server_side=True) as secured:
                secured.sendall(release * 2)
                secured.recv(1)

        sending = pool.submit(send_two_at_once)
        destination = Destination("PACS", *server.getsockname())
        connection = connect(destination, 60, authority.issue("node").client_context())
        assert connection.receive_pdu(Deadline(60)) == (5, release)
        assert connection.has_input(0.0)
        assert connection.receive_pdu(Deadline(60)) == (5, release)
        connection.close()
        sending.result(60)


@pytest.mark.parametrize(
    ("pacs_is", "words"),
    [
        ("another host", "IP address mismatch"),
        ("expired", "certificate has expired"),
        ("of another authority", "self-signed certificate in certificate chain"),
        ("self-signed", "self-signed certificate"),
    ],
)
def test_d2_nothing_is_sent_to_a_destination_that_does_not_prove_its_name(
    authority: Authority, outgoing: Outgoing, tmp_path: Path, pacs_is: str, words: str
) -> None:
    made = {
        "another host": lambda: authority.issue("pacs", "10.9.8.7"),
        "expired": lambda: authority.issue("pacs", "127.0.0.1", days=-1),
        "of another authority": lambda: Authority(tmp_path / "other", "other").issue("pacs", "127.0.0.1"),
        "self-signed": lambda: authority.issue("pacs", "127.0.0.1", signs_itself=True),
    }
    with listening(tmp_path, tls=ServerTls(made[pacs_is]())) as pacs:
        result = deliver(outgoing, pacs.port, authority.issue("node").client_context())
        assert result.state is SendState.TRY_AGAIN
        assert not result.associated
        assert words in result.detail
        assert pacs.stored_nothing()


def test_d2_a_destination_that_refuses_the_nodes_certificate_is_tried_again(
    authority: Authority, outgoing: Outgoing, tmp_path: Path
) -> None:
    with listening(tmp_path, tls=ServerTls(authority.issue("pacs", "127.0.0.1"))) as pacs:
        result = deliver(outgoing, pacs.port, authority.issue("node", days=-1).client_context())
        assert result.state is SendState.TRY_AGAIN
        assert "ended the secure connection" in result.detail
        assert "certificate expired" in result.detail
        assert pacs.stored_nothing()


def test_a_destination_that_speaks_no_tls_gets_nothing_in_the_clear(
    authority: Authority, outgoing: Outgoing, tmp_path: Path
) -> None:
    with listening(tmp_path) as pacs:
        result = deliver(outgoing, pacs.port, authority.issue("node").client_context())
        assert (result.state, result.associated) == (SendState.TRY_AGAIN, False)
        assert "takes TLS on this port" in result.detail
        assert pacs.stored_nothing()


def test_a_destination_that_keeps_silent_in_the_handshake_is_given_up_in_time(
    authority: Authority, outgoing: Outgoing
) -> None:
    hurried = replace(TIMEOUTS, connect_s=1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        context = authority.issue("node").client_context()
        result = deliver(outgoing, silent.getsockname()[1], context, hurried)
    assert "took too long" in result.detail
    assert (result.state, result.associated) == (SendState.TRY_AGAIN, False)


def test_d1_dcmtk_takes_results_over_its_bcp195_profile(
    authority: Authority, outgoing: Outgoing, tmp_path: Path
) -> None:
    needs("storescp", "dcmtk")
    files, port = authority.issue("pacs", "127.0.0.1"), free_port()
    secure = ["+tls", files.private_key, files.certificate, "+cf", files.authority]
    folder = tmp_path / "received"
    folder.mkdir()
    process = subprocess.Popen(
        ["/usr/bin/storescp", *secure, "-od", folder, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        context = authority.issue("node").client_context()
        until(lambda: deliver(outgoing, port, context).state is SendState.DELIVERED, 60, "DCMTK's start")
    finally:
        process.terminate()
        process.wait(60)
    (stored,) = folder.iterdir()
    assert outgoing.sop_instance_uid.encode() in stored.read_bytes()
