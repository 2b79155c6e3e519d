"""The errors of the DICOM edges.

::

    NodeError
    ├── SettingsError            a setting is wrong: name, problem and an example of a right value
    ├── InstallationError        the installation itself is damaged or shadowed
    ├── PortUnavailableError     the listener cannot have its port
    ├── SpoolError               an object could not be made durable
    │   └── SpoolFullError       ... because there is no room
    ├── SinkUnavailableError     the syslog sink of the audit trail did not take what it was sent: try again
    ├── UnfitObjectError         a received data set cannot be what it says it is
    ├── ImageError               one stored image cannot become an ImageView (final: never tried again)
    ├── ResultError              a result object could not be built or failed its own check
    └── DeliveryError            an object did not reach its destination
        └── DestinationUnavailableError   will pass by itself: try again

Messages carry ids and names of settings, never patient data (no name, no patient id, no file content).
"""

from __future__ import annotations


class NodeError(Exception):
    """Something in the node failed; the message says what to do next."""


class SettingsError(NodeError):
    """A setting is wrong; correct it and start again."""


class InstallationError(NodeError):
    """The installation is damaged; reinstall dicom-node into an environment of its own."""


class PortUnavailableError(NodeError):
    """The listener cannot have its port; choose another or end the program that has it."""


class SpoolError(NodeError):
    """An object could not be written durably; look at the data directory's disk."""


class SpoolFullError(SpoolError):
    """The spool's disk is full; free some space; sender or node tries again."""


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
