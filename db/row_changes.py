"""Changes of rows that tell whether they happened: what every compare-and-set asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import CursorResult, Result
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.tables import Base


def insert_if_absent(session: Session, table: type[Base], values: Mapping[str, Any]) -> bool:
    """Insert a row unless a unique column already holds its value; return whether it was inserted."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    # Without the option SQLAlchemy leaves an INSERT's row count unread on PostgreSQL, as -1.
    result = session.execute(
        dialect.insert(table).values(**values).on_conflict_do_nothing(),
        execution_options={"preserve_rowcount": True},
    )
    return changed_rows(result) == 1


def changed_rows(result: Result[Any]) -> int:
    """Return how many rows an INSERT or UPDATE changed: the answer of every compare-and-set."""
    return int(cast("CursorResult[Any]", result).rowcount)
