"""Whether a broker's address is one that strangers can use: whoever speaks to Redis may stop all workers."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def lacks_authentication(url: str) -> bool:
    """Tell whether a broker beyond this machine is spoken to without a password.

    Parameters
    ----------
    url : str
        A ``redis://``, ``rediss://`` or ``redis+socket://`` URL.

    Returns
    -------
    bool
        False for a broker of this machine alone: its loopback interface, or a socket in its file system.
    """
    parts = urlsplit(url)
    return not (_is_of_this_machine(parts.scheme, parts.hostname) or parts.password)


def lacks_encryption(url: str) -> bool:
    """Tell whether a broker beyond this machine is spoken to without TLS."""
    parts = urlsplit(url)
    return parts.scheme != "rediss" and not _is_of_this_machine(parts.scheme, parts.hostname)


def is_insecure(url: str) -> bool:
    """Tell whether strangers between this machine and a broker beyond it could use or read it."""
    return lacks_authentication(url) or lacks_encryption(url)


def _is_of_this_machine(scheme: str, host: str | None) -> bool:
    if scheme in ("redis+socket", "unix", "socket"):
        return True
    if host is None or host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
