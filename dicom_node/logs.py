"""One line of JSON per event on standard error, and no patient data in any of them.

Configured once per process by its entry point. Libraries that quote data set values in their messages are
silenced, the text of warnings and of strangers' exceptions is left out, and control characters are escaped,
so that no value of a data set can reach a log or move a terminal's cursor.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
import unicodedata
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

# pydicom and pynetdicom log values of data elements; highdicom and the decoders sit on top of them.
_SILENCED = ("pydicom", "pynetdicom", "highdicom", "PIL", "pylibjpeg", "openjpeg", "rle", "jpeg_ls")
_OUR_PACKAGES = frozenset({"dicom_node", "db", "models", "workers", "training"})


def configure_logs(
    process: str, *, stream: TextIO | None = None, level: int = logging.INFO, is_terminal: bool | None = None
) -> None:
    """Direct every log of this process to one stream.

    Parameters
    ----------
    process : str
        The process's name, such as ``"listener"``; it stands in every line, with the process id beside it.
    stream : text stream, optional
        Where to; standard error by default.
    level : int
        Lowest level of :mod:`logging` that is written.
    is_terminal : bool, optional
        Whether people read it: coloured lines instead of JSON. Found out from the stream by default.
    """
    target = stream if stream is not None else sys.stderr
    for_people = target.isatty() if is_terminal is None else is_terminal
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _process_name(process),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _describe_exception,
                _escape_control_characters,
                structlog.dev.ConsoleRenderer() if for_people else structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # A disk that takes no line would else be told of on standard error, with all that the line was made from.
    logging.raiseExceptions = False
    silence_libraries()
    warnings.showwarning = _log_warning
    # Where logging captures warnings, as Celery has it do, another function takes the place of that one.
    warnings.formatwarning = _format_warning
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash


def silence_libraries() -> None:
    """Switch off the loggers of libraries that write data set values."""
    for name in _SILENCED:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False
        logger.setLevel(logging.CRITICAL + 1)


def describe_exception(error: BaseException) -> dict[str, Any]:
    """An exception without what a stranger's library put into its text.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    dict
        ``type``, ``at`` (file, line and function of each call, outermost first), ``message`` for our own
        errors only, and ``cause`` of the same form where there is one.
    """
    described: dict[str, Any] = {"type": type(error).__name__, "at": _calls(error.__traceback__)}
    if type(error).__module__.partition(".")[0] in _OUR_PACKAGES:
        described["message"] = str(error)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        described["cause"] = describe_exception(cause)
    return described


def _calls(trace: TracebackType | None) -> list[str]:
    return [f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in traceback.extract_tb(trace)]


def _process_name(process: str) -> Processor:
    def add(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        event["process_id"] = os.getpid()
        return event

    return add


def _describe_exception(_logger: Any, _method: str, event: EventDict) -> EventDict:
    exc_info: Any = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        event["exception"] = describe_exception(error)
    return event


def _escape_control_characters(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {_escaped(key): _escaped(value) for key, value in event.items()}


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        # C* of Unicode: control characters, directions of writing, lone surrogates, private characters.
        return "".join(
            character.encode("unicode_escape").decode("ascii")
            if unicodedata.category(character).startswith("C")
            else character
            for character in value
        )
    if isinstance(value, dict):
        return {_escaped(key): _escaped(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_escaped(each) for each in value]
    return value if isinstance(value, int | float | None) else _escaped(str(value))


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # The text is left out: pydicom's warnings quote the value that they warn of.
    structlog.get_logger("warnings").warning(
        "library.warned", category=category.__name__, at=f"{Path(filename).name}:{lineno}"
    )


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{category.__name__} at {Path(filename).name}:{lineno}"


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger("crash").critical("process.crashed", exc_info=error)


def _log_thread_crash(crash: threading.ExceptHookArgs) -> None:
    name = crash.thread.name if crash.thread is not None else ""
    structlog.get_logger("crash").critical("process.thread_crashed", thread=name, exc_info=crash.exc_value)
