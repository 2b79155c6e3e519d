"""The receivers that are compared: each started afresh for each run, with what it costs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_node import installation

_START_WITHIN_S = 60.0
_END_WITHIN_S = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")
_ROOT = Path(__file__).resolve().parents[2]


def program_of_the_system(name: str) -> str | None:
    """Find a program, but not in the virtual environment, where pynetdicom has others of DCMTK's names."""
    if name == sys.executable:
        return name
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    ours = Path(sys.prefix) / "bin"
    return shutil.which(name, path=os.pathsep.join(folder for folder in folders if Path(folder) != ours))


@dataclass(frozen=True, slots=True)
class Launch:
    """How a receiver is started.

    Attributes
    ----------
    command : sequence of str
        Its program and arguments.
    environment : mapping
        What is added to the environment.
    """

    command: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Receiver:
    """One receiver.

    Attributes
    ----------
    name : str
        As in the table.
    program : str
        What must be installed for it.
    launch : callable
        ``launch(port, folder, is_durable, associations) -> Launch``.
    """

    name: str
    program: str
    launch: Callable[[int, Path, bool, int], Launch]

    @property
    def is_installed(self) -> bool:
        """Whether its program is here."""
        return program_of_the_system(self.program) is not None


@dataclass(frozen=True, slots=True)
class Running:
    """A receiver that accepts.

    Attributes
    ----------
    port : int
        Where.
    pid : int
        Its first process.
    """

    port: int
    pid: int

    def cpu_s(self) -> float:
        """Processor seconds that it and its children, ended ones included, used so far."""
        return sum(_cpu_s(pid) for pid in _family(self.pid))

    def peak_mib(self) -> float:
        """The largest resident memory that one of its processes ever had."""
        return max(_peak_kib(pid) for pid in _family(self.pid)) / 1024


@contextmanager
def running(receiver: Receiver, folder: Path, *, is_durable: bool, associations: int) -> Iterator[Running]:
    """Run a receiver with everything that it writes in a folder, which is for the caller to remove.

    On ext4 not before the last run: for minutes after many files were removed, each new one looks at all of
    their inodes, which takes a millisecond after a thousand and is nobody's own.
    """
    folder.mkdir(parents=True)
    port = _free_port()
    launch = receiver.launch(port, folder, is_durable, associations)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch.command,
            env={**os.environ, **launch.environment},
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_for(port, process, log)
        yield Running(port, process.pid)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _storescp_default(port: int, folder: Path, is_durable: bool, associations: int) -> Launch:
    return _storescp(port, folder, is_durable, [] if associations == 1 else ["--fork"])


def _storescp_best(port: int, folder: Path, is_durable: bool, associations: int) -> Launch:
    flags = ["+B", "--max-pdu", "131072", *([] if associations == 1 else ["--fork"])]
    return _storescp(port, folder, is_durable, flags)


def _storescp(port: int, folder: Path, is_durable: bool, flags: Sequence[str]) -> Launch:
    (folder / "objects").mkdir()
    command = [
        program_of_the_system("storescp") or "storescp",
        *flags,
        "-aet",
        "NODE",
        "-od",
        str(folder / "objects"),
        str(port),
    ]
    if not is_durable:
        return Launch(command, {})
    library = folder / "synced_close.so"
    source = Path(__file__).with_name("synced_close.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return Launch(command, {"LD_PRELOAD": str(library)})


def _orthanc(port: int, folder: Path, is_durable: bool, associations: int) -> Launch:
    config = {
        "Name": "BENCHMARK",
        "StorageDirectory": str(folder / "objects"),
        "IndexDirectory": str(folder / "objects"),
        "DicomAet": "NODE",
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "DicomThreadsCount": max(4, associations),
        "HttpServerEnabled": False,
        "SyncStorageArea": is_durable,
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    return Launch(["Orthanc", str(folder / "orthanc.json")], {})


def _pynetdicom(port: int, folder: Path, is_durable: bool, _associations: int) -> Launch:
    (folder / "objects").mkdir()
    command = [
        sys.executable,
        "-m",
        "benchmarks.receive.plain_pynetdicom",
        str(port),
        str(folder / "objects"),
    ]
    return Launch([*command, *(["sync"] if is_durable else [])], {})


def _bare_sink(port: int, folder: Path, is_durable: bool, _associations: int) -> Launch:
    (folder / "objects").mkdir()
    command = [sys.executable, "-m", "benchmarks.receive.bare_sink", str(port), str(folder / "objects")]
    return Launch([*command, *(["sync"] if is_durable else [])], {})


def _path_only(port: int, folder: Path, is_durable: bool, _associations: int) -> Launch:
    command = [sys.executable, "-m", "benchmarks.receive.path_only", str(port), str(folder)]
    return Launch([*command, *(["sync"] if is_durable else [])], {})


def _node(processes: int) -> Callable[[int, Path, bool, int], Launch]:
    def launch(port: int, folder: Path, _is_durable: bool, _associations: int) -> Launch:
        # Any start but the very first finds its tables, and has no need of what makes them.
        prepare = [*installation.console_script(), "db", "upgrade", "--data-dir", str(folder)]
        subprocess.run(prepare, check=True, capture_output=True)
        command = [*installation.console_script(), "listen", "--data-dir", str(folder), "--port", str(port)]
        return Launch(
            command,
            {
                "DICOM_NODE_LISTENER__PROCESSES": str(processes),
                "DICOM_NODE_LISTENER__MINIMUM_FREE_BYTES": "0",
                "DICOM_NODE_HOST": "127.0.0.1",
            },
        )

    return launch


RECEIVERS: tuple[Receiver, ...] = (
    Receiver("storescp", "storescp", _storescp_default),
    Receiver("storescp, best", "storescp", _storescp_best),
    Receiver("Orthanc", "Orthanc", _orthanc),
    Receiver("pynetdicom", sys.executable, _pynetdicom),
    Receiver("bare sink", sys.executable, _bare_sink),
    Receiver("node, no rows", sys.executable, _path_only),
    Receiver("node", sys.executable, _node(1)),
    Receiver("node, 2 processes", sys.executable, _node(2)),
)
"""In the order of the table; the first is the measure of the others."""


def _family(pid: int) -> list[int]:
    family = [pid]
    for each in family:
        children = Path(f"/proc/{each}/task/{each}/children")
        family += [int(child) for child in children.read_text().split()] if children.exists() else []
    return family


def _cpu_s(pid: int) -> float:
    # Fields 14 to 17 of proc(5): user and system time, its own and that of children that it waited for.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _free_port() -> int:
    # Below the range from which the kernel takes ports of outgoing connections: nobody gets it meanwhile.
    # By the system's randomness: two programs that seeded Python's alike would choose alike.
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port; end what holds thousands of them")


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            time.sleep(0.3)  # an association of nobody ends
            return
    raise RuntimeError(f"a receiver did not start:\n{log.read_text(errors='replace')[-2000:]}")
