"""The errors of the DICOM edges.

::

    NodeError
    ├── SettingsError            a setting is wrong: name, problem and an example of a right value
    ├── InstallationError        the installation itself is damaged or shadowed
    ├── PortUnavailableError     a port cannot be listened on
    ├── BundleStoreError         a bundle cannot be stored, for want of room or by a fault of the disk
    ├── SpoolError               an object could not be made durable
    │   └── SpoolFullError       ... because there is no room
    ├── JournalDamagedError      the journal does not hold what was written to it
    ├── SinkUnavailableError     the syslog sink of the audit trail did not take what it was sent: try again
    ├── UnfitObjectError         a received data set cannot be what it says it is
    ├── ImageError               one stored image cannot become an ImageView (final: never tried again)
    ├── ResultError              a result object could not be built or failed its own check
    └── DeliveryError            an object did not reach its destination
        └── DestinationUnavailableError   will pass by itself: try again
            └── DestinationAwayError      ... and everything for this destination waits with it

Messages carry ids and names of settings, never patient data (no name, no patient id, no file content).
"""

from __future__ import annotations

import errno
import socket

_NO_SUCH_ADDRESS = (
    "this machine has no such address: correct the host (host, metrics.host), or choose another"
)
_ADVICE_ON_PORTS = {
    errno.EACCES: "so low a port is root's: docs/how-to/connect-a-scanner.md tells how the node gets it; or "
    "choose a higher one",
    errno.EADDRNOTAVAIL: _NO_SUCH_ADDRESS,
    socket.EAI_NONAME: _NO_SUCH_ADDRESS,
    socket.EAI_ADDRFAMILY: _NO_SUCH_ADDRESS,
}


class NodeError(Exception):
    """Something in the node failed; the message says what to do next."""


class SettingsError(NodeError):
    """A setting is wrong; correct it and start again."""


class InstallationError(NodeError):
    """The installation is damaged; reinstall dicom-node into an environment of its own."""


class PortUnavailableError(NodeError):
    """A port cannot be listened on.

    Parameters
    ----------
    host : str
        The address.
    port : int
        The port.
    error : OSError
        What the kernel said.
    choices : str
        The options and settings that name another port.
    """

    def __init__(self, host: str, port: int, error: OSError, *, choices: str) -> None:
        advice = _ADVICE_ON_PORTS.get(error.errno or 0, "end the program that has it, or choose another")
        super().__init__(
            f"port {port} of {host} cannot be listened on ({error.strerror}); {advice} ({choices})"
        )


class BundleStoreError(NodeError):
    """A bundle cannot be stored: the disk is full or fails; free some space, then add it again."""


class SpoolError(NodeError):
    """An object could not be written durably; look at the data directory's disk."""


class SpoolFullError(SpoolError):
    """The spool's disk is full; free some space; sender or node tries again."""


class JournalDamagedError(NodeError):
    """The journal does not hold what was written to it."""


class SinkUnavailableError(NodeError):
    """The syslog sink did not take the audit messages; they wait in the trail and are sent again."""


class UnfitObjectError(NodeError):
    """The data set is not a storable SOP instance; ask the sender's vendor."""


class ImageError(NodeError):
    """A stored image cannot be read.

    Parameters
    ----------
    code : str
        The refusal's code, a member name of :class:`models.contract.RefusalCode`.
    message : str
        What is wrong, without patient data.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ResultError(NodeError):
    """A result object could not be built; the job is failed and nothing was sent."""


class DeliveryError(NodeError):
    """A result object did not reach its destination."""


class DestinationUnavailableError(DeliveryError):
    """The destination is down, busy or slow; the same bytes are sent again later."""


class DestinationAwayError(DestinationUnavailableError):
    """No association could be made: everything for this destination waits for it together."""
