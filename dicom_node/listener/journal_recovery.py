"""What a crash left in journals is put back: files that are not whole, and rows that are missing.

A crash of the machine can take the end of what was answered with Success from the spool and from the
database, never from the journal. To put back what is there changes nothing, so that a recovery that is itself
cut off is simply done again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from db.errors import DatabaseError, DatabaseUnavailableError
from db.handoff import Registration
from dicom_node.errors import NodeError
from dicom_node.listener.contexts import TRANSFER_SYNTAX_BY_UID
from dicom_node.listener.handlers import Register, received_instance
from dicom_node.listener.header import read_header
from dicom_node.listener.journal import SUFFIX, locked, make_durable
from dicom_node.listener.journal_segment import JournaledFile, files_of
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.part10 import origin_of
from dicom_node.spool import Spool, content_digest, translated_errors
from dicom_node.spool_writer import FileSystem

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JournalRecovery:
    """Puts back what the journals of dead processes hold.

    Attributes
    ----------
    folder : pathlib.Path
        Where the journals lie.
    spool : Spool
        Where files belong.
    register : callable
        Commits the row of a durable file; see :func:`db.handoff.register_instance`.
    registered : callable
        Returns which of the given names of files have a row.
    sync_rows : callable
        Makes all committed rows durable; see :meth:`db.session.Database.sync_commits`.
    """

    folder: Path
    spool: Spool
    register: Register
    registered: Callable[[list[str]], Collection[str]]
    sync_rows: Callable[[], None]

    def run(self) -> None:
        """Recover every journal that no living process holds, then remove it.

        Another process that wants a journal, or to recover, waits meanwhile.

        Raises
        ------
        SpoolError
            If the disk refuses. The journals stay, as with every error.
        db.errors.DatabaseUnavailableError
            If the database is away.
        """
        with translated_errors(), locked(self.folder):
            file_system = FileSystem(self.spool.root)
            try:
                for path in sorted(self.folder.glob(f"*{SUFFIX}")):
                    with _of_dead_process(path) as descriptor:
                        if descriptor is not None:
                            self._recover(descriptor, file_system)
                            path.unlink()
            finally:
                file_system.close()

    def _recover(self, descriptor: int, file_system: FileSystem) -> None:
        mended = registered = refused = 0
        for kept in files_of(descriptor):
            is_known = bool(self.registered([kept.file.name]))
            is_there = self._is_whole(kept)
            if is_known and is_there:
                continue
            if not is_there:
                self.spool.write_again(kept.file.name, kept.image)
                mended += 1
            if not is_known:
                is_stored = self._is_registered(kept)
                registered += is_stored
                refused += not is_stored
        make_durable(files_of(descriptor), file_system, self.spool)
        self.sync_rows()
        _log.info("journal.recovered", files_mended=mended, registered=registered, not_registered=refused)

    def _is_whole(self, kept: JournaledFile) -> bool:
        path = self.spool.path_of(kept.file.name)
        with suppress(OSError):
            is_complete = path.stat().st_size == len(kept.image)
            return is_complete and content_digest(path, kept.file.size_bytes) == kept.file.sha256
        return False

    def _is_registered(self, kept: JournaledFile) -> bool:
        """Give a file its row; return False, and leave no file, where it has no use for one."""
        begin = len(kept.image) - kept.file.size_bytes
        try:
            origin = origin_of(bytes(kept.image[:begin]))
            syntax = TRANSFER_SYNTAX_BY_UID[origin.transfer_syntax_uid]
            header = read_header(kept.image[begin:], syntax, ListenerLimits())
            registration = self.register(received_instance(header, origin, kept.file))
        except DatabaseUnavailableError:
            raise
        except (NodeError, DatabaseError, KeyError) as error:
            # It was not answered with Success: whoever was, passed all this.
            _log.warning("journal.file_refused", reason=type(error).__name__)
            registration = Registration.DUPLICATE
        if registration is Registration.DUPLICATE:
            self.spool.remove(kept.file.name)
        return registration is not Registration.DUPLICATE


@contextmanager
def _of_dead_process(path: Path) -> Iterator[int | None]:
    """Open and lock a journal; None where a living process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        yield descriptor
    finally:
        os.close(descriptor)
