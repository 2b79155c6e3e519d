"""Telling in the log that the database is away, without filling the disk that it may be away for."""

from __future__ import annotations

import time

import structlog

AGAIN_AFTER_S = 60.0


class Absence:
    """Tells an absence when it begins, once a minute while it lasts, and when it is over.

    Parameters
    ----------
    who : str
        First part of the events' names: ``"worker"`` tells ``worker.database_away``.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._log = structlog.get_logger(__name__)
        self._began_at: float | None = None
        self._told_at = 0.0

    def note(self, error: Exception) -> None:
        """It is away at this moment."""
        now = time.monotonic()
        if self._began_at is None:
            self._began_at = now
        elif now - self._told_at < AGAIN_AFTER_S:
            return
        self._told_at = now
        self._log.warning(f"{self._who}.database_away", reason=str(error))

    def end(self) -> None:
        """It is there at this moment."""
        if self._began_at is not None:
            away_s = round(time.monotonic() - self._began_at, 1)
            self._began_at = None
            self._log.info(f"{self._who}.database_back", away_s=away_s)
