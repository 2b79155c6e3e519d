"""SIGTERM and SIGINT of a long-running process: heard at once, and obeyed in time.

Python runs a signal's handler in the main thread, between two of its own instructions: not while that thread
waits for a locked database, which may take a quarter of a minute. So the signal is also written to a socket,
at the moment when it comes, and a thread listens there.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable

import structlog

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
LAST_WORDS_S = 1.0


def when_told_to_stop(stop: Callable[[], None], *, deadline_s: float | None = None) -> None:
    """Call a function when this process is told to stop, whatever its main thread does at that moment.

    Parameters
    ----------
    stop : callable
        Called once, in a thread of its own.
    deadline_s : float, optional
        Seconds after which the process ends itself where it still runs. Only for processes that lose nothing
        by an end at any moment.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    _Ear(heard, told, stop, deadline_s).start()


class _Ear(threading.Thread):
    """Listens for as long as the process lives, so that the kernel's way to it stays open."""

    def __init__(
        self, heard: socket.socket, told: socket.socket, stop: Callable[[], None], deadline_s: float | None
    ) -> None:
        super().__init__(name="stop-signals", daemon=True)
        self._heard = heard
        self._told = told
        self._stop_process = stop
        self._deadline_s = deadline_s

    def run(self) -> None:
        self._wait()
        self._stop_process()
        if self._deadline_s is not None:
            threading.Event().wait(self._deadline_s)
            _end_process(self._deadline_s)
        while True:
            self._wait()

    def _wait(self) -> None:
        while not STOP_SIGNALS & set(self._heard.recv(64)):
            pass  # another signal, which has its own handler


def _end_process(deadline_s: float) -> None:
    """End the process, whatever hangs; its last words have their own thread: a log may hang, too."""
    log = structlog.get_logger(__name__)
    words = threading.Thread(
        target=log.warning, args=("process.stop_deadline",), kwargs={"seconds": deadline_s}, daemon=True
    )
    words.start()
    words.join(LAST_WORDS_S)
    os._exit(0)
