"""What a long audit trail costs: time to verify it whole, and to ask it.

    python -m benchmarks.audit --events 1000000

Events are made by the node's own code, of studies with ten events each, and then verified as
``audit verify`` does it; questions of ``audit query`` are asked several times. SQLite in a file, or
PostgreSQL where ``--database`` names an empty one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.tables import table
from db import schema
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.reading import AuditFilter, query
from db.audit.trail import AuditEntry, AuditTrail
from db.audit.verification import verify
from db.session import Database
from db.tables import Study

START = datetime(2020, 1, 1, tzinfo=UTC)
EVENT_EVERY = timedelta(seconds=30)
BATCH = 20_000
PER_STUDY = 10
ACTIONS = ("instance.stored",) * 4 + (
    "study.complete",
    "job.queued",
    "job.claimed",
    "job.scored",
    "result.accepted",
    "job.done",
)
REPEATS = 15


class _Clock:
    """Goes on by one step for each batch of events, so that a year of work is written in a minute."""

    def __init__(self) -> None:
        self.events = 0

    def __call__(self) -> datetime:
        return START + self.events * EVENT_EVERY


def main() -> None:
    """Run the benchmark as the command line asks."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="audit-", dir=options.folder) as name:
        folder = Path(name)
        url = options.database or f"sqlite:///{folder / 'node.db'}"
        schema.upgrade(url)
        clock = _Clock()
        database = Database(url, AuditTrail(AuditKey.load_or_create(folder / "audit.key"), clock))
        try:
            found = {"database": database.engine_name, "events": options.events}
            found["written_s"] = _written(database, clock, options.events)
            found.update(_verified(database, folder))
            found["questions_ms"] = _asked(database, options.events)
        finally:
            database.close()
    print(json.dumps(found, indent=2) if options.json else _told(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000, help="Length of the trail.")
    parser.add_argument("--database", help="SQLAlchemy URL of an empty PostgreSQL database.")
    parser.add_argument("--folder", type=Path, help="Where the SQLite file goes.")
    parser.add_argument("--json", action="store_true", help="Figures for programs.")
    return parser.parse_args()


def _written(database: Database, clock: _Clock, events: int) -> float:
    began = time.perf_counter()
    for first in range(0, events, BATCH):
        clock.events = first
        with database.transaction("benchmark") as tx:
            tx.session.add_all(_studies(first, min(BATCH, events - first)))
            for number in range(first, min(first + BATCH, events)):
                entry = asdict(_entry(number))
                del entry["actor"]
                tx.audit(entry.pop("action"), **entry)
    return time.perf_counter() - began


def _studies(first: int, events: int) -> list[Study]:
    return [
        Study(
            study_instance_uid=f"1.2.826.0.1.{number}",
            patient_id=f"P{number}",
            accession_number=f"A{number}",
            created_at=START,
        )
        for number in range(first // PER_STUDY, (first + events - 1) // PER_STUDY + 1)
    ]


def _entry(number: int) -> AuditEntry:
    study, step = divmod(number, PER_STUDY)
    return AuditEntry(
        "benchmark",
        ACTIONS[step],
        f"1.2.826.0.1.{study}",
        f"{study:032x}" if step >= ACTIONS.index("job.queued") else None,
        f"{study % 7:064x}" if step >= ACTIONS.index("job.scored") else None,
        {"sop_instance_uid": f"1.2.826.0.1.{study}.{step}", "sha256": f"{number:064x}", "bytes": 27_000_000},
    )


def _verified(database: Database, folder: Path) -> dict[str, Any]:
    key = CheckpointKey.load_or_create(folder / "checkpoint.key")
    wall, cpu = time.perf_counter(), time.process_time()
    report = verify(database, database.trail.key, folder, key.public_key)
    took = {"verified_s": time.perf_counter() - wall, "verified_cpu_s": time.process_time() - cpu}
    if not report.ok:
        raise SystemExit(f"the trail does not verify: {report.problem}")
    return took


def _asked(database: Database, events: int) -> dict[str, float]:
    return {name: _median_ms(database, wanted) for name, wanted in _questions(events)}


def _questions(events: int) -> Sequence[tuple[str, AuditFilter]]:
    study = events // PER_STUDY // 2
    day = START + events // 2 * EVENT_EVERY
    return (
        ("newest", AuditFilter()),
        ("study", AuditFilter(study_instance_uid=f"1.2.826.0.1.{study}")),
        ("patient id", AuditFilter(patient_id=f"P{study}")),
        ("accession number", AuditFilter(accession_number=f"A{study}")),
        ("job", AuditFilter(job_id=f"{study:032x}")),
        ("bundle", AuditFilter(bundle=f"{3:064x}")),
        ("frequent action", AuditFilter(action="instance.stored")),
        ("action of which there is none", AuditFilter(action="audit.rotate_key")),
        ("one week", AuditFilter(since=day, until=day + timedelta(days=7))),
        ("everything since the first day", AuditFilter(since=START + timedelta(days=1))),
        ("everything before the middle", AuditFilter(until=day)),
        ("action in one week", AuditFilter(action="job.scored", since=day, until=day + timedelta(days=7))),
        ("action before the second week", AuditFilter(action="job.scored", until=START + timedelta(days=7))),
        ("patient since the first day", AuditFilter(patient_id=f"P{study}", since=START + timedelta(days=1))),
        ("bundle in one week", AuditFilter(bundle=f"{3:064x}", since=day, until=day + timedelta(days=7))),
    )


def _median_ms(database: Database, wanted: AuditFilter) -> float:
    took = []
    for _ in range(REPEATS):
        with database.reading() as session:
            began = time.perf_counter()
            query(session, wanted)
            took.append((time.perf_counter() - began) * 1000)
    return median(took)


def _told(found: dict[str, Any]) -> str:
    rows = [
        ("written, s", f"{found['written_s']:.1f}"),
        ("verified whole, s", f"{found['verified_s']:.1f}"),
        ("verified whole, CPU s", f"{found['verified_cpu_s']:.1f}"),
        *((f"ask: {name}, ms", f"{ms:.1f}") for name, ms in found["questions_ms"].items()),
    ]
    return f"{found['events']} events, {found['database']}\n" + table(("", "median"), rows)


if __name__ == "__main__":
    main()
