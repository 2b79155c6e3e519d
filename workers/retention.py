"""Removing received objects and results after their retention; what the database knows of them stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from db import retention
from db.retention import FileKind, OldStudy
from db.session import Database
from dicom_node.spool import Spool

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Removal:
    """A study whose files are old enough to go, or are gone.

    Attributes
    ----------
    study_instance_uid : str
        The study.
    newest_at : datetime.datetime
        Since when the youngest of them ages, aware UTC.
    files, size_bytes : int
        How many there are, and their length together.
    """

    study_instance_uid: str
    newest_at: datetime
    files: int
    size_bytes: int


class Retention:
    """Looks through a folder for files that are old enough to go.

    Parameters
    ----------
    database : Database
        Knows what is left to do.
    kind : FileKind
        What the folder holds.
    spool : Spool
        The folder.
    name : str
        Who removes, as audit actor.
    is_stopping : callable
        Whether to end after the study in hand.
    """

    def __init__(
        self,
        database: Database,
        kind: FileKind,
        spool: Spool,
        name: str,
        *,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._kind = kind
        self._spool = spool
        self._name = name
        self._is_stopping = is_stopping

    def remove_older_than(self, days: float) -> int:
        """Remove what is older than so many days; return how many studies lost their files.

        Raises
        ------
        DatabaseError
            If the database is away. What was removed until then is told in the trail.
        SpoolError, OSError
            If the disk fails.
        """
        before = self._database.now() - timedelta(days=days)
        rule = f"{self._kind.setting} = {days:g}"
        removed = list(self.removals(before, rule=rule, dry_run=False))
        if removed:
            size_bytes = sum(each.size_bytes for each in removed)
            folder = self._spool.root.name
            log.info(
                "files.removed_after_retention", folder=folder, studies=len(removed), size_bytes=size_bytes
            )
        return len(removed)

    def removals(self, before: datetime, *, rule: str, dry_run: bool) -> Iterator[Removal]:
        """Remove the files of studies all of which are older than a time, and with which all is done.

        A file that is younger by its own time stays with its study: it was sent or restored since.

        Parameters
        ----------
        before : datetime.datetime
            Aware.
        rule : str
            The setting, or the command, that says so: for the trail.
        dry_run : bool
            Change nothing.

        Yields
        ------
        Removal
            Each study, after its files were removed.
        """
        for study_id in self._studies_with_old_files(before):
            if self._is_stopping():
                return
            if dry_run:
                with self._database.reading() as session:
                    study = retention.old_study(session, self._kind, study_id, before=before)
                found = self._found(study, before) if study is not None else None
            else:
                found = self._remove(study_id, before, rule)
            if found is not None:
                yield found

    def _studies_with_old_files(self, before: datetime) -> list[int]:
        limit = before.timestamp()
        studies: set[int] = set()
        for folder in sorted(path for path in self._spool.root.iterdir() if path.is_dir()):
            old = [path.name for path, state in _states(folder.glob("*.dcm")) if state.st_mtime < limit]
            with self._database.reading() as session:
                studies |= retention.studies_of_files(session, self._kind, old)
        return sorted(studies)

    def _remove(self, study_id: int, before: datetime, rule: str) -> Removal | None:
        with self._database.transaction(self._name) as tx:
            study = retention.confirm(tx, self._kind, study_id, before=before)
            found = self._found(study, before) if study is not None else None
            if study is None or found is None:
                return None
            retention.audit_removal(
                tx, self._kind, study, files=found.files, size_bytes=found.size_bytes, rule=rule
            )
        # After the commit: what nobody told of must not vanish. A crash here leaves files for the next time.
        for name in study.names:
            self._spool.remove(name)
        return found

    def _found(self, study: OldStudy, before: datetime) -> Removal | None:
        """Return what there is of a study; None where nothing is, or something is younger."""
        paths = [self._spool.path_of(name) for name in study.names]
        there = [state for _, state in _states(paths)]
        if not there or max(each.st_mtime for each in there) >= before.timestamp():
            return None
        size_bytes = sum(each.st_size for each in there)
        return Removal(study.study_instance_uid, study.newest_at, len(there), size_bytes)


def _states(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what is there; another process may remove a file at any moment."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, path.stat()
