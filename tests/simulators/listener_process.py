"""A listener with a real database in a process of its own, for tests that kill it.

Run with the spool's folder, the database's URL, the audit key's path and, where it keeps one, the journal's
folder; recovers journals first, prints its port, and stops at the end of its standard input.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.handoff import Completeness, known_spool_names
from db.session import Database
from dicom_node.crashpoints import check_crashpoint
from dicom_node.listener.journal import Journal
from dicom_node.listener.journal_recovery import JournalRecovery
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.owed_rows import Journaling, OwedRows
from dicom_node.listener.registration import Registrar
from dicom_node.listener.server import Listener, Storing
from dicom_node.listener.transport import Port
from dicom_node.logs import configure_logs
from dicom_node.spool import Spool


def main(spool: Path, url: str, key: Path, journal: Path | None = None) -> None:
    """Serve until standard input ends."""
    configure_logs("listen")
    check_crashpoint()
    database = Database(url, AuditTrail(AuditKey.load_or_create(key)))
    files, rules = Spool(spool), Completeness(frozenset(), 60.0, ())
    registrar = Registrar(database, rules, spool=files, actor="listener")
    with ExitStack() as stack:
        journaling = None
        if journal is not None:
            recover(journal, files, database, registrar)
            late_synced = stack.enter_context(database.late_synced())
            of_journaled = Registrar(late_synced, rules, spool=files, actor="listener")
            # Not emptied behind the back of a test that kills it.
            kept = Journal(journal, files, database.sync_commits, emptied_after_s=600)
            stack.callback(kept.close)
            rows = OwedRows(kept, files, of_journaled.register_together)
            stack.callback(rows.close)
            journaling = Journaling(kept, rows)
        listener = Listener(
            "NODE",
            Port("127.0.0.1", 0),
            Storing(files, registrar.register, journaling),
            limits=ListenerLimits(min_free_bytes=0),
            on_event=registrar.on_event,
        )
        listener.start()
        sys.stdout.write(f"{listener.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        listener.stop(deadline_s=10)
    database.close()


def recover(journal: Path, spool: Spool, database: Database, registrar: Registrar) -> None:
    """Put back what a crash took."""

    def registered(names: list[str]) -> set[str]:
        with database.reading() as session:
            return known_spool_names(session, names)

    JournalRecovery(journal, spool, registrar.register, registered, database.sync_commits).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:]))
