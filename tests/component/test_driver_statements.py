"""A statement that the driver executes itself stores, finds and fails as SQLAlchemy's own would."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import bindparam, insert, select

from db.driver_statements import DriverStatement
from db.errors import DatabaseError, DatabaseUnavailableError
from db.session import Database
from db.tables import HostClock

_INSERT = DriverStatement(insert(HostClock).inline(), ["boot_id", "zero_at"])
_FIND = DriverStatement(
    select(HostClock.boot_id).where(
        HostClock.boot_id.like("made-up-%"), HostClock.zero_at > bindparam("after")
    ),
    ["after"],
)
_FIND_BETWEEN = DriverStatement(
    select(HostClock.boot_id).where(
        HostClock.zero_at > bindparam("after"),
        HostClock.boot_id.like(bindparam("pattern")),
        HostClock.zero_at < bindparam("before"),
    ),
    ["pattern", "before", "after"],
)
_INSERT_TWO = DriverStatement(
    insert(HostClock)
    .values([{name: bindparam(f"{name}_{n}") for name in ("boot_id", "zero_at")} for n in range(2)])
    .inline(),
    ["boot_id_0", "zero_at_0", "boot_id_1", "zero_at_1"],
)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize("count", [1, 3])
def test_rows_are_stored_as_mapped_objects_read_them(database: Database, count: int) -> None:
    rows = [(f"made-up-{number}", NOON) for number in range(count)]
    with database.transaction("test") as tx:
        _INSERT.execute(tx.connection, rows)
        assert tx.session.get_one(HostClock, "made-up-0").zero_at == NOON
    with database.reading() as session:
        names = session.scalars(select(HostClock.boot_id).where(HostClock.boot_id.like("made-up-%")))
        assert sorted(names) == [boot_id for boot_id, _ in rows]


def test_values_in_the_statement_and_values_given_are_both_compared(database: Database) -> None:
    with database.transaction("test") as tx:
        for boot_id, at in (("made-up-1", NOON), ("made-up-2", NOON.replace(hour=9)), ("other", NOON)):
            tx.session.add(HostClock(boot_id=boot_id, zero_at=at))
    with database.reading() as session:
        found = _FIND.rows(session.connection(), NOON.replace(hour=10))
    assert found == [("made-up-1",)]


def test_values_are_given_in_the_order_of_their_names(database: Database) -> None:
    with database.transaction("test") as tx:
        _INSERT_TWO.execute(tx.connection, [("made-up-1", NOON, "made-up-2", NOON.replace(hour=15))])
        _INSERT_TWO.execute(tx.connection, [])
    with database.reading() as session:
        values = "made-up-%", NOON.replace(hour=14), NOON.replace(hour=10)
        found = _FIND_BETWEEN.rows(session.connection(), *values)
    assert found == [("made-up-1",)]


def test_a_refused_row_is_an_error_without_its_values_and_leaves_nothing(database: Database) -> None:
    row = ("made-up-secret", NOON)
    with pytest.raises(DatabaseError) as refused, database.transaction("test") as tx:
        _INSERT.execute(tx.connection, [row])
        _INSERT.execute(tx.connection, [row])
    assert not isinstance(refused.value, DatabaseUnavailableError)
    assert "made-up-secret" not in str(refused.value)
    with database.reading() as session:
        assert session.get(HostClock, "made-up-secret") is None
