"""A storage SCP as pynetdicom's documentation writes it. Run by the benchmark.

python -m benchmarks.receive.plain_pynetdicom PORT FOLDER [sync]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt


def main(port: int, folder: Path, *, is_synced: bool) -> None:
    """Receive until the process is ended."""

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        with (folder / f"{dataset.SOPInstanceUID}.dcm").open("wb") as file:
            dataset.save_as(file, enforce_file_format=True)
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
        return 0x0000

    entity = AE("NODE")
    entity.maximum_associations = 32
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context("1.2.840.10008.1.1")
    entity.start_server(
        ("127.0.0.1", port),
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_C_ECHO, lambda _event: 0x0000)],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), is_synced=sys.argv[3:] == ["sync"])
