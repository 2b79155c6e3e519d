"""Audit events are readable on a terminal, and one line each where a program reads them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from db.audit.reading import AuditRow
from dicom_node.cli.audit_view import print_events

SCORED = AuditRow(
    16,
    "2026-11-21T19:20:09.131034Z",
    "score@host-a:7",
    "job.scored",
    "1.2.3",
    "952b6bba",
    None,
    {"attempt": 1, "analysis": {"outcome": "scored"}, "tasks": ["mammography_malignancy"]},
)
TOLD = "study 1.2.3  job 952b6bba"
DETAIL = 'attempt 1  analysis (1 values)  tasks ["mammography_malignancy"]'
HINT = "What stands as (... values) is shown whole by --json."


def shown(*events: AuditRow, is_terminal: bool) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, width=40, color_system=None)
    print_events(events, console)
    return stream.getvalue().splitlines()


def test_on_a_terminal_an_event_is_a_line_with_what_it_tells_below() -> None:
    head = "16    2026-11-21T19:20:09.131034Z  score@host-a:7  job.scored"
    assert shown(SCORED, is_terminal=True) == [head, f"      {TOLD}", f"      {DETAIL}", HINT]


def test_in_a_pipe_an_event_is_one_line_however_long() -> None:
    line, hint = shown(SCORED, is_terminal=False)
    assert line.startswith("16  ")
    assert line.endswith(f"job.scored  {TOLD}  {DETAIL}")
    assert hint == HINT


@pytest.mark.parametrize(("hostile", "harmless"), [("\x1b[2J", "\\x1b[2J"), ("a\nb", "a\\x0ab")])
def test_what_a_peer_said_cannot_steer_the_terminal(hostile: str, harmless: str) -> None:
    event = AuditRow(1, "t", "listen@h:1", "association.rejected", None, None, None, {"title": hostile})
    (line,) = shown(event, is_terminal=False)
    assert line.endswith(f"title {harmless}")
