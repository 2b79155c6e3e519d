"""The console script inside the test's own process: the same code without an interpreter's start."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from dicom_node.cli import main
from dicom_node.settings import ENVIRONMENT_PREFIX


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed for programs."""
        return json.loads(self.out)


def command(*arguments: str | Path, environment: dict[str, str] | None = None) -> Answer:
    """Run ``dicom-node`` as its console script does; no variable of this machine reaches it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["dicom-node", *map(str, arguments)]),
        mock.patch.dict(os.environ, {**kept, **(environment or {})}, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main.run()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0
    return Answer(status, out.getvalue(), err.getvalue())
