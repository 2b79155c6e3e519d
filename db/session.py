"""One way to open the database and one way to change it.

Nothing else in the project begins, commits or rolls back. A :class:`Transaction` knows who acts and what
time it is, and collects the audit events of its changes; they are chained and written as the last thing
before the commit, so that an action whose audit row cannot be written does not happen (and so that the
chain's lock is always taken after every row lock, which rules out a deadlock).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from db.audit.trail import AuditEntry, AuditTrail
from db.clock import Clock, clock_for
from db.driver_errors import translated_errors
from db.engine import LOCK_TIMEOUT_S, READ_ONLY, open_engine
from db.sqlite_log import SqliteLog


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
        self._log = SqliteLog(self.engine) if self.is_sqlite else None

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
    def reading(self, *, at_one_moment: bool = False) -> Iterator[Session]:
        """Open a session that only reads and never waits for a writer.

        Parameters
        ----------
        at_one_moment : bool
            Whether each statement sees what the first one saw, as on SQLite always; otherwise each sees what
            was committed before it.
        """
        options: dict[str, Any] = {READ_ONLY: True}
        if at_one_moment and not self.is_sqlite:
            options["isolation_level"] = "REPEATABLE READ"
        with translated_errors():
            engine = self.engine.execution_options(**options)
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
        if self._log is None:
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
        if self._log is not None:
            self._log.sync(from_scratch=from_scratch)

    def close(self) -> None:
        """Close every connection."""
        while self._kept:
            self._kept.pop().close()
        self.engine.dispose()
        if self._log is not None:
            self._log.close()
