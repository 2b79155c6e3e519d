"""The direct way of objects: any fragmentation, any size, constant memory; and its seams with pynetdicom."""

from __future__ import annotations

import inspect
import os
import queue
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pynetdicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node.listener import reports
from dicom_node.listener.command import Request
from dicom_node.listener.services import Answer, Peer, Report, Service
from dicom_node.spool_writer import BLOCK_BYTES
from tests.listening import (
    EXPLICIT_LITTLE,
    MG_FOR_PRESENTATION,
    encoded,
    listening,
    mammogram,
    uid_of,
)
from tests.simulators.pdu_bytes import elements, response_pdu
from tests.simulators.raw_scu import VERIFICATION, Proposal, RawScu, p_data

C_STORE_RQ = 0x0001
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP = 0x0100, 0x8100
N_ACTION_RQ = 0x0130
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"

RECEIVE_A_LARGE_OBJECT = """
import resource, sys
from pathlib import Path
from pynetdicom.presentation import build_context
from dicom_node.listener.services import Service
from tests.listening import EXPLICIT_LITTLE, MG_FOR_PRESENTATION, encoded, listening, mammogram, uid_of
from tests.simulators.raw_scu import Proposal, RawScu

FRAMES, FRAME = 48, bytes(8 << 20)
proposals = [Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)]
services = []
if sys.argv[2] == "beside":
    proposals.append(Proposal("1.2.840.10008.1.20.1", EXPLICIT_LITTLE))
    services.append(Service(build_context(proposals[1].abstract_syntax, [EXPLICIT_LITTLE]), print, 1000))
with listening(Path(sys.argv[1]), services=services) as node, RawScu(node.port, *proposals) as scu:
    assert scu.results == [0] * len(proposals)
    small = mammogram(1)
    scu.store(encoded(small), MG_FOR_PRESENTATION, uid_of(small))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dataset = mammogram(2, Rows=2048, Columns=2048, NumberOfFrames=FRAMES, PixelData=b"")
    head = encoded(dataset)[:-4] + (FRAMES * len(FRAME)).to_bytes(4, "little")
    scu.send_command(1, MG_FOR_PRESENTATION, uid_of(dataset))
    scu.send_data(head, is_whole=False)
    for frame in range(FRAMES):
        scu.send_data(FRAME, is_whole=frame == FRAMES - 1)
    scu.socket.settimeout(500)  # a slow disk syncs all of it
    status = scu.read_status()
    size = node.rows.all[1].size_bytes
    assert size == len(head) + FRAMES * len(FRAME)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{status:04X} {after - before}")
"""


def fragments(data: bytes, sizes: tuple[int, ...], *, per_pdu: int) -> bytes:
    """Cut a data set into fragments of the given sizes, so many in each P-DATA-TF PDU."""
    values, start, index = [], 0, 0
    while start < len(data):
        size = sizes[index % len(sizes)]
        part = data[start : start + size]
        start, index = start + size, index + 1
        control = 0x02 if start >= len(data) else 0x00
        values.append(struct.pack(">IBB", len(part) + 2, 1, control) + part)
    pdus = [b"".join(values[first : first + per_pdu]) for first in range(0, len(values), per_pdu)]
    return b"".join(struct.pack(">BxI", 4, len(pdu)) + pdu for pdu in pdus)


@pytest.mark.parametrize(
    ("sizes", "per_pdu"),
    [
        pytest.param((1,), 1, id="one byte each"),
        pytest.param((2, 0, 3000), 3, id="empty ones, three in a PDU"),
        pytest.param((65_530, 7), 2, id="around the control buffer"),
        pytest.param((900_000,), 1, id="large"),
    ],
)
def test_any_fragmentation_gives_the_same_file(tmp_path: Path, sizes: tuple[int, ...], per_pdu: int) -> None:
    rows = 64 if sizes == (1,) else 12_000  # the latter needs two blocks of the buffer
    dataset = mammogram(Rows=rows, PixelData=os.urandom(rows * 96))
    data = encoded(dataset)
    with listening(tmp_path) as node, node.scu() as scu:
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
        scu.socket.sendall(fragments(data, sizes, per_pdu=per_pdu))
        assert scu.read_status() == 0x0000
        assert node.content().endswith(data)


@pytest.mark.parametrize("around", [-1, 0, 1])
def test_an_object_that_fills_the_buffer_is_whole(tmp_path: Path, around: int) -> None:
    with listening(tmp_path) as node, node.scu() as scu:
        small = mammogram(1)
        assert scu.store(encoded(small), MG_FOR_PRESENTATION, uid_of(small)) == 0x0000
        head = node.files()[0].stat().st_size - len(encoded(small))
        described = len(encoded(mammogram(2, PixelData=b"")))
        length = BLOCK_BYTES - head - described + 2 * around
        dataset = mammogram(2, Rows=1, Columns=1, PixelData=os.urandom(length))
        data = encoded(dataset)
        assert scu.store(data, MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000
        assert len(node.content(1)) - BLOCK_BYTES == 2 * around
        assert node.content(1).endswith(data)


def test_a_command_in_pieces_and_a_data_set_behind_it_in_one_pdu_are_understood(tmp_path: Path) -> None:
    with listening(tmp_path) as node, RawScu(node.port, Proposal(VERIFICATION, "1.2.840.10008.1.2")) as scu:
        body = (
            struct.pack("<HHI18s", 0, 2, 18, VERIFICATION.encode() + b"\0")
            + struct.pack("<HHIH", 0, 0x0100, 2, 0x0030)
            + struct.pack("<HHIH", 0, 0x0110, 2, 7)
            + struct.pack("<HHIH", 0, 0x0800, 2, 0x0101)
        )
        command = struct.pack("<HHII", 0, 0, 4, len(body)) + body
        for index in range(len(command)):
            is_last = index == len(command) - 1
            scu.socket.sendall(p_data(command[index : index + 1], 1, 0x03 if is_last else 0x01))
        assert scu.read_status() == 0x0000
        scu.release()


def test_an_echo_in_the_context_of_another_service_is_refused(tmp_path: Path) -> None:
    with listening(tmp_path) as node, node.scu(MG_FOR_PRESENTATION) as scu:
        assert scu.echo() == 0x0122


def test_a_refused_large_object_is_read_to_its_end_and_the_association_goes_on(tmp_path: Path) -> None:
    good, bad = mammogram(1), mammogram(2, Rows=12_000, PixelData=bytes(12_000 * 96 - 2))
    with listening(tmp_path) as node, node.scu() as scu:
        assert scu.store(encoded(bad), MG_FOR_PRESENTATION, uid_of(bad)) == 0xC000
        assert node.stored_nothing()
        assert scu.store(encoded(good), MG_FOR_PRESENTATION, uid_of(good)) == 0x0000


def test_a_disk_that_fails_in_the_middle_keeps_the_association(tmp_path: Path) -> None:
    large, small = mammogram(1, Rows=30_000, PixelData=bytes(30_000 * 96)), mammogram(2)
    with listening(tmp_path) as node, node.scu() as scu:
        shards = [path for path in node.spool.root.iterdir() if path.is_dir()]
        for shard in shards:
            shard.rmdir()
        assert scu.store(encoded(large), MG_FOR_PRESENTATION, uid_of(large)) == 0xA700
        assert node.rows.all == []
        for shard in shards:
            shard.mkdir(mode=0o700)
        assert scu.store(encoded(small), MG_FOR_PRESENTATION, uid_of(small)) == 0x0000


@pytest.mark.parametrize(
    "pdu",
    [
        pytest.param(struct.pack(">BxI", 4, 3) + bytes(3), id="an item cut short"),
        pytest.param(struct.pack(">BxIIBB", 4, 6, 1, 1, 0), id="an item of length 1"),
        pytest.param(struct.pack(">BxIIBB", 4, 6, 2000, 1, 0), id="an item longer than its PDU"),
        pytest.param(p_data(b"1234", 1, 0x02), id="a data set without a command"),
        pytest.param(p_data(b"1234", 1, 0x03), id="a command that is none"),
        pytest.param(struct.pack(">BxI", 2, 0), id="an answer to a request that was none"),
        pytest.param(struct.pack(">BxI", 9, 0), id="a PDU that the standard does not know"),
    ],
)
def test_what_has_no_place_in_an_association_aborts_it(tmp_path: Path, pdu: bytes) -> None:
    with listening(tmp_path) as node, node.scu() as scu:
        scu.socket.sendall(pdu)
        scu.wait_for_end()
        assert node.event_happened.wait(60)
        assert [action for action, _ in node.events] == ["association.aborted"]
        assert node.stored_nothing()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(lambda scu: scu.socket.sendall(struct.pack(">BxIxxxx", 0x05, 4)), id="a release"),
        pytest.param(lambda scu: scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, "2.25.9"), id="a request"),
        pytest.param(lambda scu: scu.send_data(bytes(8), 3), id="the rest in another syntax"),
    ],
)
def test_what_has_no_place_in_the_middle_of_an_object_aborts_it(
    tmp_path: Path, said: Callable[[RawScu], object]
) -> None:
    dataset = mammogram()
    proposals = (Proposal(MG_FOR_PRESENTATION, syntax) for syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE))
    with listening(tmp_path) as node, RawScu(node.port, *proposals) as scu:
        assert scu.results == [0, 0]
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
        scu.send_data(encoded(dataset)[:500], is_whole=False)
        said(scu)
        scu.wait_for_end()
        assert node.stored_nothing()


def test_the_time_that_the_node_takes_for_an_object_is_not_its_senders(tmp_path: Path) -> None:
    most_s = 0.5
    with listening(tmp_path, message_timeout_s=most_s) as node, node.scu() as scu:
        for ordinal, needed_s in enumerate((1.2 * most_s, 0.0)):
            node.rows.before = partial(threading.Event().wait, needed_s)
            dataset = mammogram(ordinal)
            assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("others", ["alone", "beside"])
def test_memory_does_not_grow_with_the_object(tmp_path: Path, others: str) -> None:
    if shutil.disk_usage(tmp_path).free < 2 << 30:
        pytest.skip("less than 2 GB of disk")
    done = subprocess.run(
        [sys.executable, "-c", RECEIVE_A_LARGE_OBJECT, str(tmp_path), others],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, grown_kib = done.stdout.splitlines()[-1].split()
    assert status == "0000"
    # 384 MiB came in; the test's own frame and one buffer are the rest.
    assert int(grown_kib) < 32 * 1024


class Promised:
    """A promise that notes what became of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ends: list[int | None] = []
        self.has_ended = threading.Event()

    def report(self) -> Report | None:
        return Report(STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, 1, self.content)

    def ended(self, status: int | None) -> None:
        self.ends.append(status)
        self.has_ended.set()


@dataclass
class Asked:
    """A service that notes what it was asked and promises a report."""

    promise: Promised | None = None
    may_leave_s: float = 0.05
    before_answer: Callable[[], object] = lambda: None
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    def service(self) -> Service:
        context = build_context(STORAGE_COMMITMENT, [IMPLICIT_LITTLE])
        context.scu_role, context.scp_role = True, True
        return Service(context, self._requested, 100_000, self.may_leave_s)

    def _requested(self, peer: Peer, request: Request, content: bytes) -> Answer:
        self.requests.append((f"{peer.calling_ae_title} {request.field:04X} {request.type_id}", content))
        self.before_answer()
        return Answer(0x0000, self.promise)


def asker(port: int, *handlers: object) -> Association:
    entity = AE("SENDER")
    entity.add_requested_context(STORAGE_COMMITMENT, IMPLICIT_LITTLE)
    entity.add_requested_context(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)
    association = entity.associate("127.0.0.1", port, max_pdu=4096, evt_handlers=list(handlers))
    assert association.is_established
    return association


def request_of(comment: str) -> Dataset:
    dataset = Dataset()
    dataset.RetrieveURL = comment
    return dataset


def storable(ordinal: int) -> Dataset:
    dataset = mammogram(ordinal)
    dataset.file_meta = pynetdicom.dsutils.create_file_meta(
        sop_class_uid=MG_FOR_PRESENTATION, sop_instance_uid=uid_of(dataset), transfer_syntax=EXPLICIT_LITTLE
    )
    return dataset


def ask(scu: RawScu) -> None:
    """Send an N-ACTION request without a data set, and wait for nothing."""
    uids = {0x0003: STORAGE_COMMITMENT, 0x1001: STORAGE_COMMITMENT_INSTANCE}
    more = {number: uid.encode() + b"\0" * (len(uid) % 2) for number, uid in uids.items()}
    more[0x1008] = struct.pack("<H", 1)
    scu.send_command(N_ACTION_RQ, STORAGE_COMMITMENT, None, has_data=False, more=more)


def reported_to(scu: RawScu) -> int:
    """Ask, wait for the report of it, a command and its data set, and return its Message ID."""
    ask(scu)
    assert scu.read_status() == 0x0000
    _, command = scu.read_pdu()
    scu.read_pdu()
    (message_id,) = struct.unpack("<H", elements(command[6:])[0x0110])
    return int(message_id)


def test_another_service_is_served_with_storage_beside_it(tmp_path: Path) -> None:
    asked = Asked()
    with listening(tmp_path, services=[asked.service()]) as node:
        association = asker(node.port)
        for ordinal, comment in enumerate(("short", "x" * 50_000), 1):
            status, _ = association.send_n_action(
                request_of(comment), ordinal, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
            )
            assert status.Status == 0x0000
            assert association.send_c_store(storable(ordinal)).Status == 0x0000
        association.release()
        assert association.is_released
        assert [line for line, _ in asked.requests] == ["SENDER 0130 1", "SENDER 0130 2"]
        assert [len(content) for _, content in asked.requests] == [8 + 6, 8 + 50_000]
        assert len(node.rows.all) == 2


@pytest.mark.parametrize("size", [10, 9_000])
def test_a_promised_report_goes_out_in_the_silence_after_its_request(tmp_path: Path, size: int) -> None:
    reports = queue.SimpleQueue[Dataset]()

    def take(event: evt.Event) -> tuple[int, None]:
        reports.put(event.event_information)
        return 0x0107, None

    content = struct.pack("<HHL", 0x0008, 0x1190, size) + b"y" * size
    asked = Asked(Promised(content))
    with listening(tmp_path, services=[asked.service()]) as node:
        association = asker(node.port, (evt.EVT_N_EVENT_REPORT, take))
        association.send_n_action(request_of("a"), 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        assert reports.get(timeout=60).RetrieveURL == "y" * size
        # The node goes on to serve while and after it is answered.
        assert association.send_c_store(storable(1)).Status == 0x0000
        association.release()
        assert association.is_released
    assert asked.promise is not None
    assert asked.promise.ends == [0x0107]


def test_a_peer_that_releases_before_its_report_gets_its_release_answered(tmp_path: Path) -> None:
    asked = Asked(Promised(b""), may_leave_s=30)
    with listening(tmp_path, services=[asked.service()]) as node:
        association = asker(node.port)
        association.send_n_action(request_of("a"), 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        association.release()
        assert association.is_released
    assert asked.promise is not None
    assert asked.promise.ends == [None]


def test_a_promise_to_a_peer_that_left_before_its_answer_ends(tmp_path: Path) -> None:
    asked_for, left = threading.Event(), threading.Event()

    def wait_until_it_left() -> None:
        asked_for.set()
        assert left.wait(60)

    asked = Asked(Promised(b""), before_answer=wait_until_it_left)
    with listening(tmp_path, services=[asked.service()]) as node:
        scu = RawScu(node.port, Proposal(STORAGE_COMMITMENT, IMPLICIT_LITTLE))
        ask(scu)
        assert asked_for.wait(60)
        scu.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        scu.socket.close()  # resets the connection
        left.set()
        assert node.event_happened.wait(60)
    assert asked.promise is not None
    assert asked.promise.ends == [None]


def test_a_promise_to_a_peer_that_left_without_an_answer_to_its_report_ends(tmp_path: Path) -> None:
    asked = Asked(promise := Promised(b"report"))
    with listening(tmp_path, services=[asked.service()]) as node:
        with RawScu(node.port, Proposal(STORAGE_COMMITMENT, IMPLICIT_LITTLE)) as scu:
            reported_to(scu)
            scu.release()
        assert promise.has_ended.wait(60)
    assert promise.ends == [None]


def test_no_report_goes_out_in_the_middle_of_an_object(tmp_path: Path) -> None:
    sent = threading.Event()
    asked = Asked(Promised(b"report"), may_leave_s=0.05, before_answer=lambda: sent.wait(60))
    data = encoded(dataset := mammogram())
    proposals = Proposal(STORAGE_COMMITMENT, IMPLICIT_LITTLE), Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)
    with listening(tmp_path, services=[asked.service()]) as node, RawScu(node.port, *proposals) as scu:
        ask(scu)
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset), 3)
        scu.send_data(data[:500], 3, is_whole=False)
        sent.set()
        assert scu.read_status() == 0x0000
        scu.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            scu.read_pdu()
        scu.socket.settimeout(60)
        scu.send_data(data[500:], 3)
        assert scu.read_status() == 0x0000, "the object's own answer comes first"


def test_an_answer_that_comes_too_late_is_none_to_the_next_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(promise := Promised(b"report"))
    with (
        listening(tmp_path, services=[asked.service()]) as node,
        RawScu(node.port, Proposal(STORAGE_COMMITMENT, IMPLICIT_LITTLE)) as scu,
    ):
        monkeypatch.setattr(reports, "_ANSWERED_WITHIN_S", 0.05)
        first = reported_to(scu)
        assert promise.has_ended.wait(60), "it is waited for no longer"
        monkeypatch.setattr(reports, "_ANSWERED_WITHIN_S", 60.0)
        second = reported_to(scu)
        for message_id, status in ((first, 0x0000), (second, 0x0107)):
            uids = STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
            scu.socket.sendall(response_pdu(1, N_EVENT_REPORT_RSP, message_id, *uids, status))
        scu.release()
    assert promise.ends == [None, 0x0107]


def test_a_data_set_that_is_longer_than_a_service_reads_ends_the_association(tmp_path: Path) -> None:
    asked = Asked()
    with listening(tmp_path, services=[asked.service()]) as node:
        association = asker(node.port)
        status, _ = association.send_n_action(
            request_of("x" * 200_000), 1, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        assert "Status" not in status
        assert node.event_happened.wait(60)
        assert node.events[0][1]["reason"] == "a data set is longer than the service reads"
        assert asked.requests == []


def test_a_report_of_a_peer_that_was_not_given_the_role_ends_the_association(tmp_path: Path) -> None:
    asked = Asked()
    with listening(tmp_path, services=[asked.service()]) as node:
        with RawScu(node.port, Proposal(STORAGE_COMMITMENT, IMPLICIT_LITTLE)) as scu:
            event_type = {0x1002: struct.pack("<H", 1)}
            scu.send_command(
                N_EVENT_REPORT_RQ,
                STORAGE_COMMITMENT,
                STORAGE_COMMITMENT_INSTANCE,
                has_data=False,
                more=event_type,
            )
            scu.wait_for_end()
        assert asked.requests == []


def test_a_service_that_is_not_offered_is_rejected_as_a_context(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        proposals = (
            Proposal(STORAGE_COMMITMENT, EXPLICIT_LITTLE),
            Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE),
        )
        with RawScu(node.port, *proposals) as scu:
            assert sorted(scu.results) == [0, 3]
            scu.release()


def test_the_seams_with_pynetdicom_are_where_they_were() -> None:
    """What dicom_node.listener.association, upper_layer and transport replace or call by name."""
    assert pynetdicom.__version__ == "3.0.4"
    association = Association(AE(), "acceptor")
    assert association.dul.run_reactor
    assert {"dul", "acse", "requestor", "acceptor", "_sent_abort"} <= set(vars(association))
    reactor = inspect.getsource(Association.run_reactor)
    assert "self.dul.receive_pdu(" in reactor
    assert "evt.trigger(self, evt.EVT_REQUESTED" in reactor
    assert "self.acse.negotiate_association()" in reactor
    negotiation = inspect.getsource(ACSE._negotiate_as_acceptor)
    assert "self.acceptor.supported_contexts" in negotiation
    assert "self.assoc._accepted_cx" in negotiation
    for sending in (ACSE.send_accept, ACSE.send_reject, ACSE.send_abort):
        assert "self.dul.send_pdu(primitive)" in inspect.getsource(sending)
    assert "assoc.start()" in inspect.getsource(RequestHandler.handle)
    assert "self._create_association()" in inspect.getsource(RequestHandler.handle)
    assert "AcceptorThread" in inspect.getsource(ThreadedAssociationServer.active_associations.fget)
