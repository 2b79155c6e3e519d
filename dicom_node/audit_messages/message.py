"""The DICOM Audit Message of PS3.15 A.5: its parts as values, and its XML."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from xml.etree import ElementTree as ET

# XML 1.0 section 2.2: characters that no document may hold, not even escaped.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_APPLICATION_SERVER = "4"  # PS3.15 A.5.1.2.1
_MACHINE_NAME, _IP_ADDRESS = "1", "2"


class Code(NamedTuple):
    """A coded value: code, coding scheme, meaning."""

    value: str
    scheme: str
    meaning: str


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(StrEnum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


@dataclass(frozen=True, slots=True)
class Participant:
    """Who took part.

    Attributes
    ----------
    user_id : str
        A login with its host, a process as the node's logs name it, or an AE title.
    is_requestor : bool
        Whether it asked for what happened.
    roles : tuple of Code
        What it was in the event.
    ae_title : str
        Of a DICOM application.
    name : str
        For people.
    address : str
        Its machine: name or IP address.
    """

    user_id: str
    is_requestor: bool
    roles: tuple[Code, ...] = ()
    ae_title: str = ""
    name: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event was about.

    Attributes
    ----------
    object_id : str
        Its identifier, of the kind that ``id_type`` says.
    id_type : Code
        ParticipantObjectIDTypeCode.
    type_code, role : str
        PS3.15 A.5.1: person (1) or system object (2); ParticipantObjectTypeCodeRole.
    name : str
        For people.
    query : str
        Of a query its keys as encoded, in base64, in place of the name.
    details : mapping
        Kind to text; base64 in the message.
    accession_number : str
        Of a study.
    instances : mapping
        SOP class UID to number of instances, of a study.
    """

    object_id: str
    id_type: Code
    type_code: str
    role: str
    name: str = ""
    query: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    accession_number: str = ""
    instances: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditMessage:
    """One message.

    Attributes
    ----------
    event, event_type : Code
        EventID, and EventTypeCode where the event has several kinds.
    action : Action
        EventActionCode.
    at : str
        UTC, ISO 8601 with its zone.
    outcome : Outcome
        EventOutcomeIndicator.
    description : str
        EventOutcomeDescription, of what did not succeed.
    participants : tuple of Participant
        At least one.
    subjects : tuple of Subject
        At most one patient among them.
    is_warning : bool
        Syslog severity 4 instead of 5.
    """

    event: Code
    action: Action
    at: str
    participants: tuple[Participant, ...]
    subjects: tuple[Subject, ...] = ()
    event_type: Code | None = None
    outcome: Outcome = Outcome.SUCCESS
    description: str = ""
    is_warning: bool = False

    def xml(self, source: str, site: str = "") -> bytes:
        """Return the document, UTF-8.

        Parameters
        ----------
        source : str
            AuditSourceID: the node's name.
        site : str
            AuditEnterpriseSiteID; left out when empty.
        """
        root = ET.Element("AuditMessage")
        self._add_event(root)
        for participant in self.participants:
            _add_participant(root, participant)
        named = {"AuditEnterpriseSiteID": site} if site else {}
        origin = _add(root, "AuditSourceIdentification", **named, AuditSourceID=source)
        _add(origin, "AuditSourceTypeCode", **{"csd-code": _APPLICATION_SERVER})
        for subject in self.subjects:
            _add_subject(root, subject)
        found: bytes = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
        return found

    def _add_event(self, root: ET.Element) -> None:
        event = _add(
            root,
            "EventIdentification",
            EventActionCode=self.action,
            EventDateTime=self.at,
            EventOutcomeIndicator=self.outcome,
        )
        _add_code(event, "EventID", self.event)
        if self.event_type is not None:
            _add_code(event, "EventTypeCode", self.event_type)
        if self.description:
            _add(event, "EventOutcomeDescription").text = _storable(self.description)


def _add_participant(root: ET.Element, participant: Participant) -> None:
    attributes = {"UserID": participant.user_id}
    if participant.ae_title:
        attributes["AlternativeUserID"] = f"AETITLES={participant.ae_title}"
    if participant.name:
        attributes["UserName"] = participant.name
    attributes["UserIsRequestor"] = "true" if participant.is_requestor else "false"
    if participant.address:
        attributes["NetworkAccessPointID"] = participant.address
        is_ip = re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", participant.address)
        attributes["NetworkAccessPointTypeCode"] = _IP_ADDRESS if is_ip else _MACHINE_NAME
    element = _add(root, "ActiveParticipant", **attributes)
    for role in participant.roles:
        _add_code(element, "RoleIDCode", role)


def _add_subject(root: ET.Element, subject: Subject) -> None:
    element = _add(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=subject.object_id,
        ParticipantObjectTypeCode=subject.type_code,
        ParticipantObjectTypeCodeRole=subject.role,
    )
    _add_code(element, "ParticipantObjectIDTypeCode", subject.id_type)
    if subject.query:
        _add(element, "ParticipantObjectQuery").text = _storable(subject.query)
    else:
        _add(element, "ParticipantObjectName").text = _storable(subject.name)
    for kind, text in subject.details.items():
        value = base64.b64encode(text.encode("utf-8", "backslashreplace")).decode()
        _add(element, "ParticipantObjectDetail", type=kind, value=value)
    if not (subject.accession_number or subject.instances):
        return
    description = _add(element, "ParticipantObjectDescription")
    if subject.accession_number:
        _add(description, "Accession", Number=subject.accession_number)
    for uid, number in subject.instances.items():
        _add(description, "SOPClass", UID=uid, NumberOfInstances=str(number))


def _add_code(parent: ET.Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    _add(parent, name, **attributes)


def _add(parent: ET.Element, name: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, name, {key: _storable(value) for key, value in attributes.items()})


def _storable(text: str) -> str:
    """Replace what XML cannot hold, so that no hostile value costs the message."""
    return _NOT_IN_XML.sub("\ufffd", text)
