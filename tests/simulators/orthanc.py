"""A throw-away Orthanc, where it is installed."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from dicom_node.delivery.destination import Destination
from tests.free_ports import free_port
from tests.programs import needs

START_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Orthanc:
    """A running archive."""

    dicom_port: int
    http_port: int

    @property
    def destination(self) -> Destination:
        """Where objects are sent to."""
        return Destination("ORTHANC", "127.0.0.1", self.dicom_port)

    def files(self) -> list[bytes]:
        """Give every stored object as its archive gives it back."""
        return [self._get(f"/instances/{name}/file") for name in json.loads(self._get("/instances"))]

    def ask_for_commitment(self, title: str, objects: Sequence[tuple[str, str]]) -> str:
        """Let it ask a peer for storage commitment; return the transaction UID."""
        content = json.dumps({"DicomInstances": [list(each) for each in objects]}).encode()
        url = f"http://127.0.0.1:{self.http_port}/modalities/{title}/storage-commitment"
        with urlopen(Request(url, data=content, method="POST"), timeout=30) as answer:
            return str(json.load(answer)["ID"])

    def commitment(self, transaction_uid: str) -> dict[str, Any]:
        """Give what it knows of a transaction."""
        found: dict[str, Any] = json.loads(self._get(f"/storage-commitment/{transaction_uid}"))
        return found

    def _get(self, path: str) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            content: bytes = answer.read()
        return content


@contextmanager
def running_orthanc(folder: Path, modalities: Mapping[str, int] | None = None) -> Iterator[Orthanc]:
    """Run an archive with its store in a folder; skip where it is not installed, but never in CI.

    Parameters
    ----------
    folder : Path
        Its own.
    modalities : mapping of str to int, optional
        Peers that it knows: AE title to port on loopback.
    """
    program = needs("Orthanc", "orthanc")
    orthanc = Orthanc(free_port(), free_port())
    config: dict[str, Any] = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomPort": orthanc.dicom_port,
        "HttpPort": orthanc.http_port,
        "RemoteAccessAllowed": False,
        "Plugins": [],
        "DicomModalities": {
            title: {"AET": title, "Host": "127.0.0.1", "Port": port}
            for title, port in (modalities or {}).items()
        },
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    command = [program, str(folder / "orthanc.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for port in (orthanc.dicom_port, orthanc.http_port):  # opened one after the other
                _wait_for(port, process)
            yield orthanc
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None and time.monotonic() < deadline, "Orthanc did not start"
        threading.Event().wait(0.05)
