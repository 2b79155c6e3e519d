"""The two secrets of the audit trail, each in a file of its own that only the node's account can read.

The audit key file holds every HMAC key that the chain was ever signed with, oldest first; which of them
signs the next row is decided by the chain itself (see :mod:`db.audit.trail`), so that a rotation reaches
every running process with its next row. The checkpoint key signs what is written outside the database.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from db.errors import AuditError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_BYTES = 32


class AuditKey:
    """The HMAC-SHA256 key of the audit chain, with the retired ones that still verify old rows.

    Parameters
    ----------
    path : pathlib.Path
        The key file, one hexadecimal key of 32 bytes per line, oldest first.
    secrets_by_id : dict of str to bytes
        The file's keys by their id, oldest first.
    """

    def __init__(self, path: Path, secrets_by_id: dict[str, bytes]) -> None:
        self.path = path
        self._secrets = secrets_by_id
        self._ready: dict[str, hmac.HMAC] = {}

    @classmethod
    def load(cls, path: Path) -> AuditKey:
        """Read the key file.

        Raises
        ------
        db.errors.AuditError
            If the file is missing, readable by others, or not a key file.
        """
        lines = _read_private(path).decode("ascii", "replace").split()
        try:
            keys = [bytes.fromhex(line) for line in lines]
        except ValueError:
            keys = []
        if not keys or any(len(key) != SECRET_BYTES for key in keys):
            raise AuditError(
                f"{path} is not an audit key file; restore it from the backup of the node's keys"
            )
        return cls(path, {key_id_of(key): key for key in keys})

    @classmethod
    def load_or_create(cls, path: Path) -> AuditKey:
        """Read the key file, or make one with a new random key; safe when several processes start at once.

        Raises
        ------
        db.errors.AuditError
            If the file is readable by others or not a key file.
        """
        if not is_there(path):
            _write_private(path, _key_line(secrets.token_bytes(SECRET_BYTES)), replace=False)
        return cls.load(path)

    @property
    def newest_id(self) -> str:
        """The id of the newest key: the one that signs the first row of an empty trail."""
        return list(self._secrets)[-1]

    def knows(self, key_id: str) -> bool:
        """Whether a key is in the file, as far as it was read."""
        return key_id in self._secrets

    def reload(self) -> None:
        """Read the file again, because another process may have added a key."""
        self._secrets = AuditKey.load(self.path)._secrets

    def add_new(self) -> str:
        """Add a new random key to the file and return its id; nothing is signed with it yet."""
        self.reload()
        key = secrets.token_bytes(SECRET_BYTES)
        lines = b"".join(_key_line(known) for known in self._secrets.values())
        _write_private(self.path, lines + _key_line(key), replace=True)
        self._secrets[key_id_of(key)] = key
        return key_id_of(key)

    def mac(self, key_id: str, prev: str, payload: str) -> str:
        """Return HMAC-SHA256(key, prev || payload) in hexadecimal.

        Parameters
        ----------
        key_id : str
            Which key.
        prev : str
            The mac of the row before, 64 hexadecimal digits; fixed width keeps the concatenation unambiguous.
        payload : str
            The row's canonical text.
        """
        # A key is made ready once: that takes as long as a short payload.
        ready = self._ready.get(key_id)
        if ready is None:
            ready = self._ready[key_id] = hmac.new(self._secrets[key_id], digestmod="sha256")
        digest = ready.copy()
        digest.update((prev + payload).encode())
        return digest.hexdigest()


class CheckpointKey:
    """The Ed25519 key that signs checkpoints; its public half verifies them on any other machine."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @staticmethod
    def make_if_absent(path: Path) -> None:
        """Make the key file, 32 bytes in hexadecimal; safe when several processes start at once."""
        if not is_there(path):
            _write_private(path, _key_line(secrets.token_bytes(SECRET_BYTES)), replace=False)

    @classmethod
    def load_or_create(cls, path: Path) -> CheckpointKey:
        """Read the key file, or make one.

        Raises
        ------
        db.errors.AuditError
            If the file is readable by others or not a key file.
        """
        cls.make_if_absent(path)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> CheckpointKey:
        """Read the key file; who verifies must never make a new one.

        Raises
        ------
        db.errors.AuditError
            If the file is missing, readable by others, or not a key file.
        """
        # Late, here and below: who writes events needs none of it, and a listener stays small.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            raw = bytes.fromhex(_read_private(path).decode("ascii", "replace"))
            return cls(Ed25519PrivateKey.from_private_bytes(raw))
        except ValueError:
            raise AuditError(
                f"{path} is not a checkpoint key file; restore it from the backup of the node's keys"
            ) from None

    @property
    def public_key(self) -> str:
        """The public key, base64; publish it to whoever checks the trail."""
        return base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    def sign(self, message: bytes) -> str:
        """Return the signature, base64."""
        return base64.b64encode(self._private.sign(message)).decode()


def signature_is_valid(public_key: str, message: bytes, signature: str) -> bool:
    """Whether an Ed25519 signature (base64) by a public key (base64) covers a message."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        public.verify(base64.b64decode(signature, validate=True), message)
    except (ValueError, InvalidSignature):
        return False
    return True


def is_public_key(text: str) -> bool:
    """Whether a text can be an Ed25519 public key (base64)."""
    try:
        return len(base64.b64decode(text, validate=True)) == SECRET_BYTES
    except ValueError:
        return False


def key_id_of(key: bytes) -> str:
    """Return a key's name: 16 hexadecimal digits of its SHA-256; tells nothing about a random key."""
    return hashlib.sha256(b"dicom-node audit key" + key).hexdigest()[:16]


def is_there(path: Path) -> bool:
    """Whether a key file exists.

    Raises
    ------
    db.errors.AuditError
        If its folder is closed to this user.
    """
    try:
        return path.exists()
    except PermissionError as error:
        raise AuditError(
            f"the key folder {path.parent} is closed to this user; run this as the node's user, or correct "
            "the folder's owner"
        ) from error


def _key_line(key: bytes) -> bytes:
    """Spell a key as a line of its file."""
    return key.hex().encode() + b"\n"


def _read_private(path: Path) -> bytes:
    """Read a secret file, refusing one that others could have read or changed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise AuditError(
            f"the key file {path} is not there; restore it, or, where no node ever ran here, start one with "
            "'dicom-node serve'"
        ) from error
    except OSError as error:
        raise AuditError(
            f"the key file {path} cannot be read ({error.strerror}); restore it or correct its owner"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise AuditError(f"the key file {path} can be read by other accounts; run: chmod 600 {path}")
        return file.read()


def _write_private(path: Path, content: bytes, *, replace: bool) -> None:
    """Write a secret file durably with mode 0600, whole or not at all.

    Without ``replace`` a file that another process made in the meantime is left as it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_durably(path, content, replace=replace)
    except OSError as error:
        raise AuditError(
            f"the key file {path} cannot be written ({error.strerror}); make its folder writable for the "
            "node's user, free some space, or name another folder (audit.key_dir)"
        ) from error


def _write_durably(path: Path, content: bytes, *, replace: bool) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            part.replace(path)
        else:
            _link_if_absent(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync_directory(path.parent)


def _link_if_absent(part: Path, path: Path) -> None:
    """Give a finished file its name unless the name is taken."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return


def sync_directory(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
