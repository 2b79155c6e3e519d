"""Audit events as people read them: two lines or three on a terminal, one in a pipe, for grep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from db.audit.reading import AuditRow
from dicom_node.cli.output import plain

_INDENT = "      "


def print_events(events: Sequence[AuditRow], console: Console) -> None:
    """Print events in their order.

    Parameters
    ----------
    events : sequence of AuditRow
        What was found.
    console : rich.console.Console
        Where to; a terminal gets an event's parts on lines of their own.
    """
    between = f"\n{_INDENT}" if console.is_terminal else "  "
    is_shortened = False
    for event in events:
        head = plain(f"{event.seq:<4}  {event.at}  {event.actor}  ").append(plain(event.action))
        about = {"study": event.study_instance_uid, "job": event.job_id, "bundle": event.bundle}
        parts = [head, _joined((name, value) for name, value in about.items() if value is not None)]
        parts.append(_joined(event.detail.items()))
        console.print(Text(between).join(part for part in parts if part), soft_wrap=True)
        is_shortened = is_shortened or any(_holds_values(value) for value in event.detail.values())
    if is_shortened:
        console.print(plain("What stands as (... values) is shown whole by --json."), soft_wrap=True)


def _joined(facts: Iterable[tuple[str, Any]]) -> Text:
    shown = (
        plain(f"{name} ").append(plain(f"({len(value)} values)" if _holds_values(value) else value))
        for name, value in facts
    )
    return Text("  ").join(shown)


def _holds_values(value: Any) -> bool:
    return isinstance(value, dict | list) and len(value) > 0 and not _is_short(value)


def _is_short(value: dict[str, Any] | list[Any]) -> bool:
    """Whether it is a list of a few words, such as the tasks that are asked."""
    return isinstance(value, list) and len(value) <= 4 and all(isinstance(each, str | int) for each in value)
