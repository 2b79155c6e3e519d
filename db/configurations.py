"""What the node's processes are set to, in the audit trail: told where it is not what was told last.

So the newest such event before a process's start tells what it started with, and each the one before it what
was changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.audit.trail import AUDIT_TABLE, is_of_action
from db.session import Transaction

CONFIGURED = "node.configured"


def tell_configuration(tx: Transaction, *, software: str, digest: str, settings: Mapping[str, Any]) -> bool:
    """Write an event unless the newest one says the same.

    Parameters
    ----------
    software : str
        The version that runs.
    digest : str
        SHA-256 over all settings in force, secrets masked.
    settings : mapping of str to JSON value
        Those that differ from their defaults, secrets masked.

    Returns
    -------
    bool
        Whether an event was written.
    """
    told = _newest(tx.session)
    if (told.get("software"), told.get("digest")) == (software, digest):
        return False
    before = told.get("settings", {})
    changed = sorted(
        name for name in before.keys() | settings.keys() if before.get(name) != settings.get(name)
    )
    detail = {"software": software, "digest": digest, "settings": dict(settings), "changed": changed}
    tx.audit(CONFIGURED, detail=detail)
    return True


def _newest(session: Session) -> dict[str, Any]:
    newest = (
        select(AUDIT_TABLE.c.detail)
        .where(is_of_action(CONFIGURED))
        .order_by(AUDIT_TABLE.c.seq.desc())
        .limit(1)
    )
    detail = session.scalars(newest).one_or_none()
    found: dict[str, Any] = {} if detail is None else json.loads(detail)
    return found
