"""A private certificate authority of a test's own, and what it signs."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dicom_node.tls import TlsFiles

NOW = datetime.now(UTC)


class Authority:
    """Signs certificates.

    Parameters
    ----------
    folder : pathlib.Path
        Where its files go.
    name : str
        Its common name, and the name of its file.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.path = folder / f"{name}.pem"
        certificate = (
            self._builder(self._name, self._key, NOW + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *hosts: str, days: float = 30, signs_itself: bool = False) -> TlsFiles:
        """Make a certificate with its key.

        Parameters
        ----------
        name : str
            Common name, and name of the files.
        *hosts : str
            Subject alternative names: addresses or DNS names.
        days : float
            How long it is valid; negative: it has ended.
        signs_itself : bool
            Whether it is self-signed instead of signed by the authority.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(
            _named(name) if signs_itself else self._name, key, NOW + timedelta(days=days), name
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(h) for h in hosts]), False
            )
        certificate = builder.sign(key if signs_itself else self._key, hashes.SHA256())
        files = TlsFiles(self._folder / f"{name}.pem", self._folder / f"{name}.key", self.path)
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.private_key.touch(0o600)
        files.private_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def _builder(
        self,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        until: datetime,
        subject: str | None = None,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .issuer_name(issuer)
            .subject_name(_named(subject) if subject else issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=60))
            .not_valid_after(until)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
