"""Jobs that failed because of their files go on as soon as the files are whole again; nobody has to say so.

A sender that sends a study again mends what was lost; so does a backup that is restored, or a disk that comes
back. The job is queued again once for each state of its files.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from db import queueing
from db.scoring import instances_of, spool_names_of
from db.session import Database
from db.tables import Job, Revision
from dicom_node.spool import Spool
from workers.inputs import DamagedInputError, FileState, MissingInputError, state_of
from workers.retry import code_of

CODES = frozenset(code_of(error("")) for error in (DamagedInputError, MissingInputError))

log = structlog.get_logger(__name__)

# A disk that was lost fails thousands: no reading is to last, because SQLite's log grows meanwhile.
_AT_ONCE = 500

_Files = tuple[tuple[int, int, int], ...]


class Mending:
    """Queues jobs again whose files are whole again.

    Parameters
    ----------
    database : Database
        The queue of record.
    spool : Spool
        Where received files lie.
    name : str
        This process, as audit actor.
    """

    def __init__(self, database: Database, spool: Spool, name: str) -> None:
        self._database = database
        self._spool = spool
        self._name = name
        self._looked_at: dict[str, _Files] = {}

    def look(self) -> int:
        """Look at every job that failed for its files; return how many are queued again.

        Files are read only where they changed since the last look.

        Raises
        ------
        DatabaseError
            If the database is away, or a job changed meanwhile.
        OSError
            If the disk fails.
        """
        with self._database.reading() as session:
            failed = queueing.failed_with(session, CODES)
        return sum(
            self._look_at(failed[start : start + _AT_ONCE]) for start in range(0, len(failed), _AT_ONCE)
        )

    def _look_at(self, job_ids: Sequence[str]) -> int:
        with self._database.reading() as session:
            names_of = spool_names_of(session, job_ids)
        return sum(self._mend(job_id, names) for job_id, names in names_of.items())

    def _mend(self, job_id: str, names: Sequence[str]) -> bool:
        files = self._files(names)
        if files is None or self._looked_at.get(job_id) == files:
            return False
        with self._database.reading() as session:
            revision = session.get_one(Revision, session.get_one(Job, job_id).revision_id)
            instances = instances_of(session, revision)
        is_whole = all(state_of(each, self._spool) is FileState.WHOLE for each in instances)
        if is_whole:
            with self._database.transaction(self._name) as tx:
                queueing.retry(tx, job_id)
            log.info("job.mended", job_id=job_id)
        self._looked_at[job_id] = files
        return is_whole

    def _files(self, names: Sequence[str]) -> _Files | None:
        """Return what tells files from what they were before; None where one is missing."""
        try:
            found = [self._spool.path_of(name).stat() for name in names]
        except FileNotFoundError:
            return None
        return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)
