"""Which status a C-STORE is answered with: the one place that names the numbers (PS3.4 B.2.3, PS3.7 C)."""

from __future__ import annotations

from enum import IntEnum

from db.errors import DatabaseError
from dicom_node.errors import SpoolError, UnfitObjectError


class Status(IntEnum):
    """The statuses that the listener gives."""

    SUCCESS = 0x0000  # the object is durable, and so is what its row is made of
    SOP_CLASS_NOT_SUPPORTED = 0x0122  # a class that the node never takes
    OUT_OF_RESOURCES = 0xA700  # no room, or no database: the sender may try again
    DATA_SET_DOES_NOT_MATCH = 0xA900  # command, presentation context and data set disagree
    CANNOT_UNDERSTAND = 0xC000  # truncated, malformed or without what routing needs


class MismatchedObjectError(UnfitObjectError):
    """Command, presentation context and data set disagree; ask the sender's vendor."""


class UnsupportedClassError(UnfitObjectError):
    """The SOP class is not one of the node's; look at its conformance statement."""


STATUS_OF_ERROR: tuple[tuple[type[Exception], Status], ...] = (
    (MismatchedObjectError, Status.DATA_SET_DOES_NOT_MATCH),
    (UnsupportedClassError, Status.SOP_CLASS_NOT_SUPPORTED),
    (UnfitObjectError, Status.CANNOT_UNDERSTAND),
    (SpoolError, Status.OUT_OF_RESOURCES),
    (DatabaseError, Status.OUT_OF_RESOURCES),
)
"""From the special to the general: the first entry that fits an error decides."""


def status_of(error: Exception) -> Status:
    """The status that answers an error.

    Parameters
    ----------
    error : Exception
        What stopped the object.

    Returns
    -------
    Status
        Out of resources for an error that nobody foresaw: it is ours, not the object's, and a sender that
        tries again later loses nothing.
    """
    for kind, status in STATUS_OF_ERROR:
        if isinstance(error, kind):
            return status
    return Status.OUT_OF_RESOURCES
