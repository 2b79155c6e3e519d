"""The journal of a listener's process, and the recovery of those that a crash left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from db import handoff
from db.session import Database
from dicom_node.cli.wiring import completeness
from dicom_node.errors import SpoolError
from dicom_node.listener.journal import SEGMENTS, SUFFIX, Journal
from dicom_node.settings import Settings
from dicom_node.spool import Spool

_log = structlog.get_logger(__name__)


def recover_journals(settings: Settings, database: Database, actor: str) -> None:
    """Put back what a crash of the machine took of received objects, before anybody looks for it.

    Parameters
    ----------
    settings : Settings
        The node's.
    database : Database
        The truth.
    actor : str
        The process that does it.
    """
    if not any(settings.journal_dir.glob(f"*{SUFFIX}")):
        return
    from dicom_node.listener.journal_recovery import JournalRecovery
    from dicom_node.listener.registration import Registrar

    spool = Spool(settings.spool_dir)
    registrar = Registrar(database, completeness(settings), spool=spool, actor=actor)

    def registered(names: list[str]) -> set[str]:
        with database.reading() as session:
            return handoff.known_spool_names(session, names)

    sync_rows = partial(database.sync_commits, from_scratch=True)
    JournalRecovery(settings.journal_dir, spool, registrar.register, registered, sync_rows).run()


@contextmanager
def open_journal(
    settings: Settings, database: Database, spool: Spool
) -> Iterator[tuple[Journal | None, Database]]:
    """Open the journal of this process, and the database as who registers journaled files needs it.

    There is none where the disk refuses: objects are then answered one by one, as the disk's state is.

    Parameters
    ----------
    settings : Settings
        The node's.
    database : Database
        The truth.
    spool : Spool
        Where received files lie.
    """
    try:
        journal = Journal(
            settings.journal_dir,
            spool,
            database.sync_commits,
            segment_bytes=settings.listener.journal_bytes // SEGMENTS,
        )
    except SpoolError as error:
        _log.warning(
            "journal.unavailable",
            folder=settings.journal_dir.name,
            reason=str(error),
            advice="every file is synced by itself now",
        )
        yield None, database
        return
    with database.late_synced() as late_synced:
        try:
            yield journal, late_synced
        finally:
            journal.close()
