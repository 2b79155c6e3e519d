"""What the dispatcher's process does beside its sweeps, in a thread of its own: reading files takes time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from db.errors import DatabaseError
from dicom_node.errors import NodeError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done again and again.

    Attributes
    ----------
    name : str
        For the log.
    do : callable
        Does it.
    period_s : float
        Seconds from its end to its next beginning.
    """

    name: str
    do: Callable[[], object]
    period_s: float


class Housekeeper:
    """Does chores until stopped, the first time at once; one that fails is done again at its turn."""

    def __init__(self) -> None:
        self._chores: list[Chore] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called; long chores look."""
        return self._stopping.is_set()

    def add(self, chore: Chore) -> None:
        """Take a chore, before the start."""
        self._chores.append(chore)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the chore in hand."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        due_at = dict.fromkeys(range(len(self._chores)), 0.0)
        while not self.is_stopping:
            number = min(due_at, key=lambda each: due_at[each])
            if self._stopping.wait(max(0.0, due_at[number] - time.monotonic())):
                return
            chore = self._chores[number]
            try:
                chore.do()
            except (DatabaseError, NodeError) as error:
                log.warning("chore.failed", chore=chore.name, reason=str(error))
            except OSError as error:
                log.warning("chore.failed", chore=chore.name, reason=f"the disk failed ({error.strerror})")
            except Exception:
                # Else the thread ended unheard, and no chore was done any more.
                log.error("chore.failed", chore=chore.name, reason="unexpected", exc_info=True)
            due_at[number] = time.monotonic() + chore.period_s
