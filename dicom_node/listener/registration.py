"""The listener's two ways into the database: registering a durable object, and auditing a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from db import handoff
from db.errors import DatabaseError
from db.handoff import Completeness, ReceivedInstance, Registration
from db.registry import AcceptedFile
from db.session import Database
from dicom_node.listener.group_commit import GroupCommit
from dicom_node.listener.repeats import Repeats
from dicom_node.spool import Spool, content_digest

_log = structlog.get_logger(__name__)


class Registrar:
    """Commits what the listener stored.

    Parameters
    ----------
    database : Database
        The truth.
    rules : Completeness
        When a study is complete.
    spool : Spool
        Where files lie: a resend mends one that was lost.
    actor : str
        This process.
    """

    def __init__(self, database: Database, rules: Completeness, *, spool: Spool, actor: str) -> None:
        self._database = database
        self._rules = rules
        self._spool = spool
        self._actor = actor
        self._told = Repeats()
        self._commits = GroupCommit(self.register_together)

    def register(self, received: ReceivedInstance) -> Registration:
        """Commit the row of a durable object, together with what else waits for its row.

        See :func:`db.handoff.register_instance`. Safe in every thread.
        """
        return self._commits.submit(received)

    def register_together(self, received: Sequence[ReceivedInstance]) -> list[Registration]:
        """Commit the rows of durable objects in one transaction.

        See :func:`db.handoff.register_instances`.
        """
        with self._database.transaction(self._actor) as tx:
            return handoff.register_instances(tx, received, self._rules, is_whole=self._is_whole)

    def _is_whole(self, file: AcceptedFile) -> bool:
        # Read again, as a resend may be meant to mend a disk's fault; resends are rare.
        try:
            return content_digest(self._spool.path_of(file.spool_name), file.size_bytes) == file.sha256
        except OSError:
            return False

    def on_event(self, action: str, detail: dict[str, Any]) -> None:
        """Audit a refusal; of the same kind from the same peer one a minute, with the number of the others.

        A peer that floods the node with refusals must not flood its audit trail.
        """
        repeats = self._told.before(action, str(detail.get("peer_address")), str(detail.get("reason")))
        if repeats is None:
            return
        _log.warning(f"listener.{action}", **detail, repeats_not_told=repeats)
        try:
            with self._database.transaction(self._actor) as tx:
                tx.audit(action, detail={**detail, "repeats_not_told": repeats})
        except DatabaseError as error:
            # Nothing changed that would need this row: a refusal is the refusal, told or not.
            _log.warning("listener.refusal_not_audited", action=action, reason=str(error))
