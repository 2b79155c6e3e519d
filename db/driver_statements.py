"""Statements that are compiled once and then given to the driver itself.

For what runs at each received object: SQLAlchemy's own execution costs several times what the database needs
for such a statement. How a statement is written and how values are stored stays SQLAlchemy's business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exc
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement, Executable

Processor = Callable[[Any], Any]


class DriverStatement:
    """A statement with named parameters.

    Parameters
    ----------
    statement : sqlalchemy.Executable
        Without expanding parameters; of an INSERT, one that returns nothing.
    columns : collection of str, optional
        Of an INSERT or UPDATE: the columns whose values come as parameters of their names.
    """

    def __init__(self, statement: Executable, columns: Collection[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute a query; values of result columns are the driver's own."""
        compiled = self._for(connection)
        with _cursor(connection) as cursor:
            cursor.execute(compiled.text, compiled.parameters(values))
            return list(cursor.fetchall())

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute a change, once for each row of values."""
        compiled = self._for(connection)
        with _cursor(connection) as cursor:
            if len(rows) == 1:
                cursor.execute(compiled.text, compiled.parameters(rows[0]))
            else:
                cursor.executemany(compiled.text, [compiled.parameters(values) for values in rows])

    def _for(self, connection: Connection) -> _Compiled:
        name = connection.dialect.name
        if name not in self._compiled:
            self._compiled[name] = _Compiled.of(self._statement, self._columns, connection)
        return self._compiled[name]


def execute_text(connection: Connection, text: str) -> None:
    """Execute a statement without parameters that is the driver's own already."""
    with _cursor(connection) as cursor:
        cursor.execute(text)


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as one driver takes it."""

    text: str
    names: tuple[str, ...]
    is_positional: bool
    fixed: Mapping[str, Any]
    processors: Mapping[str, Processor]

    @classmethod
    def of(cls, statement: Executable, columns: Collection[str] | None, connection: Connection) -> _Compiled:
        assert isinstance(statement, ClauseElement)  # as every statement that is built of columns
        dialect = connection.dialect
        compiled = statement.compile(dialect=dialect, column_keys=None if columns is None else list(columns))
        assert isinstance(compiled, SQLCompiler)
        processors = {
            name: processor
            for name, bind in compiled.binds.items()
            if (processor := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }
        # What stands in the statement itself is processed here, once.
        fixed = {
            name: processors.get(name, _unchanged)(bind.value)
            for name, bind in compiled.binds.items()
            if not bind.required
        }
        return cls(
            text=str(compiled),
            names=tuple(compiled.positiontup or compiled.binds),
            is_positional=bool(compiled.positional),
            fixed=fixed,
            processors=processors,
        )

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Return the values in the driver's form."""
        processors, fixed = self.processors, self.fixed
        spelled = (
            fixed[name]
            if name in fixed
            else processors[name](values[name])
            if name in processors
            else values[name]
            for name in self.names
        )
        return tuple(spelled) if self.is_positional else dict(zip(self.names, spelled, strict=True))


def _unchanged(value: Any) -> Any:
    return value


@contextmanager
def _cursor(connection: Connection) -> Iterator[Any]:
    """A cursor of the driver's; its errors become SQLAlchemy's, as for any other statement."""
    dialect = connection.dialect
    driver_error: type[Exception] = dialect.loaded_dbapi.Error
    cursor = connection.connection.cursor()
    try:
        yield cursor
    except driver_error as error:
        # No statement and no values: an error's text must not carry a patient's.
        raise exc.DBAPIError.instance(
            None, None, error, driver_error, hide_parameters=True, dialect=dialect
        ) from error
    finally:
        cursor.close()
