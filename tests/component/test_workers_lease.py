"""A lease keeps a job while its worker lives, tells when it is lost, and ends a worker that hangs."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.errors import LeaseLostError
from db.jobs import Claim, claim
from db.lifecycle import JobKind, JobState
from db.session import Database
from db.tables import Job
from tests.steered_node import LISTENER, RULES, SteeredNode, four_views, on_sqlite
from tests.steered_node import WORKER as OWNER
from workers.exit_statuses import WorkerExit
from workers.lease import Lease

LEASE_S = 0.6
HARD_LIMIT_S = 600


@pytest.fixture
def claimed(database: Database) -> Claim:
    """A score job in hand, on a clock that really runs."""
    from db.handoff import register_instance

    for instance in four_views():
        with database.transaction(LISTENER) as tx:
            register_instance(tx, instance, RULES)
    with database.transaction(OWNER) as tx:
        found = claim(tx, JobKind.SCORE, lease_s=LEASE_S, max_attempts=5)
    assert found is not None
    return found


def claim_again(database: Database, worker: str) -> Claim | None:
    with database.transaction(worker) as tx:
        return claim(tx, JobKind.SCORE, lease_s=30, max_attempts=5)


def row(database: Database, claimed: Claim) -> Job:
    with database.reading() as session:
        return session.get_one(Job, claimed.job_id)


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        threading.Event().wait(0.02)


def test_a_living_worker_keeps_its_job_longer_than_the_lease(node: SteeredNode) -> None:
    node.receive(*four_views())
    claimed = node.claimed()

    def is_renewed() -> bool:
        return bool(node.job(claimed).lease_until == node.clock.time + timedelta(seconds=LEASE_S))

    with Lease(node.database, claimed, lease_s=LEASE_S, hard_limit_s=HARD_LIMIT_S) as lease:
        for _ in range(3):
            # The clock stands still until the test moves it: however slow a commit is, no lease ends of it.
            wait_for(is_renewed)
            assert claim_again(node.database, "other@host:1") is None
            node.clock.advance(0.9 * LEASE_S)
        lease.check()
    job = node.job(claimed)
    assert (job.state, job.attempts, job.lease_owner) == (JobState.RUNNING, 1, OWNER)


def test_a_lease_is_renewed_every_third_of_its_length(database: Database, claimed: Claim) -> None:
    ends = [row(database, claimed).lease_until or database.now()]
    lease_s = 3.0

    def is_renewed_in_time() -> bool:
        end = row(database, claimed).lease_until
        assert end is not None
        if end != ends[-1]:
            ends.append(end)
        # The first one also makes the lease longer. Where the machine stalled, the next ones show the beat.
        beats = itertools.pairwise(ends[1:])
        return any(later - earlier < timedelta(seconds=lease_s / 2) for earlier, later in beats)

    with Lease(database, claimed, lease_s=lease_s, hard_limit_s=HARD_LIMIT_S):
        wait_for(is_renewed_in_time)


def test_after_the_block_nothing_renews_the_lease(database: Database, claimed: Claim) -> None:
    with Lease(database, claimed, lease_s=LEASE_S, hard_limit_s=HARD_LIMIT_S):
        pass
    wait_for(lambda: claim_again(database, "other@host:1") is not None)
    assert row(database, claimed).attempts == 2


def test_a_worker_whose_job_went_to_another_is_told_and_its_heartbeat_writes_nothing(
    database: Database, claimed: Claim
) -> None:
    # The worker was stopped (SIGSTOP, a swapped-out machine) for longer than its lease.
    wait_for(lambda: claim_again(database, "other@host:1") is not None)
    taken = row(database, claimed)
    with Lease(database, claimed, lease_s=LEASE_S, hard_limit_s=HARD_LIMIT_S) as lease:
        wait_for(lambda: _is_lost(lease))
        with pytest.raises(LeaseLostError, match=claimed.job_id):
            lease.check()
    job = row(database, claimed)
    assert (job.lease_owner, job.attempts, job.lease_until) == ("other@host:1", 2, taken.lease_until)


def _is_lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLostError:
        return True
    return False


@on_sqlite
def test_a_job_that_outlasts_the_hard_limit_ends_its_process_and_another_gets_it(
    node: SteeredNode, tmp_path: Path
) -> None:
    node.receive(*four_views())
    child = textwrap.dedent(
        """
        import sys, threading
        from pathlib import Path
        from db.audit.trail import AuditTrail
        from db.jobs import claim
        from db.audit.keys import AuditKey
        from db.lifecycle import JobKind
        from db.session import Database
        from workers.lease import Lease

        url, key = sys.argv[1:]
        database = Database(url, AuditTrail(AuditKey.load(Path(key))))
        with database.transaction("hanging@host:1") as tx:
            found = claim(tx, JobKind.SCORE, lease_s=0.6, max_attempts=5)
        with Lease(database, found, lease_s=0.6, hard_limit_s=0.5):
            threading.Event().wait(300)  # native code that never returns
        """
    )
    url = node.database.engine.url.render_as_string(hide_password=False)
    key = tmp_path / "keys" / "audit.key"
    ended = subprocess.run([sys.executable, "-c", child, url, str(key)], timeout=120, check=False)
    assert ended.returncode == WorkerExit.HARD_LIMIT == 75
    opened = Database(url, AuditTrail(AuditKey.load(key)))
    (job,) = node.jobs()
    assert (job.state, job.lease_owner) == (JobState.RUNNING, "hanging@host:1")
    wait_for(lambda: claim_again(opened, "fresh@host:2") is not None)
    opened.close()


@on_sqlite
def test_the_hard_limit_holds_while_the_database_hangs_and_the_heartbeat_with_it(
    node: SteeredNode, tmp_path: Path
) -> None:
    node.receive(*four_views())
    child = textwrap.dedent(
        """
        import sqlite3, sys, threading
        from pathlib import Path
        from db.audit.trail import AuditTrail
        from db.jobs import claim
        from db.audit.keys import AuditKey
        from db.lifecycle import JobKind
        from db.session import Database
        from workers.lease import Lease

        url, key = sys.argv[1:]
        database = Database(url, AuditTrail(AuditKey.load(Path(key))), lock_timeout_s=600)
        with database.transaction("hanging@host:1") as tx:
            found = claim(tx, JobKind.SCORE, lease_s=0.3, max_attempts=5)
        other = sqlite3.connect(database.engine.url.database, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with Lease(database, found, lease_s=0.3, hard_limit_s=1):
            threading.Event().wait(300)
        """
    )
    url = node.database.engine.url.render_as_string(hide_password=False)
    key = tmp_path / "keys" / "audit.key"
    ended = subprocess.run([sys.executable, "-c", child, url, str(key)], timeout=120, check=False)
    assert ended.returncode == WorkerExit.HARD_LIMIT


@on_sqlite
def test_a_worker_that_cannot_reach_the_database_for_a_whole_lease_stops_by_itself(
    database: Database, claimed: Claim
) -> None:
    """Whoever claims next cannot know of it: it must not go on as if the job were its own."""
    url = database.engine.url.render_as_string(hide_password=False)
    cut_off = Database(url, database.trail, lock_timeout_s=0.05)
    other = sqlite3.connect(str(database.engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Lease(cut_off, claimed, lease_s=2.0, hard_limit_s=HARD_LIMIT_S) as lease:
        lease.check()
        wait_for(lambda: _is_lost(lease))
    other.rollback()
    other.close()
    cut_off.close()
    assert row(database, claimed).lease_owner == OWNER, "it wrote nothing"


def test_work_without_a_hard_limit_may_last(database: Database, claimed: Claim) -> None:
    with Lease(database, claimed, lease_s=LEASE_S, hard_limit_s=None) as lease:
        before = row(database, claimed).lease_until
        wait_for(lambda: row(database, claimed).lease_until != before)
        lease.check()
