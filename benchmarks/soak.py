"""What grows while a node runs: memory, threads, files, mappings, rows, messages, the log.

A node with metrics and TLS takes associations of one object, new and known ones, refused objects,
associations that are aborted or of which nothing is accepted, handshakes that are given up, and a study to be
scored now and then. The table tells each figure as it was when all was warm and at the end, its most, and by
how much it grew for 1000 associations in between.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any

import psutil
from pydicom import Dataset
from sqlalchemy import func, select, text

from benchmarks.receive.objects import CASES, EXPLICIT_LITTLE, SentObject, objects_of
from benchmarks.tables import table
from db.tables import Base
from tests.free_ports import free_port
from tests.redis_server import RedisServer, redis_binary
from tests.running_node import RunningNode
from tests.simulators.certificates import Authority
from tests.simulators.pacs import SimulatedPacs
from tests.simulators.raw_scu import AssociationEndedError, Proposal, RawScu
from training.datasets.phantom_objects import study

LONGEST_PAUSE_S = 15.0
SAMPLES = 40
WARM_SHARE = 0.5
_CASE = CASES["small"]
_STORAGE = Proposal(_CASE.sop_class_uid, EXPLICIT_LITTLE)
_UNKNOWN = Proposal("1.2.840.10008.5.1.4.1.1.104.1", EXPLICIT_LITTLE)  # PDF, which no network looks at
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the close is a reset


def main() -> None:
    """Run as the command line asks."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run that is ended leaves no server behind
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        ward = stack.enter_context(closing(Ward(folder, stack, options.database)))
        load = Load(ward, pause_s=1 / options.per_second, study_every_s=options.study_every)
        samples = _sampled(ward, load, options.seconds)
        figures = {"database": options.database, "seconds": options.seconds, "sent": load.counts}
        figures["samples"] = samples
    print(json.dumps(figures) if options.json else described(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=1200, help="how long")
    parser.add_argument("--database", choices=("sqlite", "postgres+redis"), default="sqlite")
    parser.add_argument("--per-second", type=float, default=10.0, help="associations a second")
    parser.add_argument(
        "--study-every", type=float, default=10.0, help="seconds between studies to be scored"
    )
    parser.add_argument("--json", action="store_true", help="print every sample as JSON")
    parser.add_argument("--keep", type=Path, help="folder for everything written, kept; default: none is")
    return parser.parse_args()


class Ward:
    """A node with everything around it.

    Parameters
    ----------
    folder : pathlib.Path
        For everything that is written.
    stack : contextlib.ExitStack
        Ends what is started.
    database : str
        ``"sqlite"`` or ``"postgres+redis"``.
    """

    def __init__(self, folder: Path, stack: ExitStack, database: str) -> None:
        authority = Authority(folder / "tls")
        files = authority.issue("node", "127.0.0.1")
        self.pacs = stack.enter_context(SimulatedPacs())
        self.redis: RedisServer | None = None
        url = None
        if database != "sqlite":
            from tests.databases import running_postgres

            postgres = stack.enter_context(running_postgres())
            url = postgres.create(upgraded=True)
            self.redis = stack.enter_context(RedisServer(redis_binary(), folder))
        self.tls_port, self.metrics_port = free_port(), free_port()
        self.node = stack.enter_context(
            RunningNode(
                folder,
                [self.pacs.destination],
                database_url=url,
                broker_url=self.redis.url if self.redis else None,
                settings={
                    "completeness": {"quiet_period_s": 5.0},
                    "jobs": {},
                    "scoring": {"device": "cpu", "decode_memory_bytes": 2 << 30},
                    "training": {"workers": 0},
                    "metrics": {"port": self.metrics_port},
                    "listener": {
                        "minimum_free_bytes": 0,
                        "tls": {
                            "certificate": str(files.certificate),
                            "private_key": str(files.private_key),
                            "authority": str(files.authority),
                            "port": self.tls_port,
                        },
                    },
                },
            )
        )
        self.supervisor = psutil.Process(self.node.start("serve").pid)
        self.node.wait_for_processes({"listen", "dispatch", "score", "deliver", "metrics"})

    def close(self) -> None:
        """End the node; the rest ends with its stack."""
        self.node.stop()

    def figures(self) -> dict[str, float]:
        """Return everything that may grow, by its name."""
        found: dict[str, float] = {}
        for process in (self.supervisor, *self.supervisor.children(recursive=True)):
            with suppress(psutil.Error):
                found.update(_of_process(process))
        data = self.node.data_dir
        found["node.db, KB"] = sum(p.stat().st_size for p in data.glob("node.db")) / 1024
        found["node.db-wal, KB"] = sum(p.stat().st_size for p in data.glob("node.db-wal")) / 1024
        found["files of the spool"] = sum(1 for _ in (data / "spool").glob("*/*"))
        found["files of the results"] = sum(1 for _ in (data / "results").glob("*/*"))
        found["files of the journal"] = sum(1 for _ in (data / "journal").glob("*"))
        found["log, KB"] = sum(p.stat().st_size for p in self.node.folder.glob("*.log")) / 1024
        with self.node.database.reading() as session:
            for name, rows in Base.metadata.tables.items():
                found[f"rows of {name}"] = session.scalar(select(func.count()).select_from(rows)) or 0
            if not self.node.database.is_sqlite:
                connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                found["connections"] = session.scalar(text(connections)) or 0
                size = "SELECT pg_database_size(current_database()) / 1024"
                found["database, KB"] = float(session.scalar(text(size)) or 0)
                dead = "SELECT sum(n_dead_tup) FROM pg_stat_user_tables"
                found["dead rows"] = float(session.scalar(text(dead)) or 0)
        if self.redis is not None:
            with self.redis.client() as client:
                memory: Any = client.info("memory")
                found["redis, KB"] = memory["used_memory"] / 1024
                keys: Any = client.keys("*")
                found["redis keys"] = len(keys)
                found["redis messages"] = sum(
                    int(client.llen(key))
                    for key in keys
                    if client.type(key) == b"list"  # type: ignore[arg-type]
                )
                clients: Any = client.info("clients")
                found["redis clients"] = clients["connected_clients"]
        return found


def _of_process(process: psutil.Process) -> Iterator[tuple[str, float]]:
    words = process.cmdline()
    name = next((w for w in ("listen", "dispatch", "score", "deliver", "metrics", "serve") if w in words), "")
    if not name:
        name = "decoder" if "-c" in words else "other"
    memory = process.memory_full_info()
    times = process.cpu_times()
    yield f"{name}: RSS, KB", memory.rss / 1024
    yield f"{name}: PSS, KB", memory.pss / 1024
    yield f"{name}: threads", process.num_threads()
    yield f"{name}: open files", process.num_fds()
    yield f"{name}: mappings", len(Path(f"/proc/{process.pid}/maps").read_text().splitlines())
    yield f"{name}: CPU, s", times.user + times.system


@dataclass
class Load:
    """What is sent, one thing after the other.

    Attributes
    ----------
    counts : dict of str to int
        What was sent, by its kind.
    """

    ward: Ward
    pause_s: float
    study_every_s: float
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = next(objects_of(_CASE, 1))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    @property
    def associations(self) -> int:
        """How many connections were made."""
        return sum(self.counts.values())

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is in hand."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        kinds: tuple[Callable[[], None], ...] = (
            self._duplicate,
            self._aborted,
            self._refused,
            self._duplicate,
            self._aborted_in_object,
            self._nothing_accepted,
            self._reset,
            self._handshake_given_up,
            self._new,
            self._plain_on_secure_port,
            self._port_looked_at,
            self._scraped,
        )
        study_due_at, number = time.monotonic(), 0
        while not self._stopping.wait(self.pause_s):
            send = kinds[number % len(kinds)]
            number += 1
            name = send.__name__.strip("_")
            try:
                send()
            except (OSError, AssociationEndedError):
                name = f"{name}, cut off"
            self.counts[name] = self.counts.get(name, 0) + 1
            if time.monotonic() >= study_due_at:
                study_due_at = time.monotonic() + self.study_every_s
                self.ward.node.send(_study(self.counts.get("study", 0)))
                self.counts["study"] = self.counts.get("study", 0) + 1

    def _association(self, proposal: Proposal = _STORAGE) -> RawScu:
        return RawScu(self.ward.node.address.port, proposal, calling="SOAK", called="DICOM_NODE")

    def _store(self, each: SentObject) -> None:
        with self._association() as scu:
            scu.store(each.head + each.pixels, each.sop_class_uid, each.sop_instance_uid)
            scu.release()

    def _duplicate(self) -> None:
        self._store(self._known)

    def _new(self) -> None:
        self._store(next(objects_of(_CASE, 1)))

    def _refused(self) -> None:
        with self._association() as scu:
            scu.store(self._known.head[:-20], self._known.sop_class_uid, self._known.sop_instance_uid)
            scu.release()

    def _aborted(self) -> None:
        self._association().abort()

    def _aborted_in_object(self) -> None:
        scu = self._association()
        scu.send_command(1, self._known.sop_class_uid, self._known.sop_instance_uid)
        scu.send_data(self._known.head, is_whole=False)
        scu.abort()

    def _reset(self) -> None:
        with self._association() as scu:
            scu.send_command(1, self._known.sop_class_uid, self._known.sop_instance_uid)
            scu.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _nothing_accepted(self) -> None:
        with self._association(_UNKNOWN) as scu:
            scu.release()

    def _connection(self, port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=60)

    def _handshake_given_up(self) -> None:
        with self._connection(self.ward.tls_port) as line:
            line.sendall(b"\x16\x03\x01\x02\x00\x01")

    def _plain_on_secure_port(self) -> None:
        with self._connection(self.ward.tls_port) as line:
            line.sendall(b"GET / HTTP/1.0\r\n\r\n")
            line.recv(1024)

    def _port_looked_at(self) -> None:
        self._connection(self.ward.node.address.port).close()

    def _scraped(self) -> None:
        address = f"http://127.0.0.1:{self.ward.metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=60) as answer:
            answer.read()


def _study(number: int) -> list[Dataset]:
    """Draw a study of four views in one of several sizes, with names of its own."""
    rows, columns = ((320, 260), (337, 251), (300, 300), (401, 229), (288, 352))[number % 5]
    images = study(seed=number % 5, rows=rows, columns=columns)
    own = f"2.25.{uuid.uuid4().int}"
    for ordinal, image in enumerate(images):
        image.StudyInstanceUID = own
        image.SeriesInstanceUID = f"{own}.{ordinal}"[:64]
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"2.25.{uuid.uuid4().int}"
    return images


def _sampled(ward: Ward, load: Load, seconds: float) -> list[dict[str, float]]:
    samples = []
    begin = time.monotonic()
    load.start()
    while (passed := time.monotonic() - begin) < seconds:
        samples.append({"seconds": passed, "associations": load.associations, **ward.figures()})
        print(f"{passed:.0f} s, {load.associations} associations", flush=True)
        (ward.node.folder / "samples.json").write_text(json.dumps(samples))
        time.sleep(min(LONGEST_PAUSE_S, seconds / SAMPLES))
    load.stop()
    return samples


def described(figures: dict[str, Any]) -> str:
    """Lay the figures out for people."""
    samples = figures["samples"]
    warm = samples[int(len(samples) * WARM_SHARE) :]
    names = [name for name in samples[-1] if name not in ("seconds", "associations")]
    rows = []
    for name in names:
        there = [(s["associations"], s[name]) for s in warm if name in s]
        if len(there) < 3:
            continue
        slope = linear_regression(*zip(*there, strict=True)).slope
        values = [value for _, value in there]
        rows.append(
            (name, f"{values[0]:.0f}", f"{values[-1]:.0f}", f"{max(values):.0f}", f"{1000 * slope:.1f}")
        )
    sent = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(figures["sent"].items()))
    head = f"soak on {figures['database']}, {figures['seconds']:g} s: {sent}"
    return f"{head}\n\n{table(('warm', 'first', 'last', 'most', 'per 1000'), rows)}"


if __name__ == "__main__":
    main()
