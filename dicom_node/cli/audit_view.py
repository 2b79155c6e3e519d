"""Audit events as people read them, and what verification found, in words.

An event has two lines or three on a terminal, and one in a pipe, for grep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from db.audit.agreement import Agreement
from db.audit.exports import ExportReport
from db.audit.reading import AuditRow
from db.audit.verification import ClockStep, VerifyReport
from dicom_node.cli.output import plain

_INDENT = "      "
_KEEP = (
    "Keep everything as it is: copy database, checkpoints and keys away, find out who had access, and "
    "compare with the newest backup and with what an audit repository got."
)


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


def print_report(report: VerifyReport, unprotected: int | None, console: Console) -> None:
    """Say whether the node's own trail is whole.

    Parameters
    ----------
    report : VerifyReport
        What was found.
    unprotected : int or None
        Events after the newest checkpoint; None where only a part was verified.
    console : rich.console.Console
        Where to.
    """
    lines = _verdict(report, "unharmed")
    if report.problem is None:
        lines += _protection(report, unprotected)
    _print(lines, report.clock_steps, console)


def print_agreement(agreement: Agreement, console: Console) -> None:
    """Say whether rows are what the trail says."""
    instances, scores = _counted(agreement.instances, "instance"), _counted(agreement.scores, "score")
    deliveries = agreement.deliveries
    compared = f"{instances}, {scores} and {deliveries} {'delivery' if deliveries == 1 else 'deliveries'}"
    if not agreement.disagreements:
        console.print(f"The rows of {compared}, with their results, are what the trail says.", soft_wrap=True)
        return
    console.print(f"ROWS ARE NOT WHAT THE TRAIL SAYS; {compared} were compared:")
    for each in agreement.disagreements:
        by = "" if each.seq is None else f" (event {each.seq})"
        console.print(plain(f"{each.problem}{by}"), soft_wrap=True)
    console.print("The trail is proved and the rows are not: believe the trail. " + _KEEP, soft_wrap=True)


def print_export_report(report: ExportReport, console: Console) -> None:
    """Say whether an exported trail is what the node signed."""
    lines = _verdict(report, "in their places")
    if report.problem is None:
        newest = f", the newest of {report.newest_checkpoint_at}" if report.newest_checkpoint_at else ""
        checkpoints = _counted(report.checkpoints_checked, "checkpoint")
        lines.append(f"{report.proved} of them are what the node signed in {checkpoints}{newest}.")
        if report.unproved_from_seq is not None:
            unproved = _counted(report.events - report.proved, "event")
            lines.append(
                f"No checkpoint proves {unproved}, the first of them {report.unproved_from_seq}: the node "
                "alone can, with its keys ('dicom-node audit verify')."
            )
        if report.first_seq == report.unproved_from_seq and report.first_seq > 1:
            lines.append(
                "The first of them were signed together with events that 'audit prune' removed: name its "
                "archive before this file."
            )
    _print(lines, report.clock_steps, console)


def _verdict(report: VerifyReport | ExportReport, how: str) -> list[str]:
    problem, first, events = report.problem, report.first_seq, report.events
    if problem is None and not events:
        return ["The trail holds no event." if first == 1 else f"There is no event from {first} on."]
    if problem is None:
        return [f"The trail is whole: events {first} to {first + events - 1} are {how}."]
    if report.first_bad_seq is None:  # checkpoints or files, no event
        return [f"THE TRAIL IS NOT PROVED: {problem}.", _KEEP]
    before = f"{_counted(events, 'event')} before that {'is' if events == 1 else 'are'} {how}; nothing after"
    return [
        f"THE TRAIL IS NOT WHOLE: {problem}.",
        f"{before} can be trusted." if events else "No event is proved.",
        _KEEP,
    ]


def _protection(report: VerifyReport, unprotected: int | None) -> list[str]:
    """Say up to where an end that was cut off would show."""
    if not report.events:
        return []
    if not report.checkpoints_checked:
        unknown = "whether the end was cut off cannot be shown; see 'dicom-node doctor'"
        return [f"No checkpoint was found: {unknown}."]
    checked = _counted(report.checkpoints_checked, "checkpoint")
    lines = [f"{checked} outside the database {'agrees' if report.checkpoints_checked == 1 else 'agree'}."]
    if unprotected:
        since = "came after the newest of them: an end that was cut off there would not show"
        lines.append(f"{_counted(unprotected, 'event')} {since}.")
    return lines


def _print(lines: Iterable[str], steps: Sequence[ClockStep], console: Console) -> None:
    for line in lines:
        console.print(plain(line), soft_wrap=True)
    for seq, back_by_s in steps:
        console.print(f"The clock went back by {back_by_s:.0f} s right before event {seq}.", soft_wrap=True)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


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
