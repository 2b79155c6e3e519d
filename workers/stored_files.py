"""Whether all that was received still lies on the disk as it came."""

from __future__ import annotations

from dataclasses import dataclass

from db.retention import instances_after, with_files_removed
from db.session import Database
from dicom_node.spool import Spool
from workers.inputs import FileState, state_of


@dataclass(frozen=True, slots=True)
class UnsoundFile:
    """A file that is not what was received.

    Attributes
    ----------
    study_instance_uid, sop_instance_uid : str
        What it should hold.
    state : str
        "damaged" or "missing".
    file : str
        Its name in the spool, in the folder of the name's first two characters.
    """

    study_instance_uid: str
    sop_instance_uid: str
    state: str
    file: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a look at files found.

    Attributes
    ----------
    whole : int
        How many hold what was received.
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
            removed = with_files_removed(session, {uid for uid, _ in page})
        if not page:
            return Report(whole, gone, tuple(unsound))
        last = page[-1][1].id
        for uid, instance in page:
            state = state_of(instance, spool)
            if state is FileState.WHOLE:
                whole += 1
            elif state is FileState.MISSING and uid in removed:
                gone += 1
            else:
                unsound.append(UnsoundFile(uid, instance.sop_instance_uid, state.value, instance.spool_name))
