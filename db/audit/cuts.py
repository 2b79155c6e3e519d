"""Signed statements of where the oldest events of the trail were removed after their retention."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from db.audit.statements import read_statements
from db.canonical import canonical_json


@dataclass(frozen=True)
class Cut:
    """Where the trail was cut off.

    Attributes
    ----------
    seq, mac : int, str
        The last event that was removed.
    at : str
        When, UTC.
    node : str
        Who did it.
    archive_sha256 : str
        Of the file that holds the events.
    """

    seq: int
    mac: str
    at: str
    node: str
    archive_sha256: str

    def message(self) -> bytes:
        """Return the bytes that the signature covers; never those of a checkpoint."""
        return canonical_json({"statement": "cut", **asdict(self)}).encode()


def read_cuts(folder: Path, public_key: str) -> list[Cut]:
    """Read where the trail was cut, oldest first.

    Raises
    ------
    db.errors.AuditError
        If a line was not signed with this key, or is no cut.
    """
    return sorted(read_statements(folder, "cuts", Cut, public_key), key=lambda cut: cut.seq)
