"""What moved in and out of the node, as an audit message tells it: whose study, which classes, how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from sqlalchemy import ColumnElement, Select, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from db.audit.trail import AUDIT_TABLE
from db.lifecycle import DeliveryState
from db.tables import Delivery, Instance, Job, ResultObject, Revision, Study

_ENDS = ("job.done", "job.failed")


@dataclass(frozen=True, slots=True)
class Transfer:
    """Instances of one study, hence of one patient.

    Attributes
    ----------
    study_instance_uid, patient_id, accession_number : str
        Whose; this is patient data.
    peers : tuple of str
        Calling AE titles that sent them, or the one destination as ``AE@HOST:PORT``.
    instances : mapping
        SOP class UID to number of instances.
    """

    study_instance_uid: str
    patient_id: str
    accession_number: str
    peers: tuple[str, ...] = ()
    instances: Mapping[str, int] = field(default_factory=dict)


class Transfers:
    """Looks up what an event of the audit trail is about.

    Parameters
    ----------
    session : sqlalchemy.orm.Session
        See :meth:`db.session.Database.reading`.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def of_study(self, study_instance_uid: str) -> Transfer | None:
        """Return whose study it is, without any instance; None where the node does not know it."""
        study = self._session.scalars(
            select(Study).where(Study.study_instance_uid == study_instance_uid)
        ).one_or_none()
        return None if study is None else _transfer(study, (), {})

    def received(self, study_instance_uid: str, revision: int) -> Transfer | None:
        """Return the instances that came with a revision; None where none did, as for a recall."""
        study = self._session.scalars(
            select(Study).where(Study.study_instance_uid == study_instance_uid)
        ).one_or_none()
        if study is None:
            return None
        came = (Instance.study_id == study.id, Instance.revision_number == revision, Instance.conflict == 0)
        instances = _counted(self._session, Instance.sop_class_uid, *came)
        peers = self._session.scalars(
            select(Instance.calling_ae_title).where(*came).distinct().order_by(Instance.calling_ae_title)
        )
        return _transfer(study, tuple(peers), instances) if instances else None

    def is_first_of_revision(self, study_instance_uid: str, revision: int, uid: str) -> bool:
        """Whether an instance was the first that came with a revision."""
        named = {"study": study_instance_uid, "revision": revision, "uid": uid}
        return self._session.scalars(_first_of_revision(), named).one_or_none() is not None

    def sent(self, job_id: str, *, delivered_alone: bool) -> Transfer | None:
        """Return the objects of a deliver job: all that it sends, or those that its destination has taken.

        None where it is no deliver job.
        """
        found = self._session.execute(
            select(Study, Job.destination)
            .join(Revision, Revision.study_id == Study.id)
            .join(Job, Job.revision_id == Revision.id)
            .where(Job.id == job_id)
        ).one_or_none()
        if found is None or found.destination is None:
            return None
        objects = [Delivery.job_id == job_id, Delivery.result_id == ResultObject.id]
        # What is only sent where the other is not accepted counts when it was.
        objects.append(
            Delivery.state == DeliveryState.DELIVERED if delivered_alone else Delivery.fallback_for.is_(None)
        )
        instances = _counted(self._session, ResultObject.sop_class_uid, *objects)
        return _transfer(found.Study, (found.destination,), instances)

    def made(self, job_id: str) -> Mapping[str, int]:
        """Return how many result objects of each SOP class a score job made."""
        return _counted(self._session, ResultObject.sop_class_uid, ResultObject.job_id == job_id)

    def begins_transfer(self, job_id: str, seq: int) -> bool:
        """Whether event ``seq`` is the first claim of a job since it was queued, or since it last ended."""
        t = AUDIT_TABLE.c
        of_job = (t.job_id == job_id, t.seq < seq)
        ended = self._session.scalars(select(func.max(t.seq)).where(*of_job, t.action.in_(_ENDS))).one() or 0
        earlier = select(t.seq).where(*of_job, t.action == "job.claimed", t.seq > ended).limit(1)
        return self._session.scalars(earlier).one_or_none() is None


@cache
def _first_of_revision() -> Select[int]:
    """Select an instance if none came with its revision before it.

    Asked of each instance of a study: all but the first find an earlier one at once, where sorting would read
    all of them each time.
    """
    own, earlier = aliased(Instance), aliased(Instance)
    came_before = select(earlier.id).where(
        earlier.study_id == own.study_id,
        earlier.revision_number == own.revision_number,
        earlier.conflict == 0,
        earlier.id < own.id,
    )
    return (
        select(own.id)
        .join(Study, own.study_id == Study.id)
        .where(Study.study_instance_uid == bindparam("study"), own.sop_instance_uid == bindparam("uid"))
        .where(own.revision_number == bindparam("revision"), own.conflict == 0, ~came_before.exists())
    )


def _transfer(study: Study, peers: tuple[str, ...], instances: Mapping[str, int]) -> Transfer:
    return Transfer(
        study.study_instance_uid, study.patient_id, study.accession_number, peers, dict(instances)
    )


def _counted(
    session: Session, sop_class: InstrumentedAttribute[str], *conditions: ColumnElement[bool]
) -> dict[str, int]:
    counted = session.execute(
        select(sop_class, func.count()).where(*conditions).group_by(sop_class).order_by(sop_class)
    )
    return {row[0]: row[1] for row in counted}
