"""Logs: one JSON line per event, nothing of a data set in them, and nothing that moves a cursor."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from dicom_node.errors import SpoolError
from dicom_node.logs import configure_logs, describe_exception

CANARY = "ZZCANARY^NAME"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What a process configured as "listen" writes; everything is put back afterwards."""
    root = logging.getLogger()
    kept_handlers, kept_level, kept_complaints = root.handlers[:], root.level, logging.raiseExceptions
    hooks = (warnings.showwarning, warnings.formatwarning, sys.excepthook, threading.excepthook)
    root.handlers[:] = []
    target = io.StringIO()
    try:
        configure_logs("listen", stream=target)
        yield target
    finally:
        root.handlers[:] = kept_handlers
        root.setLevel(kept_level)
        logging.raiseExceptions = kept_complaints
        warnings.showwarning, warnings.formatwarning, sys.excepthook, threading.excepthook = hooks
        structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """The events written so far."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_with_time_level_and_process(stream: io.StringIO) -> None:
    structlog.get_logger("any").info("listener.ready", port=11112)
    (event,) = lines(stream)
    assert event["event"] == "listener.ready"
    assert (event["port"], event["level"], event["process"]) == (11112, "info", "listen")
    assert event["process_id"] == os.getpid(), "of several workers, which one"
    assert event["timestamp"].endswith("Z")


def test_libraries_of_the_standard_kind_are_written_the_same_way(stream: io.StringIO) -> None:
    logging.getLogger("alembic").warning("upgraded to %s", "0001")
    (event,) = lines(stream)
    assert (event["event"], event["process"]) == ("upgraded to 0001", "listen")


@pytest.mark.parametrize("name", ["pydicom", "pynetdicom", "pynetdicom.acse", "highdicom"])
def test_libraries_that_quote_values_are_silent(stream: io.StringIO, name: str) -> None:
    logging.getLogger(name).critical("value %s", CANARY)
    assert stream.getvalue() == ""


def test_warnings_that_logging_captures_as_under_celery_are_written_without_their_text(
    stream: io.StringIO,
) -> None:
    """Celery has them captured after its process has directed its logs: pydicom's quote values."""
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"invalid value {CANARY!r}", UserWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
    (event,) = lines(stream)
    assert event["event"].startswith("UserWarning at test_logs.py:")
    assert CANARY not in stream.getvalue()


def test_warnings_are_written_without_their_text(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning(
            UserWarning(f"Invalid value for VR UI: '{CANARY}'"),
            UserWarning,
            "/somewhere/pydicom/valuerep.py",
            7,
        )
    (event,) = lines(stream)
    assert (event["category"], event["at"]) == ("UserWarning", "valuerep.py:7")
    assert CANARY not in stream.getvalue()


def test_an_exception_of_a_library_keeps_its_place_and_loses_its_text(stream: io.StringIO) -> None:
    try:
        int(CANARY)
    except ValueError:
        structlog.get_logger("any").exception("failed")
    (event,) = lines(stream)
    assert event["exception"]["type"] == "ValueError"
    assert event["exception"]["at"][-1].startswith("test_logs.py:")
    assert CANARY not in stream.getvalue()


def test_an_exception_of_ours_keeps_its_text_and_its_cause_loses_it() -> None:
    try:
        try:
            int(CANARY)
        except ValueError as error:
            raise SpoolError("look at the disk") from error
    except SpoolError as error:
        described = describe_exception(error)
    assert described["message"] == "look at the disk"
    assert described["cause"]["type"] == "ValueError"
    assert CANARY not in repr(described)


def test_a_dying_thread_is_logged_without_values(stream: io.StringIO) -> None:
    def die() -> None:
        raise ValueError(CANARY)

    thread = threading.Thread(target=die, name="worker-7")
    thread.start()
    thread.join()
    (event,) = lines(stream)
    assert (event["event"], event["thread"]) == ("process.thread_crashed", "worker-7")
    assert CANARY not in stream.getvalue()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_control_characters_are_escaped(is_terminal: bool, stream: io.StringIO) -> None:
    target = io.StringIO()
    configure_logs("listen", stream=target, is_terminal=is_terminal)
    structlog.get_logger("any").info("event", title="A\r\n\x1b[2J\u202eB\x00", nested={"k": ["\x07"]})
    written = target.getvalue()
    assert written.count("\n") == 1
    assert not {"\r", "\x00", "\x07", "\u202e"} & set(written)
    assert "\x1b[2J" not in written


@pytest.mark.parametrize(
    "text", ["%s %(x)s", "{}", '"}\n{"level": "forged"', "'; DROP TABLE audit; --", "=cmd()"]
)
def test_odd_values_stay_values(stream: io.StringIO, text: str) -> None:
    structlog.get_logger("any").info("event", value=text)
    (event,) = lines(stream)
    assert event["value"] == text.replace("\n", "\\n")
    assert event["level"] == "info"


def test_a_line_that_the_logs_disk_refuses_stops_nobody_and_is_told_nowhere_else(
    stream: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        configure_logs("listen", stream=full)
        structlog.get_logger("a").error("listener.not_stored", exc_info=ValueError(CANARY))
        configure_logs("listen", stream=stream)
        with contextlib.suppress(OSError):
            full.close()
    structlog.get_logger("a").info("the next line")
    assert json.loads(stream.getvalue())["event"] == "the next line"
    assert CANARY not in "".join(capfd.readouterr())
