"""What a process logs, as its operator reads it."""

from __future__ import annotations

import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from dicom_node.logs import configure_logs


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What this process logs, one JSON object per line."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = warnings.showwarning, sys.excepthook, threading.excepthook
    stream = io.StringIO()
    configure_logs("test", stream=stream, is_terminal=False)
    yield stream
    root.handlers[:], root.level = handlers, level
    # A thread that dies in a later test must not go unnoticed.
    warnings.showwarning, sys.excepthook, threading.excepthook = hooks
