"""What happens again and again, counted: it is done or told once a minute, however often a peer causes it."""

from __future__ import annotations

import threading
import time

EVERY_S = 60.0
MOST_KINDS = 1000


class Repeats:
    """Counts what happens again, by its kind. Safe in every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[tuple[str, ...], tuple[float, int]] = {}

    def before(self, *kind: str) -> int | None:
        """Return how many of a kind were only counted since one was done; None to only count this one, too.

        Parameters
        ----------
        *kind : str
            What it is, and whose.
        """
        now = time.monotonic()
        with self._lock:
            done_at, repeats = self._done.get(kind, (float("-inf"), 0))
            if now - done_at < EVERY_S:
                self._done[kind] = (done_at, repeats + 1)
                return None
            if len(self._done) >= MOST_KINDS:
                self._done.clear()
            self._done[kind] = (now, 0)
            return repeats
