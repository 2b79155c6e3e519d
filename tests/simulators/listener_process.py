"""A listener with a real database in a process of its own, for tests that kill it.

Run with the folder, the database's URL and the audit key's path; prints its port, and stops at the end of its
standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from db.audit import AuditTrail
from db.handoff import Completeness
from db.keys import AuditKey
from db.session import Database
from dicom_node.crashpoints import check_crashpoint
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.registration import Registrar
from dicom_node.listener.server import Listener
from dicom_node.logs import configure_logs
from dicom_node.spool import Spool


def main(spool: Path, url: str, key: Path) -> None:
    """Serve until standard input ends."""
    configure_logs("listen")
    check_crashpoint()
    database = Database(url, AuditTrail(AuditKey.load_or_create(key)))
    files = Spool(spool)
    registrar = Registrar(database, Completeness(frozenset(), 60.0, ()), spool=files, actor="listener")
    listener = Listener(
        "NODE",
        "127.0.0.1",
        0,
        spool=files,
        register=registrar.register,
        limits=ListenerLimits(min_free_bytes=0),
        on_event=registrar.on_event,
    )
    listener.start()
    sys.stdout.write(f"{listener.port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    listener.stop(deadline_s=10)
    database.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
