"""Verifying the audit trail without being asked: its newest events at each start, all of it once a day.

A change of old events shows at nobody's query; somebody has to look. What is found wrong is told in the log,
in the trail itself, and from there to an audit repository.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from db.audit.reading import AuditFilter, query
from db.audit.verification import VerifyReport, start_of_tail, verify
from db.session import Database

WHOLE_EVERY = timedelta(days=1)
_MOST_LOOKS_A_DAY = 1000

log = structlog.get_logger(__name__)


class TrailWatch:
    """Verifies a node's audit trail when it is due.

    Parameters
    ----------
    database : Database
        Holds the trail.
    checkpoint_folder : pathlib.Path
        Where checkpoints lie.
    checkpoint_public_key : str
        See :attr:`db.audit.keys.CheckpointKey.public_key`.
    name : str
        Who verifies, as audit actor.
    is_stopping : callable
        Whether to end before all events are read.
    """

    def __init__(
        self,
        database: Database,
        checkpoint_folder: Path,
        checkpoint_public_key: str,
        name: str,
        *,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._checkpoint_folder = checkpoint_folder
        self._checkpoint_public_key = checkpoint_public_key
        self._name = name
        self._is_stopping = is_stopping
        self._is_first = True

    def look(self) -> VerifyReport | None:
        """Verify what is due: the newest events at the first look, and all where nobody did for a day.

        Returns
        -------
        VerifyReport or None
            What was found; None where nothing was due, or the process stops.

        Raises
        ------
        DatabaseError
            If the database is away.
        AuditError
            If a key cannot be read.
        """
        if self._is_first:
            self._is_first = False
            return self._verify(start_of_tail(self._database))
        return None if self._was_verified_whole() else self._verify(1)

    def _was_verified_whole(self) -> bool:
        lately = AuditFilter(action="audit.verified", since=datetime.now(UTC) - WHOLE_EVERY)
        with self._database.reading() as session:
            rows = query(session, lately, limit=_MOST_LOOKS_A_DAY)
        return any(row.detail.get("whole") for row in rows)

    def _verify(self, first: int) -> VerifyReport | None:
        whole = first == 1
        try:
            report = verify(
                self._database,
                self._database.trail.key,
                self._checkpoint_folder,
                self._checkpoint_public_key,
                since=None if whole else first,
                progress=self._go_on,
            )
        except _StoppedError:
            return None
        if report.ok:
            log.info("audit.verified", events=report.events, whole=whole)
        else:
            # Before the event: a trail whose end was changed may take none.
            log.error(
                "audit.broken",
                reason=report.problem,
                first_bad_seq=report.first_bad_seq,
                advice="keep the data as it is, run 'dicom-node audit verify', find out who had access",
            )
        with self._database.transaction(self._name) as tx:
            tx.audit("audit.verified", detail={"ok": report.ok, "events": report.events, "whole": whole})
        return report

    def _go_on(self, _events: int) -> None:
        if self._is_stopping():
            raise _StoppedError


class _StoppedError(Exception):
    """The process stops; the trail is verified after its next start."""
