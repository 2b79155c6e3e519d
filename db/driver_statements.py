"""Statements that are compiled once and then given to the driver itself.

For what runs at each received object: SQLAlchemy's own execution costs several times what the database needs
for such a statement. How a statement is written and how values are stored stays SQLAlchemy's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, exc
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement, Executable

Processor = Callable[[Any], Any]

# Parameters in an order, not by name: nobody looks for names then.
_PARAMETER_STYLES = {"sqlite": "qmark", "postgresql": "format"}


class DriverStatement:
    """A statement whose values are given in one order.

    Parameters
    ----------
    statement : sqlalchemy.Executable or mapping of str to sqlalchemy.Executable
        Without expanding parameters; where the two databases need different ones, by the dialect's name.
    names : sequence of str
        The parameters' names, in the order in which values are given; of an INSERT without parameters, the
        columns'.
    """

    def __init__(self, statement: Executable | Mapping[str, Executable], names: Sequence[str] = ()) -> None:
        self._statement = statement
        self._names = tuple(names)
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, connection: Connection, *values: Any) -> Sequence[tuple[Any, ...]]:
        """Execute a statement that answers with rows; values of result columns are the driver's own."""
        compiled = self._compiled.get(connection.dialect.name) or self._compile(connection)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(compiled.text, compiled.parameters(values))
            rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
        except compiled.driver_error as error:
            raise _translated(connection, error) from error
        finally:
            cursor.close()
        return rows

    def execute(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Execute a change, once for each row of values."""
        compiled = self._compiled.get(connection.dialect.name) or self._compile(connection)
        cursor = connection.connection.cursor()
        try:
            if len(rows) == 1:
                cursor.execute(compiled.text, compiled.parameters(rows[0]))
            elif rows:
                cursor.executemany(compiled.text, [compiled.parameters(values) for values in rows])
        except compiled.driver_error as error:
            raise _translated(connection, error) from error
        finally:
            cursor.close()

    def _compile(self, connection: Connection) -> _Compiled:
        name = connection.dialect.name
        statement = self._statement[name] if isinstance(self._statement, Mapping) else self._statement
        compiled = self._compiled[name] = _Compiled.of(statement, self._names, connection)
        return compiled


def execute_text(connection: Connection, text: str) -> None:
    """Execute a statement without parameters that is the driver's own already."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(text)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _translated(connection, error) from error
    finally:
        cursor.close()


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as one driver takes it.

    Attributes
    ----------
    text : str
        The SQL.
    driver_error : type of Exception
        What the driver raises.
    processors : tuple of (int, callable)
        Which of the given values the driver wants in another form.
    fixed : tuple
        The values that stand in the statement itself, in the driver's form.
    order : callable or None
        Puts given and then fixed values into the driver's order; None where they are in it.
    """

    text: str
    driver_error: type[Exception]
    processors: tuple[tuple[int, Processor], ...]
    fixed: tuple[Any, ...]
    order: Callable[[Sequence[Any]], Any] | None

    @classmethod
    def of(cls, statement: Executable, names: tuple[str, ...], connection: Connection) -> _Compiled:
        assert isinstance(statement, ClauseElement)  # as every statement that is built of columns
        dialect = connection.dialect
        make_dialect: Callable[..., Dialect] = type(dialect)
        positional = make_dialect(paramstyle=_PARAMETER_STYLES[dialect.name])
        # An INSERT that names no columns itself is compiled for these.
        compiled = statement.compile(
            dialect=positional, column_keys=list(names) if isinstance(statement, Insert) else None
        )
        assert isinstance(compiled, SQLCompiler)
        used = compiled.positiontup or []
        processors = {
            name: processor
            for name, bind in compiled.binds.items()
            if (processor := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }
        # What stands in the statement itself is processed here, once.
        fixed = {
            name: processors.get(name, _unchanged)(bind.value)
            for name, bind in compiled.binds.items()
            if not bind.required and name in used
        }
        at = {name: index for index, name in enumerate((*names, *fixed))}
        order = [at[name] for name in used]
        return cls(
            text=str(compiled),
            driver_error=dialect.loaded_dbapi.Error,
            processors=tuple((at[name], processors[name]) for name in names if name in processors),
            fixed=tuple(fixed.values()),
            order=None if order == list(range(len(at))) else itemgetter(*order),
        )

    def parameters(self, values: Sequence[Any]) -> Any:
        """Return the values in the driver's form and order."""
        if self.processors:
            values = list(values)
            for index, processor in self.processors:
                values[index] = processor(values[index])
        if self.fixed:
            values = (*values, *self.fixed)
        return values if self.order is None else self.order(values)


def _unchanged(value: Any) -> Any:
    return value


def _translated(connection: Connection, error: Exception) -> exc.DBAPIError:
    """Return the driver's error as SQLAlchemy's, as for any other statement."""
    dialect = connection.dialect
    # No statement and no values: an error's text must not carry a patient's.
    translated: exc.DBAPIError = exc.DBAPIError.instance(  # type: ignore[assignment]
        None, None, error, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect
    )
    return translated
