"""What must hold after the last fault, each as one line that is true or tells what is wrong."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import select

from benchmarks.chaos.hospital import Hospital
from benchmarks.chaos.scanner import CANARY
from db import handoff, scoring
from db.audit.agreement import compare_with_tables
from db.lifecycle import DeliveryState, JobKind, JobState
from db.tables import Delivery, Instance, Job, ResultObject, Revision, Study
from dicom_node.spool import Spool


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict."""

    what: str
    found: str
    holds: bool


def checks(hospital: Hospital, acknowledged: Mapping[str, str], studies: Iterable[str]) -> list[Check]:
    """Hold everything against everything; the node must be stopped."""
    sent = set(studies)
    return [
        *_stored(hospital, acknowledged),
        *_jobs(hospital, sent),
        *_delivered(hospital),
        *_trail(hospital),
        *_leftovers(hospital),
        _nobody_told(hospital),
    ]


def _stored(hospital: Hospital, acknowledged: Mapping[str, str]) -> list[Check]:
    spool = Spool(hospital.node.data_dir / "spool")
    with hospital.node.database.reading() as session:
        rows = session.scalars(select(Instance)).all()
    registered = {row.sop_instance_uid: row for row in rows if not row.conflict}
    lost = sum(uid not in registered for uid in acknowledged)
    other = sum(
        _content(spool, registered[uid]) != digest or registered[uid].sha256 != digest
        for uid, digest in acknowledged.items()
        if uid in registered
    )
    return [
        Check(
            "acknowledged instances lost", f"{lost} of {len(acknowledged)}", lost == 0 and bool(acknowledged)
        ),
        Check("acknowledged instances stored with other bytes", str(other), other == 0),
        Check("instances registered twice", str(len(rows) - len(registered)), len(rows) == len(registered)),
    ]


def _content(spool: Spool, row: Instance) -> str | None:
    path = spool.path_of(row.spool_name)
    return hashlib.sha256(path.read_bytes()[-row.size_bytes :]).hexdigest() if path.exists() else None


def _jobs(hospital: Hospital, sent: set[str]) -> list[Check]:
    with hospital.node.database.reading() as session:
        found = session.execute(
            select(Study.study_instance_uid, Revision.number, Job.kind, Job.destination, Job.state)
            .join(Revision, Revision.study_id == Study.id)
            .outerjoin(Job, Job.revision_id == Revision.id)
        ).all()
    wanted = [(JobKind.SCORE, None), *((JobKind.DELIVER, str(p.destination)) for p in hospital.destinations)]
    expected = Counter((uid, 1, kind, where, JobState.DONE) for uid in sent for kind, where in wanted)
    differing = (Counter(tuple(row) for row in found) - expected) + (
        expected - Counter(tuple(row) for row in found)
    )
    wrong = {key[0] for key in differing}
    return [
        Check(
            "studies not scored once and delivered once to each destination",
            f"{len(wrong)} of {len(sent)}",
            not wrong and bool(sent),
        )
    ]


def _delivered(hospital: Hospital) -> list[Check]:
    found = []
    for pacs in hospital.destinations:
        with hospital.node.database.reading() as session:
            rows = session.execute(
                select(ResultObject.sop_instance_uid, Delivery.state)
                .join(Delivery, Delivery.result_id == ResultObject.id)
                .where(Delivery.destination == str(pacs.destination))
            ).all()
        told = Counter(uid for uid, state in rows if state == DeliveryState.DELIVERED)
        hashes = pacs.hashes
        differing = len(set(told) ^ set(hashes)) + sum(n > 1 for n in told.values()) + len(rows) - len(told)
        several = sum(len(contents) > 1 for contents in hashes.values())
        found += [
            Check(
                f"{pacs.ae_title}: results missing, unknown or doubled",
                f"{differing} of {len(rows)}",
                differing == 0,
            ),
            Check(
                f"{pacs.ae_title}: UIDs with more than one content",
                f"{several} of {len(hashes)}",
                several == 0,
            ),
        ]
    return found


def _trail(hospital: Hospital) -> list[Check]:
    report = hospital.node.verify_audit()
    agreement = compare_with_tables(hospital.node.database)
    differing = len(agreement.disagreements)
    return [
        Check("audit chain", f"{report.events} events", report.ok),
        Check(
            "instances, scores and deliveries that are not what the trail says",
            f"{differing} of {agreement.instances + agreement.scores + agreement.deliveries}",
            differing == 0,
        ),
    ]


def _leftovers(hospital: Hospital) -> list[Check]:
    """Sweep as a starting process does, without its hour of grace; afterwards files and rows are the same."""
    found = []
    for folder, known in (("spool", handoff.known_spool_names), ("results", scoring.known_file_names)):
        spool = Spool(hospital.node.data_dir / folder)
        with hospital.node.database.reading() as session:
            registered = set(known(session, spool.names()))
        swept = spool.sweep(registered, grace_s=-1)
        for orphan in swept.orphans:
            spool.remove(orphan)
        files = [path for path in spool.root.rglob("*") if path.is_file()]
        left = {path.name for path in files} ^ registered
        swept_words = f"{len(left)} ({swept.parts_removed} half-written, {len(swept.orphans)} unknown swept)"
        found.append(Check(f"files in {folder} without a row, after a sweep", swept_words, not left))
    journals = list((hospital.node.data_dir / "journal").iterdir())
    return [*found, Check("journals left after a stop in good order", str(len(journals)), not journals)]


def _nobody_told(hospital: Hospital) -> Check:
    told = (hospital.node.folder / "node.log").read_text(errors="replace").count(CANARY)
    return Check("lines of the log that name a patient", str(told), told == 0)
