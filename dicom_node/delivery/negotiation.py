"""Asking for an association and reading the answer: bytes out, bytes in, no socket.

pynetdicom encodes the request and decodes the answer; what a decoder raises for nonsense becomes one kind
of error here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)

from dicom_node.delivery.destination import Destination
from dicom_node.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

MOST_CONTEXTS = 128
"""Presentation contexts in one request: their ids are the odd numbers 1 to 255 (PS3.8 9.3.2.2)."""

Context = tuple[str, str]
"""(SOP class UID, transfer syntax UID)."""

_APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
_OFFERED_MAXIMUM_LENGTH = 16382
_TRANSIENT = 2

# PS3.8 9.3.3.2
_NO_REASON = 2
_CONTEXT_RESULTS = {
    1: "user rejection",
    _NO_REASON: "no reason given",
    3: "SOP class not supported",
    4: "transfer syntax not supported",
}


@dataclass(frozen=True)
class Acceptance:
    """What the acceptor agreed to.

    Parameters
    ----------
    context_ids : dict of Context to int
        The accepted presentation contexts and their ids.
    reasons : dict of Context to str
        The rejected ones and why, in the standard's words.
    maximum_length : int
        Longest P-DATA that the acceptor takes, in bytes; 0 is no limit (PS3.8 D.1).
    """

    context_ids: dict[Context, int]
    reasons: dict[Context, str]
    maximum_length: int


def encoded_request(
    destination: Destination,
    calling_ae_title: str,
    contexts: Sequence[Context],
    *,
    as_provider: bool = False,
) -> bytes:
    """Encode an A-ASSOCIATE-RQ PDU with one presentation context per pair.

    Parameters
    ----------
    destination : Destination
        Gives the called AE title.
    calling_ae_title : str
        This node's AE title.
    contexts : sequence of (str, str)
        Distinct (SOP class UID, transfer syntax UID), 1 to :data:`MOST_CONTEXTS`.
    as_provider : bool
        Propose to be the SCP of these classes (PS3.7 D.3.3.4): who reports a commitment later is.

    Returns
    -------
    bytes
        The whole PDU.
    """
    maximum_length = MaximumLengthNotification()
    maximum_length.maximum_length_received = _OFFERED_MAXIMUM_LENGTH
    implementation_class = ImplementationClassUIDNotification()
    implementation_class.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    implementation_version = ImplementationVersionNameNotification()
    implementation_version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    proposed = []
    for context_id, (sop_class_uid, transfer_syntax_uid) in _numbered(contexts):
        context = build_context(sop_class_uid, transfer_syntax_uid)
        context.context_id = context_id
        proposed.append(context)
    request = A_ASSOCIATE()
    request.application_context_name = UID(_APPLICATION_CONTEXT_NAME)
    request.calling_ae_title = calling_ae_title
    request.called_ae_title = destination.ae_title
    request.presentation_context_definition_list = proposed
    request.user_information = [maximum_length, implementation_class, implementation_version]
    if as_provider:
        request.user_information += [_provider_of(uid) for uid, _ in contexts]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return bytes(pdu.encode())


def _provider_of(sop_class_uid: str) -> SCP_SCU_RoleSelectionNegotiation:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = UID(sop_class_uid)
    role.scu_role, role.scp_role = False, True
    return role


def _numbered(contexts: Sequence[Context]) -> Iterator[tuple[int, Context]]:
    return zip(range(1, 2 * MOST_CONTEXTS, 2), contexts, strict=False)


def decoded_acceptance(pdu: bytes, contexts: Sequence[Context]) -> Acceptance:
    """Read an A-ASSOCIATE-AC PDU.

    Parameters
    ----------
    pdu : bytes
        The whole PDU.
    contexts : sequence of (str, str)
        As given to :func:`encoded_request`.

    Raises
    ------
    ValueError
        If the PDU cannot be read.
    """
    try:
        answer = A_ASSOCIATE_AC()
        answer.decode(pdu)
        results = {
            item.presentation_context_id: (item.result, str(item.transfer_syntax or ""))
            for item in answer.presentation_context
        }
        maximum_length = int(answer.user_information.maximum_length or 0)
    except Exception as exc:
        # What the decoder raises for nonsense has no common base.
        raise ValueError("not a readable A-ASSOCIATE-AC PDU") from exc
    acceptance = Acceptance({}, {}, maximum_length)
    for context_id, context in _numbered(contexts):
        result, transfer_syntax_uid = results.get(context_id, (_NO_REASON, ""))
        if result == 0 and transfer_syntax_uid == context[1]:
            acceptance.context_ids[context] = context_id
        else:
            acceptance.reasons[context] = _CONTEXT_RESULTS.get(result, _CONTEXT_RESULTS[_NO_REASON])
    return acceptance


def rejection_reason(pdu: bytes) -> str:
    """Say in the standard's words why an association was rejected (A-ASSOCIATE-RJ, PS3.8 9.3.4)."""
    try:
        rejection = A_ASSOCIATE_RJ()
        rejection.decode(pdu)
        kind = "for now" if rejection.result == _TRANSIENT else "permanently"
        return f"{kind}: {rejection.reason_str}"
    except Exception:  # noqa: BLE001 - what the decoder raises for nonsense has no common base
        return "for a reason that cannot be read"
