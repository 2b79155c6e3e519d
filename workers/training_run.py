"""The train job: runs one training recipe in a process of its own and adds the bundle that it makes.

Training runs in a child of the console script, so that it can be ended at any moment (a lost lease, a stop)
and never shares memory with scoring. It dies with its worker. The new bundle is added, not active: a person
decides that.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from db import jobs
from db.jobs import Claim
from db.session import Database
from dicom_node.errors import NodeError
from dicom_node.parent_death import ended_with_parent
from workers.lease import Lease, WorkerStopsError

LOOK_EVERY_S = 0.5
NICENESS = 10  # scoring comes first
GO_ON = frozenset({"run"})
"""Recipes that go on where an attempt before was ended; they keep other processes out of their folder."""
_REFUSED = frozenset({2, 5})
"""Exit statuses that the same order would end with again (``dicom_node.cli.exit_codes``: USAGE, REFUSED)."""
_BUNDLE = "bundle"


class TrainingError(NodeError):
    """A training run ended without a bundle; its log lies beside its output."""


class TrainingRefusedError(NodeError):
    """A training run refused its options or its data; its log says why. Correct them and queue another."""


class Trainer:
    """Does train jobs.

    Parameters
    ----------
    database : Database
        The queue of record.
    command : tuple of str
        The console script, such as ``("/opt/node/bin/dicom-node",)``.
    output_dir : pathlib.Path
        Each run writes into a folder of its own here, named by its job.
    add_bundle : callable
        Verifies a finished bundle, adds it to the store and remembers it; returns its digest.
    is_stopping : callable
        Whether this worker was told to stop.
    """

    def __init__(
        self,
        database: Database,
        *,
        command: tuple[str, ...],
        output_dir: Path,
        add_bundle: Callable[[Path], str],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._database = database
        self._command = command
        self._output_dir = output_dir
        self._add_bundle = add_bundle
        self._is_stopping = is_stopping

    def train(self, claim: Claim, lease: Lease) -> None:
        """Run the recipe of a train job and add its bundle.

        Raises
        ------
        TrainingError
            If the run failed.
        TrainingRefusedError
            If it refused its options or its data, as it would again.
        LeaseLostError
            If another worker took over; the run is ended then.
        WorkerStopsError
            If this worker was told to stop; the run is ended then.
        """
        folder = self._output_dir / claim.job_id
        folder.mkdir(parents=True, exist_ok=True)
        out = _fresh_or_begun(folder, claim)
        with (folder / log_name(claim)).open("wb") as log:
            run = subprocess.Popen(
                [*self._command, "train", claim.task, "--out", str(out), *_options(claim)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # libraries start with as many as there are cores
                preexec_fn=ended_with_parent(signal.SIGKILL),  # noqa: PLW1509 - loads and locks nothing
            )
            os.setpriority(os.PRIO_PROCESS, run.pid, NICENESS)
            try:
                self._wait(run, lease)
            finally:
                if run.poll() is None:
                    run.kill()
                    run.wait()
        if run.returncode in _REFUSED:
            raise TrainingRefusedError(
                f"the training run refused its options or its data; see {folder / log_name(claim)}"
            )
        if run.returncode != 0:
            raise TrainingError(
                f"the training run ended with exit status {run.returncode}; see {folder / log_name(claim)}"
            )
        digest = self._add_bundle(out / _BUNDLE if claim.task in GO_ON else out)
        with self._database.transaction(claim.owner) as tx:
            jobs.bind_bundle(tx, claim, digest)
            jobs.finish(tx, claim, detail={"bundle": digest})

    def _wait(self, run: subprocess.Popen[bytes], lease: Lease) -> None:
        """Wait for the run, as long as the job is this worker's and the worker goes on."""
        while True:
            try:
                run.wait(LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                lease.check()
                if self._is_stopping():
                    raise WorkerStopsError(
                        "the training worker stops; another goes on with the run"
                    ) from None
            else:
                return


def log_name(claim: Claim) -> str:
    """Return the name of an attempt's log."""
    return f"run-{claim.fence}.log"


def _fresh_or_begun(folder: Path, claim: Claim) -> Path:
    """Return where this attempt writes: where the one before stood, or a fresh place without its remains."""
    if claim.task in GO_ON:
        return folder / "run"
    for remains in folder.glob("bundle-*"):
        shutil.rmtree(remains, ignore_errors=True)
    # A job that was given back or retried counts its attempts anew: only chance makes a fresh name.
    return folder / f"bundle-{claim.fence}-{secrets.token_hex(4)}"


def _options(claim: Claim) -> list[str]:
    """Return the order as flags; a list repeats its flag."""
    flags = ["--resume"] if claim.task in GO_ON else []
    for name, value in json.loads(claim.order).items():
        for one in value if isinstance(value, list) else [value]:
            flags += [f"--{name}", str(one)]
    return flags
