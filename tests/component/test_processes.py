"""Signs of life of the node's processes."""

from __future__ import annotations

import json
from datetime import timedelta

from db.processes import alive, goodbye, sign_of_life
from db.tables import Process
from tests.steered_node import LISTENER, WORKER, SteeredNode


def signs(node: SteeredNode, name: str, kind: str = "worker") -> None:
    with node.transaction(name) as tx:
        sign_of_life(tx, name, kind)


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
