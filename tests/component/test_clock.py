"""Whose time decides leases, quiet periods and backoff: a clock that nobody's wall clock moves."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import delete, insert, select, text, update

from db.clock import BOOT_ID
from db.errors import DatabaseError
from db.queueing import queue_training
from db.session import Database
from db.tables import HostClock, Job, Process
from tests.steered_node import SteeredNode, on_postgresql, on_sqlite

MINUTE = timedelta(minutes=1)


def another(database: Database) -> Database:
    """Open the database as another process does: with a clock that knows nothing yet."""
    return Database(database.engine.url.render_as_string(hide_password=False), database.trail)


def test_the_first_use_takes_the_time_from_the_wall(database: Database) -> None:
    assert abs(database.now() - datetime.now(UTC)) < MINUTE


def test_the_time_is_aware_and_utc(database: Database) -> None:
    assert database.now().utcoffset() == timedelta(0)


def test_time_goes_on(database: Database) -> None:
    first = database.now()
    second = database.now()

    assert first < second


def test_a_reading_session_tells_the_same_time_as_a_writing_one(database: Database) -> None:
    with database.reading() as session:
        before = database.now_in(session)
    between = database.now()
    with database.reading() as session:
        after = database.now_in(session)

    assert before <= between <= after


@on_postgresql
def test_the_servers_clock_decides(database: Database) -> None:
    with database.transaction("test") as tx:
        servers = tx.session.scalars(select(text("clock_timestamp()"))).one()
        assert timedelta(0) <= servers - tx.now < MINUTE


@on_sqlite
def test_a_step_of_the_wall_clock_after_the_first_use_moves_nothing(database: Database) -> None:
    database.now()
    # What would be stored, had the wall clock been two hours slow at the first use and been set right since.
    with database.transaction("test") as tx:
        stored = tx.session.scalars(select(HostClock)).one()
        slow = stored.zero_at - timedelta(hours=2)
        tx.session.execute(update(HostClock).values(zero_at=slow))

    other = another(database)
    try:
        assert abs(other.now() - (datetime.now(UTC) - timedelta(hours=2))) < MINUTE
        with other.reading() as session:
            assert abs(other.now_in(session) - (datetime.now(UTC) - timedelta(hours=2))) < MINUTE
    finally:
        other.close()


@on_sqlite
def test_all_processes_of_a_boot_share_one_offset(database: Database) -> None:
    other = another(database)
    try:
        database.now()
        other.now()
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        times = database.now(), other.now()
        elapsed = timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME) - boot)
    finally:
        other.close()

    assert timedelta(0) <= times[1] - times[0] <= elapsed
    with database.reading() as session:
        assert len(session.scalars(select(HostClock)).all()) == 1


@on_sqlite
def test_a_first_use_that_is_rolled_back_leaves_no_time_behind(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction("test"):
        raise ZeroDivisionError
    # Another process is quicker, and its wall clock says something else.
    boot = timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
    theirs = datetime.now(UTC) - boot + timedelta(hours=3)
    with database.reading() as session:
        assert session.scalars(select(HostClock)).all() == []
    with database.engine.begin() as connection:
        connection.execute(insert(HostClock).values(boot_id=BOOT_ID.read_text().strip(), zero_at=theirs))

    assert abs(database.now() - (datetime.now(UTC) + timedelta(hours=3))) < MINUTE


@on_sqlite
def test_a_new_boot_replaces_the_offset_of_the_last_one(database: Database) -> None:
    old = datetime(2020, 1, 1, tzinfo=UTC)
    with database.engine.begin() as connection:
        connection.execute(delete(HostClock))
        connection.execute(insert(HostClock).values(boot_id="an-earlier-boot", zero_at=old))

    assert abs(database.now() - datetime.now(UTC)) < MINUTE
    with database.reading() as session:
        assert [row.boot_id for row in session.scalars(select(HostClock))] == [BOOT_ID.read_text().strip()]


@on_sqlite
def test_looking_at_the_clock_before_its_first_use_writes_nothing(database: Database) -> None:
    with database.reading() as session:
        assert abs(database.now_in(session) - datetime.now(UTC)) < MINUTE

    with database.reading() as session:
        assert session.scalars(select(HostClock)).all() == []


# --- times in columns


def test_a_time_without_a_zone_is_refused(node: SteeredNode) -> None:
    with pytest.raises(DatabaseError), node.transaction() as tx:
        tx.now = tx.now.replace(tzinfo=None)
        queue_training(tx, recipe="phantoms", order={})

    assert node.rows(Job) == []


@pytest.mark.parametrize("microsecond", [0, 1, 999_999])
def test_a_time_comes_back_as_it_was_whatever_its_zone(node: SteeredNode, microsecond: int) -> None:
    tokyo = timezone(timedelta(hours=9))
    moment = datetime(2026, 3, 1, 4, 5, 6, microsecond, tzinfo=tokyo)
    with node.transaction() as tx:
        tx.session.add(Process(name="p", kind="worker", started_at=moment, seen_at=moment))

    (row,) = node.rows(Process)
    assert row.seen_at == moment
    assert row.seen_at.tzinfo is UTC


def test_times_are_compared_in_the_database_as_times(node: SteeredNode) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    offsets = [timedelta(0), timedelta(microseconds=1), timedelta(seconds=1), timedelta(days=400)]
    with node.transaction() as tx:
        for n, offset in enumerate(offsets):
            tx.session.add(Process(name=f"p{n}", kind="worker", started_at=noon, seen_at=noon + offset))

    tokyo = (noon + timedelta(seconds=1)).astimezone(timezone(timedelta(hours=9)))
    assert [p.name for p in node.rows(Process, Process.seen_at < tokyo)] == ["p0", "p1"]
