"""Tidying a folder of durable files after a crash."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import structlog

from dicom_node.spool import Spool

# Younger files may be between their sync and their row, in another process or on another host.
GRACE_S = 3600.0
# A crash leaves a few files behind. Where the database knows hardly any, it is the database that is wrong.
UNKNOWN_PER_KNOWN = 10
_ASKED_AT_ONCE = 10_000

_log = structlog.get_logger(__name__)


def sweep(spool: Spool, known: Callable[[Sequence[str]], Collection[str]]) -> None:
    """Remove half-written files, and whole files that no row names.

    A received file without a row was never answered with Success, so its sender still has it; a result file
    without a row belongs to an attempt that another one repeats. Where next to all files are unknown, none is
    removed: a lost database, or another one's, must not cost the files.

    Parameters
    ----------
    spool : Spool
        The folder.
    known : callable
        Returns which of the given names the database knows.
    """
    half_written = known_count = 0
    orphans: list[str] = []
    # Candidates first: a row committed between the question and the listing would be missing from the answer.
    # A folder at a time, because there may be millions of files, all of which the database knows.
    for found in spool.sweeps(frozenset(), grace_s=GRACE_S):
        half_written += found.parts_removed
        registered = _registered(found.orphans, known)
        known_count += len(registered)
        orphans += [name for name in found.orphans if name not in registered]
    if len(orphans) > UNKNOWN_PER_KNOWN * known_count:
        _log.error(
            "files.unknown",
            folder=spool.root.name,
            unknown=len(orphans),
            known=known_count,
            advice="they are left; see that the database is the one of this data directory",
        )
        orphans = []
    for orphan in orphans:
        spool.remove(orphan)
    _log.info("files.swept", folder=spool.root.name, half_written=half_written, orphans=len(orphans))


def _registered(names: Sequence[str], known: Callable[[Sequence[str]], Collection[str]]) -> set[str]:
    registered: set[str] = set()
    for start in range(0, len(names), _ASKED_AT_ONCE):
        registered.update(known(names[start : start + _ASKED_AT_ONCE]))
    return registered
