"""The actions that the node writes into its audit trail: what a question may ask for."""

from __future__ import annotations

import difflib

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.audit.told_deliveries import COMMITTED, MISSING, QUEUED, RETRIED, SENT, WITHDRAWN
from db.audit.trail import AUDIT_TABLE, ROTATE_KEY, is_of_action
from db.configurations import CONFIGURED
from db.errors import UnknownRecordError
from db.retention import FILES_REMOVED, RESULTS_REMOVED

ACTIONS = frozenset(
    {
        "account.added",
        "account.removed",
        "association.aborted",
        "association.rejected",
        "association.unserved",
        "audit.exported",
        "audit.guards_restored",
        "audit.pruned",
        "audit.queried",
        "audit.verified",
        ROTATE_KEY,
        "bundle.activated",
        "bundle.added",
        "bundle.canary",
        "bundle.promoted",
        "bundle.recalled",
        "bundle.retired",
        "bundle.rolled_back",
        "bundle.shadowed",
        "commitment.answered",
        "commitment.asked",
        "commitment.refused",
        "commitment.reported",
        "commitment.requested",
        "database.upgraded",
        "destination.queried",
        "destination.tried",
        "instance.conflict",
        "instance.refused",
        "instance.restored",
        "instance.stored",
        "job.claimed",
        "job.done",
        "job.failed",
        "job.lease_ended",
        QUEUED,
        "job.released",
        "job.reopened",
        RETRIED,
        "job.retried_later",
        "job.scored",
        CONFIGURED,
        "process.started",
        "process.stopped",
        "quarantine.exported",
        "quarantine.removed",
        COMMITTED,
        "result.exported",
        MISSING,
        WITHDRAWN,
        "security.exception_allowed",
        "security.tls_refused",
        "study.complete",
        FILES_REMOVED,
        "study.recalled",
        RESULTS_REMOVED,
        *SENT,
    }
)


def check_action(session: Session, action: str) -> None:
    """Refuse an action that the node never writes and that the trail does not hold from earlier versions.

    Raises
    ------
    db.errors.UnknownRecordError
        Naming what is probably meant, and all there are.
    """
    if action in ACTIONS:
        return
    held = select(AUDIT_TABLE.c.seq).where(is_of_action(action)).limit(1)
    if session.scalars(held).one_or_none() is not None:
        return
    near = difflib.get_close_matches(action, ACTIONS, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise UnknownRecordError(f"there is no action {action!r}{meant} There are: {', '.join(sorted(ACTIONS))}")
