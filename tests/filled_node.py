"""A node that has been at work, for tests of the commands that look at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from db import deliveries, jobs
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import AuditTrail
from db.handoff import register_instance
from db.lifecycle import DeliveryEvent, JobKind
from db.scoring import finish_scoring
from db.session import Database
from dicom_node.spool import Spool
from tests.command_line import command
from tests.steered_node import (
    BUNDLE,
    LISTENER,
    PACS,
    RULES,
    WORKER,
    every,
    four_views,
    mammogram,
    result_object,
)

SCORED, REFUSED, OPEN = "2.25.101", "2.25.102", "2.25.103"
PATIENT_ID, ACCESSION = "P-4711", "A-0815"
REFUSAL = {
    "code": "IMPLANT",
    "detail": "",
    "laterality": "L",
    "sentence": "L CC not analysed: breast implant present",
    "sop_instance_uid": "2.25.4711",
    "view": "CC",
}


@dataclass(frozen=True)
class Filled:
    """A data directory with a study scored and delivered, one refused by the PACS, and one still open."""

    data_dir: Path
    database: Database
    contents: dict[str, bytes]
    scored_job: str
    refused_job: str


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with this version's tables and keys."""
    folder = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", folder).status == 0
    AuditKey.load_or_create(folder / "keys" / "audit.key")
    CheckpointKey.load_or_create(folder / "keys" / "checkpoint.key")
    return folder


@pytest.fixture
def filled(data_dir: Path) -> Iterator[Filled]:
    """That node, and its database while the test runs."""
    database = Database(
        f"sqlite:///{data_dir / 'node.db'}", AuditTrail(AuditKey.load(data_dir / "keys" / "audit.key"))
    )
    spool, contents = Spool(data_dir / "results"), {}
    for study in (SCORED, REFUSED):
        for instance in four_views(study):
            with database.transaction(LISTENER) as tx:
                register_instance(tx, instance, RULES)
    with database.transaction(LISTENER) as tx:
        register_instance(tx, mammogram(study=OPEN), RULES)
    scored: dict[str, str] = {}
    for study, event, status in (
        (SCORED, DeliveryEvent.ACCEPTED, 0x0000),
        (REFUSED, DeliveryEvent.REFUSE, 0xC001),
    ):
        content = f"DICM bytes of {study}".encode()
        file = spool.write([content])
        result = result_object(file_name=file.name, sha256=file.sha256, size_bytes=file.size_bytes)
        contents[result.sop_instance_uid] = content
        with database.transaction(WORKER) as tx:
            claim = jobs.claim(tx, JobKind.SCORE, lease_s=60, max_attempts=5)
            assert claim is not None
        scored[study] = claim.job_id
        with database.transaction(WORKER) as tx:
            jobs.bind_bundle(tx, claim, BUNDLE)
            finish_scoring(
                tx,
                claim,
                bundle=BUNDLE,
                outcome="scored",
                study_probability=0.25,
                document={"probability": 0.25, "refusals": [REFUSAL]},
                results=[result],
                deliveries=[every([result], PACS)],
            )
        with database.transaction(WORKER) as tx:
            delivering = jobs.claim(tx, JobKind.DELIVER, lease_s=60, max_attempts=None)
        assert delivering is not None
        with database.transaction(WORKER) as tx:
            (item,) = deliveries.outgoing(tx.session, delivering)
            deliveries.record(tx, delivering, item.delivery_id, event, status=status, detail="said the PACS")
            if event is DeliveryEvent.ACCEPTED:
                jobs.finish(tx, delivering)
            else:
                jobs.give_up(tx, delivering, code="UNDELIVERABLE", reason="refused an object")
                refused_job = delivering.job_id
    yield Filled(data_dir, database, contents, scored[SCORED], refused_job)
    database.close()
