"""The power goes: whatever was answered with Success is there after the next start, and scored once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from db.audit.keys import AuditKey, CheckpointKey
from db.audit.verification import verify
from db.session import Database
from dicom_node.spool import Spool
from tests.component.test_listener_crash import listener_process, rows
from tests.listening import EXPLICIT_LITTLE, MG_FOR_PRESENTATION, encoded, mammogram, uid_of
from tests.programs import needs
from tests.simulators.power_cut import cut_power, traced
from tests.simulators.raw_scu import Proposal, RawScu

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
OBJECTS = 24


def send(port: int, ordinals: range) -> None:
    with RawScu(port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu:
        for ordinal in ordinals:
            dataset = mammogram(ordinal)
            assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000
        scu.release()


@pytest.mark.parametrize("associations", [1, 4])
def test_what_was_answered_survives_a_power_cut(
    tmp_path: Path, database_url: str, audit_key: AuditKey, database: Database, associations: int
) -> None:
    needs("strace", "strace")
    spool, journal = Spool(tmp_path / "spool"), tmp_path / "journal"
    share = OBJECTS // associations
    database.close()  # nobody else keeps the log's end from being cut off
    with listener_process(
        tmp_path, database_url, audit_key, journal=journal, prefix=traced(tmp_path / "trace")
    ) as (process, port):
        with ThreadPoolExecutor(associations) as senders:
            shares = [range(first, first + share) for first in range(1, OBJECTS + 1, share)]
            list(senders.map(lambda ordinals: send(port, ordinals), shares))
        stored = len(spool.names())
        assert stored == OBJECTS
        psutil.Process(process.pid).children()[0].kill()
        process.wait(60)
    lost = cut_power(tmp_path / "trace", tmp_path)
    assert len(spool.names()) < stored, "the power took files that were answered with Success"
    assert any(path.name.endswith("-wal") for path in lost), "and rows"

    with listener_process(tmp_path, database_url, audit_key, journal=journal) as (_, port):
        registered = {row.sop_instance_uid: row for row in rows(database)}
        assert len(rows(database)) == len(registered) == OBJECTS
        for ordinal in range(1, OBJECTS + 1):
            row = registered[uid_of(mammogram(ordinal))]
            assert spool.path_of(row.spool_name).read_bytes().endswith(encoded(mammogram(ordinal)))
            assert row.calling_ae_title == "RAWSCU"
        assert sorted(row.spool_name for row in registered.values()) == sorted(spool.names())
        send(port, range(1, 2))
    assert len(rows(database)) == OBJECTS, "a sender that sends again finds its object there"
    assert not list(journal.iterdir()), "a node that stops in good order leaves no journal"
    checkpoints = CheckpointKey.load_or_create(tmp_path / "checkpoint.key").public_key
    assert verify(database, audit_key, tmp_path / "checkpoints", checkpoints).ok
