"""Killed between each two steps: an answered object is whole and has its row, any other leaves nothing."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from db import handoff
from db.audit.keys import AuditKey
from db.session import Database
from db.tables import AuditEvent, Instance
from dicom_node.crashpoints import CRASHPOINTS, VARIABLE
from dicom_node.spool import Spool
from tests.listening import (
    EXPLICIT_LITTLE,
    MG_FOR_PRESENTATION,
    PATIENT_ID,
    PATIENT_NAME,
    encoded,
    mammogram,
    uid_of,
)
from tests.programs import needs
from tests.simulators.raw_scu import AssociationEndedError, Proposal, RawScu

# A C-STORE never passes these; tests/system/test_commitment.py does.
OF_COMMITMENT = {"listener.report_recorded", "listener.request_kept"}


@contextmanager
def listener_process(
    tmp_path: Path,
    url: str,
    key: AuditKey,
    *,
    crashpoint: str = "",
    prefix: tuple[str, ...] = (),
    journal: Path | None = None,
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a listener in a process of its own; its log goes to ``log`` in the folder."""
    folders = [str(tmp_path / "spool"), url, str(key.path), *([] if journal is None else [str(journal)])]
    module = Path(__file__).parents[1] / "simulators" / "listener_process.py"
    with (tmp_path / "log").open("a") as log:
        process = subprocess.Popen(
            [*prefix, sys.executable, str(module), *folders],
            env={**os.environ, VARIABLE: crashpoint, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait(60)


def store(port: int, ordinal: int = 1) -> int:
    """Send one mammogram."""
    dataset = mammogram(ordinal)
    with RawScu(port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu:
        status = scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset))
        scu.release()
        return status


def rows(database: Database) -> list[Instance]:
    """Every registered instance."""
    with database.reading() as session:
        return list(session.scalars(select(Instance).order_by(Instance.id)))


def sweep(spool: Spool, database: Database) -> None:
    """Tidy as a starting listener does, without its hour of grace."""
    with database.reading() as session:
        known = handoff.known_spool_names(session, spool.names())
    for orphan in spool.sweep(known, grace_s=-1).orphans:
        spool.remove(orphan)


@pytest.mark.parametrize(
    ("way", "crashpoint", "is_stored"),
    [
        ("each file synced", "listener.part_written", False),
        ("each file synced", "listener.durable", False),
        ("each file synced", "listener.committed", True),
        ("journal", "listener.durable", True),
        ("journal", "listener.owed", True),
        ("journal", "listener.placed", True),
        ("journal", "listener.committed", True),
    ],
)
def test_a_kill_loses_nothing_and_leaves_nothing(
    tmp_path: Path,
    database_url: str,
    audit_key: AuditKey,
    database: Database,
    way: str,
    crashpoint: str,
    is_stored: bool,
) -> None:
    journal = tmp_path / "journal" if way == "journal" else None
    with listener_process(
        tmp_path, database_url, audit_key, crashpoint=f"{crashpoint}:2", journal=journal
    ) as (process, port):
        assert store(port, 1) == 0x0000
        with pytest.raises(AssociationEndedError):
            store(port, 2)
        assert process.wait(60) == -signal.SIGKILL

    spool = Spool(tmp_path / "spool")
    with listener_process(tmp_path, database_url, audit_key, journal=journal) as (_, port):
        sweep(spool, database)
        assert len(rows(database)) == len(spool.names()) == (2 if is_stored else 1)
        assert not list(spool.root.rglob(".part-*"))
        assert store(port, 2) == 0x0000
    registered = rows(database)
    assert [row.sop_instance_uid for row in registered] == [uid_of(mammogram(1)), uid_of(mammogram(2))]
    assert sorted(row.spool_name for row in registered) == sorted(spool.names())
    for ordinal, row in enumerate(registered, start=1):
        assert spool.path_of(row.spool_name).read_bytes().endswith(encoded(mammogram(ordinal)))
        assert row.conflict == 0


def test_every_crash_point_of_a_received_object_is_met() -> None:
    met = {"listener.part_written", "listener.durable", "listener.owed", "listener.placed"}
    met |= {"listener.committed"}
    assert met == {name for name in CRASHPOINTS if name.startswith("listener.")} - OF_COMMITMENT


def test_refusals_are_audited_and_no_patient_data_reaches_the_log(
    tmp_path: Path, database_url: str, audit_key: AuditKey, database: Database
) -> None:
    with listener_process(tmp_path, database_url, audit_key) as (_, port):
        assert store(port) == 0x0000
        with RawScu(port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu:
            data = encoded(mammogram(2)).replace(b"2.25.101", b"1.SECRET")
            assert scu.store(data, MG_FOR_PRESENTATION, uid_of(mammogram(2))) == 0xC000
            scu.release()
    with database.reading() as session:
        actions = list(session.scalars(select(AuditEvent.action)))
    assert "instance.stored" in actions
    assert "instance.refused" in actions
    log = (tmp_path / "log").read_text()
    assert '"event": "listener.ready"' in log
    names = "".join(str(path) for path in tmp_path.rglob("*"))
    for canary in (PATIENT_ID, PATIENT_NAME, "SECRET"):
        assert canary not in log + names


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_success_is_sent_after_file_directory_and_row_are_synced(
    tmp_path: Path, database_url: str, audit_key: AuditKey, database_kind: str
) -> None:
    needs("strace", "strace")
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-y", "-o", str(trace), "-e", "trace=rename,fsync,fdatasync,sendto,pwrite64")
    with listener_process(tmp_path, database_url, audit_key, prefix=strace) as (_, port):
        assert store(port) == 0x0000
    steps = steps_of(trace)
    assert steps[:5] == ["renamed", "file synced", "directory synced", "row written", "row synced"]
    assert "answered" in steps[5:]


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_success_is_sent_after_the_journal_is_synced_and_before_the_row_is_committed(
    tmp_path: Path, database_url: str, audit_key: AuditKey, database_kind: str
) -> None:
    needs("strace", "strace")
    trace = tmp_path / "trace"
    calls = "trace=pwritev,pwritev2,fsync,fdatasync,sendto,pwrite64"
    journal, strace = tmp_path / "journal", ("strace", "-f", "-y", "-o", str(trace), "-e", calls)
    with listener_process(tmp_path, database_url, audit_key, prefix=strace, journal=journal) as (_, port):
        assert store(port, 1) == 0x0000
        assert store(port, 2) == 0x0000
    steps = steps_of(trace)
    # The first row begins the database's log, whose head is synced in any case.
    second = len(steps) - steps[::-1].index("journal written") - 1
    assert steps[second : second + 4] == ["journal written", "journal synced", "answered", "row written"]


def steps_of(trace: Path) -> list[str]:
    """Name the calls of a listener, in their order; several in a row that say the same count once."""
    forms = {
        "renamed": r"rename\(.*\.part-",
        "file synced": r"fsync\(\d+<.*/spool/[0-9a-f]{2}/[0-9a-f]{32}\.dcm>",
        "directory synced": r"fsync\(\d+<.*/spool/[0-9a-f]{2}>",
        "journal written": r"pwritev2?\(\d+<.*\.journal>",
        "journal synced": r"fdatasync\(\d+<.*\.journal>",
        "row written": r"pwrite64\(\d+<.*-wal>",
        "row synced": r"f(data)?sync\(\d+<.*-wal>",
        "answered": r'sendto\(.*"\\4',
    }
    lines = trace.read_text().splitlines()
    steps = [name for line in lines for name, form in forms.items() if re.search(form, line)]
    return [name for name, _ in itertools.groupby(steps)]
