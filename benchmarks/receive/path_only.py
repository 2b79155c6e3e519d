"""The node's way in without its database: rows are kept in memory. Run by the benchmark.

python -m benchmarks.receive.path_only PORT FOLDER [sync]

With ``sync`` objects are as durable as those of ``dicom-node listen``; without it nothing is, as on the other
sides of a comparison in memory.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from dicom_node.cli.processes.unused_libraries import forbid_unused_libraries


def main(port: int, folder: Path, *, is_synced: bool) -> None:
    """Receive until the process is ended."""
    # As 'dicom-node listen' does, before anything imports pydicom.
    forbid_unused_libraries()
    from db.handoff import ReceivedInstance, Registration
    from dicom_node.listener.journal import LARGEST_JOURNALED_BYTES, SEGMENTS, Journal, Kept, Use
    from dicom_node.listener.journal_segment import JournaledFile, Record
    from dicom_node.listener.limits import ListenerLimits
    from dicom_node.listener.owed_rows import Journaling, OwedRows
    from dicom_node.listener.server import Listener, Storing
    from dicom_node.listener.transport import Port
    from dicom_node.logs import configure_logs
    from dicom_node.settings.sections import ListenerSettings
    from dicom_node.spool import Spool, SpooledFile, content_digest

    class Unkept(Journal):
        """Takes the files that a journal takes, and keeps none of them."""

        def __init__(self) -> None:
            """Nothing lies anywhere."""

        def takes(self, image_bytes: int) -> bool:
            return image_bytes <= LARGEST_JOURNALED_BYTES

        def append(self, file: JournaledFile) -> Kept:
            spool.place(file.name, file.image)
            return Kept(file.name, nowhere, Record(0, file.content_bytes))

        def place(self, kept: Kept) -> SpooledFile:
            size_bytes = kept.record.size_bytes
            return SpooledFile(kept.name, content_digest(spool.path_of(kept.name), size_bytes), size_bytes)

        def release(self, kept: Kept) -> None:
            """Nothing is held."""

    configure_logs("listen")
    nowhere = cast("Use", None)
    rows: set[str] = set()

    def register(received: ReceivedInstance) -> Registration:
        rows.add(received.sop_instance_uid)
        return Registration.NEW

    def register_together(received: Sequence[ReceivedInstance]) -> list[Registration]:
        return [register(each) for each in received]

    spool = Spool(folder / "spool")
    segment_bytes = ListenerSettings().journal_bytes // SEGMENTS
    journal = (
        Journal(folder / "journal", spool, lambda: None, segment_bytes=segment_bytes)
        if is_synced
        else Unkept()
    )
    listener = Listener(
        "NODE",
        Port("127.0.0.1", port),
        Storing(spool, register, Journaling(journal, OwedRows(journal, spool, register_together))),
        limits=ListenerLimits(),
        on_event=lambda _action, _detail: None,
    )
    listener.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), is_synced=sys.argv[3:] == ["sync"])
