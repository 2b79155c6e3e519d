"""TLS for associations, both ways: who may speak to whom is proved by certificates of a private authority.

Versions and cipher suites satisfy both secure transport profiles of PS3.15 that are not retired: BCP 195
RFC 8996, 9325 (B.12) and its modified form (B.13). TLS 1.3 is preferred, 1.2 accepted, nothing older; key
exchange is ephemeral over elliptic curves of 256 bits or more, encryption authenticated. Both sides show a
certificate, and both are checked.
"""

from __future__ import annotations

import ssl
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from dicom_node.errors import SettingsError

# OpenSSL's words for a first message that is none of TLS.
_SPOKEN_WITHOUT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST"})
CIPHER_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
"""Of TLS 1.2, in the order of preference; those of TLS 1.3 are all allowed (RFC 9325 section 4.2)."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The three PEM files of one side of a connection.

    Attributes
    ----------
    certificate : pathlib.Path
        This side's certificate, followed by intermediate ones.
    private_key : pathlib.Path
        Its private key without a passphrase, readable by its owner alone.
    authority : pathlib.Path
        The certificates of the private authority that signs peers. Those of the operating system are never
        trusted.
    """

    certificate: Path
    private_key: Path
    authority: Path

    def server_context(self) -> ssl.SSLContext:
        """Return what accepts connections: a peer without a certificate of the authority is refused.

        Raises
        ------
        SettingsError
            If a file is missing, damaged, or the key readable by others.
        """
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        # Every association is a full handshake: nothing of an earlier one is remembered.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return what opens connections: the peer's certificate must name the host that was asked for.

        Raises
        ------
        SettingsError
            If a file is missing, damaged, or the key readable by others.
        """
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def expires(self) -> datetime:
        """Return when this side's certificate ends, in UTC.

        Raises
        ------
        SettingsError
            If it cannot be read.
        """
        from cryptography import x509  # late: reading settings needs none of it

        try:
            return x509.load_pem_x509_certificate(self.certificate.read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:
            raise SettingsError(f"{self.certificate} holds no certificate in PEM form") from error

    def state(self) -> tuple[tuple[int, int, int], ...]:
        """Return what changes when one of the files is replaced or written.

        Raises
        ------
        OSError
            If one is away.
        """
        found = (path.stat() for path in (self.certificate, self.private_key, self.authority))
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def _context(self, protocol: int) -> ssl.SSLContext:
        self._check_private()
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(":".join(CIPHER_SUITES))
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        try:
            context.load_cert_chain(self.certificate, self.private_key, password=_refuse_passphrase)
            context.load_verify_locations(self.authority)
        except PermissionError as error:
            raise SettingsError(
                f"one of the TLS files {self.certificate}, {self.private_key} and {self.authority} is closed "
                "to this user; let the node's user read them, and own the key"
            ) from error
        except (OSError, ValueError) as error:
            # ssl.SSLError is an OSError; its text names no file.
            raise SettingsError(
                f"the TLS files {self.certificate}, {self.private_key} and {self.authority} cannot be used "
                f"together ({_words(error)}): PEM certificate, its PEM key without passphrase, PEM authority"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _check_private(self) -> None:
        try:
            mode = self.private_key.stat().st_mode
        except OSError as error:
            raise SettingsError(
                f"the private key {self.private_key} cannot be read ({error.strerror}); correct its path or "
                "its folder's owner"
            ) from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsError(
                f"other users may read the private key {self.private_key}; chmod 600 {self.private_key}, and "
                "make a new key if somebody may have copied it"
            )


class ServerTls:
    """The accepting side's context, made anew when one of its files changes: no restart, no lost association.

    Parameters
    ----------
    files : TlsFiles
        Read at once.

    Raises
    ------
    SettingsError
        If the files cannot be used at the start; later the ones in use stay, and the log tells.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._state: tuple[tuple[int, int, int], ...] | None = None
        self._context = files.server_context()
        self._state = self._files.state()

    def context(self) -> ssl.SSLContext:
        """Return the context of the files as they are now, or of the last ones that could be used."""
        with self._lock:
            try:
                state = self._files.state()
            except OSError:
                state = None
            if state != self._state:
                # Tried once per change: halfway through a replacement the files do not fit together.
                self._state = state
                self._load()
            return self._context

    def _load(self) -> None:
        try:
            self._context = self._files.server_context()
        except SettingsError as error:
            _log.error("tls.certificates_not_taken", reason=str(error))
        else:
            _log.info("tls.certificates_taken", expires=self._files.expires().isoformat())


def certificate_names(certificate: Mapping[str, Any]) -> frozenset[str]:
    """Return the names that a verified certificate gives its owner.

    Parameters
    ----------
    certificate : mapping
        As :meth:`ssl.SSLSocket.getpeercert` returns it.

    Returns
    -------
    frozenset of str
        The DNS names, URIs and addresses of the subject's alternative names; without those, its common names
        (RFC 6125 6.4.4).
    """
    alternative = frozenset(str(value) for _, value in certificate.get("subjectAltName", ()))
    if alternative:
        return alternative
    parts = (pair for part in certificate.get("subject", ()) for pair in part)
    return frozenset(str(value) for kind, value in parts if kind == "commonName")


def handshake_failure(error: OSError) -> str:
    """Say why a handshake failed, without anything that the peer chose.

    Parameters
    ----------
    error : OSError
        What the handshake raised.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate was refused: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "the handshake took too long"
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return "the peer left during the handshake"
    if error.reason in _SPOKEN_WITHOUT_TLS:
        return f"no secure connection: the peer speaks without TLS, or not on this port ({_words(error)})"
    return f"no secure connection: {_words(error)}"


def days_left(files: TlsFiles) -> int:
    """Return for how many days this side's certificate is still valid; negative when it has ended."""
    return (files.expires() - datetime.now(UTC)).days


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
    return str(reason).replace("_", " ").lower()


def _refuse_passphrase() -> str:
    # Without this OpenSSL would ask on the terminal, and a service would wait for ever.
    raise ValueError("the private key has a passphrase")
