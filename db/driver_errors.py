"""What SQLAlchemy and the drivers raise, as the errors of this project.

The originals do not pass, not even as the cause: PostgreSQL writes the failing row, and with it patient data,
into its errors.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from types import TracebackType

from sqlalchemy import exc

from db.errors import DatabaseError, DatabaseUnavailableError

# What a server or its driver says where no connection came about, and what is told of it: never their words.
_BEFORE_CONNECTED = {
    re.compile(theirs): ours
    for theirs, ours in {
        "Connection refused": "it refuses connections",
        "failed to resolve host": "its host's name is not known",
        "No route to host|Network is unreachable": "there is no way to its host",
        "timeout expired": "it does not answer",
        'password authentication failed|role ".*" does not exist': "wrong user or password",
        "no password supplied": "it wants a password",
        "no pg_hba.conf entry": "it does not admit this user from this machine",
        'database ".*" does not exist': "it has no database of this name",
        "the database system is": "it starts or stops",
        "too many": "it has too many connections",
        "closed the connection": "it ended the connection",
    }.items()
}


class _TranslatedErrors:
    # Not a generator, which takes four times as long: every received object passes it.
    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, exc.SQLAlchemyError):
            if _passes_by_itself(error):
                raise DatabaseUnavailableError(
                    f"the database cannot be used now ({_code(error)}); check that it runs, is reachable "
                    "and has disk space; the node tries again by itself"
                ) from None
            raise DatabaseError(
                f"the database refused a statement ({_code(error)}); run 'dicom-node db check'"
            ) from None
        if isinstance(error, UnicodeEncodeError):
            raise DatabaseError(
                "a text with characters that Unicode does not know cannot be stored; decode it with "
                "replacements"
            ) from None


_TRANSLATED_ERRORS = _TranslatedErrors()


def translated_errors() -> AbstractContextManager[None]:
    """Turn SQLAlchemy's errors into ours, named by the driver's code alone.

    The originals do not pass, not even as the cause: PostgreSQL writes the failing row, and with it patient
    data, into its errors.
    """
    return _TRANSLATED_ERRORS


def _passes_by_itself(error: exc.SQLAlchemyError) -> bool:
    """Whether the database is away, locked or full, and not the statement wrong."""
    passing = exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError
    # SQLite alone calls a missing table or column operational too.
    return isinstance(error, passing) and not _code(error).endswith(" SQLITE_ERROR")


def _code(error: exc.SQLAlchemyError) -> str:
    """Return the error's type and the driver's code of it, which hold no value of any row."""
    original = getattr(error, "orig", None)
    code = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)
    if code:
        return f"{type(error).__name__} {code}"
    # Errors before there is a connection have no code.
    said = str(original)
    told = next((ours for theirs, ours in _BEFORE_CONNECTED.items() if theirs.search(said)), None)
    return f"{type(error).__name__}: {told}" if told else type(error).__name__
