"""Digests, files and rows of journaled objects: made shortly after Success, by a thread of their own.

::

    association: record synced --> owe --> Success                             settle --> release answered
                                    |                                            ^
    this thread:                    +--> 20 ms, or 64, or who waits --> digests, files --> one commit

The record holds the file and what the row is made of, so that what a crash takes, or disk or database refuse
now, is made from it; see :mod:`dicom_node.listener.journal_recovery`. While one of them refuses, or is slower
than the senders, nothing more is promised ahead of its row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from db.errors import DatabaseError, DatabaseUnavailableError
from db.handoff import ReceivedInstance, Registration
from dicom_node.crashpoints import crashpoint
from dicom_node.errors import NodeError, SpoolError
from dicom_node.listener.group_commit import MOST_TOGETHER
from dicom_node.listener.journal import Journal, Kept
from dicom_node.listener.journal_segment import JournaledFile
from dicom_node.spool import Spool, SpooledFile

COMMITTED_AFTER_S = 0.02
"""How long a row waits for others, in seconds, where nobody waits for it."""

MOST_OWED = 512
"""With so many rows owed, who wants to owe another one waits for a commit."""

_NEXT_TRY_S = 1.0

Describe = Callable[[SpooledFile], ReceivedInstance]
RegisterTogether = Callable[[Sequence[ReceivedInstance]], Sequence[Registration]]

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Owed:
    """A row that is to be committed, and the record that holds it until then."""

    describe: Describe
    kept: Kept
    received: ReceivedInstance | None = None
    """What is registered, once the file has its place."""


class OwedRows:
    """Commits the rows of journaled objects, in the order in which they were owed.

    Parameters
    ----------
    journal : Journal
        Holds the records, and gives their files their places.
    spool : Spool
        Where those are: the file of a duplicate is removed.
    register_together : callable
        Commits rows in one transaction; see :func:`db.handoff.register_instances`. They are seen by all then;
        they need not be durable, because the journal holds what they are made of.
    committed_after_s : float
        How long a row waits for others.
    """

    def __init__(
        self,
        journal: Journal,
        spool: Spool,
        register_together: RegisterTogether,
        *,
        committed_after_s: float = COMMITTED_AFTER_S,
    ) -> None:
        self._journal = journal
        self._spool = spool
        self._register_together = register_together
        self._committed_after_s = committed_after_s
        self._changed = threading.Condition()
        self._owed: list[_Owed] = []
        # How many were ever owed, how many of these have their rows, and how many threads wait for theirs.
        self._count = self._settled = self._waiting = 0
        self._is_behind = self._is_closing = False
        self._thread = threading.Thread(target=self._commit_for_ever, name="listener-rows", daemon=True)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Whether the last commit failed: until one succeeds, rows are to come before Success."""
        return self._is_behind

    def owe(self, describe: Describe, kept: Kept) -> None:
        """Have a journaled file in its place, and its row committed, soon.

        Parameters
        ----------
        describe : callable
            Returns what is registered of the file, when its digest is known.
        kept : Kept
            What the journal returned for the file; released when the row is committed.
        """
        with self._changed:
            if len(self._owed) >= MOST_OWED:
                self._changed.wait_for(lambda: len(self._owed) < MOST_OWED or self._is_behind)
            self._owed.append(_Owed(describe, kept))
            self._count += 1
            if len(self._owed) in (1, MOST_TOGETHER):
                self._changed.notify_all()

    def settle(self) -> None:
        """Return when every row that is owed now is committed, or the database turned out to be away."""
        with self._changed:
            due = self._count
            if self._settled >= due:
                return
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._settled >= due or self._is_behind or self._is_closing)
            self._waiting -= 1

    def close(self) -> None:
        """Commit what is owed; what the database does not take is left to the journal's recovery."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    def _commit_for_ever(self) -> None:
        while batch := self._next_batch():
            left = self._commit(batch)
            self._keep_young(left)
            with self._changed:
                self._owed[:0] = left
                self._settled += len(batch) - len(left)
                self._tell_whether_behind(bool(left))
                self._changed.notify_all()
                if left:
                    self._changed.wait_for(lambda: self._is_closing, _NEXT_TRY_S)
                    if self._is_closing:
                        return

    def _next_batch(self) -> list[_Owed]:
        """Wait for rows, and a little for their company; return none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._owed or self._is_closing)
            self._changed.wait_for(self._is_enough, self._committed_after_s)
            batch, self._owed = self._owed[:MOST_TOGETHER], self._owed[MOST_TOGETHER:]
            return batch

    def _is_enough(self) -> bool:
        return len(self._owed) >= MOST_TOGETHER or self._waiting > 0 or self._is_behind or self._is_closing

    def _commit(self, batch: list[_Owed]) -> list[_Owed]:
        """Write files and commit their rows; return those that have to be tried again."""
        try:
            self._commit_together(batch)
        except (DatabaseUnavailableError, SpoolError) as error:
            self._tell_failure(error)
            return batch
        except Exception as error:  # noqa: BLE001 - the end of this thread would be the end of all rows
            if len(batch) == 1:
                self._tell_failure(error)
                return batch
            # Nothing was committed: each alone, so that the one at fault keeps no other from its row.
            return [left for each in batch for left in self._commit([each])]
        return []

    def _commit_together(self, batch: list[_Owed]) -> None:
        crashpoint("listener.owed")
        outcomes = self._register_together([self._placed(each) for each in batch])
        crashpoint("listener.committed")
        for each, outcome in zip(batch, outcomes, strict=True):
            if outcome is Registration.DUPLICATE:
                self._remove(each.kept.name)
            self._journal.release(each.kept)

    def _placed(self, owed: _Owed) -> ReceivedInstance:
        if owed.received is None:
            owed.received = owed.describe(self._journal.place(owed.kept))
            crashpoint("listener.placed")
        return owed.received

    def _remove(self, name: str) -> None:
        try:
            self._spool.remove(name)
        except NodeError as error:
            # No row names it: a sweep finds it.
            _log.warning("rows.duplicate_not_removed", reason=str(error))

    def _keep_young(self, owed: list[_Owed]) -> None:
        # Whatever keeps their rows for hours: the sweep that comes after it must not find orphans.
        try:
            for each in owed:
                self._spool.keep_young(each.kept.name)
        except NodeError as error:
            _log.warning("rows.files_grow_old", reason=str(error))

    def _tell_failure(self, error: Exception) -> None:
        if not self._is_behind:
            # Only our own errors are known to carry no patient data.
            is_ours = isinstance(error, DatabaseError | NodeError)
            reason = str(error) if is_ours else type(error).__name__
            _log.warning("rows.behind", reason=reason, advice="look at database and disk; objects wait now")

    def _tell_whether_behind(self, is_behind: bool) -> None:
        if self._is_behind and not is_behind:
            _log.info("rows.caught_up")
        self._is_behind = is_behind


@dataclass(frozen=True, slots=True)
class Journaling:
    """How small objects are made durable.

    Attributes
    ----------
    journal : Journal
        Where their bytes are durable first.
    rows : OwedRows
        What commits their rows.
    """

    journal: Journal
    rows: OwedRows

    def takes(self, image_bytes: int) -> bool:
        """Whether a file of this length goes this way now."""
        return self.journal.takes(image_bytes) and not self.rows.is_behind

    def keep(self, file: JournaledFile, describe: Describe) -> bool:
        """Make a file durable, and have its row committed soon.

        Parameters
        ----------
        file : JournaledFile
            The file, under the name that it has in the spool, where it is not yet.
        describe : callable
            Returns what is registered of the file, when its digest is known.

        Returns
        -------
        bool
            False where the journal had no room, and nothing was done.

        Raises
        ------
        SpoolError
            If the disk refuses. Nothing is promised of the file then.
        """
        kept = self.journal.append(file)
        if kept is None:
            return False
        crashpoint("listener.durable")
        self.rows.owe(describe, kept)
        return True
