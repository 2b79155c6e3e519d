"""What a crash left in journals is put back: files that are not whole, and rows that are missing.

A crash of the machine can take the end of what was answered with Success from the spool and from the
database, never from the journal. To put back what is there changes nothing, so that a recovery that is itself
cut off is simply done again. A journal with a record that is refused or damaged is set aside: its bytes may
be all that is left of an object that was answered with Success.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from db.errors import DatabaseUnavailableError
from db.handoff import Registration
from dicom_node.errors import SpoolError
from dicom_node.listener.contexts import TRANSFER_SYNTAX_BY_UID
from dicom_node.listener.handlers import Register, received_instance
from dicom_node.listener.header import read_header
from dicom_node.listener.journal import SET_ASIDE_SUFFIX, SUFFIX, locked
from dicom_node.listener.journal_segment import JournaledFile, files_of, is_of_known_form, use_of
from dicom_node.listener.limits import ListenerLimits
from dicom_node.listener.part10 import origin_of
from dicom_node.spool import Spool, translated_errors
from dicom_node.spool_writer import FileSystem, sync_file

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
        with translated_errors(), locked(self.folder), ExitStack() as stack:
            is_synced = _is_synced(self.spool.root)
            dead: list[tuple[bytes, Path, int]] = []
            journals, others = journals_in(self.folder)
            for path in others:
                _pass_over(path)
            for path in journals:
                descriptor = stack.enter_context(_of_dead_process(path))
                if descriptor is not None:
                    dead.append((use_of(descriptor), path, descriptor))
            # In the order in which they were filled: of two different objects under one UID the first counts.
            for _, path, descriptor in sorted(dead):
                if is_of_known_form(descriptor) and self._recover(descriptor, is_synced=is_synced):
                    path.unlink(missing_ok=True)
                else:
                    _set_aside(path)

    def _recover(self, descriptor: int, *, is_synced: bool) -> bool:
        """Put back what a journal holds; return whether nothing of it was refused."""
        mended = registered = duplicates = refused = damaged = not_whole = 0
        for kept in files_of(descriptor):
            if kept is None:
                not_whole += 1
                continue
            # What is not whole and stands before what is was no crash's.
            damaged = not_whole
            is_known = bool(self.registered([kept.name]))
            is_there = is_synced and self._is_whole(kept)
            if is_known and is_there:
                continue
            if not is_there:
                self.spool.write_again(kept.name, kept.image)
                mended += 1
            if not is_known:
                registration = self._registration(kept)
                duplicates += registration is Registration.DUPLICATE
                refused += registration is None
                registered += registration not in (Registration.DUPLICATE, None)
                if registration in (Registration.DUPLICATE, None):
                    self.spool.remove(kept.name)
        self.sync_rows()
        _log.info(
            "journal.recovered",
            files_mended=mended,
            registered=registered,
            duplicates=duplicates,
            refused=refused,
            damaged=damaged,
        )
        return refused == damaged == 0

    def _is_whole(self, kept: JournaledFile) -> bool:
        path = self.spool.path_of(kept.name)
        with suppress(OSError):
            # Memory may show what the disk refused: a file tells of it when it is synced by itself.
            sync_file(path)
            return path.read_bytes() == bytes(kept.image)
        return False

    def _registration(self, kept: JournaledFile) -> Registration | None:
        """Give a file its row; return None where it is refused."""
        try:
            origin = origin_of(bytes(kept.preface))
            syntax = TRANSFER_SYNTAX_BY_UID[origin.transfer_syntax_uid]
            header = read_header(kept.content, syntax, ListenerLimits())
            return self.register(received_instance(header, origin, kept.spooled(), kept.peer_address))
        except (DatabaseUnavailableError, SpoolError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever one record is, the node has to start
            _log.warning("journal.file_refused", reason=type(error).__name__)
            return None


def journals_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Tell journals from what only has their suffix: a link, a folder, or anything else that is no file.

    A listener makes nothing of the kind. What a link leads to may be another node's journal, and is nobody's
    to recover and remove here.

    Parameters
    ----------
    folder : pathlib.Path
        Where the journals lie; it may be absent.

    Returns
    -------
    tuple of list of pathlib.Path
        The journals, and the others.
    """
    journals: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with suppress(FileNotFoundError):  # its process has just removed it
            (journals if stat.S_ISREG(path.lstat().st_mode) else others).append(path)
    return journals, others


def _pass_over(path: Path) -> None:
    _log.error(
        "journal.passed_over",
        name=path.name,
        advice="a link or a folder is no journal, and nothing of it is recovered; move it out of "
        f"{path.parent.name}, and where it stands for a journal that was moved, put the file itself there "
        "and start the node once more",
    )


def _set_aside(path: Path) -> None:
    # Refused before, or by a database that is damaged, or not to be read: who can tell looks at log and file.
    path.rename(path.with_suffix(SET_ASIDE_SUFFIX))
    _log.error(
        "journal.set_aside",
        name=path.with_suffix(SET_ASIDE_SUFFIX).name,
        advice="a journal holds what could not be registered, or a later version wrote it, or the disk "
        "damaged it; see that the database is sound ('dicom-node db check') and the version right, give the "
        f"file its suffix {SUFFIX} again, and start the node once more; or remove it",
    )


def _is_synced(folder: Path) -> bool:
    """Make all durable that dead processes wrote, with one call; return whether the disk took it."""
    file_system = FileSystem(folder)
    try:
        file_system.sync()
    except OSError:
        return False
    finally:
        file_system.close()
    return True


@contextmanager
def _of_dead_process(path: Path) -> Iterator[int | None]:
    """Open and lock a journal; None where a living process holds it, or has just removed it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        yield descriptor
    finally:
        os.close(descriptor)
