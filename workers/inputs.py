"""Whether a revision's files are still what was received, asked again before anything is computed from them.

A disk that rots, a restore that missed a folder or a hand that slipped is the node's own failure. It must end
in a job that somebody looks at, never in a probability for other pixels than the scanner's, nor in a report
that blames the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

from db.tables import Instance
from dicom_node.errors import NodeError
from dicom_node.spool import Spool, content_digest


class DamagedInputError(NodeError):
    """A stored object is not what was received: have it sent again, or restore it."""


class MissingInputError(NodeError):
    """A stored object's file is gone; it may be on a disk that comes back."""


class FileState(StrEnum):
    """What a file of the spool is, beside what was received."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    MISSING = "missing"


def state_of(instance: Instance, spool: Spool) -> FileState:
    """Hold the file of an instance against the digest of its reception.

    Raises
    ------
    OSError
        If the disk fails.
    """
    return state_of_file(spool, instance.spool_name, instance.size_bytes, instance.sha256)


def state_of_file(spool: Spool, name: str, size_bytes: int, sha256: str) -> FileState:
    """Hold a file of a spool against the digest of its content.

    Raises
    ------
    OSError
        If the disk fails.
    """
    try:
        digest = content_digest(spool.path_of(name), size_bytes)
    except FileNotFoundError:
        return FileState.MISSING
    return FileState.WHOLE if digest == sha256 else FileState.DAMAGED


def verify(instances: Sequence[Instance], spool: Spool, *, check: Callable[[], None]) -> None:
    """Hold the files of instances against the digests of their reception.

    Parameters
    ----------
    instances : sequence of Instance
        Everything that a revision holds.
    spool : Spool
        Where their files lie.
    check : callable
        Asked after each file, which may be a slide of gigabytes; what it raises ends the work.

    Raises
    ------
    DamagedInputError
        If a file holds other bytes.
    MissingInputError
        If a file is gone.
    OSError
        If the disk fails.
    """
    for instance in instances:
        state = state_of(instance, spool)
        file = f"the file {instance.spool_name} of {instance.sop_instance_uid}"
        if state is FileState.MISSING:
            raise MissingInputError(
                f"{file} is gone from the spool, lost or removed after its retention; let its sender send "
                "the study again, or restore it: the job then goes on by itself"
            )
        if state is FileState.DAMAGED:
            raise DamagedInputError(
                f"{file} is not what was received; look at the disk, then let its sender send the study "
                "again, or restore the file: the job then goes on by itself"
            )
        check()
