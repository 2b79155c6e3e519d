"""What a listener has to do with the database beside its objects: telling of refusals, and how much waits."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from db.errors import DatabaseUnavailableError
from db.handoff import ReceivedInstance, Registration
from db.session import Database
from db.tables import Instance
from dicom_node.listener import owed_rows, repeats
from dicom_node.listener.backlog import Backlog
from dicom_node.listener.journal import Journal
from dicom_node.listener.journal_segment import JournaledFile
from dicom_node.listener.owed_rows import Journaling, OwedRows
from dicom_node.listener.registration import Registrar
from dicom_node.spool import Spool, SpooledFile, new_name
from tests.steered_node import LISTENER, RULES, SteeredNode, four_views, mammogram

NEVER_S = 3600.0


@pytest.fixture
def registrar(node: SteeredNode, tmp_path: Path) -> Registrar:
    return Registrar(node.database, RULES, spool=Spool(tmp_path / "spool"), actor=LISTENER)


def refuse(registrar: Registrar, *, reason: str = "no AE title", address: str = "10.0.0.1") -> None:
    registrar.on_event("association.rejected", {"peer_address": address, "reason": reason})


def told(node: SteeredNode) -> list[tuple[str, str, int]]:
    """Address, reason and number of repeats of each refusal in the trail."""
    details = [json.loads(event.detail) for event in node.audited()]
    return [(each["peer_address"], each["reason"], each["repeats_not_told"]) for each in details]


def test_of_the_same_refusals_of_a_peer_one_is_told_with_the_number_of_the_others(
    node: SteeredNode, registrar: Registrar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "EVERY_S", NEVER_S)
    for _ in range(4):
        refuse(registrar)
    assert told(node) == [("10.0.0.1", "no AE title", 0)]

    monkeypatch.setattr(repeats, "EVERY_S", 0.0)
    refuse(registrar)
    refuse(registrar)
    assert told(node)[1:] == [("10.0.0.1", "no AE title", 3), ("10.0.0.1", "no AE title", 0)]


def test_a_peer_or_a_reason_hides_no_other(
    node: SteeredNode, registrar: Registrar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "EVERY_S", NEVER_S)
    for _ in range(2):
        refuse(registrar)
        refuse(registrar, address="10.0.0.2")
        refuse(registrar, reason="too many")
    assert told(node) == [
        ("10.0.0.1", "no AE title", 0),
        ("10.0.0.2", "no AE title", 0),
        ("10.0.0.1", "too many", 0),
    ]


def test_a_peer_with_ever_new_reasons_does_not_fill_the_memory(
    registrar: Registrar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "MOST_KINDS", 3)
    for number in range(10):
        refuse(registrar, reason=f"reason {number}")
    assert len(registrar._told._done) <= 3


def test_a_refusal_stands_though_it_cannot_be_told(database: Database, tmp_path: Path) -> None:
    away = Database("sqlite:////nowhere/at/all/node.db", database.trail)
    refuse(Registrar(away, RULES, spool=Spool(tmp_path / "spool"), actor=LISTENER))
    away.close()


def test_a_commit_of_which_nobody_knew_costs_no_file_and_makes_no_second_row(
    node: SteeredNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection can end after the server's commit and before its answer: the row is asked for again."""
    monkeypatch.setattr(owed_rows, "_NEXT_TRY_S", 0.01)
    spool = Spool(tmp_path / "spool")
    registrar = Registrar(node.database, RULES, spool=spool, actor=LISTENER)
    endings = [DatabaseUnavailableError("the connection ended")]
    is_caught_up = threading.Event()

    def register_together(received: Sequence[ReceivedInstance]) -> list[Registration]:
        outcomes = registrar.register_together(received)
        if endings:
            raise endings.pop()
        is_caught_up.set()
        return outcomes

    journal = Journal(tmp_path / "journal", spool, node.database.sync_commits)
    rows = OwedRows(journal, spool, register_together)
    content = b"an object"
    name = new_name()

    def describe(file: SpooledFile) -> ReceivedInstance:
        return replace(mammogram(), spool_name=file.name, sha256=file.sha256, size_bytes=file.size_bytes)

    assert Journaling(journal, rows).keep(JournaledFile(name, memoryview(content), len(content)), describe)
    assert is_caught_up.wait(60)
    rows.close()
    journal.close()

    (row,) = node.rows(Instance)
    assert (row.spool_name, row.sha256) == (name, hashlib.sha256(content).hexdigest())
    assert spool.path_of(name).read_bytes() == content
    assert node.actions() == ["instance.stored"]
    assert list((tmp_path / "journal").iterdir()) == []


def test_too_much_waits_where_more_waits_than_may(node: SteeredNode) -> None:
    backlog = Backlog(node.database, most=2)
    answers = []
    for number in range(3):
        node.receive(*four_views(f"1.2.{number}"))
        backlog.look()
        answers.append(backlog.is_too_long())
    node.finish_scoring(node.claimed())
    backlog.look()
    answers.append(backlog.is_too_long())

    assert answers == [False, False, True, False]


@pytest.mark.parametrize("waiting", [1, 3])
def test_a_database_that_does_not_answer_leaves_what_was_known_of_the_backlog(
    node: SteeredNode, waiting: int
) -> None:
    for number in range(waiting):
        node.receive(*four_views(f"1.2.{number}"))
    backlog = Backlog(node.database, most=2)
    backlog.look()
    with node.transaction() as tx:
        tx.connection.exec_driver_sql("ALTER TABLE job RENAME TO gone")

    backlog.look()

    assert backlog.is_too_long() is (waiting > 2)
