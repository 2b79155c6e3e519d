"""Where results go: the address of one storage SCP.

Pure: settings, command line and workers name destinations without loading any DICOM library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_EXAMPLE = "PACS@pacs.example.org:104"
_ADDRESS = re.compile(
    r"(?P<ae_title>.*)@(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^@:\[\]]+)):(?P<port>[0-9]+)", re.DOTALL
)
_LONGEST_AE_TITLE = 16
_LARGEST_PORT = 65535


def checked_ae_title(value: str) -> str:
    """Check an application entity title.

    Parameters
    ----------
    value : str
        The title; leading and trailing spaces are not significant (PS3.5 6.2, VR AE) and are removed.

    Returns
    -------
    str
        1 to 16 printable ASCII characters without backslash.

    Raises
    ------
    ValueError
        If the title breaks the rules of value representation AE.
    """
    title = value.strip(" ")
    is_allowed = all(" " <= character <= "~" and character != "\\" for character in title)
    if not title or len(title) > _LONGEST_AE_TITLE or not is_allowed:
        raise ValueError(
            f"{value!r} is not an AE title: 1 to {_LONGEST_AE_TITLE} printable ASCII characters without "
            "backslash, for example DICOM_NODE"
        )
    return title


@dataclass(frozen=True)
class Destination:
    """One storage SCP that results are sent to.

    Parameters
    ----------
    ae_title : str
        Its (called) application entity title, 1 to 16 characters.
    host : str
        Host name, IPv4 address, or IPv6 address without brackets.
    port : int
        TCP port, 1 to 65535.

    Raises
    ------
    ValueError
        If one of the three cannot be right.
    """

    ae_title: str
    host: str
    port: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "ae_title", checked_ae_title(self.ae_title))
        if not self.host or any(character.isspace() for character in self.host):
            raise ValueError(f"{self.host!r} is not a host name or address, for example {_EXAMPLE}")
        if not 1 <= self.port <= _LARGEST_PORT:
            raise ValueError(f"{self.port} is not a TCP port (1 to {_LARGEST_PORT}), for example {_EXAMPLE}")

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read ``AE@HOST:PORT``.

        Parameters
        ----------
        text : str
            For example ``PACS@pacs.example.org:104`` or ``PACS@[2001:db8::7]:104``.

        Returns
        -------
        Destination

        Raises
        ------
        ValueError
            If the text has another form; the message carries an example.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not AE@HOST:PORT, for example {_EXAMPLE}")
        return cls(match["ae_title"], match["ipv6"] or match["host"], int(match["port"]))

    def __str__(self) -> str:
        """Return the form that :meth:`parse` reads."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"
