"""Who may open an association, and for what: titles, addresses, certificates and users, decided in one place.

The order matters: what a stranger could learn from is asked last. A passcode is looked at only when
everything else about the association is right, and every refusal of a caller looks the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Operation(StrEnum):
    """What a caller may do."""

    STORE = "store"
    ECHO = "echo"
    COMMIT = "commit"


EVERY_OPERATION = frozenset(Operation)


@dataclass(frozen=True, slots=True)
class Caller:
    """One application entity that is admitted.

    Attributes
    ----------
    title : str
        Its AE title, without the spaces around it.
    networks : tuple of ipaddress networks
        Where it may come from; empty: from anywhere.
    operations : frozenset of Operation
        What it may do.
    certificate : str or None
        A name that its TLS certificate must carry; it is then admitted over TLS alone.
    needs_user : bool
        Whether it must give a user name and a passcode, over TLS alone.
    """

    title: str
    networks: tuple[Network, ...] = ()
    operations: frozenset[Operation] = EVERY_OPERATION
    certificate: str | None = None
    needs_user: bool = False


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """The user identity of an association request (PS3.7 D.3.3.7).

    Attributes
    ----------
    kind : int
        User-Identity-Type: 2 is a user name with a passcode, the one that the node checks.
    primary, secondary : bytes
        User name and passcode.
    """

    kind: int
    primary: bytes
    secondary: bytes


@dataclass(frozen=True, slots=True)
class Knock:
    """An association request as far as admission looks at it.

    Attributes
    ----------
    calling_ae_title, called_ae_title : str
        As sent; spaces around them do not count (PS3.5 6.2).
    address : str
        The peer's network address.
    certificate_names : frozenset of str or None
        The names of its verified certificate; None on a connection without TLS.
    user : UserIdentity or None
        Who the peer says that it works for.
    """

    calling_ae_title: str
    called_ae_title: str
    address: str
    certificate_names: frozenset[str] | None = None
    user: UserIdentity | None = None


class Admitted(NamedTuple):
    """What a peer that may come in may do.

    Attributes
    ----------
    operations : frozenset of Operation
        What is offered to it.
    has_proved_user : bool
        Whether its user name and passcode were asked for, and are right.
    """

    operations: frozenset[Operation]
    has_proved_user: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """An A-ASSOCIATE-RJ (PS3.8 9.3.4).

    Attributes
    ----------
    result, source, reason : int
        Its three numbers.
    words : str
        For the audit trail.
    """

    result: int
    source: int
    reason: int
    words: str


CALLING_AE_TITLE_NOT_RECOGNISED = Refusal(1, 1, 3, "calling AE title not recognised")
CALLED_AE_TITLE_NOT_RECOGNISED = Refusal(1, 1, 7, "called AE title not recognised")
# The peer learns no more than that it is not admitted; the audit trail tells which of these it was.
_NOT_FROM_HERE = Refusal(1, 1, 3, "AE title not admitted from this address")
_NOT_WITH_THIS_CERTIFICATE = Refusal(1, 1, 3, "certificate does not name this caller")
USER_NOT_RECOGNISED = Refusal(1, 2, 1, "user identity not recognised")
USER_ABSENT = Refusal(1, 2, 1, "user identity required and absent")

VerifyUser = Callable[[bytes, bytes], bool]


class Admission:
    """Decides on association requests.

    Parameters
    ----------
    ae_title : str
        The node's own.
    callers : sequence of Caller, optional
        Who is admitted; one title may stand in several. None admits everybody.
    require_called_ae_title : bool
        Whether peers must call the node by its title.
    needs_user : bool
        Whether every caller must give a user name and a passcode.
    verify_user : callable, optional
        ``verify_user(name, passcode)``; without it no user is recognised.
    """

    def __init__(
        self,
        ae_title: str,
        *,
        callers: Sequence[Caller] | None = None,
        require_called_ae_title: bool = False,
        needs_user: bool = False,
        verify_user: VerifyUser | None = None,
    ) -> None:
        self._ae_title = ae_title.strip()
        self._callers = None if callers is None else tuple(callers)
        self._require_called_ae_title = require_called_ae_title
        self._needs_user = needs_user
        self._verify_user = verify_user

    def decide(self, knock: Knock) -> Admitted | Refusal:
        """Return what the peer may do, or why it may not come in."""
        found = self._caller(knock)
        if isinstance(found, Refusal):
            return found
        if self._require_called_ae_title and knock.called_ae_title.strip() != self._ae_title:
            return CALLED_AE_TITLE_NOT_RECOGNISED
        if not (self._needs_user or found.needs_user):
            return Admitted(found.operations)
        return self._user_refusal(knock) or Admitted(found.operations, has_proved_user=True)

    def _caller(self, knock: Knock) -> Caller | Refusal:
        title = knock.calling_ae_title.strip()
        if self._callers is None:
            return Caller(title)
        named = [caller for caller in self._callers if caller.title == title]
        near = [caller for caller in named if _is_from(caller.networks, knock.address)]
        known = [caller for caller in near if _is_certified(caller, knock)]
        if known:
            return known[0]
        if near:
            return _NOT_WITH_THIS_CERTIFICATE
        return _NOT_FROM_HERE if named else CALLING_AE_TITLE_NOT_RECOGNISED

    def _user_refusal(self, knock: Knock) -> Refusal | None:
        user = knock.user
        if user is None:
            return USER_ABSENT
        # Without TLS the passcode was readable on its way: it proves nothing, whatever it is.
        if knock.certificate_names is None or user.kind != _NAME_AND_PASSCODE or self._verify_user is None:
            return USER_NOT_RECOGNISED
        return None if self._verify_user(user.primary, user.secondary) else USER_NOT_RECOGNISED


_NAME_AND_PASSCODE = 2


def _is_certified(caller: Caller, knock: Knock) -> bool:
    return caller.certificate is None or caller.certificate in (knock.certificate_names or ())


def _is_from(networks: tuple[Network, ...], address: str) -> bool:
    if not networks:
        return True
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)
