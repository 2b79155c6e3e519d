"""The disk fails, or the process dies, at one call of the kernel: what was answered is whole (S2-S4, R1).

The calls are picked by ``strace``, which needs no line of the product: the n-th sync of an association's
thread is that of the file, of its directory, or of the database's log.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.audit.keys import AuditKey
from db.session import Database
from dicom_node.spool import Spool
from tests.component.test_listener_crash import listener_process, rows, sweep
from tests.listening import EXPLICIT_LITTLE, MG_FOR_PRESENTATION, encoded, mammogram, uid_of
from tests.programs import needs
from tests.running_node import until
from tests.simulators.raw_scu import AssociationEndedError, Proposal, RawScu

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

FILE_SYNC, DIRECTORY_SYNC, LOG_SYNC = "fsync:{}:when=1", "fsync:{}:when=2", "fdatasync:{}:when=1"
FILE_WRITE, LOG_WRITE, RENAME = "write:{}:when=1", "pwrite64:{}:when=1", "rename:{}:when=1"
JOURNAL_WRITE, JOURNAL_SYNC = "pwritev,pwritev2:{}:when=1", "fdatasync:{}:when=1"
OUT_OF_RESOURCES = range(0xA700, 0xA800)


@pytest.fixture(autouse=True)
def strace() -> str:
    """Bring faults about at calls of the kernel."""
    return needs("strace", "strace")


@contextmanager
def injected(process: subprocess.Popen[str], fault: str) -> Iterator[None]:
    """Let strace do something at calls of the kernel that threads of the process make from now on."""
    calls = fault.partition(":")[0]
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(process.pid), "-e", f"trace={calls}", "-e", f"inject={fault}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    drain = threading.Thread(target=tracer.stderr.read, daemon=True)
    with tracer:
        try:
            assert "attached" in tracer.stderr.readline()
            drain.start()
            wait_until_traced(process.pid)
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(60)
            if drain.ident is not None:
                drain.join()


def wait_until_traced(pid: int) -> None:
    """Wait until every thread has the tracer: one that it has not yet would be spared."""
    deadline = time.monotonic() + 60
    while any(map(is_untraced, Path(f"/proc/{pid}/task").glob("*/status"))):
        assert time.monotonic() < deadline, "strace did not attach"
        threading.Event().wait(0.02)


def is_untraced(status: Path) -> bool:
    """Whether a thread runs without a tracer; one that ended meanwhile, as an association's does, is none."""
    try:
        return re.search(r"^TracerPid:\t0$", status.read_text(), re.MULTILINE) is not None
    except (FileNotFoundError, ProcessLookupError):
        return False


def send(scu: RawScu, ordinal: int) -> int:
    dataset = mammogram(ordinal)
    return scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset))


def assert_whole_and_registered_once(database: Database, spool: Spool, ordinals: tuple[int, ...]) -> None:
    registered = {row.sop_instance_uid: row for row in rows(database)}
    assert len(rows(database)) == len(registered)
    assert set(registered) == {uid_of(mammogram(ordinal)) for ordinal in ordinals}
    assert sorted(row.spool_name for row in registered.values()) == sorted(spool.names())
    for ordinal in ordinals:
        row = registered[uid_of(mammogram(ordinal))]
        assert spool.path_of(row.spool_name).read_bytes().endswith(encoded(mammogram(ordinal)))


@pytest.mark.parametrize(
    ("way", "fault"),
    [
        ("each file synced", FILE_WRITE.format("error=ENOSPC")),
        ("each file synced", FILE_SYNC.format("error=EIO")),
        ("each file synced", DIRECTORY_SYNC.format("error=EIO")),
        ("each file synced", LOG_WRITE.format("error=ENOSPC")),
        ("each file synced", LOG_SYNC.format("error=EIO")),
        ("journal", JOURNAL_WRITE.format("error=EIO")),
        ("journal", JOURNAL_SYNC.format("error=EIO")),
    ],
)
def test_an_object_that_the_disk_refuses_is_not_answered_with_success_and_the_next_one_is(
    tmp_path: Path, database_url: str, audit_key: AuditKey, database: Database, way: str, fault: str
) -> None:
    spool = Spool(tmp_path / "spool")
    journal = tmp_path / "journal" if way == "journal" else None
    with (
        listener_process(tmp_path, database_url, audit_key, journal=journal) as (process, port),
        injected(process, fault),
        RawScu(port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu,
    ):
        assert send(scu, 1) in OUT_OF_RESOURCES, "the sender is told to try again"
        assert rows(database) == []
        assert not list(spool.root.rglob(".part-*")), "on a full disk a leftover keeps it full"
        assert send(scu, 2) == 0x0000
        assert send(scu, 1) == 0x0000, "the sender tries again"
        scu.release()
    sweep(spool, database)
    assert_whole_and_registered_once(database, spool, (1, 2))


@pytest.mark.parametrize(
    ("way", "fault"),
    [
        *(
            ("each file synced", each.format("signal=KILL"))
            for each in (RENAME, FILE_SYNC, DIRECTORY_SYNC, LOG_SYNC)
        ),
        *(("journal", each.format("signal=KILL")) for each in (JOURNAL_WRITE, JOURNAL_SYNC)),
    ],
)
def test_a_process_that_dies_at_a_call_of_the_kernel_loses_nothing(
    tmp_path: Path, database_url: str, audit_key: AuditKey, database: Database, way: str, fault: str
) -> None:
    spool = Spool(tmp_path / "spool")
    journal = tmp_path / "journal" if way == "journal" else None
    with listener_process(tmp_path, database_url, audit_key, journal=journal) as (process, port):
        with RawScu(port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu:
            assert send(scu, 1) == 0x0000
            scu.release()
        with injected(process, fault), RawScu(port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu:
            with pytest.raises(AssociationEndedError):
                send(scu, 2)
            assert process.wait(60) == -signal.SIGKILL
    with (
        listener_process(tmp_path, database_url, audit_key, journal=journal) as (_, port),
        RawScu(port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu,
    ):
        sweep(spool, database)
        assert not list(spool.root.rglob(".part-*"))
        assert len(rows(database)) == len(spool.names())
        assert send(scu, 2) == 0x0000
        scu.release()
    assert_whole_and_registered_once(database, spool, (1, 2))


@pytest.mark.parametrize("refused", [FILE_WRITE, LOG_WRITE], ids=["file", "row"])
def test_a_file_or_row_that_the_disk_refuses_after_success_is_written_when_it_takes_it(
    tmp_path: Path, database_url: str, audit_key: AuditKey, database: Database, refused: str
) -> None:
    spool = Spool(tmp_path / "spool")
    with (
        listener_process(tmp_path, database_url, audit_key, journal=tmp_path / "journal") as (process, port),
        injected(process, refused.format("error=ENOSPC")),
        RawScu(port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu,
    ):
        assert send(scu, 1) == 0x0000
        scu.release()
        until(lambda: len(rows(database)) == 1, 60, "the row")
    assert_whole_and_registered_once(database, spool, (1,))


@pytest.mark.parametrize("died_at", [FILE_WRITE, LOG_WRITE], ids=["file", "row"])
def test_a_process_that_dies_between_success_and_the_row_loses_nothing(
    tmp_path: Path, database_url: str, audit_key: AuditKey, database: Database, died_at: str
) -> None:
    spool, journal = Spool(tmp_path / "spool"), tmp_path / "journal"
    with (
        listener_process(tmp_path, database_url, audit_key, journal=journal) as (process, port),
        injected(process, died_at.format("signal=KILL")),
        RawScu(port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu,
    ):
        assert send(scu, 1) == 0x0000
        with pytest.raises(AssociationEndedError):
            scu.release()
        assert process.wait(60) == -signal.SIGKILL
    assert rows(database) == []
    with listener_process(tmp_path, database_url, audit_key, journal=journal):
        assert_whole_and_registered_once(database, spool, (1,))
