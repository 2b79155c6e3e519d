"""Signs of life of the node's processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from db.errors import DatabaseError
from db.processes import SignsOfLife, alive, goodbye, sign_of_life
from db.tables import Process
from tests.steered_node import LISTENER, WORKER, SteeredNode


def signs(node: SteeredNode, name: str, kind: str = "worker") -> None:
    with node.transaction(name) as tx:
        sign_of_life(tx, name, kind)


@contextmanager
def renamed(node: SteeredNode, table: str) -> Iterator[None]:
    """Let a table be away."""
    with node.database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO elsewhere"))
    yield
    with node.database.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE elsewhere RENAME TO {table}"))


def heard_and_silent(node: SteeredNode) -> tuple[list[str], list[str]]:
    with node.reading() as session:
        heard, silent = alive(session, node.clock.time, silent_for_s=60)
    return [p.name for p in heard], [p.name for p in silent]


def test_the_first_sign_records_the_start_and_later_ones_that_it_lives(node: SteeredNode) -> None:
    started = node.clock.time
    signs(node, WORKER)
    node.clock.advance(30)
    signs(node, WORKER)

    (process,) = node.rows(Process)
    assert (process.name, process.kind, process.started_at) == (WORKER, "worker", started)
    assert process.seen_at == started + timedelta(seconds=30)
    assert node.actions() == ["process.started"], "signs of life are not audited, starts are"
    assert json.loads(node.audited()[0].detail) == {"process": WORKER, "kind": "worker"}


def test_a_process_that_starts_again_under_the_same_name_is_a_start(node: SteeredNode) -> None:
    """As a container that is started again, whose host name and process id are the same."""
    SignsOfLife(node.database, WORKER, "worker").give()
    node.clock.advance(30)
    again = SignsOfLife(node.database, WORKER, "worker")
    again.give()
    restarted = node.clock.time
    node.clock.advance(10)
    again.give()

    (process,) = node.rows(Process)
    assert (process.started_at, process.seen_at) == (restarted, node.clock.time)
    assert node.actions() == ["process.started"] * 2


def test_a_start_that_the_database_did_not_take_is_told_by_the_next_sign(node: SteeredNode) -> None:
    again = SignsOfLife(node.database, WORKER, "worker")
    signs(node, WORKER)
    with renamed(node, "process"), pytest.raises(DatabaseError):
        again.give()
    assert node.actions() == ["process.started"]

    again.give()
    again.give()
    assert node.actions() == ["process.started"] * 2


def test_a_process_that_fell_silent_is_told_from_one_that_lives(node: SteeredNode) -> None:
    signs(node, WORKER)
    node.clock.advance(61)
    signs(node, LISTENER, "listener")

    assert heard_and_silent(node) == ([LISTENER], [WORKER])


def test_a_process_is_heard_until_its_time_is_up(node: SteeredNode) -> None:
    signs(node, WORKER)
    node.clock.advance(60)

    assert heard_and_silent(node) == ([WORKER], [])


def test_a_goodbye_is_no_silence(node: SteeredNode) -> None:
    signs(node, WORKER)
    with node.transaction(WORKER) as tx:
        goodbye(tx, WORKER)
    node.clock.advance(3600)

    assert heard_and_silent(node) == ([], [])
    assert node.actions() == ["process.started", "process.stopped"]


def test_a_process_that_died_is_shown_for_a_day_and_then_forgotten(node: SteeredNode) -> None:
    signs(node, WORKER)
    node.clock.advance(24 * 3600)
    signs(node, LISTENER, "listener")
    assert heard_and_silent(node)[1] == [WORKER]

    node.clock.advance(1)
    signs(node, "dispatcher@host-a:14", "dispatcher")

    assert {p.name for p in node.rows(Process)} == {LISTENER, "dispatcher@host-a:14"}


def test_a_dead_process_is_not_missed_once_another_was_started_in_its_place(node: SteeredNode) -> None:
    for pid in (1, 2):
        signs(node, f"worker@host-a:{pid}")
        node.clock.advance(1)
    node.clock.advance(61)
    for name in ("worker@host-a:3", "worker@host-b:4"):
        signs(node, name)
    assert heard_and_silent(node)[1] == ["worker@host-a:1"], "one was started for two, and one elsewhere"

    signs(node, "worker@host-a:5")
    assert heard_and_silent(node)[1] == []


def test_a_process_that_was_there_before_stands_for_nobody(node: SteeredNode) -> None:
    signs(node, "worker@host-a:1")
    signs(node, "worker@host-a:2")
    node.clock.advance(61)
    signs(node, "worker@host-a:2")

    assert heard_and_silent(node) == (["worker@host-a:2"], ["worker@host-a:1"])
