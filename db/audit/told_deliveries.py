"""What the trail says of deliveries: which objects each job was to send, and how far each of them is.

An event is written whenever the state of a delivery or the last status of its destination changes, in the
same transaction: the last event that speaks of a delivery says what its row must say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.audit.reading import AuditRow
from db.audit.trail import AUDIT_TABLE
from db.lifecycle import DeliveryEvent, DeliveryState, JobKind

QUEUED = "job.queued"
RETRIED = "job.retried"
COMMITTED, MISSING = "result.committed", "result.missing"
WITHDRAWN = "result.withdrawn"
_TOLD_BY_OTHER_NAMES = (DeliveryEvent.RETRY, DeliveryEvent.COMMIT, DeliveryEvent.MISS)
SENT = tuple(f"result.{event.value}" for event in DeliveryEvent if event not in _TOLD_BY_OTHER_NAMES)
"""The actions of what became of a send."""


@dataclass(frozen=True, slots=True)
class ToldDelivery:
    """Where an object stands at a destination, as the trail has it.

    Attributes
    ----------
    seq : int
        The last event that speaks of it.
    destination : str
        ``AE@HOST:PORT``.
    state : str
        See :class:`db.lifecycle.DeliveryState`.
    status : str or None
        The last status (0000,0900) that its destination answered, four hexadecimal digits.
    """

    seq: int
    destination: str
    state: str = DeliveryState.PENDING.value
    status: str | None = None


class ToldDeliveries:
    """What the trail says of the deliveries of some jobs.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        In which the rows are read, too; see ``at_one_moment`` of :meth:`db.session.Database.reading`.
    queued : sequence of AuditRow
        The events that tell of the jobs' beginning.
    """

    def __init__(self, session: Session, queued: Sequence[AuditRow]) -> None:
        self.by_object: dict[tuple[str, str], ToldDelivery] = {}
        """By job id and SOP Instance UID."""
        self._queued = {str(event.job_id): event for event in queued}
        for job_id, event in self._queued.items():
            for uid in event.detail.get("objects", ()):
                self.by_object[job_id, uid] = _ordered(event)
        t = AUDIT_TABLE.c
        telling = t.job_id.in_(self._queued), t.action.in_((*SENT, COMMITTED, MISSING, RETRIED))
        events = select(t.seq, t.action, t.job_id, t.detail).where(*telling).order_by(t.seq)
        for seq, action, job_id, detail in session.execute(events):
            self._hear(seq, action, job_id, json.loads(detail))

    def about(self, job_id: str, sop_instance_uid: str) -> ToldDelivery | None:
        """Return what the trail says of one delivery; None where it knows of none."""
        queued = self._queued[job_id]
        found = self.by_object.get((job_id, sop_instance_uid))
        if found is None and queued.detail["kind"] == JobKind.DELIVER and "objects" not in queued.detail:
            return _ordered(queued)  # earlier versions did not tell what a job was to send
        return found

    def _hear(self, seq: int, action: str, job_id: str, detail: Mapping[str, Any]) -> None:
        if action == RETRIED:
            for uid in detail.get("objects", ()):
                before = self.by_object.get((job_id, uid)) or _ordered(self._queued[job_id])
                self.by_object[job_id, uid] = replace(before, seq=seq, state=DeliveryState.PENDING.value)
            return
        uid = detail["sop_instance_uid"]
        before = self.by_object.get((job_id, uid)) or _ordered(self._queued[job_id])
        status = detail["status"] if action in SENT else before.status
        self.by_object[job_id, uid] = ToldDelivery(seq, detail["destination"], detail["state"], status)


def _ordered(queued: AuditRow) -> ToldDelivery:
    """Return a delivery of which nothing was told since its job was queued."""
    return ToldDelivery(queued.seq, str(queued.detail.get("destination")))
