"""The documented commands of a backup, where a node is busy, and where root restores it."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.backup_page import BACK_UP, RESTORE, documented, run
from tests.command_line import command

FOLDERS = ("checkpoints", "spool", "results", "bundles", "keys")
BLOBS, BLOB_BYTES = 5000, 4000


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A node that has received something."""
    folder = tmp_path / "node"
    assert command("db", "upgrade", "--data-dir", folder).status == 0
    for name in FOLDERS:
        (folder / name).mkdir(mode=0o700, exist_ok=True)
        (folder / name / "file").write_text(name)
    return folder


def test_a_backup_ends_although_the_node_never_stops_to_commit(data_dir: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(data_dir / "node.db", isolation_level=None)) as node:
        node.execute("CREATE TABLE ballast (content BLOB)")
        node.execute("BEGIN")
        node.executemany("INSERT INTO ballast VALUES (?)", [(bytes(BLOB_BYTES),)] * BLOBS)
        node.execute("COMMIT")
    is_over = threading.Event()

    def commit() -> None:
        with closing(sqlite3.connect(data_dir / "node.db", isolation_level=None)) as node:
            node.execute("PRAGMA synchronous = OFF")
            while not is_over.is_set():
                node.execute("INSERT INTO ballast VALUES (x'00')")

    working = threading.Thread(target=commit)
    working.start()
    try:
        run(documented(BACK_UP, node=data_dir, backup=tmp_path / "backup", keys=tmp_path / "keys"))
    finally:
        is_over.set()
        working.join()

    with closing(sqlite3.connect(tmp_path / "backup" / "node.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT count(*) FROM ballast").fetchone()[0] >= BLOBS


def test_a_file_that_goes_while_it_is_copied_does_not_stop_the_backup(data_dir: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    vanished = tools / "rsync"
    # As rsync ends when a file of its list is gone: an object that came twice, say.
    vanished.write_text(f'#!/bin/sh\n{shutil.which("rsync")} "$@" && exit 24\n')
    vanished.chmod(0o755)
    (data_dir / "spool" / ".part-of-an-object").touch()

    script = documented(BACK_UP, node=data_dir, backup=tmp_path / "backup", keys=tmp_path / "keys")
    run(script, environment={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})

    assert (tmp_path / "keys" / "file").read_text() == "keys"
    assert [path.name for path in (tmp_path / "backup" / "spool").iterdir()] == ["file"]


def test_another_error_of_the_copy_stops_the_backup(data_dir: Path, tmp_path: Path) -> None:
    shutil.rmtree(data_dir / "spool")
    with pytest.raises(AssertionError, match="spool"):
        run(documented(BACK_UP, node=data_dir, backup=tmp_path / "backup", keys=tmp_path / "keys"))
    assert not (tmp_path / "keys" / "file").exists()


def test_what_root_restores_is_the_nodes_users(data_dir: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    user = pwd.getpwnam("nobody")
    places = {"backup": tmp_path / "backup", "keys": tmp_path / "keys"}
    run(documented(BACK_UP, node=data_dir, **places))

    restored = tmp_path / "restored"
    run(documented(RESTORE, user=user.pw_name, node=restored, **places))

    files = [restored, *restored.rglob("*")]
    assert {path.relative_to(restored).parts[0] for path in files[1:]} == {*FOLDERS, "node.db"}
    assert {path.stat().st_uid for path in files} == {user.pw_uid}
    assert [path for path in files if path.stat().st_mode & 0o077] == []
