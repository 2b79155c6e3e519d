"""What the dispatcher's process does beside its sweeps of the database."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from dicom_node.cli.processes.dispatcher import _housekeeper
from dicom_node.cli.processes.sweep import GRACE_S
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from tests.running_node import until
from tests.steered_node import SteeredNode, four_views, on_sqlite, result_object

PATIENCE_S = 60.0


def old_file(spool: Spool) -> Path:
    """Write a file that has been there for longer than anybody takes between file and row."""
    path = spool.path_of(spool.write([b"content"]).name)
    os.utime(path, (time.time() - 2 * GRACE_S,) * 2)
    return path


@on_sqlite
def test_the_housekeeper_removes_old_files_of_which_no_row_knows_and_no_other_one(
    node: SteeredNode, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path)
    received, results = Spool(settings.spool_dir), Spool(settings.results_dir)
    known, orphan = old_file(received), old_file(received)
    known_result, orphan_result = old_file(results), old_file(results)
    fresh = received.path_of(received.write([b"content"]).name)
    first, *others = four_views()
    node.receive(replace(first, spool_name=known.name), *others)
    result = result_object(file_name=known_result.name)
    node.finish_scoring(node.claimed(), results=[result], destinations=[])

    housekeeper = _housekeeper(settings, node.database, "dispatch@host-a:14")
    housekeeper.start()
    until(lambda: not orphan.exists() and not orphan_result.exists(), PATIENCE_S, "the sweep of both folders")
    housekeeper.stop()

    assert known.exists()
    assert known_result.exists()
    assert fresh.exists()
