"""Noticing that the embedded database was moved, removed or replaced under a running process.

SQLite goes on writing to the file that it has open, whose name is gone: what is committed then is lost with
the process, or belongs to a copy that nobody looks into.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from db.errors import DatabaseUnavailableError, SchemaError
from dicom_node.settings import Settings

Asked = TypeVar("Asked")
Told = TypeVar("Told")

_GONE = "the database file was moved, removed or replaced while the node runs"


class DatabaseFile:
    """The file of the embedded database as it is when this is made; nothing to look at on PostgreSQL.

    Parameters
    ----------
    settings : Settings
        The node's.
    """

    def __init__(self, settings: Settings) -> None:
        # A text: it is looked at for every object that is received.
        self._path = str(settings.database_file) if settings.database_url is None else None
        self._identity = self._present()

    def require(self) -> None:
        """Do not trust a commit that went to another file than the next process will open.

        Raises
        ------
        DatabaseUnavailableError
            If the name is gone, or another file has it.
        """
        if self._present() != self._identity:
            raise DatabaseUnavailableError(f"{_GONE}; restore it and start the node again")

    def require_for_good(self) -> None:
        """End the process rather than to go on beside the node's database.

        Raises
        ------
        SchemaError
            If the name is gone, or another file has it.
        """
        if self._present() != self._identity:
            raise SchemaError(
                f"{_GONE}; stop all of its processes, restore the file, and start the node again"
            )

    def relied_on_by(self, register: Callable[[Asked], Told]) -> Callable[[Asked], Told]:
        """Let nobody be told of a row that went to another file than the next process will open.

        Parameters
        ----------
        register : callable
            Commits rows.

        Returns
        -------
        callable
            Does the same, and raises as :meth:`require` does instead of telling.
        """

        def register_and_look(asked: Asked) -> Told:
            told = register(asked)
            self.require()
            return told

        return register_and_look

    def _present(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            state = os.stat(self._path)  # noqa: PTH116 - see the constructor
        except FileNotFoundError:
            return None
        return state.st_dev, state.st_ino
