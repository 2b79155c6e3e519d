"""The signs of life of a process that waits for others: a database that is away does not end it."""

from __future__ import annotations

import structlog

from db import processes
from db.errors import DatabaseError
from db.session import Database

SIGN_OF_LIFE_S = 10.0

_log = structlog.get_logger(__name__)


class Presence:
    """What the node knows of this process being there.

    Parameters
    ----------
    database : Database
        Takes the signs.
    name, kind : str
        As for :func:`db.processes.sign_of_life`.
    """

    def __init__(self, database: Database, name: str, kind: str) -> None:
        self._database = database
        self._name = name
        self._signs = processes.SignsOfLife(database, name, kind)

    def sign(self) -> None:
        """Give a sign of life; to be called every ``SIGN_OF_LIFE_S``."""
        try:
            self._signs.give()
        except DatabaseError as error:
            _log.warning("process.database_away", reason=str(error))

    def say_goodbye(self) -> None:
        """Tell that the process ends in good order."""
        try:
            with self._database.transaction(self._name) as tx:
                processes.goodbye(tx, self._name)
        except DatabaseError as error:
            _log.warning("process.no_goodbye", reason=str(error))
