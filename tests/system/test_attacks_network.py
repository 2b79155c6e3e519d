"""T1 to T19 against the real listener process: what strangers send, what it costs, and who else notices.

The numbers are those of the node's own limits; what each attack may cost in memory, threads, descriptors and
other peers' waiting is asserted by :func:`tests.attacks.attacked`.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from sqlalchemy import select

from db.tables import AuditEvent, Study
from dicom_node.listener.group_commit import MOST_TOGETHER
from dicom_node.listener.owed_rows import MOST_OWED
from dicom_node.listener.quarantine import Quarantine
from tests.attacks import GOOD_ADDRESS, GOOD_TITLE, Bystander, attacked
from tests.free_ports import free_port
from tests.listening import EXPLICIT_LITTLE, MG_FOR_PRESENTATION, encoded, mammogram, uid_of
from tests.running_node import RunningNode, until
from tests.simulators.certificates import Authority
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

pytestmark = pytest.mark.timeout(600)

ATTACKER = "ATTACKER"
C_STORE_RQ, C_STORE_RSP, C_CANCEL_RQ, N_EVENT_REPORT_RQ = 0x0001, 0x8001, 0x0FFF, 0x0100
DEFLATED = "1.2.840.10008.1.2.1.99"
MIB = 1 << 20
LATE_S = 2.0  # a second for the tick by which the node looks at its clocks, and one for a busy machine


@dataclass
class Ward:
    """A real listener with a plain and a secure port, and one who attacks it."""

    node: RunningNode
    process: subprocess.Popen[bytes]
    tls_port: int
    authority: Authority

    @property
    def port(self) -> int:
        """The plain port."""
        return self.node.address.port

    def attacker(
        self, *, calling: str = ATTACKER, called: str = "DICOM_NODE", source: str = "127.0.0.1"
    ) -> RawScu:
        """An association that the node has no reason to refuse yet."""
        proposals = (Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE), Proposal(VERIFICATION, IMPLICIT_LITTLE))
        return RawScu(self.port, *proposals, calling=calling, called=called, source=source)

    def bystander(self) -> Bystander:
        """A good peer of the plain port."""
        return Bystander(self.port)

    def kept(self) -> list[str]:
        """Every file that the node has; those of the database and the quarantine, and logs, apart."""
        return sorted(
            str(path)
            for path in self.node.folder.rglob("*")
            if path.is_file()
            and not path.name.startswith("node.db")
            and path.suffix != ".log"
            and path.parent.name != "quarantine"
        )

    def reasons(self, action: str) -> list[str]:
        """The reasons in its audit events of one kind."""
        with self.node.database.reading() as session:
            details = session.scalars(select(AuditEvent.detail).where(AuditEvent.action == action))
            return [json.loads(detail)["reason"] for detail in details]


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("attacks")
    authority, tls_port = Authority(folder / "tls"), free_port()
    files = authority.issue("node", "127.0.0.1")
    settings = {
        "listener": {
            "minimum_free_bytes": 0,
            "max_associations": 12,
            "max_associations_per_peer": 10,
            "max_object_bytes": 8 * MIB,
            "network_timeout_s": 6.0,
            "message_timeout_s": 8.0,
            "require_called_ae_title": True,
            "tls": {
                "port": tls_port,
                "certificate": str(files.certificate),
                "private_key": str(files.private_key),
                "authority": str(files.authority),
            },
        },
        "callers": [
            {"title": ATTACKER, "addresses": ["127.0.0.1", "127.0.1.0/24"]},
            {"title": GOOD_TITLE, "addresses": [GOOD_ADDRESS]},
        ],
    }
    with RunningNode(folder, settings=settings) as node:
        process = node.start("listen")
        node.wait_for_processes({"listen"})
        yield Ward(node, process, tls_port, authority)


@pytest.mark.parametrize(
    "uid",
    ["../../../../pwned", "/etc/pwned", "1.2\0pwned", "1.2\npwned", "1.2\x1b[2J", "1" * 70, "1.02.pwned"],
    ids=repr,
)
def test_t1_no_uid_becomes_a_path(ward: Ward, uid: str) -> None:
    before = ward.kept()
    dataset = mammogram()
    body = encoded(dataset)
    with ward.attacker() as scu:
        try:
            status = scu.store(body, MG_FOR_PRESENTATION, uid)
        except AssociationEndedError:
            status = None
    assert status in (None, 0xA900, 0xC000)
    hostile = mammogram()
    hostile["SOPInstanceUID"]._value = uid
    with ward.attacker() as scu:
        assert scu.store(encoded(hostile), MG_FOR_PRESENTATION, uid_of(dataset)) in (0xA900, 0xC000)
    for element in ("StudyInstanceUID", "SeriesInstanceUID"):
        hostile = mammogram()
        hostile[element]._value = uid
        with ward.attacker() as scu:
            assert scu.store(encoded(hostile), MG_FOR_PRESENTATION, uid_of(hostile)) == 0xC000
    assert ward.kept() == before
    assert not list(Path("/").glob("pwned*")) + list(Path("/etc").glob("pwned*"))


@pytest.mark.parametrize("uid", ["", None])
def test_t2_a_request_without_an_instance_is_answered_before_any_time_out(
    ward: Ward, uid: str | None
) -> None:
    with ward.attacker() as scu:
        started = time.monotonic()
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid)
        scu.send_data(encoded(mammogram()))
        with pytest.raises((AssociationEndedError, AssertionError)):
            assert scu.read_status() == 0x0000
        assert time.monotonic() - started < 1.0, "none of the node's time-outs had to end it"


def test_t3_an_object_that_is_not_the_one_announced_makes_no_work(ward: Ward) -> None:
    before = ward.kept()
    dataset = mammogram()
    other_class = mammogram(SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    with ward.attacker() as scu:
        assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, "2.25.4711") == 0xA900
        assert scu.store(encoded(dataset), "1.2.840.10008.5.1.4.1.1.2", uid_of(dataset)) == 0xA900
        assert scu.store(encoded(other_class), MG_FOR_PRESENTATION, uid_of(dataset)) == 0xA900
    assert ward.node.studies() == []
    assert ward.kept() == before


def test_t1_what_was_wrong_with_a_uid_is_audited_and_the_uid_is_not(ward: Ward) -> None:
    hostile = mammogram()
    hostile["SeriesInstanceUID"]._value = "../../../../SECRET"
    with ward.attacker(source="127.0.1.5") as scu:
        assert scu.store(encoded(hostile), MG_FOR_PRESENTATION, uid_of(hostile)) == 0xC000
    assert "Series Instance UID is not valid" in " ".join(ward.reasons("instance.refused"))
    with ward.node.database.reading() as session:
        assert "SECRET" not in "".join(session.scalars(select(AuditEvent.payload))) + ward.node.log


def test_t4_every_way_to_stall_is_ended_in_time_and_costs_no_one_else(ward: Ward) -> None:
    """Silent, half a header, a withheld body, a byte a second, half a P-DATA, half an object: all at once.

    The node's own deadlines are those that it has without any setting, but for the object's, which is 8 s.
    """
    request = associate_request((Proposal(VERIFICATION, IMPLICIT_LITTLE),), ATTACKER, "DICOM_NODE")

    def plain(first_bytes: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", ward.port))
        connection.sendall(first_bytes)
        return connection

    def established(then: bytes) -> socket.socket:
        scu = ward.attacker()
        scu.socket.sendall(then)
        return scu.socket

    def wait(line: socket.socket) -> float:
        """How long it took until the node said or did anything: it aborts first, and audits then."""
        started = time.monotonic()
        line.settimeout(90)
        with suppress(ConnectionError):
            line.recv(1)
        return time.monotonic() - started

    def trickle(line: socket.socket) -> float:
        started = time.monotonic()
        line.settimeout(1)
        for byte in request:
            try:
                line.sendall(bytes([byte]))
                line.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            break
        return time.monotonic() - started

    with attacked(ward.process.pid, ward.bystander(), memory_mib=32), ExitStack() as open_lines:
        stalls: dict[str, tuple[socket.socket, float, Callable[[socket.socket], float]]] = {}

        def stall(
            name: str, line: socket.socket, limit_s: float, how: Callable[[socket.socket], float] = wait
        ) -> None:
            stalls[name] = (open_lines.enter_context(line), limit_s + LATE_S, how)

        stall("silent", plain(b""), 15)
        stall("half a header", plain(request[:3]), 10)
        stall("withheld body", plain(request[:40]), 10)
        stall("a byte a second", plain(b""), 15, trickle)
        stall("half a P-DATA", established(struct.pack(">BxI", 4, 1000) + b"\0"), 20)
        stall("half an object", established(p_data(b"\0" * 100, 1, 0x01)), 8)
        with ThreadPoolExecutor(len(stalls)) as pool:
            took = {name: pool.submit(how, line) for name, (line, _, how) in stalls.items()}
        late = {name: took[name].result() for name in stalls if took[name].result() > stalls[name][1]}
        assert not late


def test_t5_many_silent_connections_of_one_address_lock_out_nobody_else(ward: Ward) -> None:
    with attacked(ward.process.pid, ward.bystander(), memory_mib=32), ExitStack() as lines:
        for _ in range(50):
            lines.enter_context(socket.create_connection(("127.0.0.1", ward.port)))
        for _ in range(20):
            socket.create_connection(("127.0.0.1", ward.port)).close()
        time_for_echoes = threading.Event()
        time_for_echoes.wait(1.0)


def test_t6_the_secure_port_serves_a_certified_peer_through_all_of_it(ward: Ward) -> None:
    context = ward.authority.issue("scanner").client_context()
    bystander = Bystander(ward.tls_port, context)
    plain_request = associate_request((Proposal(VERIFICATION, IMPLICIT_LITTLE),), ATTACKER, "DICOM_NODE")
    with attacked(ward.process.pid, bystander, memory_mib=48), ExitStack() as lines:
        for first_bytes in (plain_request, os.urandom(200), b"\x16\x03\x01", b""):
            for _ in range(25):
                line = lines.enter_context(socket.create_connection(("127.0.0.1", ward.tls_port)))
                try:
                    line.sendall(first_bytes)
                except ConnectionError:
                    continue
        threading.Event().wait(1.0)
    until(
        lambda: any("no secure connection" in reason for reason in ward.reasons("security.tls_refused")),
        60,
        "the security alert",
    )


@pytest.mark.parametrize(
    ("is_established", "length"),
    [(False, 0xFFFFFFFF), (False, 256 * 1024 + 1), (True, 0xFFFFFFFF), (True, MIB + 1)],
)
def test_t7_a_pdu_that_claims_more_than_the_limit_is_cut_at_its_header(
    ward: Ward, is_established: bool, length: int
) -> None:
    with attacked(ward.process.pid, ward.bystander(), memory_mib=20):
        if is_established:
            line = ward.attacker().socket
        else:
            line = socket.create_connection(("127.0.0.1", ward.port))
        with line:
            line.settimeout(60)
            sent = 0
            with pytest.raises(ConnectionError):
                line.sendall(struct.pack(">BxI", 4 if is_established else 1, length))
                while sent < 200 * MIB:
                    sent += line.send(bytes(65536))
            assert sent < 16 * MIB, "what the kernel buffers, not what was claimed"


def test_t8_an_endless_command_set_is_cut(ward: Ward) -> None:
    with attacked(ward.process.pid, ward.bystander()), ward.attacker() as scu:
        sent = 0
        with pytest.raises((AssociationEndedError, ConnectionError)):
            while sent < 64 * MIB:
                scu.socket.sendall(p_data(bytes(16000), 1, 0x01))
                sent += 16000
            scu.read_pdu()
        assert sent < 16 * MIB


def test_t8_an_object_over_the_limit_is_cut_and_leaves_nothing(ward: Ward) -> None:
    before = ward.kept()
    with attacked(ward.process.pid, ward.bystander()), ward.attacker() as scu:
        scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, "2.25.1")
        with pytest.raises((AssociationEndedError, ConnectionError)):
            for _ in range(64):
                scu.send_data(bytes(MIB), is_whole=False)
            scu.read_pdu()
    until(lambda: ward.kept() == before, 60, "the removal of the half object")


def test_t8_requests_sent_far_ahead_wait_in_the_peers_own_buffers(ward: Ward) -> None:
    """While rows wait for the database, all but so many objects wait with their sender; all are answered."""
    dataset = mammogram(8, PixelData=bytes(100_000), Rows=500, Columns=100, StudyInstanceUID="2.25.8")
    body, before = encoded(dataset), len(ward.kept())
    with attacked(ward.process.pid, ward.bystander()), ward.attacker() as scu:
        scu.socket.settimeout(2)
        sent = 0
        with closing(sqlite3.connect(ward.node.data_dir / "node.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            try:
                while sent < 2000:
                    scu.send_command(C_STORE_RQ, MG_FOR_PRESENTATION, uid_of(dataset))
                    scu.send_data(body)
                    sent += 1
            except TimeoutError:
                pass
            other.rollback()
        ahead = sent - (MOST_OWED + MOST_TOGETHER)
        assert ahead * len(body) < 16 * MIB, "what the kernel buffers, of 200 MB"
        scu.socket.settimeout(60)
        assert [scu.read_status() for _ in range(sent)] == [0x0000] * sent
    with ward.attacker() as last:
        assert last.store(body, MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000
        last.release()  # answered when all rows are there
    assert len(ward.kept()) == before + 1


@pytest.mark.parametrize("field", [C_CANCEL_RQ, C_STORE_RSP, N_EVENT_REPORT_RQ, 0xFFFF])
def test_t8_floods_of_other_messages_are_harmless(ward: Ward, field: int) -> None:
    with attacked(ward.process.pid, ward.bystander()), ward.attacker() as scu:
        scu.socket.settimeout(5)
        try:
            for _ in range(2000):
                scu.send_command(field, MG_FOR_PRESENTATION, "2.25.1", has_data=False)
        except (TimeoutError, ConnectionError):
            return


def test_t9_a_process_with_more_than_a_thousand_descriptors_serves_or_refuses_in_words(
    tmp_path: Path,
) -> None:
    with RunningNode(tmp_path) as node, ExitStack() as held:
        descriptors = [held.enter_context(Path(os.devnull).open("rb")).fileno() for _ in range(1200)]
        process = node.start("listen", pass_descriptors=descriptors)
        node.wait_for_processes({"listen"})
        assert psutil.Process(process.pid).num_fds() > 1200
        dataset = mammogram()
        with RawScu(
            node.address.port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE), called="DICOM_NODE"
        ) as scu:
            assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000
            scu.release()
        assert len(node.studies()) == 1


def test_t12_deflated_objects_are_not_offered_for(ward: Ward) -> None:
    with RawScu(
        ward.port, Proposal(MG_FOR_PRESENTATION, DEFLATED), calling=ATTACKER, called="DICOM_NODE"
    ) as scu:
        assert scu.results == [4]


def nested(depth: int) -> Dataset:
    dataset = mammogram()
    inner = Dataset()
    inner.PatientComments = "innermost"
    for _ in range(depth):
        outer = Dataset()
        outer.RequestAttributesSequence = Sequence([inner])
        inner = outer
    dataset.RequestAttributesSequence = Sequence([inner])
    return dataset


def many_elements() -> Dataset:
    dataset = mammogram()
    dataset.RequestAttributesSequence = Sequence([Dataset() for _ in range(60_000)])
    return dataset


@pytest.mark.parametrize("made", [lambda: nested(200), many_elements], ids=["deep", "many"])
def test_t13_sequences_beyond_reason_are_refused_before_anybody_recurses(
    ward: Ward, made: Callable[[], Dataset]
) -> None:
    before = ward.kept()
    dataset = made()
    body = encoded(dataset)
    with attacked(ward.process.pid, ward.bystander()), ward.attacker() as scu:
        assert scu.store(body, MG_FOR_PRESENTATION, uid_of(dataset)) == 0xC000
        scu.release()
    assert ward.kept() == before
    assert "RecursionError" not in ward.node.log


def test_t13_a_private_sequence_of_unknown_representation_is_data_like_any_other(ward: Ward) -> None:
    opening = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x09\x00\x10\x10\xff\xff\xff\xff"
    private = b"\x09\x00\x10\x10UN\0\0\xff\xff\xff\xff" + opening * 3000
    dataset = mammogram()
    body = encoded(dataset)
    place = body.index(struct.pack("<HH", 0x0010, 0x0010))
    with attacked(ward.process.pid, ward.bystander()), ward.attacker() as scu:
        assert (
            scu.store(body[:place] + private + body[place:], MG_FOR_PRESENTATION, uid_of(dataset)) == 0xC000
        )
        scu.release()


def test_t14_what_ends_too_early_or_too_late_is_refused(ward: Ward) -> None:
    before = ward.kept()
    dataset = mammogram()
    body = encoded(dataset)
    pixels = body.index(struct.pack("<HH", 0x7FE0, 0x0010))
    damaged = {
        "cut in the pixels": body[:-1000],
        "cut in an element's head": body[: pixels + 3],
        "trailing garbage": body + b"\xde\xad\xbe\xef" * 3,
        "a length of almost four gigabytes": body[: pixels + 8]
        + struct.pack("<L", 0xFFFFFFF0)
        + body[pixels + 12 :],
        "a sequence without end": body[:pixels] + b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff",
        "file meta information inside": b"\x02\x00\x10\x00UI\x04\x001.2\0" + body,
        "nothing": b"",
    }
    for what, data in damaged.items():
        with ward.attacker() as scu:
            try:
                status = scu.store(data, MG_FOR_PRESENTATION, uid_of(dataset))
            except AssociationEndedError:
                continue
            assert status in (0xA900, 0xC000), what
    assert ward.kept() == before
    faulty = Quarantine(ward.node.data_dir / "quarantine").objects()
    assert ATTACKER in {kept.calling_ae_title for kept in faulty}


def test_t16_titles_and_addresses_are_checked_as_pairs(ward: Ward) -> None:
    for source in ("127.0.0.1", "127.0.1.77"):
        ward.attacker(source=source).release()
    ward.attacker(calling=f" {ATTACKER} ").release()
    refusals = {
        (GOOD_TITLE, "127.0.0.1", "DICOM_NODE"): (1, 1, 3),
        ("STRANGER", "127.0.0.1", "DICOM_NODE"): (1, 1, 3),
        (ATTACKER, "127.0.2.1", "DICOM_NODE"): (1, 1, 3),
        (ATTACKER.lower(), "127.0.0.1", "DICOM_NODE"): (1, 1, 3),
        (ATTACKER, "127.0.0.1", "OTHER"): (1, 1, 7),
    }
    for (calling, source, called), expected in refusals.items():
        with pytest.raises(AssociationRejectedError) as rejection:
            ward.attacker(calling=calling, source=source, called=called)
        assert rejection.value.args == (expected,)
    assert {
        "AE title not admitted from this address",
        "calling AE title not recognised",
        "called AE title not recognised",
    } <= set(ward.reasons("association.rejected"))


def test_t18_a_flood_of_associations_is_turned_away_politely_and_told_once(ward: Ward) -> None:
    with attacked(ward.process.pid, ward.bystander()), ExitStack() as lines:
        for _ in range(10):
            lines.enter_context(ward.attacker())
        for _ in range(40):
            with pytest.raises(AssociationRejectedError) as rejection:
                ward.attacker()
            assert rejection.value.args == ((2, 3, 2),)
    told = ward.reasons("association.rejected").count("too many associations of this peer")
    assert told == 1, "one event a minute for one peer and reason, with the number of the others"
    with ExitStack() as lines:
        for source in ["127.0.1.9"] * 10 + ["127.0.1.10"] * 2:
            lines.enter_context(ward.attacker(source=source))
        with pytest.raises(AssociationRejectedError) as rejection:
            ward.attacker()
        assert rejection.value.args == ((2, 3, 2),)

    def serves_again() -> bool:
        try:
            ward.attacker().release()
        except AssociationRejectedError:
            return False
        return True

    until(serves_again, 60, "room for the next association")


def test_t19_values_of_strangers_stay_values(ward: Ward) -> None:
    nasty = (
        "Line\r\nbreak", "\x1b[2J\x1b[31mred", "\u202egnp.exe", "nul\0", "%s%n{0}{__class__}",
        "x'); DROP TABLE instance; --", "<script>alert(1)</script>", '=cmd|"/c calc"!A0', '","level":"info"',
        "A" * 60_000,
    )  # fmt: skip
    stored: dict[str, str] = {}
    for ordinal, value in enumerate(nasty, start=1):
        values = dict.fromkeys(("PatientName", "PatientID", "AccessionNumber", "StationName"), value)
        with disable_value_validation():
            dataset = mammogram(
                ordinal, StudyInstanceUID=f"2.25.19{ordinal}", SpecificCharacterSet="ISO_IR 192", **values
            )
            body = encoded(dataset)
        with ward.attacker() as scu:
            if scu.store(body, MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000:
                stored[dataset.StudyInstanceUID] = value
            scu.release()
    for line in ward.node.log.splitlines():
        assert json.loads(line)["event"]
        assert line.isprintable()
    assert len(stored) == len(nasty), "odd values alone are no reason to refuse"
    with ward.node.database.reading() as session:
        kept = {row.study_instance_uid: row.patient_id for row in session.scalars(select(Study))}
    # NUL, which no database holds, and what is beyond any Patient ID (PS3.5 6.2: 64 characters) apart.
    assert {uid: kept[uid] for uid in stored} == {
        uid: value.replace("\0", "")[:256] for uid, value in stored.items()
    }
    assert ward.node.verify_audit().ok


def test_t25_the_process_leaves_no_core_and_its_title_names_nobody(ward: Ward) -> None:
    limits = Path(f"/proc/{ward.process.pid}/limits").read_text()
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    told = " ".join(psutil.Process(ward.process.pid).cmdline()) + ward.node.log + "".join(ward.kept())
    for canary in ("ZZCANARY", "DROP TABLE", "alert(1)"):
        assert canary not in told


def test_t28_whatever_the_process_wrote_is_its_own_users_alone(ward: Ward) -> None:
    written = [ward.node.data_dir, *ward.node.data_dir.rglob("*")]
    assert len(written) > 5
    assert [str(path) for path in written if path.stat().st_mode & 0o077] == []
    assert "runs_as_root" in ward.node.log or os.geteuid() != 0
