"""Keeping the parts of a node alive: start, restart with growing pauses, stop in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from dicom_node.parent_death import ended_with_parent
from workers.exit_statuses import WorkerExit

SHORTEST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
GOOD_RUN_S = 60.0  # a part that lived so long starts again at once
STOP_DEADLINE_S = 30.0
LOOK_EVERY_S = 0.1
TELL_AGAIN_S = 3.0
LASTING_STATUSES = (3, 7)  # a part that refuses its settings, or the database, will refuse them again

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the node.

    Attributes
    ----------
    name : str
        For the log.
    command : sequence of str
        What it runs.
    queue : str or None
        What it works on, if it is a worker.
    """

    name: str
    command: Sequence[str]
    queue: str | None = None


OnDeath = Callable[[Part, int], bool]
"""Told of a part that died, with its process id; returns whether all that follows from it is done."""


class _Running:
    """A part with its process and its record."""

    def __init__(self, part: Part, on_death: OnDeath) -> None:
        self.part = part
        self._on_death = on_death
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_again_at = 0.0
        self.pause_s = SHORTEST_PAUSE_S
        self._unsettled: list[int] = []
        self._tell_again_at = 0.0

    def start(self) -> None:
        try:
            self.process = subprocess.Popen(
                self.part.command,
                stdin=subprocess.DEVNULL,
                preexec_fn=_own_group(ended_with_parent(signal.SIGTERM)),  # noqa: PLW1509 - the supervisor has no threads
            )
        except (OSError, subprocess.SubprocessError) as error:
            # For want of memory or processes, say: the other parts go on, and it may pass.
            reason = getattr(error, "strerror", None) or type(error).__name__
            self._pause(lived_s=0.0)
            log.error("part.not_started", part=self.part.name, reason=reason, again_in_s=self.pause_s)
            return
        self.started_at = time.monotonic()
        log.info("part.started", part=self.part.name, pid=self.process.pid)

    def look(self) -> None:
        """Start a part that is down and due, or made room for a fresh one; note one that just died."""
        if self._unsettled and time.monotonic() >= self._tell_again_at:
            self._settle()
        if self.process is None:
            if time.monotonic() >= self.start_again_at:
                self.start()
            return
        status = self.process.poll()
        if status is None:
            return
        pid, self.process = self.process.pid, None
        if status == WorkerExit.RECYCLED:
            # It holds no lease, and it did its work: nothing is to be settled or waited for.
            log.info("part.recycled", part=self.part.name)
            self.start()
            return
        self._pause(lived_s=time.monotonic() - self.started_at)
        again = {} if status in LASTING_STATUSES else {"again_in_s": self.pause_s}
        log.error("part.died", part=self.part.name, **_told(status), **again)
        self._unsettled.append(pid)
        self._settle()

    def _pause(self, *, lived_s: float) -> None:
        """Set when a part is started that does not run; the more often it fails, the later."""
        self.pause_s = SHORTEST_PAUSE_S if lived_s >= GOOD_RUN_S else min(self.pause_s * 2, LONGEST_PAUSE_S)
        self.start_again_at = time.monotonic() + self.pause_s

    def _settle(self) -> None:
        """Tell of those that died, and keep those of which has to be told again."""
        self._unsettled = [pid for pid in self._unsettled if not self._on_death(self.part, pid)]
        self._tell_again_at = time.monotonic() + TELL_AGAIN_S

    @property
    def lasting_refusal(self) -> int | None:
        """The exit status of a part that will end with it again, whenever it is started."""
        status = self.process.poll() if self.process is not None else None
        return status if status in LASTING_STATUSES else None


class Supervisor:
    """Runs parts until told to stop.

    Parameters
    ----------
    parts : sequence of Part
        In the order in which they start; they are stopped together.
    on_death : callable
        Told of every part that died by itself, with its process id, before it is started again; and once more
        after a while where it returns False.
    """

    def __init__(self, parts: Sequence[Part], on_death: OnDeath = lambda _part, _pid: True) -> None:
        self._running = [_Running(part, on_death) for part in parts]
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End all parts in good order; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> int:
        """Keep all parts running; return the exit status after the stop."""
        status = 0
        while not self._stopping.is_set():
            for running in self._running:
                refusal = running.lasting_refusal
                if refusal is not None:
                    log.error("part.refused_to_run", part=running.part.name, status=refusal)
                    status = refusal
                    self._stopping.set()
                running.look()
            self._stopping.wait(LOOK_EVERY_S)
        self._stop_all()
        return status

    def _stop_all(self) -> None:
        """Ask all parts to end, wait for the work in hand, then insist."""
        processes = [r.process for r in self._running if r.process is not None]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_DEADLINE_S
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("part.killed", pid=process.pid)
                process.kill()
                process.wait()
        log.info("node.stopped")


def _told(status: int) -> dict[str, int | str]:
    """Say how a process ended; a signal by its name."""
    if status >= 0:
        return {"status": status}
    told: dict[str, int | str] = {"status": status, "signal": signal.Signals(-status).name}
    if -status == signal.SIGKILL:
        told["advice"] = "somebody killed it; where nobody did, the kernel for want of memory: its log tells"
    return told


def _own_group(bind: Callable[[], None]) -> Callable[[], None]:
    """Return what a part runs before its program."""

    def prepare() -> None:
        os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the supervisor alone, which stops its parts in order
        bind()

    return prepare
