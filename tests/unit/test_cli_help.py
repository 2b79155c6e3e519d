"""The lists of commands that ``--help`` prints."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from dicom_node.cli.main import app

COLUMNS = 80
INDENT_AND_GAP = 6  # click: three spaces at the left, two between the columns, one at the right


def groups(command: object, path: str) -> Iterator[tuple[str, TyperGroup]]:
    if isinstance(command, TyperGroup):
        yield path, command
        for name, below in command.commands.items():
            yield from groups(below, f"{path} {name}")


GROUPS = dict(groups(get_command(app), "dicom-node"))


@pytest.mark.parametrize("path", GROUPS)
def test_no_line_of_a_list_of_commands_is_cut(path: str) -> None:
    group = GROUPS[path]
    room = COLUMNS - INDENT_AND_GAP - max(map(len, group.commands))
    lines = {name: command.get_short_help_str(room) for name, command in group.commands.items()}
    assert {name: line for name, line in lines.items() if line.endswith("...") or not line} == {}
