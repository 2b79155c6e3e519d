"""Who has an exported trail, the checkpoints and their public key needs neither the node nor its keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from db.audit.checkpoints import Checkpoint, CheckpointWriter
from db.audit.exports import ExportReport, verify_export
from db.audit.keys import CheckpointKey
from db.audit.pruning import prune
from db.audit.reading import export
from db.audit.statements import append_statement
from db.audit.trail import AuditTrail, read_head
from db.session import Database
from tests.steered_node import on_sqlite

Lines = list[dict[str, Any]]


@dataclass
class Node:
    """A node and what an auditor gets of it: an exported file, a folder of checkpoints, a public key."""

    database: Database
    key: CheckpointKey
    folder: Path

    def __post_init__(self) -> None:
        self.writer = CheckpointWriter(self.folder, self.key, "NODE")
        self.file = self.folder.parent / "trail.jsonl"

    def write_events(self, count: int) -> None:
        with self.database.transaction("node@host:1") as tx:
            for number in range(count):
                tx.audit("test.event", study_instance_uid="1.2.3", detail={"name": f"Grüße {number}"})

    def checkpoint(self) -> None:
        self.writer.write(self.database)

    def restart(self) -> None:
        self.writer = CheckpointWriter(self.folder, self.key, "NODE")

    def export(self) -> None:
        with self.file.open("w", encoding="utf-8") as stream:
            export(self.database, stream)

    def edit(self, change: Callable[[Lines], Lines]) -> None:
        lines = change([json.loads(line) for line in self.file.read_text().splitlines()])
        self.file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def verify(self, *files: Path) -> ExportReport:
        return verify_export(files or (self.file,), self.folder, self.key.public_key)


@pytest.fixture
def node(database: Database, tmp_path: Path) -> Node:
    """Nine events in three transactions, a checkpoint after each but the last."""
    made = Node(database, CheckpointKey.load_or_create(tmp_path / "cp.key"), tmp_path / "elsewhere")
    for number in range(3):
        made.write_events(3)
        if number < 2:
            made.checkpoint()
    made.export()
    return made


def test_an_untouched_export_is_proved_up_to_the_newest_checkpoint(node: Node) -> None:
    report = node.verify()

    assert report.ok
    assert (report.events, report.proved, report.unproved_from_seq) == (9, 6, 7)
    assert report.checkpoints_checked == 2


def test_a_checkpoint_after_the_last_event_proves_all(node: Node) -> None:
    node.checkpoint()

    assert (node.verify().proved, node.verify().unproved_from_seq) == (9, None)


def test_a_process_that_starts_anew_signs_on_from_where_its_file_ends(node: Node) -> None:
    node.restart()
    node.checkpoint()
    node.restart()
    node.checkpoint()

    stated = [json.loads(line) for line in next(node.folder.iterdir()).read_text().splitlines()]
    assert [(line["after"], line["seq"]) for line in stated] == [(0, 3), (3, 6), (6, 9), (9, 9)]
    assert node.verify().proved == 9


def test_two_nodes_of_one_trail_each_prove_it(node: Node) -> None:
    CheckpointWriter(node.folder, node.key, "OTHER").write(node.database)

    assert (node.verify().ok, node.verify().proved) == (True, 9)


def changed(event: int, **columns: Any) -> Callable[[Lines], Lines]:
    return lambda lines: [{**line, **columns} if line["seq"] == event else line for line in lines]


def rewritten(lines: Lines) -> Lines:
    """Change an event in column and text alike, as no column can tell."""
    lines[3]["actor"] = "nobody@x"
    lines[3]["payload"] = lines[3]["payload"].replace("node@host:1", "nobody@x")
    return lines


def renumbered(lines: Lines) -> Lines:
    return [*lines[:3], *({**line, "seq": line["seq"] - 1} for line in lines[4:])]


@pytest.mark.parametrize(
    ("tamper", "seq", "problem"),
    [
        (changed(2, actor="nobody@x"), 2, "the column 'actor' is not what was signed"),
        (changed(2, detail='{"n":2}'), 2, "the column 'detail' is not what was signed"),
        (changed(2, mac="0" * 64), 3, "does not follow"),
        (changed(2, seq="2"), None, "trail.jsonl, line 2 is no event"),
        (rewritten, 4, "event 4: it, or another one up to 6, is not what the checkpoint"),
        (lambda lines: lines[:3] + lines[4:], 4, "missing; the next one is event 5"),
        (renumbered, 4, "does not follow"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2, "missing; the next one is event 3"),
        (lambda lines: lines[:5], 6, "the file was cut, or written before that checkpoint"),
        (lambda lines: lines[1:], None, "it begins with event 2: only a whole trail can be proved"),
        (lambda lines: [], None, "the files hold no event"),
        (lambda lines: [*lines[:4], {"seq": 5}, *lines[5:]], None, "trail.jsonl, line 5 is no event"),
    ],
)
def test_what_was_touched_in_the_file_is_found_at_its_place(
    node: Node, tamper: Callable[[Lines], Lines], seq: int | None, problem: str
) -> None:
    node.edit(tamper)

    report = node.verify()

    assert (report.ok, report.first_bad_seq) == (False, seq)
    assert problem in str(report.problem)
    assert report.events <= (seq or 5) - 1


def test_an_event_after_the_newest_checkpoint_is_told_as_unproved(node: Node) -> None:
    def rewrite_the_last(lines: Lines) -> Lines:
        lines[8]["actor"] = "nobody@x"
        lines[8]["payload"] = lines[8]["payload"].replace("node@host:1", "nobody@x")
        return lines

    node.edit(rewrite_the_last)

    assert (node.verify().ok, node.verify().unproved_from_seq) == (True, 7)


def test_a_checkpoint_that_was_taken_away_leaves_its_events_unproved(node: Node) -> None:
    node.checkpoint()
    (file,) = node.folder.iterdir()
    first, _, third = file.read_text().splitlines()
    file.write_text(f"{first}\n{third}\n")

    report = node.verify()

    assert (report.ok, report.proved, report.unproved_from_seq) == (True, 6, 4)


def test_a_checkpoint_of_before_there_were_digests_proves_nothing_and_stays_valid(node: Node) -> None:
    with node.database.reading() as session:
        head = read_head(session.connection())
    old = Checkpoint(head.seq, head.mac, 9, "2026-01-31T08:00:00.000000Z", "OLD")
    append_statement(node.folder / "checkpoints-OLD.jsonl", old, node.key)

    assert "sha256" not in (node.folder / "checkpoints-OLD.jsonl").read_text()
    assert (node.verify().ok, node.verify().checkpoints_checked, node.verify().proved) == (True, 3, 6)


def test_without_a_checkpoint_nothing_is_proved(node: Node, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    report = verify_export([node.file], tmp_path / "empty", node.key.public_key)

    assert (report.ok, report.proved) == (False, 0)
    assert "holds no checkpoint" in str(report.problem)


def test_another_public_key_proves_nothing(node: Node, tmp_path: Path) -> None:
    stranger = CheckpointKey.load_or_create(tmp_path / "stranger.key").public_key

    report = verify_export([node.file], node.folder, stranger)

    assert "checkpoints-NODE.jsonl, line 1 was not signed" in str(report.problem)


def test_a_rotation_of_the_key_is_followed(node: Node) -> None:
    with node.database.transaction("anna@host") as tx:
        node.database.trail.rotate_key(tx.connection, tx.actor)
    node.write_events(2)
    node.checkpoint()
    node.export()

    assert (node.verify().ok, node.verify().proved) == (True, 12)


@pytest.fixture
def pruned(node: Node, tmp_path: Path) -> tuple[Node, Path]:
    """The node after its first nine events went to an archive, with two that came later."""
    node.checkpoint()
    later = datetime(2999, 1, 1, tzinfo=UTC)
    node.database.trail = AuditTrail(node.database.trail.key, wall_clock=lambda: later)
    node.write_events(1)
    archive = tmp_path / "old.jsonl"
    cut = prune(
        node.database,
        before=later,
        archive=archive,
        folder=node.folder,
        key=node.key,
        node="NODE",
        actor="anna@host",
    )
    assert cut is not None
    assert cut.seq == 9
    node.checkpoint()
    node.export()
    return node, archive


@on_sqlite
def test_after_a_removal_the_rest_verifies_alone_and_the_archive_before_it(pruned: tuple[Node, Path]) -> None:
    node, archive = pruned

    rest, both = node.verify(), node.verify(archive, node.file)

    assert (rest.ok, rest.first_seq, rest.events, rest.proved) == (True, 10, 2, 2)
    assert (both.ok, both.first_seq, both.events, both.proved) == (True, 1, 11, 11)


@on_sqlite
def test_an_edited_archive_is_found(pruned: tuple[Node, Path]) -> None:
    node, archive = pruned
    archive.write_text(archive.read_text().replace("node@host:1", "nobody@host"))

    assert node.verify(archive, node.file).first_bad_seq == 1
