"""What a process logs, as its operator reads it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from dicom_node.logs import configure_logs


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What this process logs, one JSON object per line."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs("test", stream=stream, is_terminal=False)
    yield stream
    root.handlers[:], root.level = before[0], before[1]
