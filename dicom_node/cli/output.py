"""Printing: tables for people, JSON for programs; control characters never reach a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# A pipe has no width: rows stay whole there, so that grep and awk find what they look for.
_PIPE_WIDTH = 400

# Paths and names come from others: what looks like markup in one is a part of it.
console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False, emoji=False)
errors = Console(stderr=True, markup=False, emoji=False)


def heading(title: str) -> None:
    """Print a heading with a blank line before it."""
    console.print()
    console.print(Text(title, style="bold underline"))


def print_json(value: Any) -> None:
    """Print one JSON document."""
    console.out(json.dumps(value, indent=2, ensure_ascii=True), highlight=False)


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str
) -> None:
    """Print rows: all of their keys as JSON, or the named columns as a table."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        console.print(Text(empty))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(plain(row[column]) for column in columns))
    console.print(table)


def print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one record: a JSON object, or a line per fact."""
    if as_json:
        print_json(facts)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        line = Text(f"{name.replace('_', ' '):<{width}}  ", style="bold")
        console.print(line + plain(value))


def plain(value: Any) -> Text:
    """Return a value as text that cannot steer a terminal (PS3.5 allows ESC in data)."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, float):
        return Text(f"{value:.3f}")
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return Text("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value)))


def plain_lines(text: str) -> Text:
    """Return several lines as text that cannot steer a terminal."""
    return Text("\n").join(plain(line) for line in text.splitlines())
