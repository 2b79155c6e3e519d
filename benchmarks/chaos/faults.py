"""Random faults, one after the other, with a seed; each is healed after a while."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import psutil
import psycopg
import redis
from sqlalchemy import make_url

from benchmarks.chaos.hospital import Hospital, is_dead
from tests.simulators.pacs import Behaviour, SimulatedPacs

STEP_S = 0.02
SMALLEST_FILE_BYTES = 4096
LEASE_S = 2.0
MISBEHAVIOURS = (
    (Behaviour.REFUSE_CONNECTION, None),
    (Behaviour.REJECT_TRANSIENT, None),
    (Behaviour.ABORT_AT_ASSOCIATION, None),
    (Behaviour.DROP_BEFORE_DATA_SET, None),
    (Behaviour.DROP_DURING_DATA_SET, None),
    (Behaviour.DROP_AFTER_DATA_SET, None),
    (Behaviour.DROP_AFTER_STORING, None),
    (Behaviour.HALF_RESPONSE, None),
    (Behaviour.WRONG_MESSAGE_ID, None),
    (Behaviour.ACCEPT, 0xA700),
    (Behaviour.ACCEPT, 0xC001),
)

Heal = Callable[[], object]


class Faults:
    """Does harm to a hospital.

    Parameters
    ----------
    hospital : Hospital
        The victim.
    seed : int
        Of the order and kind of the faults; when they strike depends on the machine.
    per_second : float
        Mean number of faults a second.
    """

    def __init__(self, hospital: Hospital, seed: int, per_second: float) -> None:
        self._hospital = hospital
        self._chance = random.Random(seed)
        self._per_second = per_second
        self._order = itertools.count()
        self._ill: list[tuple[float, int, str, Heal]] = []
        self.counts: Counter[str] = Counter()
        """What was done, how often."""
        self._kinds: list[tuple[Callable[[], None], float]] = [
            (self._kill, 70),
            (self._stop, 7),
            (self._misbehave, 10),
            (self._fill_disk, 4),
            *([(self._lock, 4)] if hospital.redis is None else [(self._cut, 3), (self._crash, 1)]),
            *(
                []
                if hospital.redis is None
                else [(self._empty, 2), (self._restart, 2), (self._freeze, 2), (self._poison, 2)]
            ),
        ]

    @property
    def kills(self) -> int:
        """How many processes of the node were killed."""
        return sum(count for name, count in self.counts.items() if name.startswith("kill -9"))

    def run(self, seconds: float) -> None:
        """Strike for so many seconds, then heal everything."""
        end = time.monotonic() + seconds
        due = time.monotonic()
        strikes, weights = zip(*self._kinds, strict=True)
        while (now := time.monotonic()) < end:
            self._heal_until(now)
            if now >= due:
                (strike,) = self._chance.choices(strikes, weights)
                strike()
                due = now + self._chance.expovariate(self._per_second)
            threading.Event().wait(STEP_S)
        self._heal_until(float("inf"))

    def _heal_until(self, moment: float) -> None:
        while self._ill and self._ill[0][0] <= moment:
            heapq.heappop(self._ill)[3]()

    def _begin(self, name: str, kind: str, heal: Heal, seconds: float) -> None:
        self.counts[name] += 1
        heapq.heappush(self._ill, (time.monotonic() + seconds, next(self._order), kind, heal))

    def _lasts(self, kind: str) -> bool:
        return any(each[2] == kind for each in self._ill)

    def _victim(self) -> tuple[str, psutil.Process] | None:
        alive = {part: each for part, each in list(self._hospital.alive.items()) if not is_dead(each)}
        return self._chance.choice(sorted(alive.items())) if alive else None

    def _kill(self) -> None:
        found = self._victim()
        if found is None:
            return
        part, process = found
        name = part.partition("-")[0]
        with suppress(psutil.NoSuchProcess):
            if name == "score" and self._chance.random() < 0.3 and (children := process.children()):
                name, process = "decoder", children[0]
            process.kill()
            self.counts[f"kill -9 {name}"] += 1

    def _stop(self) -> None:
        found = self._victim()
        if found is None:
            return
        part, process = found

        def resume() -> None:
            with suppress(psutil.NoSuchProcess):
                process.resume()

        with suppress(psutil.NoSuchProcess):
            process.suspend()
            seconds = self._chance.uniform(0.2, 2 * LEASE_S)
            self._begin(f"SIGSTOP {part.partition('-')[0]}", f"stopped {process.pid}", resume, seconds)

    def _misbehave(self) -> None:
        pacs: SimulatedPacs = self._chance.choice(self._hospital.destinations)
        if self._lasts(pacs.ae_title):
            return
        behaviour, status = self._chance.choice(MISBEHAVIOURS)
        pacs.behave(behaviour, status=status)
        name = behaviour.name if status is None else f"{status:04X}"
        heal = lambda: pacs.behave(Behaviour.ACCEPT)  # noqa: E731
        self._begin(f"PACS {name}", pacs.ae_title, heal, self._chance.uniform(0.5, 3))

    def _fill_disk(self) -> None:
        """Let no process write beyond a file's first page: what a full disk does, but for this node alone."""
        if self._lasts("disk"):
            return
        full = [each for each in list(self._hospital.alive.values()) if not is_dead(each)]
        endless = psutil.RLIM_INFINITY

        def limit(bytes_: int) -> None:
            for process in full:
                with suppress(psutil.NoSuchProcess):
                    process.rlimit(psutil.RLIMIT_FSIZE, (bytes_, endless))

        limit(SMALLEST_FILE_BYTES)
        self._begin("disk full", "disk", lambda: limit(endless), self._chance.uniform(0.2, 2))

    def _lock(self) -> None:
        """Hold SQLite's write lock, as a backup gone wrong does."""
        if self._lasts("database"):
            return
        connection = sqlite3.connect(
            self._hospital.node.data_dir / "node.db", timeout=5, isolation_level=None
        )
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            connection.close()
            return

        def let_go() -> None:
            connection.rollback()
            connection.close()

        self._begin("SQLite locked", "database", let_go, self._chance.uniform(0.5, 3))

    def _backends(self, statement: str) -> list[int]:
        url = make_url(str(self._hospital.node.database.engine.url.render_as_string(hide_password=False)))
        libpq = url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            with psycopg.connect(libpq, autocommit=True, connect_timeout=5) as connection:
                return [row[0] for row in connection.execute(statement).fetchall()]
        except psycopg.OperationalError:
            return []

    def _cut(self) -> None:
        own = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        if self._backends(f"SELECT pg_terminate_backend(pid)::int {own}"):
            self.counts["PostgreSQL connections ended"] += 1

    def _crash(self) -> None:
        """Kill one server process: PostgreSQL then ends all others and recovers as after a crash."""
        own = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        for pid in self._backends(f"SELECT pid {own} LIMIT 1"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.counts["PostgreSQL crashed"] += 1

    @property
    def _redis(self) -> object:
        return self._hospital.redis

    def _empty(self) -> None:
        assert self._hospital.redis is not None
        if not self._lasts("redis"):
            self._hospital.redis.flush()
            self.counts["Redis emptied"] += 1

    def _restart(self) -> None:
        broker = self._hospital.redis
        assert broker is not None
        if not self._lasts("redis"):
            broker.kill()
            self._begin("Redis killed", "redis", broker.start, self._chance.uniform(0.2, 4))

    def _freeze(self) -> None:
        assert self._hospital.redis is not None
        if not self._lasts("redis"):
            frozen = self._hospital.redis.frozen()
            frozen.__enter__()
            heal = lambda: frozen.__exit__(None, None, None)  # noqa: E731
            self._begin("Redis frozen", "redis", heal, self._chance.uniform(0.5, 8))

    def _poison(self) -> None:
        assert self._hospital.redis is not None
        if self._lasts("redis"):
            return
        queue = self._chance.choice(["score", "deliver"])
        with suppress(redis.RedisError), self._hospital.redis.client() as client:
            client.lpush(f"DICOM_NODE:{queue}", "this is no message")
            self.counts["Redis poisoned"] += 1
