"""One way to open the database and one way to change it.

Nothing else in the project begins, commits or rolls back. A :class:`Transaction` knows who acts and what
time it is, and collects the audit events of its changes; they are chained and written as the last thing
before the commit, so that an action whose audit row cannot be written does not happen (and so that the
chain's lock is always taken after every row lock, which rules out a deadlock).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from sqlalchemy import Connection, CursorResult, Engine, Result, create_engine, event, exc, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from db.audit import AuditEntry, AuditTrail
from db.clock import Clock, clock_for
from db.driver_statements import execute_text
from db.errors import DatabaseError, DatabaseUnavailableError
from db.tables import Base

LOCK_TIMEOUT_S = 15.0
# Of the WAL, 16 MB: some commit in so many pages waits until they are written to the database.
_LOG_PAGES = 4000
_READ_ONLY = "dicom_node_read_only"
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
# A server that vanished without a word (a pulled cable, a forgetful firewall) is noticed in half a minute.
_SILENT_PEER = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20000,  # milliseconds
}


class Transaction:
    """An open transaction: its connection, its actor, its time and its audit events.

    Attributes
    ----------
    connection : sqlalchemy.Connection
        For the functions of :mod:`db` only.
    actor : str
        Who acts: a process name such as ``"listener@host:17"`` or a person's login.
    now : datetime.datetime
        The database's time at the beginning of the transaction, aware UTC; steps of the wall clock do not
        move it (see :mod:`db.clock`).
    """

    def __init__(self, connection: Connection, actor: str, now: datetime) -> None:
        self.connection = connection
        self.actor = actor
        self.now = now
        self._entries: list[AuditEntry] = []

    @cached_property
    def session(self) -> Session:
        """The transaction's mapped objects, for the functions of :mod:`db` only.

        Made when it is asked for first: what runs at each received object goes without.
        """
        return Session(self.connection, expire_on_commit=False, join_transaction_mode="rollback_only")

    def audit(
        self,
        action: str,
        *,
        study_instance_uid: str | None = None,
        job_id: str | None = None,
        bundle: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Record an event in the same transaction as the change that it describes.

        Parameters
        ----------
        action : str
            ``subject.verb``, such as ``"study.complete"``.
        study_instance_uid, job_id, bundle : str, optional
            What it concerns; the trail can be queried by each.
        detail : mapping, optional
            JSON values. No patient data.
        """
        self._entries.append(
            AuditEntry(self.actor, action, study_instance_uid, job_id, bundle, dict(detail or {}))
        )

    def finish(self, trail: AuditTrail) -> None:
        """Write what mapped objects hold, then chain and write the events; called once, before the commit."""
        if self._has_session:
            self.session.flush()
        if self._entries:
            trail.append(self.connection, self._entries)

    def let_go(self) -> None:
        """Release the mapped objects; whoever still holds one can read it."""
        if self._has_session:
            self.session.close()

    @property
    def _has_session(self) -> bool:
        return "session" in vars(self)


class Database:
    """The node's database.

    Parameters
    ----------
    url : str
        SQLAlchemy URL: ``sqlite:///PATH`` or ``postgresql+psycopg://...``.
    trail : AuditTrail
        Chains the audit events of every transaction.
    clock : Clock, optional
        Whose time decides leases, quiet periods and backoff; by default that of the database.
    lock_timeout_s : float
        Seconds to wait for another writer before :class:`~db.errors.DatabaseUnavailableError`.
    syncs_commits : bool
        Whether a commit is durable when it returns; see :meth:`late_synced` for what else there is.
    """

    def __init__(
        self,
        url: str,
        trail: AuditTrail,
        *,
        clock: Clock | None = None,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        syncs_commits: bool = True,
    ) -> None:
        self.engine = open_engine(url, lock_timeout_s, syncs_commits=syncs_commits)
        self.trail = trail
        self._lock_timeout_s = lock_timeout_s
        self._clock = clock or clock_for(self.engine)
        # On SQLite the next transaction spares the pool's work; one to a server may have died meanwhile.
        self._kept: list[Connection] = []
        self._log = _Log(str(self.engine.url.database))
        self._is_log_in_doubt = False

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded default."""
        return self.engine.dialect.name == "sqlite"

    @property
    def engine_name(self) -> str:
        """``"sqlite"`` or ``"postgresql"``."""
        return self.engine.dialect.name

    @contextmanager
    def transaction(self, actor: str) -> Iterator[Transaction]:
        """Open a writing transaction; commit at the end of the block, roll back on any exception.

        Raises
        ------
        DatabaseUnavailableError
            If the database cannot be reached, is locked for longer than the busy time-out, or is full.
        """
        with translated_errors():
            connection = self._taken_connection()
            try:
                with connection.begin():
                    tx = Transaction(connection, actor, self._clock.now(connection, may_write=True))
                    try:
                        yield tx
                        tx.finish(self.trail)
                    finally:
                        tx.let_go()
            except BaseException:
                connection.close()
                raise
            self._keep(connection)

    def _taken_connection(self) -> Connection:
        """Return the connection that was kept, or one of the pool's."""
        try:
            return self._kept.pop()
        except IndexError:
            return self.engine.connect()

    def _keep(self, connection: Connection) -> None:
        """Keep one connection for the next transaction; more than one would be missed in the pool."""
        if self.is_sqlite and not self._kept:
            self._kept.append(connection)
        else:
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that only reads and never waits for a writer."""
        with translated_errors():
            engine = self.engine.execution_options(**{_READ_ONLY: True})
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session

    def now(self) -> datetime:
        """The database's time, aware UTC."""
        with self.transaction("clock") as tx:
            return tx.now

    def now_in(self, session: Session) -> datetime:
        """The database's time in an open reading session, aware UTC."""
        return self._clock.now(session.connection(), may_write=False)

    @contextmanager
    def late_synced(self) -> Iterator[Database]:
        """Open the database again, for commits that can be made again from elsewhere.

        All see such a commit at once. A crash of the machine may take it, unless a durable one, of whatever
        process, or :meth:`sync_commits` came after it. A PostgreSQL server may crash by itself, so that its
        clients would not know: there every commit stays durable.
        """
        if not self.is_sqlite:
            yield self
            return
        self._log.hold()
        url = self.engine.url.render_as_string(hide_password=False)
        again = Database(
            url, self.trail, clock=self._clock, lock_timeout_s=self._lock_timeout_s, syncs_commits=False
        )
        try:
            yield again
        finally:
            again.close()

    def sync_commits(self, *, from_scratch: bool = False) -> None:
        """Make every commit durable that was made so far, whoever made it.

        Parameters
        ----------
        from_scratch : bool
            Whether a process that died may have been told of a sync that failed: a sync that is tried again
            tells nothing of what the first one lost, so what the log holds is written to the database.

        Raises
        ------
        DatabaseUnavailableError
            If the disk refuses.
        """
        if not self.is_sqlite:
            return
        if self._is_log_in_doubt:
            self._empty_log()
            self._is_log_in_doubt = False
            return
        if from_scratch and self._is_written_back():
            return
        try:
            self._log.sync()
        except OSError as error:
            # A sync that is tried again after an error tells nothing of what the first one lost.
            self._is_log_in_doubt = True
            code = errno.errorcode.get(error.errno or 0, "unknown")
            raise DatabaseUnavailableError(
                f"the database's disk refused ({code}); look at the data directory's disk"
            ) from None

    def _empty_log(self) -> None:
        """Write to the database what the log holds, and sync it there."""
        is_busy, *_ = self._checkpoint("TRUNCATE")
        if is_busy:
            raise DatabaseUnavailableError("the database's log is in use; the node tries again by itself")

    def _is_written_back(self) -> bool:
        """Do the same as far as no reader is in the way, waiting for none; return whether it was all."""
        is_busy, pages, written = self._checkpoint("PASSIVE")
        return not is_busy and pages == written

    def _checkpoint(self, how: str) -> tuple[int, int, int]:
        connection = self.engine.raw_connection()
        try:
            answer: tuple[int, int, int] = (
                connection.cursor().execute(f"PRAGMA wal_checkpoint({how})").fetchone()
            )
        except sqlite3.Error as error:
            raise DatabaseUnavailableError(
                f"the database's disk refused ({error.sqlite_errorname}); look at the data directory's disk"
            ) from None
        finally:
            connection.close()
        return answer

    def close(self) -> None:
        """Close every connection."""
        while self._kept:
            self._kept.pop().close()
        self.engine.dispose()
        self._log.close()


class _Log:
    """The log of an SQLite database, for its syncs.

    It stays open, because the kernel tells of a page that could not be written whoever had the file open
    then, and of those who come later the first alone.
    """

    def __init__(self, database: str) -> None:
        # SQLite puts the log beside the file, not beside a link to it.
        self._path = Path(f"{os.path.realpath(database)}-wal")
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def hold(self) -> None:
        """Open the file that is there now, unless it is open."""
        with self._lock:
            self._hold()

    def sync(self) -> None:
        """Make durable what it holds; whatever else is committed is in the synced database.

        Raises
        ------
        OSError
            If the disk refused any of it.
        """
        with self._lock:
            self._hold()
            if self._descriptor is not None:
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._let_go()

    def _hold(self) -> None:
        try:
            present = self._path.stat()
        except FileNotFoundError:
            self._let_go()
            return
        if self._descriptor is not None and os.path.samestat(os.fstat(self._descriptor), present):
            return
        self._let_go()
        with contextlib.suppress(FileNotFoundError):
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


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


def open_engine(url: str, lock_timeout_s: float = LOCK_TIMEOUT_S, *, syncs_commits: bool = True) -> Engine:
    """Create the engine; by default with the durability that "answered means stored" needs."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": lock_timeout_s})
        event.listen(engine, "connect", partial(_prepare_sqlite, "FULL" if syncs_commits else "NORMAL"))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        parsed,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=10,
        isolation_level="READ COMMITTED",  # each look after a lock must see what the lock waited for
        connect_args={
            "connect_timeout": 5,
            **_SILENT_PEER,
            "options": f"-c synchronous_commit=on -c lock_timeout={round(lock_timeout_s * 1000)}ms",
        },
    )


def _prepare_sqlite(synchronous: str, connection: Any, _record: ConnectionPoolEntry) -> None:
    """Set what every connection needs: how the WAL is synced, and triggers that REPLACE cannot dodge."""
    connection.isolation_level = None  # BEGIN is ours: see _begin_sqlite
    cursor = connection.cursor()
    pragmas = (
        "journal_mode=WAL",
        f"synchronous={synchronous}",
        f"wal_autocheckpoint={_LOG_PAGES}",
        "foreign_keys=ON",
        "recursive_triggers=ON",
    )
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Take the writer's lock at once: a deferred transaction can fail at its first write instead."""
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    execute_text(connection, "BEGIN" if read_only else "BEGIN IMMEDIATE")
