"""Named places where a process can be made to die, so that tests can show that nothing is lost there.

In production nothing is set and :func:`crashpoint` returns at once. A test starts a process with
``NODE_CRASHPOINT`` set to ``name[:n][@/marker/file]``: the process kills itself (SIGKILL, no clean-up) at the
``n``-th passage, by default the first. With a marker file it dies at that passage or a later one, while that
file does not exist, and creates it first, so that a supervised process that comes back does not die again.
Several of these, separated by commas, let several processes of one node die.

This variable is the only one read below the command line: a crash cannot be injected through parameters.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import SettingsError

VARIABLE = "NODE_CRASHPOINT"

CRASHPOINTS: tuple[str, ...] = (
    "listener.part_written",  # the file is written under its temporary name; nothing is synced yet
    "listener.durable",  # file and name are synced, or in the journal; there is no row yet
    "listener.owed",  # journaled objects were answered with Success; they have neither file nor row yet
    "listener.placed",  # the file of a journaled object is written, not synced; there is no row yet
    "listener.committed",  # the row is committed; nobody was told so
    "dispatcher.completed",
    "dispatcher.before_publish",
    "dispatcher.published",
    "score.claimed",
    "score.decoded",
    "score.predicted",
    "score.files_written",
    "score.committed",
    "deliver.claimed",
    "deliver.object_sent",
    "deliver.all_sent",
    "deliver.committed",
    "commit.claimed",
    "commit.noted",  # the request is noted; it is not sent
    "commit.requested",  # the destination took the request, and what it reported at once is recorded
    "commit.reported",  # the peer heard which of its objects the node has; the job is not ended
    "commit.committed",
    "listener.report_recorded",  # what a destination reports is recorded; the response is not sent
    "listener.request_kept",  # what a peer asks to commit is kept; the response is not sent
    "train.claimed",
    "train.committed",
)
"""Every known crash point, in the order in which a study passes them."""

_FORM = re.compile(r"(?P<name>[a-z_]+\.[a-z_]+)(:(?P<passage>[1-9][0-9]{0,5}))?(@(?P<marker>/[^,]+))?")

# As the process was started: looked at for every object that is received.
_started_with = os.environ.get(VARIABLE)
_passages: dict[str, int] = {}
_passages_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Order:
    name: str
    passage: int
    marker: Path | None


def crashpoint(name: str) -> None:
    """Die here when the environment that the process was started with asks for it; otherwise do nothing.

    Parameters
    ----------
    name : str
        A member of :data:`CRASHPOINTS`.
    """
    if not _started_with:
        return
    for order in _parse(_started_with):
        if order.name == name:
            _follow(order)


def _follow(order: _Order) -> None:
    name = order.name
    with _passages_lock:
        _passages[name] = _passages.get(name, 0) + 1
        passed = _passages[name]
    due = passed == order.passage or (order.marker is not None and passed > order.passage)
    if due and _marks_first_death(order.marker):
        os.kill(os.getpid(), signal.SIGKILL)


def check_crashpoint() -> tuple[str, ...]:
    """Check the variable when a process starts.

    Returns
    -------
    tuple of str
        The names of the crash points that are armed; none in production.

    Raises
    ------
    SettingsError
        If the variable has a wrong form or names no crash point.
    """
    return tuple(order.name for order in _parse(os.environ.get(VARIABLE) or ""))


def _parse(text: str) -> tuple[_Order, ...]:
    return tuple(_parse_one(each) for each in text.split(",")) if text else ()


def _parse_one(text: str) -> _Order:
    found = _FORM.fullmatch(text)
    if found is None or found["name"] not in CRASHPOINTS:
        raise SettingsError(
            f"{VARIABLE} names no crash point; example: {CRASHPOINTS[0]}:2@/path/of/marker; "
            f"known names: {', '.join(CRASHPOINTS)}"
        )
    return _Order(
        found["name"], int(found["passage"] or 1), Path(found["marker"]) if found["marker"] else None
    )


def _marks_first_death(marker: Path | None) -> bool:
    if marker is None:
        return True
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True
