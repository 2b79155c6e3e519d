"""A change of bundles dies half-way: the old one answers or the new one does, never half of one (S13)."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from db import deployments
from db.deployments import BundleFacts
from db.tables import AuditEvent
from models import bundle
from models.store import BundleStore
from tests.programs import needs
from tests.steered_node import TASK, SteeredNode, on_sqlite
from tests.unit.small_bundle import write_small_bundle

OLD, NEW = "a" * 64, "b" * 64
STUDY = "1.2.3"


@pytest.fixture(autouse=True)
def strace() -> str:
    """Bring faults about at calls of the kernel."""
    return needs("strace", "strace")


def killed(fault: str, program: str, *arguments: str) -> int:
    """Run a program that dies at a call of the kernel; return its exit status."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    calls = fault.partition(":")[0]
    traced = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={fault}", *command]
    return subprocess.run(traced, timeout=120, check=False).returncode


@pytest.mark.parametrize(
    "fault", ["fsync:signal=KILL:when=1", "fsync:signal=KILL:when=3", "rename:signal=KILL:when=1"]
)
def test_a_store_whose_writer_died_holds_whole_bundles_alone_and_takes_the_bundle_again(
    tmp_path: Path, fault: str
) -> None:
    made = write_small_bundle(tmp_path / "bundle", seed=1)
    store = BundleStore(tmp_path / "store")
    program = """
        import sys
        from pathlib import Path
        from models.store import BundleStore
        BundleStore(Path(sys.argv[1])).add(Path(sys.argv[2]))
    """
    status = killed(fault, program, str(tmp_path / "store"), str(made.path))
    assert status == -signal.SIGKILL
    for digest in store.digests():
        bundle.read(store.path_of(digest), digest=digest)
    left = [entry.name for entry in (tmp_path / "store").iterdir() if entry.name.startswith(".")]
    assert store.add(made.path) == made.identity.digest
    assert set(left) <= {entry.name for entry in (tmp_path / "store").iterdir()}, "it may still be written"
    assert store.digests() == (made.identity.digest,)
    BundleStore(tmp_path / "store", abandoned_after_s=0).add(
        write_small_bundle(tmp_path / "other", seed=2).path
    )
    assert not list((tmp_path / "store").glob(".*")), "what a dead writer left is removed in time"
    bundle.read(store.path_of(made.identity.digest), digest=made.identity.digest)


@on_sqlite
@pytest.mark.parametrize("fault", ["pwrite64:signal=KILL:when=1", "fdatasync:signal=KILL:when=1"])
def test_a_switch_that_died_in_its_commit_leaves_one_bundle_answering_with_its_event_or_without_either(
    node: SteeredNode, tmp_path: Path, fault: str
) -> None:
    with node.transaction("anna") as tx:
        for digest in (OLD, NEW):
            deployments.add_bundle(tx, BundleFacts(digest, "n", digest[:1], TASK, demonstration=True))
        deployments.activate(tx, OLD)
    program = """
        import sys
        from pathlib import Path
        from db import deployments
        from db.audit.trail import AuditTrail
        from db.audit.keys import AuditKey
        from db.session import Database
        database = Database(sys.argv[1], AuditTrail(AuditKey.load(Path(sys.argv[2]))))
        with database.transaction("anna") as tx:
            deployments.activate(tx, sys.argv[3])
    """
    url = node.database.engine.url.render_as_string(hide_password=False)
    status = killed(fault, program, url, str(tmp_path / "keys" / "audit.key"), NEW)
    assert status == -signal.SIGKILL

    with node.reading() as session:
        answering = deployments.answering(session, TASK, STUDY)
    assert answering is not None
    told = [event.bundle for event in node.rows(AuditEvent, AuditEvent.action == "bundle.activated")]
    assert answering.digest == told[-1]
    assert answering.digest in (OLD, NEW)
    with node.transaction("anna") as tx:
        deployments.activate(tx, NEW)
    with node.reading() as session:
        now = deployments.answering(session, TASK, STUDY)
    assert now is not None
    assert now.digest == NEW
