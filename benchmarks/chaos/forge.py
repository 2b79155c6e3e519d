"""Starts processes of the node in a fraction of a second, so that a thousand of them can be killed.

A Python process that loads torch and Celery takes seconds of processor time. One process here loads them once
and forks a child for each start, which then runs the command line as the console script does. The children
are processes like any other: with their own ids, memory and connections, killed one by one.

Run as a module it is that one process: it reads JSON lists of arguments from its standard input, one per
line, and answers each with a process id.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil

from dicom_node.parent_death import ended_with_parent

PRELOADED = (
    "alembic.autogenerate",
    "alembic.context",
    "celery.bin.worker",
    "db.schema",
    "dicom_node.cli.processes.dispatcher",
    "dicom_node.cli.processes.listener",
    "dicom_node.cli.main",
    "dicom_node.cli.processes.worker",
    "mako.template",
    "models.classifier",
    "models.store",
    "torch._dynamo",  # the first network loads it
    "workers.doorbells",
    "workers.pipeline",
    "workers.runner",
    "workers.sending",
)
ROOT = Path(__file__).resolve().parents[2]


class Forge:
    """Starts ``dicom-node`` commands; all of them end with it.

    Parameters
    ----------
    log : pathlib.Path
        Where everything that they write goes. They write to a pipe: a disk that is full for the node must not
        be full for its log, which a service manager keeps elsewhere.
    """

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> Self:
        self._keeper = subprocess.Popen(
            ["tee", str(self._log)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chaos.forge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._keeper.stdin,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._keeper.stdin):
            if pipe is not None:
                pipe.close()
        self._process.wait(60)
        self._keeper.wait(60)

    def start(self, arguments: Sequence[str]) -> psutil.Process:
        """Start one command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(list(arguments)) + "\n")
        self._process.stdin.flush()
        return psutil.Process(int(self._process.stdout.readline()))


def main() -> None:
    """Load everything, then fork whatever is asked for."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
    bind = ended_with_parent(signal.SIGKILL)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            bind()
            _run(json.loads(line))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def _run(arguments: list[str]) -> None:
    from dicom_node.cli import main as command_line

    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        random.seed()
        sys.argv = ["dicom-node", *arguments]
        command_line.run()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
