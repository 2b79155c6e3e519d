"""What a C-STORE response status means for the object that was sent: one table.

It decides the state of one object at one destination. When and how often an object is sent again is not
known here: that is :mod:`workers.retry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SendState(StrEnum):
    """How sending one object to one destination ended."""

    DELIVERED = "delivered"
    """The destination has the object and said so."""
    UNKNOWN = "unknown"
    """The object was sent whole and no valid answer came: the destination may have it."""
    TRY_AGAIN = "try_again"
    """The destination does not have the object, for a reason that may pass by itself."""
    REFUSED = "refused"
    """The destination says that it does not take the object, for a reason that does not pass by itself."""
    NOT_NEEDED = "not_needed"
    """Not sent: the destination takes the same content as an object of another class."""


@dataclass(frozen=True)
class StatusRow:
    """The meaning of a range of statuses.

    Parameters
    ----------
    first, last : int
        The range, both included, 0x0000 to 0xFFFF.
    state : SendState
        The object's state.
    meaning : str
        The standard's words, for the operator.
    is_warning : bool
        Whether the destination stored the object but changed or doubted something in it.
    """

    first: int
    last: int
    state: SendState
    meaning: str
    is_warning: bool = False


# PS3.4 B.2.3 (storage service class), PS3.7 9.1.1.1.9 and Annex C (general statuses).
STATUS_TABLE: tuple[StatusRow, ...] = (
    StatusRow(0x0000, 0x0000, SendState.DELIVERED, "success"),
    StatusRow(0x0001, 0x0001, SendState.DELIVERED, "optional attributes not supported", is_warning=True),
    StatusRow(0x0107, 0x0107, SendState.DELIVERED, "attribute list error", is_warning=True),
    StatusRow(0x0110, 0x0110, SendState.TRY_AGAIN, "processing failure"),
    # The bytes under a UID never change here, so what the destination already has is this object.
    StatusRow(0x0111, 0x0111, SendState.DELIVERED, "duplicate SOP instance"),
    StatusRow(0x0116, 0x0116, SendState.DELIVERED, "attribute value out of range", is_warning=True),
    StatusRow(0x0117, 0x0117, SendState.REFUSED, "invalid SOP instance"),
    StatusRow(0x0122, 0x0122, SendState.REFUSED, "SOP class not supported"),
    StatusRow(0x0124, 0x0124, SendState.REFUSED, "not authorised"),
    StatusRow(0x0210, 0x0210, SendState.TRY_AGAIN, "duplicate invocation"),
    StatusRow(0x0211, 0x0211, SendState.REFUSED, "unrecognised operation"),
    StatusRow(0x0212, 0x0212, SendState.REFUSED, "mistyped argument"),
    StatusRow(0x0213, 0x0213, SendState.TRY_AGAIN, "resource limitation"),
    StatusRow(0xA700, 0xA7FF, SendState.TRY_AGAIN, "out of resources"),
    StatusRow(0xA900, 0xA9FF, SendState.REFUSED, "data set does not match SOP class"),
    StatusRow(0xB000, 0xB000, SendState.DELIVERED, "coercion of data elements", is_warning=True),
    StatusRow(0xB006, 0xB006, SendState.DELIVERED, "elements discarded", is_warning=True),
    StatusRow(0xB007, 0xB007, SendState.DELIVERED, "data set does not match SOP class", is_warning=True),
    StatusRow(0xB000, 0xBFFF, SendState.DELIVERED, "warning of the destination's own", is_warning=True),
    StatusRow(0xC000, 0xCFFF, SendState.REFUSED, "cannot understand"),
    # Neither can end a C-STORE, so nothing was said about the object.
    StatusRow(0xFE00, 0xFE00, SendState.UNKNOWN, "cancel, which answers no C-STORE"),
    StatusRow(0xFF00, 0xFF01, SendState.UNKNOWN, "pending, which answers no C-STORE"),
    # PS3.7 Annex C: whatever is neither success, warning, pending nor cancel is a failure.
    StatusRow(0x0000, 0xFFFF, SendState.REFUSED, "failure that the standard does not list"),
)


def meaning_of(status: int) -> StatusRow:
    """Look a C-STORE response status up.

    Parameters
    ----------
    status : int
        Status (0000,0900) of the response, 0x0000 to 0xFFFF.

    Returns
    -------
    StatusRow
        The first row whose range holds the status.

    Raises
    ------
    ValueError
        If the number is no status at all.
    """
    for row in STATUS_TABLE:
        if row.first <= status <= row.last:
            return row
    raise ValueError(f"{status} is not a DIMSE status: 0x0000 to 0xFFFF")
