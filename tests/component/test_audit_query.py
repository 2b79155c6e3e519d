"""The trail answers questions by study, patient, accession, job, bundle, action and time."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Connection, event

from db.audit.keys import AuditKey
from db.audit.reading import EXPORT_COLUMNS, MAX_ROWS, AuditFilter, export, query
from db.audit.trail import AuditTrail
from db.session import Database
from db.tables import Study

START = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


@pytest.fixture
def trail_of_two_patients(database: Database) -> Database:
    """Six events, a minute apart, about the studies of two patients and about none."""
    times = iter(START + timedelta(minutes=minute) for minute in range(6))
    database.trail = AuditTrail(database.trail.key, wall_clock=lambda: next(times))
    with database.transaction("listener") as tx:
        for uid, patient, accession in [("1.1", "PAT_1", "ACC%1"), ("1.2", "PATX1", "ACCX1")]:
            tx.session.add(
                Study(
                    study_instance_uid=uid, patient_id=patient, accession_number=accession, created_at=tx.now
                )
            )
    for action, about in [
        ("study.complete", {"study_instance_uid": "1.1"}),
        ("job.scored", {"study_instance_uid": "1.1", "job_id": "j1", "bundle": "aa"}),
        ("study.complete", {"study_instance_uid": "1.2"}),
        ("job.scored", {"study_instance_uid": "1.2", "job_id": "j2", "bundle": "bb"}),
        ("delivery.delivered", {"study_instance_uid": "1.2", "job_id": "j2"}),
        ("model.activated", {"bundle": "bb"}),
    ]:
        with database.transaction("=cmd()") as tx:
            tx.audit(action, **about, detail={"why": "test"})
    return database


def found(database: Database, wanted: AuditFilter, **options: int | bool) -> list[int]:
    with database.reading() as session:
        return [row.seq for row in query(session, wanted, **{"newest_first": False, **options})]


@pytest.mark.parametrize(
    ("wanted", "events"),
    [
        (AuditFilter(), [1, 2, 3, 4, 5, 6]),
        (AuditFilter(study_instance_uid="1.1"), [1, 2]),
        (AuditFilter(patient_id="PATX1"), [3, 4, 5]),
        (AuditFilter(accession_number="ACCX1"), [3, 4, 5]),
        (AuditFilter(job_id="j2"), [4, 5]),
        (AuditFilter(bundle="bb"), [4, 6]),
        (AuditFilter(action="job.scored"), [2, 4]),
        (AuditFilter(since=START + timedelta(minutes=4)), [5, 6]),
        (AuditFilter(since=(START + timedelta(minutes=4)).astimezone(timezone(timedelta(hours=2)))), [5, 6]),
        (AuditFilter(until=START + timedelta(minutes=2)), [1, 2]),
        (AuditFilter(patient_id="PATX1", action="job.scored"), [4]),
        (AuditFilter(patient_id="PAT_1", accession_number="ACCX1"), []),
    ],
)
def test_events_are_found_by(trail_of_two_patients: Database, wanted: AuditFilter, events: list[int]) -> None:
    assert found(trail_of_two_patients, wanted) == events


@pytest.mark.parametrize("hostile", ["x' OR 1=1 --", "%", "_", "", "\\", "'; DROP TABLE audit_event; --"])
def test_a_hostile_value_matches_nothing_and_does_nothing(
    trail_of_two_patients: Database, hostile: str
) -> None:
    """T24."""
    for field in ("study_instance_uid", "patient_id", "accession_number", "job_id", "bundle", "action"):
        assert found(trail_of_two_patients, AuditFilter(**{field: hostile})) == []
    assert len(found(trail_of_two_patients, AuditFilter())) == 6


def test_events_of_received_objects_are_found_among_others(trail_of_two_patients: Database) -> None:
    trail_of_two_patients.trail = AuditTrail(trail_of_two_patients.trail.key, wall_clock=lambda: START)
    with trail_of_two_patients.transaction("listener") as tx:
        tx.audit("instance.stored", study_instance_uid="1.1")
        tx.audit("job.scored", study_instance_uid="1.1")
    assert found(trail_of_two_patients, AuditFilter(action="instance.stored")) == [7]
    assert found(trail_of_two_patients, AuditFilter(action="instance.stored", since=START)) == [7]
    assert found(trail_of_two_patients, AuditFilter(action="job.scored")) == [2, 4, 8]


def test_wildcards_are_plain_characters(trail_of_two_patients: Database) -> None:
    assert found(trail_of_two_patients, AuditFilter(patient_id="PAT_1")) == [1, 2]
    assert found(trail_of_two_patients, AuditFilter(accession_number="ACC%1")) == [1, 2]


def test_a_limit_keeps_the_newest_or_the_oldest(trail_of_two_patients: Database) -> None:
    assert found(trail_of_two_patients, AuditFilter(), limit=2) == [1, 2]
    assert found(trail_of_two_patients, AuditFilter(), limit=2, newest_first=True) == [6, 5]
    assert found(trail_of_two_patients, AuditFilter(), limit=-1) == []


def test_no_limit_is_above_the_cap(database: Database) -> None:
    with database.transaction("test") as tx:
        for _ in range(MAX_ROWS + 1):
            tx.audit("test.event")

    assert len(found(database, AuditFilter(), limit=1_000_000_000)) == MAX_ROWS


def test_an_event_is_shown_with_the_promised_fields(trail_of_two_patients: Database) -> None:
    with trail_of_two_patients.reading() as session:
        (row,) = query(session, AuditFilter(action="job.scored", job_id="j1"))

    assert asdict(row) == {
        "seq": 2,
        "at": "2026-01-31T08:01:00.000000Z",
        "actor": "=cmd()",
        "action": "job.scored",
        "study_instance_uid": "1.1",
        "job_id": "j1",
        "bundle": "aa",
        "detail": {"why": "test"},
    }


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        AuditFilter(since=datetime(2026, 1, 31))


def test_a_question_can_be_audited_without_naming_the_patient() -> None:
    wanted = AuditFilter(
        study_instance_uid="1.1", patient_id="ZZCANARYID", accession_number="ZZCANARYACC", since=START
    )

    assert wanted.without_patient_data() == {
        "study_instance_uid": "1.1",
        "since": "2026-01-31T08:00:00.000000Z",
        "patient_id": "given",
        "accession_number": "given",
    }


def test_an_export_in_json_lines_can_be_verified_elsewhere(
    trail_of_two_patients: Database, audit_key: AuditKey
) -> None:
    stream = io.StringIO()

    assert export(trail_of_two_patients, stream) == 6

    prev = "0" * 64
    for line in stream.getvalue().splitlines():
        row = json.loads(line)
        assert tuple(row) == EXPORT_COLUMNS
        assert row["mac"] == audit_key.mac(row["key_id"], prev, row["payload"])
        prev = row["mac"]


def test_an_export_in_csv_holds_no_cell_that_a_spreadsheet_runs(trail_of_two_patients: Database) -> None:
    """T19."""
    stream = io.StringIO(newline="")

    assert export(trail_of_two_patients, stream, "csv", AuditFilter(job_id="j2")) == 2

    header, *rows = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert tuple(header) == EXPORT_COLUMNS
    assert [row[0] for row in rows] == ["4", "5"]
    assert {row[header.index("actor")] for row in rows} == {"'=cmd()"}
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)


def test_the_trail_and_its_export_hold_no_patient_data(trail_of_two_patients: Database) -> None:
    stream = io.StringIO()

    export(trail_of_two_patients, stream)

    assert "PAT" not in stream.getvalue()
    assert "ACC" not in stream.getvalue()


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (AuditFilter(since=START), "ix_audit_event_at"),
        (AuditFilter(action="job.scored"), "ix_audit_event_action_seq"),
        (AuditFilter(action="job.scored", until=START), "ix_audit_event_action_at"),
        (AuditFilter(action="instance.stored"), "sqlite_autoindex_audit_event_1"),  # seq
        (AuditFilter(action="instance.stored", until=START), "ix_audit_event_at"),
        (AuditFilter(bundle="bb"), "ix_audit_event_bundle_seq"),
        (AuditFilter(bundle="bb", since=START), "ix_audit_event_bundle_at"),
    ],
)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_an_index_answers_in_the_order_that_is_shown(
    trail_of_two_patients: Database, wanted: AuditFilter, index: str
) -> None:
    plans: list[str] = []
    engine = trail_of_two_patients.engine

    def explain(
        connection: Connection, _cursor: object, statement: str, parameters: object, *_: object
    ) -> None:
        if statement.startswith("SELECT audit_event"):
            rows = connection.connection.driver_connection.execute(
                f"EXPLAIN QUERY PLAN {statement}", parameters
            )
            plans.extend(str(row[-1]) for row in rows)

    event.listen(engine, "before_cursor_execute", explain)
    found(trail_of_two_patients, wanted, newest_first=True)
    event.remove(engine, "before_cursor_execute", explain)

    assert any(index in plan for plan in plans), plans
    assert not any("TEMP B-TREE" in plan for plan in plans), plans
