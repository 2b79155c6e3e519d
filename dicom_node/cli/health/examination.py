"""What ``doctor`` looks at, in which order, with a database and without one.

Each check returns what it found and, where something is wrong, what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from db.errors import DatabaseError, DatabaseUnavailableError
from db.session import Database
from dicom_node.cli.health.audit_trail import check_audit, check_clock_by_checkpoints
from dicom_node.cli.health.commitment import check_commitment
from dicom_node.cli.health.defences import check_defences, check_private
from dicom_node.cli.health.findings import Finding, Verdict
from dicom_node.cli.health.listener import (
    check_journals,
    check_listener,
    check_ports,
    check_quarantine,
)
from dicom_node.cli.health.node import (
    check_backlog,
    check_broker,
    check_bundles,
    check_database,
    check_destinations,
    check_disk,
    check_growth,
    check_keeping_up,
    check_processes,
    check_stored_bundles,
)
from dicom_node.settings import Settings


def examine(settings: Settings, database: Database) -> Iterator[Finding]:
    """Run every check; one to which the database gives no answer is itself a finding."""
    yield check_disk(settings)
    yield check_private(settings)
    yield check_database(database)
    yield check_broker(settings)
    asked: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("growth", lambda: [check_growth(settings, database)]),
        ("processes", lambda: [check_processes(settings, database)]),
        ("listener", lambda: check_listener(settings, database)),
        ("work", lambda: [check_backlog(database)]),
        ("backlog", lambda: [check_keeping_up(database)]),
        ("audit trail", lambda: check_audit(settings, database)),
        ("bundles", lambda: check_bundles(settings, database)),
        ("storage commitment", lambda: check_commitment(settings, database)),
    )
    for name, ask in asked:
        try:
            yield from ask()
        except DatabaseError as error:
            yield _unanswered(name, error)
    yield from check_journals(settings)
    yield check_quarantine(settings)
    yield from check_defences(settings)
    yield from check_destinations(settings)


def examine_without_database(settings: Settings, error: DatabaseError) -> Iterator[Finding]:
    """Run every check that needs no database, where there is none.

    Parameters
    ----------
    settings : Settings
        The node's.
    error : DatabaseError
        Why it cannot be opened.
    """
    yield _unanswered("database", error)
    yield check_disk(settings)
    yield check_private(settings)
    yield check_broker(settings)
    yield check_clock_by_checkpoints(settings)
    yield from check_ports(settings)
    yield from check_journals(settings)
    yield check_quarantine(settings)
    yield from check_defences(settings)
    yield from check_stored_bundles(settings)
    yield from check_destinations(settings)


def _unanswered(check: str, error: DatabaseError) -> Finding:
    advice = "what else the database tells is checked after that"
    if isinstance(error, DatabaseUnavailableError):
        advice = "until then nothing is received or scored; nothing is lost"
    return Finding(check, Verdict.PROBLEM, str(error), advice)
