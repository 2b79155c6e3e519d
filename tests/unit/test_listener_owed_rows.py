"""Rows that follow Success: committed soon and together, in order, and never forgotten."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.errors import DatabaseUnavailableError
from db.handoff import ReceivedInstance, Registration
from dicom_node.listener import owed_rows
from dicom_node.listener.group_commit import MOST_TOGETHER
from dicom_node.listener.journal import Journal
from dicom_node.listener.journal_segment import JournaledFile
from dicom_node.listener.owed_rows import MOST_OWED, Journaling, OwedRows
from dicom_node.spool import Spool, SpooledFile, new_name
from tests.captured_log import log

__all__ = ["log"]

PATIENT_ID = "CANARY-4711"
NEVER_S = 3600.0
SOON_S = 60.0


class Registry:
    """A database's part: what it committed, and what it is told to do with the next commits."""

    def __init__(self) -> None:
        self.commits: list[list[str]] = []
        self.refuses: Callable[[Sequence[str]], Exception | None] = lambda _names: None
        self.outcome = Registration.NEW
        self.may_commit = threading.Event()
        self.may_commit.set()
        self.is_asked = threading.Event()

    @property
    def names(self) -> list[str]:
        return [name for commit in self.commits for name in commit]

    def register(self, received: Sequence[ReceivedInstance]) -> list[Registration]:
        """Commit rows together."""
        names = [each.spool_name for each in received]
        self.is_asked.set()
        assert self.may_commit.wait(SOON_S)
        if (error := self.refuses(names)) is not None:
            raise error
        self.commits.append(names)
        return [self.outcome] * len(names)


class Receiving:
    """Keeps files as the listener does."""

    def __init__(self, journaling: Journaling, spool: Spool, registry: Registry) -> None:
        self.journaling = journaling
        self.rows = journaling.rows
        self.spool = spool
        self.registry = registry

    def keep(self, content: bytes = b"an object") -> str:
        """Make a small file durable, its place and its row being owed; return its name."""
        name = new_name()
        assert self.journaling.keep(JournaledFile(name, memoryview(content), len(content)), received)
        return name


def received(file: SpooledFile) -> ReceivedInstance:
    return ReceivedInstance(
        sop_instance_uid="2.25.1",
        sop_class_uid="2.25.2",
        study_instance_uid="2.25.3",
        series_instance_uid="2.25.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_id=PATIENT_ID,
        accession_number="",
        modality="MG",
        laterality="L",
        view="CC",
        for_presentation=True,
        spool_name=file.name,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        calling_ae_title="SCANNER",
        peer_address="192.0.2.1",
    )


@contextmanager
def receiving(folder: Path, *, committed_after_s: float = NEVER_S) -> Iterator[Receiving]:
    spool, registry = Spool(folder / "spool"), Registry()
    journal = Journal(folder / "journal", spool, lambda: None, emptied_after_s=NEVER_S)
    rows = OwedRows(journal, spool, registry.register, committed_after_s=committed_after_s)
    try:
        yield Receiving(Journaling(journal, rows), spool, registry)
    finally:
        registry.may_commit.set()
        rows.close()
        journal.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a thread is about to do."""
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come about")


def test_rows_are_committed_together_once_somebody_waits_for_them(tmp_path: Path) -> None:
    with receiving(tmp_path) as node:
        names = [node.keep() for _ in range(5)]
        assert node.registry.commits == [], "a row waits for company"
        node.rows.settle()
        assert node.registry.commits == [names]


def test_a_row_that_nobody_waits_for_is_committed_after_a_while(tmp_path: Path) -> None:
    with receiving(tmp_path, committed_after_s=0.01) as node:
        name = node.keep()
        until(lambda: node.registry.names == [name])


def test_enough_rows_wait_for_nobody(tmp_path: Path) -> None:
    with receiving(tmp_path) as node:
        names = [node.keep() for _ in range(MOST_TOGETHER)]
        until(lambda: node.registry.commits == [names])


def test_rows_come_in_the_order_in_which_their_objects_were_answered(tmp_path: Path) -> None:
    with receiving(tmp_path, committed_after_s=0.0) as node:
        names = [node.keep() for _ in range(3 * MOST_TOGETHER)]
        node.rows.settle()
        assert node.registry.names == names


def test_many_senders_wait_each_for_what_came_before(tmp_path: Path) -> None:
    with receiving(tmp_path, committed_after_s=0.001) as node:

        def send_and_release(_sender: int) -> bool:
            names = [node.keep() for _ in range(20)]
            node.rows.settle()
            return set(names) <= set(node.registry.names)

        with ThreadPoolExecutor(8) as senders:
            assert all(senders.map(send_and_release, range(8)))
        assert len(node.registry.names) == 160


def test_who_owes_nothing_waits_for_nothing(tmp_path: Path) -> None:
    with receiving(tmp_path) as node:
        node.rows.settle()
        assert not node.registry.is_asked.is_set()


def test_what_is_owed_at_the_end_is_committed(tmp_path: Path) -> None:
    with receiving(tmp_path) as node:
        name = node.keep()
    assert node.registry.names == [name]
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_duplicate_is_removed_with_its_row(tmp_path: Path) -> None:
    with receiving(tmp_path) as node:
        node.registry.outcome = Registration.DUPLICATE
        node.registry.may_commit.clear()
        path = node.spool.path_of(node.keep())
        settling = threading.Thread(target=node.rows.settle)
        settling.start()
        until(path.exists)
        node.registry.may_commit.set()
        settling.join(SOON_S)
        assert not path.exists()


def test_while_the_database_is_away_no_object_is_answered_ahead_of_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.setattr(owed_rows, "_NEXT_TRY_S", 0.01)
    with receiving(tmp_path) as node:
        assert node.journaling.takes(9)
        node.registry.refuses = lambda _names: DatabaseUnavailableError("away")
        name = node.keep()
        node.rows.settle()
        assert not node.journaling.takes(9), "nobody is kept waiting for a database that is away"
        assert node.registry.commits == []
        node.registry.refuses = lambda _names: None
        until(lambda: node.journaling.takes(9))
        assert node.registry.names == [name]
    told = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert told == ["rows.behind", "rows.caught_up"]


def test_a_row_that_is_refused_keeps_no_other_from_being_committed_and_stays_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.setattr(owed_rows, "_NEXT_TRY_S", 0.01)
    with receiving(tmp_path) as node:
        names = [node.keep() for _ in range(3)]
        refused = names[1]
        node.registry.refuses = lambda asked: (
            ValueError(f"not the row of {PATIENT_ID}") if refused in asked else None
        )
        node.rows.settle()
        until(lambda: node.registry.commits == [[names[0]], [names[2]]])
        assert not node.journaling.takes(9)
    assert len(list((tmp_path / "journal").iterdir())) == 1, "its bytes are left to the next start"
    assert "rows.behind" in log.getvalue()
    assert PATIENT_ID not in log.getvalue()


def test_a_file_whose_row_is_late_by_hours_is_no_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed_rows, "_NEXT_TRY_S", 0.01)
    with receiving(tmp_path) as node:
        node.registry.refuses = lambda _names: DatabaseUnavailableError("away")
        name = node.keep()
        node.rows.settle()
        two_hours_ago = time.time() - 7200
        os.utime(node.spool.path_of(name), (two_hours_ago, two_hours_ago))
        until(lambda: node.spool.sweep((), grace_s=3600).orphans == ())
        node.registry.refuses = lambda _names: None
        until(lambda: node.registry.names == [name])
        assert node.spool.path_of(name).exists()


def test_a_file_for_which_there_is_no_place_now_is_written_with_its_row_when_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.setattr(owed_rows, "_NEXT_TRY_S", 0.01)
    with receiving(tmp_path) as node:
        folders = [path for path in node.spool.root.iterdir() if path.is_dir()]
        for folder in folders:
            folder.rmdir()
        names = [node.keep(b"an object"), node.keep(b"and another")]
        node.rows.settle()
        assert not node.journaling.takes(9)
        assert node.registry.commits == [], "no row without its file"
        for folder in folders:
            folder.mkdir()
        until(lambda: node.journaling.takes(9))
        assert node.registry.names == names
        contents = [node.spool.path_of(name).read_bytes() for name in names]
        assert contents == [b"an object", b"and another"]
    assert str(tmp_path) not in log.getvalue()


def test_rows_that_the_database_does_not_take_at_the_end_stay_in_the_journal(tmp_path: Path) -> None:
    with receiving(tmp_path) as node:
        node.registry.refuses = lambda _names: DatabaseUnavailableError("away")
        node.keep()
    assert node.registry.commits == []
    assert len(list((tmp_path / "journal").iterdir())) == 1


def test_a_database_that_is_slower_than_the_senders_holds_them_back(tmp_path: Path) -> None:
    with receiving(tmp_path) as node:
        node.registry.may_commit.clear()
        taken: list[str] = []

        def send() -> None:
            for _ in range(MOST_OWED + MOST_TOGETHER + 1):
                taken.append(node.keep())

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: len(taken) == MOST_OWED + MOST_TOGETHER)
        sender.join(0.2)
        assert sender.is_alive()
        assert len(taken) == MOST_OWED + MOST_TOGETHER, "so many are in memory at most"
        node.registry.may_commit.set()
        sender.join(SOON_S)
        node.rows.settle()
        assert node.registry.names == taken
