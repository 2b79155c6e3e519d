"""Whether so much work waits that nothing more should come in for now."""

from __future__ import annotations

import structlog

from db import listing
from db.errors import DatabaseError
from db.session import Database

_log = structlog.get_logger(__name__)


class Backlog:
    """The score jobs that wait, as last looked at.

    Parameters
    ----------
    database : Database
        The truth.
    most : int
        How many may wait.
    """

    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._most = most
        self._is_too_long = False

    def look(self) -> None:
        """Count again. A database that is away changes nothing: objects are refused then in any case."""
        try:
            with self._database.reading() as session:
                waiting = listing.waiting_score_jobs(session, at_most=self._most + 1)
        except DatabaseError as error:
            _log.warning("listener.backlog_unknown", reason=str(error))
            return
        if (waiting > self._most) != self._is_too_long:
            self._is_too_long = not self._is_too_long
            _log.warning("listener.backlog", is_too_long=self._is_too_long, most=self._most)

    def is_too_long(self) -> bool:
        """Whether more jobs wait than may."""
        return self._is_too_long
