"""Digests of bundles as people type them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from db.session import Database


def full_digest(database: Database, beginning: str) -> str:
    """Complete the beginning of a digest.

    Parameters
    ----------
    database : Database
        Knows the bundles.
    beginning : str
        As many characters as only one of them begins with.

    Raises
    ------
    UnknownRecordError
        If no bundle, or more than one, begins so.
    """
    from db import listing
    from db.errors import UnknownRecordError

    with database.reading() as session:
        found = [row["digest"] for row in listing.bundles(session) if row["digest"].startswith(beginning)]
    if len(found) != 1:
        count = "no bundle begins" if not found else f"{len(found)} bundles begin"
        raise UnknownRecordError(f"{count} with {beginning!r}; 'dicom-node model list' shows all")
    digest: str = found[0]
    return digest
