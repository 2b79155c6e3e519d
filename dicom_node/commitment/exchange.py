"""Asking for commitment and reporting it, as the one who opens the association (PS3.4 J.3)."""

from __future__ import annotations

import time
from collections.abc import Callable

from dicom_node.commitment.references import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_ACTION,
    TRANSFER_SYNTAX,
    CommitmentReport,
    MalformedReferencesError,
    Reference,
    decoded_report,
    encoded_report,
    encoded_request,
)
from dicom_node.delivery.association import Requestor
from dicom_node.delivery.destination import Destination
from dicom_node.delivery.normalized import NormalizedAssociation, request_normalized
from dicom_node.errors import DestinationUnavailableError

OnReport = Callable[[CommitmentReport], int]
"""Keeps a report and returns the status that answers it."""

LOOK_EVERY_S = 0.1
INVALID_ARGUMENT = 0x0115
_CONTEXT = (PUSH_MODEL, TRANSFER_SYNTAX)
_WARNINGS = (0x0001, 0x0107, 0x0116)


def ask(
    destination: Destination,
    requestor: Requestor,
    transaction_uid: str,
    objects: tuple[Reference, ...],
    *,
    report_wait_s: float,
    on_open: Callable[[], None],
    on_report: OnReport,
    is_reported: Callable[[], bool],
) -> None:
    """Ask a destination to commit objects, and wait a little for its report on the same association.

    Returns as soon as the report came, and otherwise after the wait: the destination then reports on an
    association of its own.

    Parameters
    ----------
    destination : Destination
        The storage commitment SCP.
    requestor : Requestor
        Who asks, and how long it waits for everything but the report.
    transaction_uid : str
        A new UID.
    objects : tuple of (str, str)
        SOP class and instance UID.
    report_wait_s : float
        How long to wait for the report.
    on_open : callable
        Called before the request is sent, once the destination takes it; raises to keep it from being sent.
    on_report : callable
        Called with each report that comes; it is answered with what this returns.
    is_reported : callable
        Whether the report came on another association meanwhile, so that nothing is waited for any more.

    Raises
    ------
    DestinationUnavailableError
        If the destination does not take the request, now or at all.
    """
    with _opened(destination, requestor, as_provider=False) as association:
        on_open()
        information = encoded_request(transaction_uid, objects)
        status = association.action_status(_CONTEXT, PUSH_MODEL_INSTANCE, REQUEST_ACTION, information)
        if status != 0 and status not in _WARNINGS:
            raise DestinationUnavailableError(
                f"the destination turned the request for storage commitment away with status {status:04X}"
            )
        ends_at = time.monotonic() + report_wait_s
        try:
            while association.is_usable and (left_s := ends_at - time.monotonic()) > 0:
                if _take_report(association, min(left_s, LOOK_EVERY_S), on_report) or is_reported():
                    return
        except DestinationUnavailableError:
            # The request is taken; a report that is damaged or cut off may come again on its own association.
            return


def _take_report(association: NormalizedAssociation, seconds: float, on_report: OnReport) -> bool:
    """Wait for a report and answer it; return whether one came."""
    report = association.next_report(_CONTEXT, seconds)
    if report is None:
        return False
    try:
        status = on_report(decoded_report(report.information))
    except MalformedReferencesError:
        status = INVALID_ARGUMENT
    association.answer_report(_CONTEXT, report, status)
    return True


def report(destination: Destination, requestor: Requestor, found: CommitmentReport) -> int:
    """Report on a new association, as the provider of the service, what is committed.

    Returns
    -------
    int
        The status of the answer.

    Raises
    ------
    DestinationUnavailableError
        If nobody heard it.
    """
    with _opened(destination, requestor, as_provider=True) as association:
        return association.event_report_status(
            _CONTEXT, PUSH_MODEL_INSTANCE, found.event_type, encoded_report(found)
        )


def _opened(destination: Destination, requestor: Requestor, *, as_provider: bool) -> NormalizedAssociation:
    association = request_normalized(destination, requestor, _CONTEXT, as_provider=as_provider)
    if not association.accepts(_CONTEXT):
        reason = association.reason_against(_CONTEXT)
        with association:
            pass  # released in good order
        raise DestinationUnavailableError(
            f"the destination does not accept storage commitment from this node ({reason}); see its "
            "conformance statement, or take the option away"
        )
    return association
