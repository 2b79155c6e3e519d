"""A whole node in its own processes, a scanner that sends until it is answered, and a PACS to report to."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import tomli_w
from pydicom import Dataset, dcmread

from db import listing, processes
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import AuditTrail
from db.audit.verification import VerifyReport, verify
from db.errors import DatabaseError
from db.session import Database
from dicom_node import installation
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.dimse import DeliveryTimeouts, Outgoing, Requestor, SendState, send
from dicom_node.settings import ENVIRONMENT_PREFIX
from tests.free_ports import free_port

# A Success waits for several syncs of a disk that may be slow.
TIMEOUTS = DeliveryTimeouts(connect_s=10, acse_s=30, dimse_s=60)
STEP_S = 0.05
# Limits of waits that end as soon as what is waited for is there.
START_S = WORK_S = 150.0


def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a state that another process brings about; fail by name when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        threading.Event().wait(STEP_S)


class RunningNode:
    """``dicom-node`` processes on a data directory of their own.

    Parameters
    ----------
    folder : pathlib.Path
        For data directory, configuration and logs.
    destinations : sequence of Destination
        Where results go.
    database_url, broker_url : str, optional
        PostgreSQL and Redis; the embedded default without them.
    settings : mapping, optional
        More of the configuration file.
    environment : mapping, optional
        More environment variables for all processes.
    """

    def __init__(
        self,
        folder: Path,
        destinations: Sequence[Destination] = (),
        *,
        database_url: str | None = None,
        broker_url: str | None = None,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.address = Destination("DICOM_NODE", "127.0.0.1", free_port())
        configured: dict[str, object] = {
            "port": self.address.port,
            "host": "127.0.0.1",
            "destinations": [str(d) for d in destinations],
            # A disk that is slow between two images must not split a study in two.
            "completeness": {"quiet_period_s": 600.0},
            "jobs": {"lease_s": 2.0, "backoff_max_s": 1.0},
            "delivery": {"connect_timeout_s": 5.0, "acse_timeout_s": 10.0, "dimse_timeout_s": 5.0},
            "listener": {"minimum_free_bytes": 0, "journal_bytes": 32 << 20},
            **(settings or {}),
        }
        if database_url:
            configured["database_url"] = database_url
        if broker_url:
            configured["broker_url"] = broker_url
        self._database_url = database_url
        self.config = folder / "node.toml"
        self.config.write_text(tomli_w.dumps(configured))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
        self._environment = {**clean, **(environment or {})}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._database: Database | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """Everything that all processes wrote."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        pass_descriptors: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start one process, such as ``start("serve")`` or ``start("work", "--queues", "score")``.

        It inherits the descriptors that are passed.
        """
        with (self.folder / f"{len(self._processes)}-{arguments[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *installation.console_script(),
                    *arguments,
                    *("--data-dir", str(self.data_dir), "--config", str(self.config)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment, **(environment or {})},
                start_new_session=True,
                pass_fds=pass_descriptors,
            )
        self._processes.append(process)
        return process

    def serve(self, timeout_s: float = START_S) -> Self:
        """Start everything and wait until every part has told that it lives."""
        self.start("serve")
        self.wait_for_processes({"listen", "dispatch", "score", "deliver", "train"}, timeout_s)
        return self

    def wait_for_processes(self, kinds: set[str], timeout_s: float = START_S) -> None:
        """Wait until processes of these kinds have told that they live."""

        def alive() -> bool:
            try:
                with self.database.reading() as session:
                    found, _ = processes.alive(session, self.database.now_in(session))
            except DatabaseError:
                return False
            return kinds <= {process.kind for process in found}

        until((self.data_dir / "keys" / "audit.key").exists, timeout_s, "the node's first start")
        until(alive, timeout_s, f"the start of {sorted(kinds)}")

    def stop(self) -> None:
        """End all processes, by force where they do not end in order."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._processes.clear()
        if self._database is not None:
            self._database.close()
            self._database = None

    @property
    def database(self) -> Database:
        """The node's database, opened beside it."""
        if self._database is None:
            url = self._database_url or f"sqlite:///{self.data_dir / 'node.db'}"
            self._database = Database(url, AuditTrail(AuditKey.load(self.data_dir / "keys" / "audit.key")))
        return self._database

    def send(self, images: Sequence[Dataset], timeout_s: float = WORK_S) -> None:
        """Send images until each was answered with Success, as a scanner does."""
        left = {str(image.SOPInstanceUID): self._outgoing(image) for image in images}

        def all_taken() -> bool:
            results = send(
                list(left.values()),
                self.address,
                Requestor("SCANNER", TIMEOUTS),
                on_result=lambda _uid, _result: None,
            )
            for result in results:
                if result.state is SendState.DELIVERED:
                    del left[result.sop_instance_uid]
            return not left

        until(all_taken, timeout_s, "the node's Success for every image")

    def _outgoing(self, image: Dataset) -> Outgoing:
        path = self.folder / f"sent-{image.SOPInstanceUID}.dcm"
        if not path.exists():
            image.save_as(path, enforce_file_format=True)
        meta = dcmread(path, stop_before_pixels=True).file_meta
        return Outgoing(image.SOPInstanceUID, image.SOPClassUID, meta.TransferSyntaxUID, path)

    def studies(self) -> list[dict[str, object]]:
        """Return the rows of ``study list``."""
        with self.database.reading() as session:
            return listing.studies(session)

    def jobs(self, **conditions: object) -> list[dict[str, object]]:
        """Return the rows of ``job list``."""
        with self.database.reading() as session:
            return listing.jobs(session, **conditions)  # type: ignore[arg-type]

    def results(self) -> list[dict[str, object]]:
        """Return the rows of ``result list``."""
        with self.database.reading() as session:
            return listing.results(session)

    def wait_until_delivered(self, count: int, timeout_s: float = WORK_S) -> None:
        """Wait until this many deliver jobs are done."""

        def delivered() -> bool:
            try:
                with self.database.reading() as session:
                    return listing.counts(session)["deliver_jobs"]["done"] >= count
            except DatabaseError:
                return False

        until(delivered, timeout_s, f"the delivery of {count} result sets")

    def verify_audit(self) -> VerifyReport:
        """Verify the whole trail."""
        keys = self.data_dir / "keys"
        checkpoint_key = CheckpointKey.load_or_create(keys / "checkpoint.key")
        return verify(
            self.database,
            AuditKey.load(keys / "audit.key"),
            self.data_dir / "checkpoints",
            checkpoint_key.public_key,
        )
