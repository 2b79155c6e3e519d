"""What ten million registered instances cost: size, time to register one more, time to ask.

    python -m benchmarks.registry --rows 10000 100000 1000000 10000000 --plot docs/reference/registry.png

A database grows in steps. Rows are inserted in bulk, without audit events, in studies of 100 instances; file
names are the spool's own. At each step instances are registered as the listener does it, one at a time with
their audit events, and the questions of the listener and of people are asked. SQLite in a file, or PostgreSQL
where ``--database`` names an empty one.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from sqlalchemy import make_url, text

from benchmarks.tables import table
from db import handoff, listing, schema
from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.session import Database
from dicom_node.spool import new_name

_PER_STUDY = 100
_REGISTRATIONS = 100
_QUESTIONS = 20
_RULES = handoff.Completeness(frozenset(), 60.0, ())
_INSTANCE_COLUMNS = (
    "study_id, revision_number, sop_instance_uid, sop_class_uid, series_instance_uid, transfer_syntax_uid, "
    "modality, laterality, view, for_presentation, conflict, spool_name, sha256, size_bytes, "
    "calling_ae_title, received_at"
)
_STUDY_COLUMNS = "id, study_instance_uid, patient_id, accession_number, created_at"
_REVISION_COLUMNS = "study_id, number, state, complete_reason, opened_at, last_instance_at, due_at"


def main() -> None:
    """Run the benchmark as the command line asks."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="registry-", dir=options.folder) as folder:
        url = options.database or f"sqlite:///{Path(folder) / 'node.db'}"
        schema.upgrade(url)
        database = Database(url, AuditTrail(AuditKey.load_or_create(Path(folder) / "audit.key")))
        steps = []
        for rows in sorted(options.rows):
            steps.append(_step(database, url, int(steps[-1]["rows"]) if steps else 0, rows))
            print(json.dumps(steps[-1]), flush=True)
        database.close()
    print(_described(steps))
    if options.plot:
        _plot(steps, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.registry", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--database", help="PostgreSQL URL of an empty database; default: SQLite in a file")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the file goes")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    return parser.parse_args()


def _step(database: Database, url: str, present: int, rows: int) -> dict[str, float]:
    """Grow the registry to so many rows and measure it."""
    began = time.perf_counter()
    first = _last_study(database)
    _fill(url, first, first + (rows - present) // _PER_STUDY)
    filled_s = time.perf_counter() - began
    sizes = _sizes(database)
    return {
        "rows": rows,
        "bulk_rows_per_s": (rows - present) / filled_s,
        **sizes,
        "register_ms": _register_ms(database),
        **_questions_ms(database, rows),
    }


def _last_study(database: Database) -> int:
    with database.reading() as session:
        return int(session.execute(text("SELECT COALESCE(MAX(id), 0) FROM study")).scalar_one())


def _fill(url: str, first: int, end: int) -> None:
    stamp = datetime.now(UTC)
    if make_url(url).get_backend_name() == "sqlite":
        moment = stamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        connection = sqlite3.connect(str(make_url(url).database))
        connection.execute("PRAGMA cache_size=-1000000")
        with connection:
            for name, columns, rows in _tables(first, end, moment):
                marks = ", ".join("?" * len(columns.split(",")))
                connection.executemany(f"INSERT INTO {name} ({columns}) VALUES ({marks})", rows)
        connection.close()  # no ANALYZE: a node never does
        return
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as server:
        for name, columns, rows in _tables(first, end, stamp):
            with server.cursor().copy(f"COPY {name} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        server.execute("SELECT setval(pg_get_serial_sequence('study', 'id'), %s)", [end + 1])
        server.execute("ANALYZE")


def _tables(first: int, end: int, moment: object) -> Iterator[tuple[str, str, Iterator[tuple[Any, ...]]]]:
    studies = range(first + 1, end + 1)
    yield (
        "study",
        _STUDY_COLUMNS,
        ((n, f"1.2.826.0.1.3680043.9.{n}", f"P{n // 3:09d}", f"A{n:09d}", moment) for n in studies),
    )
    yield (
        "revision",
        _REVISION_COLUMNS,
        ((n, 1, "complete", "quiet_period", moment, moment, moment) for n in studies),
    )
    yield "instance", _INSTANCE_COLUMNS, _instances(studies, moment)


def _instances(studies: range, moment: object) -> Iterator[tuple[Any, ...]]:
    for study in studies:
        for number in range(_PER_STUDY):
            yield (
                *(study, 1, f"1.2.826.0.1.3680043.9.{study}.1.{number}", "1.2.840.10008.5.1.4.1.1.2"),
                *(f"1.2.826.0.1.3680043.9.{study}.1", "1.2.840.10008.1.2.1", "CT", None, None, 0, 0),
                *(new_name(), secrets.token_hex(32), 525_000, "SCANNER", moment),
            )


def _sizes(database: Database) -> dict[str, float]:
    with database.reading() as session:
        if database.is_sqlite:
            # Pages, because dbstat adds their bytes up in 32 bits.
            pages = text(
                "SELECT CASE WHEN m.type = 'index' THEN 'index' ELSE 'table' END, SUM(s.pageno) "
                "FROM dbstat s JOIN sqlite_master m ON m.name = s.name "
                "WHERE m.tbl_name = 'instance' AND s.aggregate = TRUE GROUP BY 1"
            )
            page_bytes = session.execute(text("PRAGMA page_size")).scalar_one()
            found = {kind: count * page_bytes for kind, count in session.execute(pages).all()}
        else:
            one = text("SELECT pg_table_size('instance'), pg_indexes_size('instance')")
            found = dict(zip(("table", "index"), session.execute(one).one(), strict=True))
    return {"table_mib": found["table"] / 2**20, "index_mib": found["index"] / 2**20}


def _register_ms(database: Database) -> float:
    study = f"2.25.{secrets.randbits(100)}"
    times = []
    for number in range(_REGISTRATIONS):
        received = handoff.ReceivedInstance(
            sop_instance_uid=f"{study}.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            study_instance_uid=study,
            series_instance_uid=f"{study}.0",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            patient_id="P",
            accession_number="A",
            modality="CT",
            laterality=None,
            view=None,
            for_presentation=False,
            spool_name=new_name(),
            sha256=secrets.token_hex(32),
            size_bytes=525_000,
            calling_ae_title="SCANNER",
        )
        began = time.perf_counter()
        with database.transaction("listener") as tx:
            handoff.register_instance(tx, received, _RULES)
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


def _questions_ms(database: Database, rows: int) -> dict[str, float]:
    def random_study() -> int:
        return 1 + secrets.randbelow(rows // _PER_STUDY)

    names = [new_name() for _ in range(500)]
    with database.reading() as session:
        return {
            "study_by_uid_ms": _median_ms(
                lambda: listing.studies(session, study_instance_uid=f"1.2.826.0.1.3680043.9.{random_study()}")
            ),
            "studies_of_patient_ms": _median_ms(
                lambda: listing.studies(session, patient_id=f"P{random_study() // 3:09d}")
            ),
            "newest_100_ms": _median_ms(lambda: listing.studies(session, limit=100)),
            "names_500_ms": _median_ms(lambda: handoff.known_spool_names(session, names)),
        }


def _median_ms(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(_QUESTIONS):
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


def _described(steps: Sequence[dict[str, float]]) -> str:
    names = list(steps[0])
    rows = [[name, *(f"{step[name]:,.2f}" for step in steps)] for name in names[1:]]
    return table(["registered instances", *(f"{step['rows']:,.0f}" for step in steps)], rows)


def _plot(steps: Sequence[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    sizes, times = figure.subplots(1, 2)
    rows = [step["rows"] for step in steps]
    for name, label in (("table_mib", "table"), ("index_mib", "indexes")):
        sizes.plot(rows, [step[name] for step in steps], marker="o", label=label)
    sizes.set(xlabel="registered instances", ylabel="MiB", title="Size")
    for name, label in (
        ("register_ms", "register one"),
        ("study_by_uid_ms", "a study by UID"),
        ("studies_of_patient_ms", "studies of a patient"),
        ("newest_100_ms", "newest 100 studies"),
        ("names_500_ms", "which of 500 files are known"),
    ):
        times.plot(rows, [step[name] for step in steps], marker="o", label=label)
    times.set(xlabel="registered instances", ylabel="milliseconds, median", title="Time")
    for axes in (sizes, times):
        axes.set(xscale="log", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
