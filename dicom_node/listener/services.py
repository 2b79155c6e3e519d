"""What the listener offers beside storage and verification, as its message loop sees it.

A service answers a request at once. It may promise a report as well: the loop sends it on the same
association when the peer has had time to leave, and tells what became of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pynetdicom.presentation import PresentationContext

from dicom_node.listener.command import Request


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other side of an association."""

    calling_ae_title: str
    address: str


@dataclass(frozen=True, slots=True)
class Report:
    """An N-EVENT-REPORT that the node sends (PS3.7 10.1.1).

    Attributes
    ----------
    sop_class_uid, sop_instance_uid : str
        What it is about.
    event_type : int
        Event Type ID.
    content : bytes
        Event Information in the context's transfer syntax.
    """

    sop_class_uid: str
    sop_instance_uid: str
    event_type: int
    content: bytes


class Promise(Protocol):
    """A report that is owed to the asker."""

    def report(self) -> Report | None:
        """Find out what to report; None where that is left to others."""
        ...

    def ended(self, status: int | None) -> None:
        """Learn the status that the peer answered with; None where nobody on this association heard it."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service makes of a request: its status, and what follows."""

    status: int
    promise: Promise | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A service that the listener offers to peers that propose it.

    Attributes
    ----------
    context : pynetdicom.presentation.PresentationContext
        Its abstract syntax, transfer syntaxes and, where roles may be reversed, the roles that are accepted.
    requested : callable
        Answers an N-ACTION or N-EVENT-REPORT request: ``requested(peer, request, content)`` with the bytes of
        its data set, empty where there is none. Called in the association's thread.
    largest_content_bytes : int
        The longest data set that is read into memory; what is longer ends the association.
    may_leave_s : float
        Seconds that a peer has to release its association before a promised report is sent on it. One that is
        spoken to while it releases may wait for its answer until it gives up.
    """

    context: PresentationContext
    requested: Callable[[Peer, Request, bytes], Answer]
    largest_content_bytes: int
    may_leave_s: float = 0.5

    @property
    def abstract_syntax(self) -> str:
        """The UID that peers propose."""
        return str(self.context.abstract_syntax)
