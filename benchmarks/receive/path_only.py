"""The node's way in without its database: rows are kept in memory. Run by the benchmark.

python -m benchmarks.receive.path_only PORT FOLDER
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from dicom_node.cli.unused_libraries import forbid_unused_libraries


def main(port: int, folder: Path) -> None:
    """Receive until the process is ended."""
    # As 'dicom-node listen' does, before anything imports pydicom.
    forbid_unused_libraries()
    from db.handoff import ReceivedInstance, Registration
    from dicom_node.listener.limits import ListenerLimits
    from dicom_node.listener.server import Listener
    from dicom_node.logs import configure_logs
    from dicom_node.spool import Spool

    configure_logs("listen")
    rows: set[str] = set()

    def register(received: ReceivedInstance) -> Registration:
        rows.add(received.sop_instance_uid)
        return Registration.NEW

    listener = Listener(
        "NODE",
        "127.0.0.1",
        port,
        spool=Spool(folder / "spool"),
        register=register,
        limits=ListenerLimits(),
        on_event=lambda _action, _detail: None,
    )
    listener.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
