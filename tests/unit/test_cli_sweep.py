"""The tidying at a start: it removes what no row names, and never what is registered meanwhile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dicom_node.cli.processes.sweep import GRACE_S, sweep
from dicom_node.spool import Spool


def aged(spool: Spool, content: bytes) -> str:
    """Write a file that is older than what a sweep leaves alone; return its name."""
    name = spool.write(content).name
    path = spool.path_of(name)
    then = path.stat().st_mtime - 2 * GRACE_S
    os.utime(path, (then, then))
    return name


def test_a_sweep_removes_the_files_that_no_row_names_and_no_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    orphan, registered, young = aged(spool, b"orphan"), aged(spool, b"known"), spool.write(b"young").name

    sweep(spool, lambda names: [name for name in names if name == registered])

    assert set(spool.names()) == {registered, young}
    assert orphan not in spool.names()


def test_files_stay_where_the_database_knows_next_to_none_of_them(tmp_path: Path) -> None:
    """It was lost, or it is another node's: the files are all that is left of what was received."""
    spool = Spool(tmp_path)
    known = aged(spool, b"known")
    unknown = [aged(spool, b"unknown") for _ in range(11)]

    sweep(spool, lambda names: [])
    sweep(spool, lambda names: [name for name in names if name == known])

    assert set(spool.names()) == {known, *unknown}


def test_no_more_names_are_held_than_those_of_one_folder(tmp_path: Path) -> None:
    """A node of years has millions of files."""
    spool = Spool(tmp_path)
    for folder in ("00", "7f", "ff"):
        (tmp_path / folder).mkdir(exist_ok=True)
        spool.path_of(aged(spool, b"known")).rename(tmp_path / folder / f"{folder}{1:030x}.dcm")
    asked: list[list[str]] = []

    def known(names: Sequence[str]) -> Sequence[str]:
        asked.append([name[:2] for name in names])
        return names

    sweep(spool, known)

    assert asked == [["00"], ["7f"], ["ff"]]
    assert len(spool.names()) == 3


def test_the_database_is_asked_only_after_the_candidates_are_listed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    asked: list[list[str]] = []

    def known(names: list[str]) -> list[str]:
        # Another process's file appears, with its row, while the database answers.
        aged(spool, b"registered meanwhile")
        asked.append(names)
        return [old]

    old, orphan = aged(spool, b"known"), aged(spool, b"orphan")
    sweep(spool, known)

    assert [set(names) for names in asked] == [{old, orphan}]
    assert len(spool.names()) == 2
    contents = {spool.path_of(name).read_bytes() for name in spool.names()}
    assert contents == {b"known", b"registered meanwhile"}
