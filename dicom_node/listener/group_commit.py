"""One commit for all who wait for one: by leader and followers.

Whoever comes while nobody commits becomes the leader and commits at once, so a lone sender waits for nothing.
Those who come while a commit runs wait, and one of them leads the next for all. No extra thread, no delay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from db.errors import DatabaseUnavailableError

MOST_TOGETHER = 64

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class _Waiting(Generic[Item, Outcome]):
    """One item, the thread that waits for it, and what became of it."""

    __slots__ = ("error", "is_done", "item", "outcome", "turn")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.turn = threading.Lock()
        self.turn.acquire()
        self.is_done = False
        self.outcome: Outcome | None = None
        # Until the commit says otherwise: a leader that is cut off leaves nobody believing in a row.
        self.error: Exception | None = DatabaseUnavailableError(
            "the commit was cut off; the sender may try again"
        )


class GroupCommit(Generic[Item, Outcome]):
    """Commits items of many threads in few transactions.

    Parameters
    ----------
    commit : callable
        Commits a batch in one transaction: ``commit(items) -> outcomes``, one for each item, in their order.
        It raises when nothing of the batch was committed, or :class:`~db.errors.DatabaseUnavailableError`
        when nobody knows.
    most_together : int
        Most items of a batch.
    """

    def __init__(
        self, commit: Callable[[Sequence[Item]], Sequence[Outcome]], *, most_together: int = MOST_TOGETHER
    ) -> None:
        self._commit = commit
        self._most_together = most_together
        self._lock = threading.Lock()
        self._is_led = False
        self._queue: list[_Waiting[Item, Outcome]] = []

    def submit(self, item: Item, *, meanwhile: Callable[[], object] | None = None) -> Outcome:
        """Commit an item, with others where others wait.

        Parameters
        ----------
        item : Item
            The item.
        meanwhile : callable, optional
            What its thread may do while it waits for another's commit; not called where it waits for none.

        Returns
        -------
        Outcome
            What the commit returned for it.

        Raises
        ------
        Exception
            What the commit of this item raised. An item that fails does not fail those beside it.
        """
        waiting: _Waiting[Item, Outcome] = _Waiting(item)
        with self._lock:
            self._queue.append(waiting)
            must_wait, self._is_led = self._is_led, True
        if must_wait:
            if meanwhile is not None:
                meanwhile()
            # Let go by the leader: either it is done, or it is this thread's turn to lead.
            waiting.turn.acquire()
        if not waiting.is_done:
            self._lead()
        if waiting.error is not None:
            raise waiting.error
        return waiting.outcome  # type: ignore[return-value]  # set together with is_done

    def _lead(self) -> None:
        with self._lock:
            batch, self._queue = self._queue[: self._most_together], self._queue[self._most_together :]
        try:
            self._commit_batch(batch)
        finally:
            for each in batch:
                each.is_done = True
            with self._lock:
                successor = self._queue[0] if self._queue else None
                self._is_led = successor is not None
            for each in batch:
                each.turn.release()
            if successor is not None:
                successor.turn.release()

    def _commit_batch(self, batch: Sequence[_Waiting[Item, Outcome]]) -> None:
        try:
            outcomes = self._commit([each.item for each in batch])
        except DatabaseUnavailableError as error:
            for each in batch:
                each.error = error
        except Exception as error:  # noqa: BLE001 - the item's own, told to whoever submitted it
            if len(batch) == 1:
                batch[0].error = error
                return
            # Nothing was committed: each alone, so that the one at fault fails alone.
            for each in batch:
                self._commit_batch([each])
        else:
            for each, outcome in zip(batch, outcomes, strict=True):
                each.outcome, each.error = outcome, None
