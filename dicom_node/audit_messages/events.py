"""Which event of the audit trail becomes which message of PS3.15 A.5.3.

The home of that decision. An event without an entry in :data:`MESSAGES` stays in the trail alone: the
queueing and retrying of jobs has no counterpart in the standard, nor has storage commitment, which moves no
object. A message names one patient at most (PS3.15 A.5.3.7).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from db.audit.reading import AuditRow
from db.lifecycle import JobKind
from db.retention import FILES_REMOVED, RESULTS_REMOVED
from db.transfers import Transfer, Transfers
from dicom_node.audit_messages import codes
from dicom_node.audit_messages.message import (
    Action,
    AuditMessage,
    Code,
    Outcome,
    Participant,
    Subject,
)

NO_PATIENT_ID = "<none>"
_PERSON, _SYSTEM_OBJECT = "1", "2"
_ROLE_PATIENT, _ROLE_REPORT, _ROLE_SECURITY_RESOURCE = "1", "3", "13"


@dataclass(frozen=True, slots=True)
class _Told:
    """An event with what is needed to tell it."""

    transfers: Transfers
    event: AuditRow
    ae_title: str

    def detail(self, name: str) -> str:
        """Return a value of the event's detail as text."""
        return str(self.event.detail.get(name, ""))

    def actor(self, *roles: Code, is_requestor: bool = True, on_network: bool = False) -> Participant:
        """Return who acted: one of the node's processes (``kind@host:pid``), or a person (``login@host``).

        A process, and who is on the DICOM network, has the node's AE title.
        """
        name, _, machine = self.event.actor.partition("@")
        address, _, process_id = machine.partition(":")
        title = self.ae_title if process_id or on_network else ""
        return Participant(self.event.actor, is_requestor, roles, title, name, address)


_Tell = Callable[[_Told], AuditMessage | None]


@dataclass(frozen=True, slots=True)
class Telling:
    """How events of one action are told.

    Attributes
    ----------
    messages : tuple of Code
        The messages that it may become (EventID).
    tell : callable
        Makes the message, or None for an event that is none.
    event_type : Code or None
        EventTypeCode of the message.
    """

    messages: tuple[Code, ...]
    tell: _Tell
    event_type: Code | None = None


def message_of(transfers: Transfers, event: AuditRow, *, ae_title: str) -> AuditMessage | None:
    """Return the message of an event; None where the standard has none.

    Parameters
    ----------
    transfers : db.transfers.Transfers
        Where studies, instances and deliveries are looked up.
    event : AuditRow
        Of the trail.
    ae_title : str
        The node's.
    """
    telling = MESSAGES.get(event.action)
    return None if telling is None else telling.tell(_Told(transfers, event, ae_title))


def _activity(kind: Code) -> Telling:
    """Return what tells that the application starts or stops: PS3.15 A.5.3.1."""

    def tell(told: _Told) -> AuditMessage:
        application = told.actor(codes.APPLICATION, is_requestor=False)
        return AuditMessage(
            codes.APPLICATION_ACTIVITY, Action.EXECUTE, told.event.at, (application,), event_type=kind
        )

    return Telling((codes.APPLICATION_ACTIVITY,), tell, kind)


def _log_used(told: _Told) -> AuditMessage:
    """PS3.15 A.5.3.2."""
    log = Subject(
        f"dicom-node:audit/{told.ae_title}",
        codes.URI,
        _SYSTEM_OBJECT,
        _ROLE_SECURITY_RESOURCE,
        name="Security Audit Log",
        details={"use": told.event.action},
    )
    failed = told.event.detail.get("ok") is False
    return AuditMessage(
        codes.AUDIT_LOG_USED,
        Action.READ,
        told.event.at,
        (told.actor(),),
        (log,),
        outcome=Outcome.SERIOUS_FAILURE if failed else Outcome.SUCCESS,
        description="the trail does not verify" if failed else "",
        is_warning=failed,
    )


def _instance_stored(told: _Told) -> AuditMessage | None:
    """PS3.15 A.5.3.3, for the first instance of a revision."""
    study, revision = told.event.study_instance_uid or "", told.event.detail.get("revision")
    uid = told.detail("sop_instance_uid")
    if revision is None or not told.transfers.is_first_of_revision(study, revision, uid):
        return None
    transfer = told.transfers.of_study(study)
    if transfer is None:
        return None
    peers = (told.detail("calling_ae_title"),)
    participants = _received_by(told, peers, address=told.detail("peer_address"))
    return _transferring(told, codes.BEGIN_TRANSFERRING, Action.EXECUTE, transfer, participants)


def _study_complete(told: _Told) -> AuditMessage | None:
    """PS3.15 A.5.3.7, for all instances that came with a revision."""
    study, revision = told.event.study_instance_uid or "", told.event.detail.get("revision")
    transfer = None if revision is None else told.transfers.received(study, revision)
    if transfer is None:
        return None
    participants = _received_by(told, transfer.peers)
    return _transferring(told, codes.INSTANCES_TRANSFERRED, Action.CREATE, transfer, participants)


def _job_claimed(told: _Told) -> AuditMessage | None:
    """PS3.15 A.5.3.3 for a deliver job's first attempt, A.5.3.6 for the reading of a study."""
    job = told.event.job_id or ""
    if told.detail("kind") == JobKind.SCORE:
        return _accessed(told, Action.READ, {})
    if told.detail("kind") != JobKind.DELIVER:
        return None
    transfer = told.transfers.sent(job, delivered_alone=False)
    if transfer is None or not told.transfers.begins_transfer(job, told.event.seq):
        return None
    participants = _sent_by(told, transfer.peers)
    return _transferring(told, codes.BEGIN_TRANSFERRING, Action.EXECUTE, transfer, participants)


def _job_ended(told: _Told) -> AuditMessage | None:
    """PS3.15 A.5.3.7 for a deliver job, with what the destination took."""
    transfer = None
    if told.detail("kind") == JobKind.DELIVER:
        transfer = told.transfers.sent(told.event.job_id or "", delivered_alone=True)
    if transfer is None:
        return None
    message = _transferring(
        told, codes.INSTANCES_TRANSFERRED, Action.READ, transfer, _sent_by(told, transfer.peers)
    )
    if told.event.action == "job.done":
        return message
    return _failed(message, told.detail("code") or "given up")


def _job_scored(told: _Told) -> AuditMessage | None:
    """PS3.15 A.5.3.6, for the result objects of a study."""
    return _accessed(told, Action.CREATE, told.transfers.made(told.event.job_id or ""))


def _results_removed(told: _Told) -> AuditMessage | None:
    """PS3.15 A.5.3.6: the study itself is not deleted."""
    return _accessed(told, Action.DELETE, {})


def _accessed(told: _Told, action: Action, instances: Mapping[str, int]) -> AuditMessage | None:
    transfer = told.transfers.of_study(told.event.study_instance_uid or "")
    if transfer is None:
        return None
    subjects = _study_and_patient(transfer, instances)
    return AuditMessage(codes.INSTANCES_ACCESSED, action, told.event.at, (told.actor(),), subjects)


def _result_exported(told: _Told) -> AuditMessage | None:
    """PS3.15 A.5.3.5."""
    transfer = told.transfers.of_study(told.event.study_instance_uid or "")
    if transfer is None:
        return None
    file = Participant("file:", is_requestor=False, roles=(codes.DESTINATION_MEDIA,))
    participants = (told.actor(codes.SOURCE), file)
    subjects = _study_and_patient(transfer, {})
    return AuditMessage(codes.EXPORT, Action.READ, told.event.at, participants, subjects)


def _study_deleted(told: _Told) -> AuditMessage | None:
    """PS3.15 A.5.3.8."""
    transfer = told.transfers.of_study(told.event.study_instance_uid or "")
    if transfer is None:
        return None
    subjects = _study_and_patient(transfer, {})
    return AuditMessage(codes.STUDY_DELETED, Action.DELETE, told.event.at, (told.actor(),), subjects)


def _queried(told: _Told) -> AuditMessage:
    """PS3.15 A.5.3.10."""
    syntax = {"TransferSyntax": told.detail("transfer_syntax_uid")}
    query = Subject(
        told.detail("sop_class_uid"),
        codes.SOP_CLASS_UID,
        _SYSTEM_OBJECT,
        _ROLE_REPORT,
        query=told.detail("query"),
        details=syntax,
    )
    participants = (told.actor(codes.SOURCE, on_network=True), _destination(told.detail("destination")))
    return AuditMessage(codes.QUERY, Action.EXECUTE, told.event.at, participants, (query,))


def _alert(kind: Code, outcome: Outcome = Outcome.SUCCESS) -> Telling:
    """Return what tells a security alert of a kind: PS3.15 A.5.3.11."""

    def tell(told: _Told) -> AuditMessage:
        detail = {"action": told.event.action, "detail": json.dumps(told.event.detail, sort_keys=True)}
        if told.event.bundle:
            detail["bundle"] = told.event.bundle
        node = Subject(
            told.ae_title,
            codes.NODE_ID,
            _SYSTEM_OBJECT,
            _ROLE_SECURITY_RESOURCE,
            details={"Alert Description": json.dumps(detail, sort_keys=True)},
        )
        performers = []
        if peer := told.detail("calling_ae_title") or told.detail("peer_address"):
            address = told.detail("peer_address")
            title = told.detail("calling_ae_title")
            performers.append(Participant(peer, is_requestor=True, ae_title=title, address=address))
        reporter = told.actor(is_requestor=not performers)
        return AuditMessage(
            codes.SECURITY_ALERT,
            Action.EXECUTE,
            told.event.at,
            (reporter, *performers),
            (node,),
            event_type=kind,
            outcome=outcome,
            description=told.detail("reason") if outcome is not Outcome.SUCCESS else "",
            is_warning=outcome is not Outcome.SUCCESS,
        )

    return Telling((codes.SECURITY_ALERT,), tell, kind)


def _transferring(
    told: _Told, event: Code, action: Action, transfer: Transfer, participants: tuple[Participant, ...]
) -> AuditMessage:
    subjects = _study_and_patient(transfer, transfer.instances)
    return AuditMessage(event, action, told.event.at, participants, subjects)


def _failed(message: AuditMessage, why: str) -> AuditMessage:
    return replace(message, outcome=Outcome.SERIOUS_FAILURE, description=why, is_warning=True)


def _received_by(told: _Told, peers: tuple[str, ...], address: str = "") -> tuple[Participant, ...]:
    sources = (Participant(peer, True, (codes.SOURCE,), ae_title=peer, address=address) for peer in peers)
    return (*sources, told.actor(codes.DESTINATION, is_requestor=False))


def _sent_by(told: _Told, peers: tuple[str, ...]) -> tuple[Participant, ...]:
    return (told.actor(codes.SOURCE), *map(_destination, peers))


def _destination(peer: str) -> Participant:
    title, _, place = peer.partition("@")
    host = place.rpartition(":")[0].strip("[]")
    return Participant(title, False, (codes.DESTINATION,), ae_title=title, address=host)


def _study_and_patient(transfer: Transfer, instances: Mapping[str, int]) -> tuple[Subject, Subject]:
    study = Subject(
        transfer.study_instance_uid,
        codes.STUDY_INSTANCE_UID,
        _SYSTEM_OBJECT,
        _ROLE_REPORT,
        accession_number=transfer.accession_number,
        instances=instances,
    )
    patient_id = transfer.patient_id or NO_PATIENT_ID
    return study, Subject(patient_id, codes.PATIENT_NUMBER, _PERSON, _ROLE_PATIENT)


_software = _alert(codes.SOFTWARE_CONFIGURATION)
_security = _alert(codes.SECURITY_CONFIGURATION)
_user = _alert(codes.USER_SECURITY_ATTRIBUTES_CHANGED)
_authentication = _alert(codes.NODE_AUTHENTICATION, Outcome.MINOR_FAILURE)
_log = Telling((codes.AUDIT_LOG_USED,), _log_used)
_end_of_job = Telling((codes.INSTANCES_TRANSFERRED,), _job_ended)

MESSAGES: Mapping[str, Telling] = {
    "process.started": _activity(codes.APPLICATION_START),
    "process.stopped": _activity(codes.APPLICATION_STOP),
    "audit.queried": _log,
    "audit.verified": _log,
    "audit.exported": _log,
    "audit.rotate_key": _security,
    "audit.pruned": _security,
    "audit.guards_restored": _alert(codes.SECURITY_CONFIGURATION, Outcome.SERIOUS_FAILURE),
    "instance.stored": Telling((codes.BEGIN_TRANSFERRING,), _instance_stored),
    "study.complete": Telling((codes.INSTANCES_TRANSFERRED,), _study_complete),
    FILES_REMOVED: Telling((codes.STUDY_DELETED,), _study_deleted),
    RESULTS_REMOVED: Telling((codes.INSTANCES_ACCESSED,), _results_removed),
    "job.claimed": Telling((codes.BEGIN_TRANSFERRING, codes.INSTANCES_ACCESSED), _job_claimed),
    "job.done": _end_of_job,
    "job.failed": _end_of_job,
    "job.scored": Telling((codes.INSTANCES_ACCESSED,), _job_scored),
    "result.exported": Telling((codes.EXPORT,), _result_exported),
    "destination.queried": Telling((codes.QUERY,), _queried),
    "association.rejected": _authentication,
    "association.aborted": _authentication,
    "security.tls_refused": _authentication,
    "security.exception_allowed": _security,
    "account.added": _user,
    "account.removed": _user,
    "node.configured": _software,
    "database.upgraded": _software,
    "bundle.added": _software,
    "bundle.activated": _software,
    "bundle.canary": _software,
    "bundle.promoted": _software,
    "bundle.retired": _software,
    "bundle.rolled_back": _software,
    "bundle.recalled": _software,
    "bundle.shadowed": _software,
}
"""Action of an event to how it is told."""
