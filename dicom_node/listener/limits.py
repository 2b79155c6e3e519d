"""How much a peer may ask of the listener: one value for each bound, with its unit."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """The bounds that keep one peer from harming the others.

    Attributes
    ----------
    max_associations : int
        Associations at one time; the next is rejected as transient (PS3.8 9.3.4: 2/3/2).
    max_associations_per_peer : int
        The same for those of one network address.
    max_silent_connections : int
        Connections of one network address that have not requested an association yet.
    max_pdu_bytes : int
        Longest P-DATA-TF PDU that is offered to peers.
    max_any_pdu_bytes : int
        Longest PDU that is read at all; a longer one ends the association before its body is read.
    max_request_pdu_bytes : int
        The same while there is no association yet.
    max_command_bytes : int
        Longest command set of a DIMSE message.
    max_message_bytes : int
        Longest DIMSE message.
    max_nesting : int
        Deepest nesting of sequences in a data set.
    max_elements : int
        Most elements in a data set, items included.
    min_free_bytes : int
        Room that stays free on the spool's disk; below it objects are refused with A700.
    acse_timeout_s : float
        Wait for an association request or a release.
    pdu_timeout_s : float
        Time from the first to the last byte of one PDU.
    message_timeout_s : float
        Time from the first to the last byte of one DIMSE message.
    network_timeout_s : float
        Longest silence on an open association.
    """

    max_associations: int = 32
    max_associations_per_peer: int = 32
    max_silent_connections: int = 16
    max_pdu_bytes: int = 128 * 1024
    max_any_pdu_bytes: int = 1 * _MIB
    max_request_pdu_bytes: int = 256 * 1024
    max_command_bytes: int = 64 * 1024
    max_message_bytes: int = 4096 * _MIB
    max_nesting: int = 32
    max_elements: int = 50_000
    min_free_bytes: int = 1024 * _MIB
    acse_timeout_s: float = 10.0
    pdu_timeout_s: float = 15.0
    message_timeout_s: float = 300.0
    network_timeout_s: float = 60.0

    @property
    def max_connections(self) -> int:
        """Connections that are accepted at one time, silent ones included."""
        return self.max_associations + 4 * self.max_silent_connections
