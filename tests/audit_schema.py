"""The grammar of audit messages (PS3.15 A.5.1), as a table, and whether a document follows it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from xml.etree import ElementTree as ET

Check = Callable[[str], bool]


def _text(_: str) -> bool:
    return True


def _one_of(*values: str) -> Check:
    return lambda text: text in values


def _numbers(last: int) -> Check:
    return _one_of(*(str(number) for number in range(1, last + 1)))


def _is_boolean(text: str) -> bool:
    return text in ("true", "false", "1", "0")


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+", text) is not None


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _is_time(text: str) -> bool:
    """Whether it is an xsd:dateTime with its zone (A.5.2.5)."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


@dataclass(frozen=True)
class Element:
    """What an element may hold.

    Attributes
    ----------
    required, optional : mapping
        Attributes and what their values must satisfy.
    children : tuple of (str, str)
        Names in their order, each with ``"1"``, ``"?"``, ``"*"`` or ``"+"``.
    text : callable or None
        What the text must satisfy; None where there must be none.
    """

    required: Mapping[str, Check] = field(default_factory=dict)
    optional: Mapping[str, Check] = field(default_factory=dict)
    children: tuple[tuple[str, str], ...] = ()
    text: Check | None = None


_CODED = Element({"csd-code": _text, "codeSystemName": _text, "originalText": _text}, {"displayName": _text})
_UID = {"UID": _text}
GRAMMAR: Mapping[str, Element] = {
    "AuditMessage": Element(
        children=(
            ("EventIdentification", "1"),
            ("ActiveParticipant", "+"),
            ("AuditSourceIdentification", "1"),
            ("ParticipantObjectIdentification", "*"),
        )
    ),
    "EventIdentification": Element(
        {"EventDateTime": _is_time, "EventOutcomeIndicator": _one_of("0", "4", "8", "12")},
        {"EventActionCode": _one_of(*"CRUDE")},
        (("EventID", "1"), ("EventTypeCode", "*"), ("EventOutcomeDescription", "?")),
    ),
    "EventID": _CODED,
    "EventTypeCode": _CODED,
    "EventOutcomeDescription": Element(text=_text),
    "ActiveParticipant": Element(
        {"UserID": _text, "UserIsRequestor": _is_boolean},
        {
            "AlternativeUserID": _text,
            "UserName": _text,
            "NetworkAccessPointID": _text,
            "NetworkAccessPointTypeCode": _numbers(5),
        },
        (("RoleIDCode", "*"), ("MediaIdentifier", "?")),
    ),
    "RoleIDCode": _CODED,
    "MediaIdentifier": Element(children=(("MediaType", "1"),)),
    "MediaType": _CODED,
    "AuditSourceIdentification": Element(
        {"AuditSourceID": _text}, {"AuditEnterpriseSiteID": _text}, (("AuditSourceTypeCode", "*"),)
    ),
    # Of the source types the grammar has two forms; the node uses the one of a single digit.
    "AuditSourceTypeCode": Element({"csd-code": _numbers(9)}),
    "ParticipantObjectIdentification": Element(
        {"ParticipantObjectID": _text},
        {
            "ParticipantObjectTypeCode": _numbers(4),
            "ParticipantObjectTypeCodeRole": _numbers(26),
            "ParticipantObjectDataLifeCycle": _numbers(15),
            "ParticipantObjectSensitivity": _text,
        },
        (
            ("ParticipantObjectIDTypeCode", "1"),
            ("(?:ParticipantObjectName|ParticipantObjectQuery)", "1"),
            ("ParticipantObjectDetail", "*"),
            ("ParticipantObjectDescription", "*"),
        ),
    ),
    "ParticipantObjectIDTypeCode": _CODED,
    "ParticipantObjectName": Element(text=_text),
    "ParticipantObjectQuery": Element(text=_is_base64),
    "ParticipantObjectDetail": Element({"type": _text, "value": _is_base64}),
    "ParticipantObjectDescription": Element(
        children=(
            ("MPPS", "*"),
            ("Accession", "*"),
            ("SOPClass", "*"),
            ("ParticipantObjectContainsStudy", "?"),
        )
    ),
    "MPPS": Element(_UID),
    "Accession": Element({"Number": _text}),
    "SOPClass": Element({"NumberOfInstances": _is_integer}, _UID, (("Instance", "*"),)),
    "Instance": Element(_UID),
    "ParticipantObjectContainsStudy": Element(children=(("StudyIDs", "*"),)),
    "StudyIDs": Element(_UID),
}


def faults(element: ET.Element, expected: str = "AuditMessage") -> list[str]:
    """Return in words what does not follow the grammar; empty when everything does."""
    if element.tag != expected or expected not in GRAMMAR:
        return [f"{element.tag} where {expected} belongs"]
    rule = GRAMMAR[expected]
    found = [f"{expected} lacks {name}" for name in rule.required if name not in element.attrib]
    allowed = {**rule.required, **rule.optional}
    for name, value in element.attrib.items():
        if name not in allowed:
            found.append(f"{expected} may not have {name}")
        elif not allowed[name](value):
            found.append(f"{expected} has {name}={value!r}")
    if rule.text is None and (element.text or "").strip():
        found.append(f"{expected} holds text")
    shape = "".join(f"{child.tag} " for child in element)
    pattern = "".join(f"(?:{name} ){'' if often == '1' else often}" for name, often in rule.children)
    if re.fullmatch(pattern, shape) is None:
        found.append(f"{expected} holds {shape.split()}")
    for child in element:
        found += faults(child, child.tag)
    return found
