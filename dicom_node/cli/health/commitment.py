"""What ``doctor`` looks at of storage commitment: who does not report, and what was given up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from db import commitments
from db.census import census
from db.lifecycle import JobKind, JobState
from db.session import Database
from dicom_node.cli.health.findings import Finding, Verdict
from dicom_node.settings import Settings

PATIENCE = timedelta(days=1)


def check_commitment(settings: Settings, database: Database) -> Iterator[Finding]:
    """Look for deliveries that nobody commits, and for commit jobs that were given up."""
    if not settings.uses_commitment:
        return
    with database.reading() as session:
        now = database.now_in(session)
        waiting = commitments.waiting_since(session, now - PATIENCE)
        failed = census(session, now).jobs[JobKind.COMMIT, JobState.FAILED]
    if failed:
        advice = (
            "look with 'dicom-node job list --kind commit --state failed': a destination keeps losing what "
            "it took, or a caller left without a commitment_address"
        )
        yield Finding("storage commitment", Verdict.PROBLEM, f"{failed} failed jobs", advice)
    elif waiting:
        advice = "check at the destination this node's address and port, and callers here; it is asked again"
        found = f"{waiting} deliveries wait for more than a day to be committed"
        yield Finding("storage commitment", Verdict.WARNING, found, advice)
    else:
        yield Finding("storage commitment", Verdict.OK, "nothing failed, nothing waits for more than a day")
