"""The journal of a listener's process on a disk that has no place for it."""

from __future__ import annotations

from pathlib import Path

from db.session import Database
from dicom_node.cli.processes.journals import open_journal
from dicom_node.settings import Settings
from dicom_node.spool import Spool


def test_a_listener_that_cannot_have_a_journal_syncs_each_file_by_itself(
    tmp_path: Path, database: Database
) -> None:
    settings = Settings(data_dir=tmp_path)
    settings.journal_dir.write_text("no folder")
    with open_journal(settings, database, Spool(settings.spool_dir)) as (journal, of_journaled):
        assert journal is None
        assert of_journaled is database, "every commit is synced"
