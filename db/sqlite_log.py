"""Syncing the write-ahead log of an SQLite database, after commits that were not synced one by one."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from pathlib import Path

from sqlalchemy import Engine

from db.errors import DatabaseUnavailableError


class SqliteLog:
    """The log of an SQLite database.

    It stays open, because the kernel tells of a page that could not be written whoever had the file open
    then, and of those who come later the first alone.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # SQLite puts the log beside the file, not beside a link to it.
        self._path = Path(f"{os.path.realpath(str(engine.url.database))}-wal")
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self._is_in_doubt = False

    def hold(self) -> None:
        """Open the file that is there now, unless it is open."""
        with self._lock:
            self._hold()

    def sync(self, *, from_scratch: bool = False) -> None:
        """Make durable every commit that was made so far, whoever made it.

        Parameters
        ----------
        from_scratch : bool
            See :meth:`db.session.Database.sync_commits`.

        Raises
        ------
        DatabaseUnavailableError
            If the disk refuses.
        """
        if self._is_in_doubt:
            self._empty()
            self._is_in_doubt = False
            return
        if from_scratch and self._is_written_back():
            return
        try:
            self._sync_file()
        except OSError as error:
            # A sync that is tried again after an error tells nothing of what the first one lost.
            self._is_in_doubt = True
            code = errno.errorcode.get(error.errno or 0, "unknown")
            raise DatabaseUnavailableError(
                f"the database's disk refused ({code}); look at the data directory's disk"
            ) from None

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._let_go()

    def _sync_file(self) -> None:
        """Sync what the log holds; whatever else is committed is in the synced database."""
        with self._lock:
            self._hold()
            if self._descriptor is not None:
                os.fsync(self._descriptor)

    def _empty(self) -> None:
        """Write to the database what the log holds, and sync it there."""
        is_busy, *_ = self._checkpoint("TRUNCATE")
        if is_busy:
            raise DatabaseUnavailableError("the database's log is in use; the node tries again by itself")

    def _is_written_back(self) -> bool:
        """Do the same as far as no reader is in the way, waiting for none; return whether it was all."""
        is_busy, pages, written = self._checkpoint("PASSIVE")
        return not is_busy and pages == written

    def _checkpoint(self, how: str) -> tuple[int, int, int]:
        connection = self._engine.raw_connection()
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
