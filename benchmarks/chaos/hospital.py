"""The node's processes under a supervisor, its database and broker, and two PACS."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import ColumnElement, select

from benchmarks.chaos.forge import Forge
from db.errors import DatabaseError
from db.lifecycle import JobState
from db.tables import Job
from tests.redis_server import RedisServer
from tests.running_node import RunningNode, until
from tests.simulators.pacs import SimulatedPacs

PARTS = ("listen", "dispatch", "score-1", "score-2", "deliver-1", "deliver-2")
LOOK_EVERY_S = 0.05
SETTINGS: dict[str, object] = {
    # A study is complete by its views alone: a listener that keeps dying must not split one in two.
    "completeness": {"quiet_period_s": 3600.0},
    # Here no job is to blame for the death of its worker.
    "jobs": {"lease_s": 2.0, "backoff_max_s": 1.0, "attempts": 1_000_000},
    # A PACS refuses for longer than three tries take here; who believed it would wait for a person.
    "delivery": {"refused_tries": 20},
    "scoring": {"device": "cpu", "decode_memory_bytes": 2 << 30},
    "training": {"workers": 0},
}


@dataclass
class Hospital:
    """Everything that faults happen to.

    Attributes
    ----------
    node : RunningNode
        Its settings and its database; the processes are :attr:`alive`.
    destinations : tuple of SimulatedPacs
        Who gets results.
    redis : RedisServer or None
        The broker, where there is one.
    """

    node: RunningNode
    destinations: tuple[SimulatedPacs, ...]
    redis: RedisServer | None
    forge: Forge
    alive: dict[str, psutil.Process] = field(default_factory=dict)
    starts: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)

    def supervise(self) -> None:
        """Start every part, and each again as soon as it is dead, until :meth:`stop`."""
        while not self._stopping.wait(LOOK_EVERY_S):
            for part in PARTS:
                process = self.alive.get(part)
                if process is None or is_dead(process):
                    self.alive[part] = self._start(part)

    def _start(self, part: str) -> psutil.Process:
        queue = part.partition("-")[0]
        command = [queue] if queue in ("listen", "dispatch") else ["work", "--queues", queue]
        self.starts += 1
        node = self.node
        return self.forge.start([*command, "--data-dir", str(node.data_dir), "--config", str(node.config)])

    def stop(self, supervisor: threading.Thread) -> list[str]:
        """End every part in good order; return those that had to be forced."""
        self._stopping.set()
        supervisor.join()
        for process in self.alive.values():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        _, stubborn = psutil.wait_procs(self.alive.values(), timeout=60)
        for process in stubborn:
            process.kill()
        return [part for part, process in self.alive.items() if process in stubborn]

    def unfinished(self) -> int | None:
        """Return the number of jobs that are not done; None while the database is away."""
        return self._jobs(Job.state != JobState.DONE)

    def finished(self) -> int:
        """Return the number of jobs that are done; 0 while the database is away."""
        return self._jobs(Job.state == JobState.DONE) or 0

    def _jobs(self, condition: ColumnElement[bool]) -> int | None:
        try:
            with self.node.database.reading() as session:
                return len(session.scalars(select(Job.id).where(condition)).all())
        except DatabaseError:
            return None


def is_dead(process: psutil.Process) -> bool:
    """Whether a process is gone, or only a name in the table of processes."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def hospital(folder: Path, database: str) -> Iterator[tuple[Hospital, threading.Thread]]:
    """Run a node with two destinations on ``"sqlite"`` or ``"postgres+redis"``."""
    with ExitStack() as stack:
        destinations = tuple(stack.enter_context(SimulatedPacs(name)) for name in ("PACS", "ARCHIVE"))
        database_url, redis = None, None
        if database != "sqlite":
            from tests.databases import running_postgres
            from tests.redis_server import redis_binary

            postgres = stack.enter_context(running_postgres())
            database_url = postgres.create(upgraded=True)
            stack.callback(postgres.drop, database_url)
            redis = stack.enter_context(RedisServer(redis_binary(), folder))
        node = stack.enter_context(
            RunningNode(
                folder,
                [pacs.destination for pacs in destinations],
                database_url=database_url,
                broker_url=redis.url if redis else None,
                settings=SETTINGS,
            )
        )
        forge = stack.enter_context(Forge(folder / "node.log"))
        made = Hospital(node, destinations, redis, forge)
        supervisor = threading.Thread(target=made.supervise, name="supervisor", daemon=True)
        supervisor.start()
        until((node.data_dir / "keys" / "checkpoint.key").exists, 120, "the node's first start")
        node.wait_for_processes({"listen", "dispatch", "score", "deliver"}, 120)
        yield made, supervisor
