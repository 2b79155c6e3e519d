"""What a crash left in a journal is put back, once, and what was removed since is not."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from db import handoff
from db.errors import DatabaseError, DatabaseUnavailableError
from db.handoff import Completeness, ReceivedInstance, Registration
from db.session import Database
from db.tables import AuditEvent
from dicom_node.errors import SpoolError
from dicom_node.listener.journal import SEGMENT_BYTES, Journal
from dicom_node.listener.journal_recovery import JournalRecovery
from dicom_node.listener.journal_segment import JournaledFile, Segment, checksum_of
from dicom_node.listener.part10 import Origin, file_preface
from dicom_node.listener.registration import Registrar
from dicom_node.spool import Spool, new_name
from tests.component.test_listener_crash import rows
from tests.listening import EXPLICIT_LITTLE, MG_FOR_PRESENTATION, encoded, mammogram, uid_of
from tests.unit.test_listener_journal import is_locked


class Recovering:
    """A spool, a database and the journal of a process that is dead."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.journal_dir = folder / "journal"
        self.journal_dir.mkdir(mode=0o700)
        self.spool = Spool(folder / "spool")
        self.database = database
        self.registrar = Registrar(
            database, Completeness(frozenset(), 60.0, ()), spool=self.spool, actor="listener"
        )

    def placed(self, ordinal: int, **changes: str) -> JournaledFile:
        """Store an object as a listener does, up to its journal."""
        dataset = mammogram(ordinal)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        data = encoded(dataset)
        origin = Origin(MG_FOR_PRESENTATION, uid_of(dataset), EXPLICIT_LITTLE, "SCANNER", "NODE")
        image = file_preface(origin) + data
        name = new_name()
        self.spool.path_of(name).write_bytes(image)
        self.spool.path_of(name).chmod(0o600)
        return JournaledFile(name, memoryview(image), len(data), "192.0.2.1")

    def crashed_with(self, *kept: JournaledFile, name: int | None = None) -> Path:
        """Leave a journal that nobody holds."""
        number = len(list(self.journal_dir.iterdir())) if name is None else name
        path = self.journal_dir / f"{number:032x}.journal"
        segment = Segment(path, SEGMENT_BYTES)
        for each in kept:
            segment.write(each, checksum_of(each.image))
        segment.close(remove=False)
        return path

    def registered(self, names: list[str]) -> set[str]:
        """Ask the database which files have a row."""
        with self.database.reading() as session:
            return handoff.known_spool_names(session, names)

    def recover(self) -> None:
        """Do what a process does when it starts."""
        JournalRecovery(
            self.journal_dir,
            self.spool,
            self.registrar.register,
            self.registered,
            self.database.sync_commits,
        ).run()

    def path_of(self, kept: JournaledFile) -> Path:
        """Where its file is."""
        return self.spool.path_of(kept.name)


@pytest.fixture
def node(tmp_path: Path, database: Database) -> Recovering:
    return Recovering(tmp_path, database)


def test_rows_and_files_that_a_crash_took_are_put_back_once(node: Recovering) -> None:
    whole, cut, gone, registered = (node.placed(ordinal) for ordinal in range(1, 5))
    node.path_of(cut).write_bytes(bytes(cut.image[:700]))
    node.path_of(gone).unlink()
    node.crashed_with(whole, cut, gone, registered)
    node.recover()
    first = [(row.sop_instance_uid, row.spool_name, row.calling_ae_title) for row in rows(node.database)]
    assert [uid for uid, _, _ in first] == [uid_of(mammogram(ordinal)) for ordinal in range(1, 5)]
    assert {sender for _, _, sender in first} == {"SCANNER"}
    with node.database.reading() as session:
        stored = session.scalars(select(AuditEvent).where(AuditEvent.action == "instance.stored")).all()
    assert [json.loads(event.detail)["peer_address"] for event in stored] == ["192.0.2.1"] * 4
    for each in (whole, cut, gone, registered):
        assert node.path_of(each).read_bytes() == bytes(each.image)
        assert node.path_of(each).stat().st_mode & 0o777 == 0o600
    assert list(node.journal_dir.iterdir()) == []

    node.crashed_with(whole, cut, gone, registered)
    node.recover()
    again = [(row.sop_instance_uid, row.spool_name, row.calling_ae_title) for row in rows(node.database)]
    assert again == first, "a recovery that is done twice changes nothing"


def test_a_file_is_mended_whose_row_survived(node: Recovering) -> None:
    kept = node.placed(1)
    node.crashed_with(kept)
    node.recover()
    node.path_of(kept).write_bytes(bytes(len(kept.image)))
    node.crashed_with(kept)
    node.recover()
    assert node.path_of(kept).read_bytes() == bytes(kept.image)
    assert len(rows(node.database)) == 1


def test_a_file_is_written_again_that_the_disk_refused_though_memory_shows_it(
    node: Recovering, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = node.placed(1)
    node.crashed_with(kept)
    refused = node.path_of(kept).stat().st_ino
    sync = os.fsync

    def tell(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == refused:
            raise OSError(errno.EIO, "some pages were not written")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", tell)
    held = node.path_of(kept).open("rb")  # so that the new file is not given the number of the old one
    node.recover()
    held.close()
    assert node.path_of(kept).stat().st_ino != refused
    assert node.path_of(kept).read_bytes() == bytes(kept.image)


def test_an_object_that_came_twice_is_kept_once(node: Recovering) -> None:
    first, again = node.placed(1), node.placed(1)
    node.crashed_with(first, again)
    node.recover()
    assert [row.spool_name for row in rows(node.database)] == [first.name]
    assert node.spool.names() == [first.name]


@pytest.mark.parametrize("kind", ["link", "link to nothing", "folder"])
def test_what_is_no_journal_is_told_and_passed_over_and_the_others_are_put_back(
    node: Recovering, tmp_path: Path, kind: str
) -> None:
    elsewhere = Segment(tmp_path / "elsewhere", SEGMENT_BYTES)
    elsewhere.write(file := node.placed(2), checksum_of(file.image))
    elsewhere.close(remove=False)
    before = (tmp_path / "elsewhere").read_bytes()
    strange = node.journal_dir / "0.journal"
    if kind == "folder":
        strange.mkdir()
    else:
        strange.symlink_to(tmp_path / ("elsewhere" if kind == "link" else "nothing"))
    node.crashed_with(node.placed(1))

    with capture_logs() as logs:
        node.recover()

    assert [row.sop_instance_uid for row in rows(node.database)] == [uid_of(mammogram(1))]
    (told,) = [entry for entry in logs if entry["event"] == "journal.passed_over"]
    assert (told["log_level"], told["name"]) == ("error", "0.journal")
    assert "put the file itself there" in told["advice"]
    assert list(node.journal_dir.iterdir()) == [strange], "it is left for a person"
    assert (tmp_path / "elsewhere").read_bytes() == before


def test_a_journal_of_a_living_process_is_left_alone(node: Recovering) -> None:
    kept = node.placed(1)
    journal = Journal(node.journal_dir, node.spool, node.database.sync_commits)
    in_journal = journal.append(kept)
    assert in_journal is not None
    node.recover()
    assert rows(node.database) == []
    assert len(list(node.journal_dir.iterdir())) == 2
    journal.release(in_journal)
    journal.close()


def test_a_record_that_cannot_be_an_object_is_passed_over(node: Recovering) -> None:
    image = b"no head" + encoded(mammogram(1))
    name = new_name()
    node.spool.path_of(name).write_bytes(image)
    node.crashed_with(JournaledFile(name, memoryview(image), len(image) - 7), fit := node.placed(2))
    node.recover()
    assert [row.spool_name for row in rows(node.database)] == [fit.name]
    assert node.spool.names() == [fit.name], "it has no row"
    assert [path.suffix for path in node.journal_dir.iterdir()] == [".refused"]
    node.recover()
    assert len(rows(node.database)) == 1, "what was set aside is left alone"


@pytest.mark.parametrize("ordinal", [0, 2])
def test_a_journal_with_a_damaged_record_among_whole_ones_is_set_aside_and_these_are_put_back(
    node: Recovering, ordinal: int
) -> None:
    files = [node.placed(number) for number in (1, 2, 3)]
    path = node.crashed_with(*files)
    for each in files:
        node.path_of(each).unlink()
    damaged = files[ordinal]
    content = bytearray(path.read_bytes())
    content[content.index(bytes(damaged.image)) + len(damaged.image) - 1] ^= 1
    path.write_bytes(content)
    node.recover()
    whole = [each for each in files if each is not damaged]
    assert [row.spool_name for row in rows(node.database)] == [each.name for each in whole]
    assert sorted(node.spool.names()) == sorted(each.name for each in whole)
    # One at the end may be what a crash cut off, of which nothing was promised.
    assert [path.suffix for path in node.journal_dir.iterdir()] == ([".refused"] if ordinal == 0 else [])


def test_a_journal_that_a_later_version_wrote_is_set_aside(node: Recovering) -> None:
    path = node.crashed_with(node.placed(1))
    content = b"DNJRNL99" + path.read_bytes()[8:]
    path.write_bytes(content)
    node.recover()
    (aside,) = node.journal_dir.iterdir()
    assert aside.suffix == ".refused"
    assert aside.read_bytes() == content


def test_a_journal_that_a_damaged_database_refuses_is_set_aside_and_can_be_given_back(
    node: Recovering,
) -> None:
    kept = node.placed(1)
    path = node.crashed_with(kept)

    def refuse(_received: ReceivedInstance) -> Registration:
        raise DatabaseError("the database refused a statement (DatabaseError SQLITE_CORRUPT)")

    JournalRecovery(node.journal_dir, node.spool, refuse, node.registered, node.database.sync_commits).run()
    assert rows(node.database) == []
    (aside,) = node.journal_dir.iterdir()
    aside.rename(path)
    node.recover()
    assert [row.spool_name for row in rows(node.database)] == [kept.name]
    assert node.path_of(kept).read_bytes() == bytes(kept.image)
    assert list(node.journal_dir.iterdir()) == []


def test_a_disk_that_fails_meanwhile_costs_nothing(node: Recovering) -> None:
    kept = node.placed(1)
    path = node.crashed_with(kept)

    def refuse(_received: ReceivedInstance) -> Registration:
        raise SpoolError("the spool's disk refused (EIO)")

    with pytest.raises(SpoolError):
        JournalRecovery(
            node.journal_dir, node.spool, refuse, node.registered, node.database.sync_commits
        ).run()
    assert path.exists()
    assert node.path_of(kept).exists()


def test_of_two_objects_under_one_uid_the_first_counts_whatever_its_journal_is_called(
    node: Recovering,
) -> None:
    first, other = node.placed(1), node.placed(1, PatientID="OTHER")
    node.crashed_with(first, name=2)
    node.crashed_with(other, name=1)
    node.recover()
    assert {row.spool_name: row.conflict for row in rows(node.database)} == {
        first.name: 0,
        other.name: 1,
    }


def test_while_journals_are_recovered_no_other_process_makes_one(node: Recovering) -> None:
    node.crashed_with(node.placed(1))
    were_locked: list[bool] = []

    def look(names: list[str]) -> set[str]:
        were_locked.append(is_locked(node.journal_dir))
        return node.registered(names)

    JournalRecovery(
        node.journal_dir, node.spool, node.registrar.register, look, node.database.sync_commits
    ).run()
    assert were_locked == [True]


def test_a_journal_that_somebody_removes_meanwhile_is_no_error(node: Recovering) -> None:
    kept = node.placed(1)
    path = node.crashed_with(kept)

    def remove_and_look(names: list[str]) -> set[str]:
        path.unlink(missing_ok=True)
        return node.registered(names)

    JournalRecovery(
        node.journal_dir, node.spool, node.registrar.register, remove_and_look, node.database.sync_commits
    ).run()
    assert len(rows(node.database)) == 1


def test_a_database_that_goes_away_meanwhile_costs_nothing(node: Recovering) -> None:
    first, second = node.placed(1), node.placed(2)
    path = node.crashed_with(first, second)

    def register(received: ReceivedInstance) -> Registration:
        if received.spool_name == second.name:
            raise DatabaseUnavailableError("away")
        return node.registrar.register(received)

    with pytest.raises(DatabaseUnavailableError):
        JournalRecovery(
            node.journal_dir, node.spool, register, node.registered, node.database.sync_commits
        ).run()
    assert path.exists()
    node.recover()
    assert sorted(row.spool_name for row in rows(node.database)) == sorted(node.spool.names())
    assert len(rows(node.database)) == 2
