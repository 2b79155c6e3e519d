"""Whether all that was received, and all that was made of it, still lies on the disk as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from db.retention import RECEIVED, RESULTS, Removed, instances_after, removals, results_after
from db.session import Database
from dicom_node.errors import SpoolError
from dicom_node.spool import Spool
from workers.inputs import FileState, state_of_file


@dataclass(frozen=True, slots=True)
class UnsoundFile:
    """A file that is not what was received, or not what was made.

    Attributes
    ----------
    study_instance_uid, sop_instance_uid : str
        What it should hold.
    state : str
        "damaged" or "missing".
    file : str
        Its name in the spool, in the folder of the name's first two characters.
    folder : str
        "spool" for what was received, "results" for what was made.
    """

    study_instance_uid: str
    sop_instance_uid: str
    state: str
    file: str
    folder: str = "spool"


@dataclass(frozen=True, slots=True)
class Report:
    """What a look at files found.

    Attributes
    ----------
    whole : int
        How many hold what was received, or made.
    removed : int
        How many are gone on purpose: their studies' files were removed.
    unsound : tuple of UnsoundFile
        The others, in the order of their arrival.
    """

    whole: int
    removed: int
    unsound: tuple[UnsoundFile, ...]

    @property
    def looked_at(self) -> int:
        """How many there should have been."""
        return self.whole + self.removed + len(self.unsound)


def unsound_results(database: Database, results: Spool, study_instance_uid: str | None = None) -> Report:
    """Read the result objects of a study, or of all studies, and hold them against their digests.

    Raises
    ------
    DatabaseError
        If the database is away.
    OSError
        If the disk fails.
    """
    last, whole, gone, unsound = 0, 0, 0, list[UnsoundFile]()
    while True:
        with database.reading() as session:
            page = results_after(session, last, study_instance_uid=study_instance_uid)
            removed = removals(session, RESULTS, {study for study, _ in page})
        if not page:
            return Report(whole, gone, tuple(unsound))
        last = page[-1][1].id
        for study, result in page:
            state = _state(results, result.file_name, result.size_bytes, result.sha256)
            if state is FileState.WHOLE:
                whole += 1
            elif state is FileState.MISSING and _is_told(removed, study, result.created_at):
                gone += 1
            else:
                uid, name = result.sop_instance_uid, result.file_name
                unsound.append(UnsoundFile(study, uid, state.value, name, folder="results"))


def unsound_files(database: Database, spool: Spool, study_instance_uid: str | None = None) -> Report:
    """Read the files of a study, or of all studies, and hold them against their digests.

    Raises
    ------
    DatabaseError
        If the database is away.
    OSError
        If the disk fails.
    """
    last, whole, gone, unsound = 0, 0, 0, list[UnsoundFile]()
    while True:
        with database.reading() as session:
            page = instances_after(session, last, study_instance_uid=study_instance_uid)
            removed = removals(session, RECEIVED, {uid for uid, _ in page})
        if not page:
            return Report(whole, gone, tuple(unsound))
        last = page[-1][1].id
        for uid, instance in page:
            state = _state(spool, instance.spool_name, instance.size_bytes, instance.sha256)
            if state is FileState.WHOLE:
                whole += 1
            elif state is FileState.MISSING and _is_told(removed, uid, instance.received_at):
                gone += 1
            else:
                unsound.append(UnsoundFile(uid, instance.sop_instance_uid, state.value, instance.spool_name))


def _is_told(removed: Mapping[str, Removed], study_instance_uid: str, since: datetime) -> bool:
    """Whether the trail tells that a study's files were removed, one of this time among them."""
    told = removed.get(study_instance_uid)
    return told is not None and told.newest_at >= since


def _state(spool: Spool, name: str, size_bytes: int, sha256: str) -> FileState:
    """Hold a file against its row, of which a hand may have made one that names no file."""
    try:
        return state_of_file(spool, name, size_bytes, sha256)
    except SpoolError:
        return FileState.DAMAGED
