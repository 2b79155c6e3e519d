"""The users that associations may name: a file of names with hashed passcodes, for the node's user alone.

Passcodes come over TLS alone and are kept as scrypt hashes (RFC 7914), each with its own salt.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from pathlib import Path

from dicom_node.errors import SettingsError

SHORTEST_PASSCODE = 12
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_COST, _BLOCK, _LANES, _SALT_BYTES = 1 << 14, 8, 1, 16
# Compared against where there is no such user, so that both answers take as long.
_NOBODY = (b"\0" * _SALT_BYTES, b"\0" * 64)
_LONGEST_PASSCODE = 1024


class Accounts:
    """User names with hashed passcodes in one JSON file.

    Parameters
    ----------
    path : pathlib.Path
        The file, 0600; no users while it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """Return the users, sorted.

        Raises
        ------
        SettingsError
            If the file is damaged or readable by others.
        """
        return sorted(self._read())

    def verify(self, name: bytes, passcode: bytes) -> bool:
        """Tell whether this is the passcode of this user.

        Parameters
        ----------
        name, passcode : bytes
            As received; UTF-8.

        Returns
        -------
        bool
            False also where the file cannot be used: nobody comes in by a fault.
        """
        try:
            kept = self._read().get(name.decode("utf-8", "replace"))
        except SettingsError:
            kept = None
        salt, expected = kept or _NOBODY
        found = _hashed(passcode[:_LONGEST_PASSCODE], salt)
        return hmac.compare_digest(found, expected) and kept is not None

    def add(self, name: str, passcode: str) -> None:
        """Add a user, or give one a new passcode.

        Raises
        ------
        SettingsError
            If the name or the passcode cannot be used, or the file is damaged or readable by others.
        """
        if not _NAME.fullmatch(name):
            raise SettingsError(f"{name!r} is not a user name: up to 64 letters, digits and . _ @ -")
        if not SHORTEST_PASSCODE <= len(passcode) <= _LONGEST_PASSCODE // 4:
            raise SettingsError(
                f"a passcode has {SHORTEST_PASSCODE} to {_LONGEST_PASSCODE // 4} characters; a machine types "
                "it, so let a machine make it: openssl rand -base64 24"
            )
        salt = secrets.token_bytes(_SALT_BYTES)
        self._write({**self._read(), name: (salt, _hashed(passcode.encode(), salt))})

    def remove(self, name: str) -> bool:
        """Remove a user; tell whether there was one."""
        users = self._read()
        if name not in users:
            return False
        del users[name]
        self._write(users)
        return True

    def _read(self) -> dict[str, tuple[bytes, bytes]]:
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise SettingsError(f"other users may read {self._path}; chmod 600 {self._path}")
                users = json.load(file)
            return {
                name: (bytes.fromhex(user["salt"]), bytes.fromhex(user["scrypt"]))
                for name, user in users.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(
                f"{self._path} is not a file of accounts; restore it, or remove it"
            ) from error

    def _write(self, users: dict[str, tuple[bytes, bytes]]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._path.with_name(f".{self._path.name}-{secrets.token_hex(4)}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({n: {"salt": s.hex(), "scrypt": h.hex()} for n, (s, h) in users.items()}, file)
            file.flush()
            os.fsync(descriptor)
        part.replace(self._path)


def _hashed(passcode: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(passcode, salt=salt, n=_COST, r=_BLOCK, p=_LANES)
