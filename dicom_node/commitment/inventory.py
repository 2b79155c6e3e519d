"""Which received objects the node can answer for: registered, and their very bytes on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from db import commitment_answers
from db.commitment_answers import Stored
from db.session import Database
from dicom_node.commitment.references import CommitmentReport, FailureReason, Reference
from dicom_node.spool import content_digest


def take_stock(
    database: Database,
    path_of: Callable[[str], Path],
    transaction_uid: str,
    objects: Sequence[Reference],
    *,
    go_on: Callable[[], None] = lambda: None,
) -> CommitmentReport:
    """Look for each object and read its bytes again; a row alone promises nothing.

    Parameters
    ----------
    database : Database
        What was registered.
    path_of : callable
        Spool file name to path.
    transaction_uid : str
        The request.
    objects : sequence of (str, str)
        SOP class and instance UID.
    go_on : callable
        Called before each object; raises to stop.

    Returns
    -------
    CommitmentReport
        Each object as committed, or as failed with its reason.

    Raises
    ------
    DatabaseUnavailableError
        If the database is away.
    """
    with database.reading() as session:
        known = commitment_answers.stored(session, [uid for _, uid in objects])
    committed, failed = [], {}
    for sop_class_uid, sop_instance_uid in objects:
        go_on()
        reason = _fault(known.get(sop_instance_uid), sop_class_uid, path_of)
        if reason is None:
            committed.append((sop_class_uid, sop_instance_uid))
        else:
            failed[sop_class_uid, sop_instance_uid] = int(reason)
    return CommitmentReport(transaction_uid, tuple(committed), failed)


def _fault(stored: Stored | None, sop_class_uid: str, path_of: Callable[[str], Path]) -> FailureReason | None:
    if stored is None:
        return FailureReason.NO_SUCH_INSTANCE
    if stored.sop_class_uid != sop_class_uid:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    # Which of the two contents the asker means, its UID does not tell.
    if stored.has_conflict:
        return FailureReason.PROCESSING_FAILURE
    try:
        is_whole = content_digest(path_of(stored.spool_name), stored.size_bytes) == stored.sha256
    except FileNotFoundError:
        return FailureReason.NO_SUCH_INSTANCE
    except OSError:
        return FailureReason.PROCESSING_FAILURE
    return None if is_whole else FailureReason.PROCESSING_FAILURE
