"""A train job runs a recipe in a child process and adds what it made; the child never outlives its job."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.deployments import BundleFacts, add_bundle
from db.errors import LeaseLostError
from db.jobs import Claim
from db.lifecycle import JobKind, JobState
from db.queueing import queue_training
from dicom_node.cli.exit_codes import ExitCode, exit_code_of
from tests.steered_node import BUNDLE, SteeredNode, on_sqlite
from training.errors import RunInUseError
from workers.claim_loop import ClaimLoop, Terms
from workers.lease import Lease
from workers.retry import Policy
from workers.training_run import Trainer, TrainingError

pytestmark = on_sqlite
TERMS = Terms(lease_s=30, hard_limit_s=900, policy=Policy(attempts=2, backoff_max_s=1))


def recipe(tmp_path: Path, body: str) -> tuple[str, ...]:
    """Return the command of a console script whose ``train`` does what the test says."""
    script = tmp_path / "recipe.sh"
    script.write_text("#!/bin/sh\n" + textwrap.dedent(body))
    script.chmod(0o700)
    return (str(script),)


def endless(pid_file: Path) -> str:
    """Return a recipe that tells its process and goes on; the file appears with the number in it."""
    return f"echo $$ > {pid_file}.part; mv {pid_file}.part {pid_file}; exec sleep 600"


def trainer(
    node: SteeredNode,
    tmp_path: Path,
    body: str,
    *,
    added: list[Path] | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Trainer:
    def add(folder: Path) -> str:
        if added is not None:
            added.append(folder)
        with node.transaction("train@host:1") as tx:
            add_bundle(tx, BundleFacts(BUNDLE, "n", "1", "mammography_malignancy", True))
        return BUNDLE

    return Trainer(
        node.database,
        command=recipe(tmp_path, body),
        output_dir=tmp_path / "training",
        add_bundle=add,
        is_stopping=is_stopping,
    )


@pytest.fixture
def claimed(node: SteeredNode) -> Claim:
    with node.transaction("anna") as tx:
        queue_training(tx, recipe="demonstration", order={"seed": 7})
    return node.claimed(JobKind.TRAIN)


def run(node: SteeredNode, doing: Trainer, claimed: Claim) -> None:
    with Lease(node.database, claimed, lease_s=30, hard_limit_s=900) as lease:
        doing.train(claimed, lease)


def do_one(node: SteeredNode, doing: Trainer) -> None:
    """Do a train job as a worker does."""
    loop = ClaimLoop(node.database, JobKind.TRAIN, doing.train, terms=TERMS, owner="train@host:1")
    assert loop.drain(limit=1) == 1


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never appeared"
        threading.Event().wait(0.02)


def test_the_recipe_gets_the_orders_options_and_its_bundle_is_added_not_activated(
    node: SteeredNode, claimed: Claim, tmp_path: Path
) -> None:
    added: list[Path] = []
    run(node, trainer(node, tmp_path, 'echo "$@"; mkdir -p "$4"', added=added), claimed)
    (job,) = node.jobs(JobKind.TRAIN)
    assert (job.state, job.bundle_digest) == (JobState.DONE, BUNDLE)
    (folder,) = added
    said = (tmp_path / "training" / claimed.job_id / "run-1.log").read_text().split()
    assert said == ["train", "demonstration", "--out", str(folder), "--seed", "7"]
    assert "bundle.activated" not in node.actions()


def test_a_failed_run_adds_nothing_and_names_its_log(
    node: SteeredNode, claimed: Claim, tmp_path: Path
) -> None:
    added: list[Path] = []
    with pytest.raises(TrainingError, match=r"status 9; see .*run-1\.log"):
        run(node, trainer(node, tmp_path, "exit 9", added=added), claimed)
    assert added == []
    (job,) = node.jobs(JobKind.TRAIN)
    assert job.state == JobState.RUNNING, "the claim loop decides what follows"


def test_a_run_that_keeps_failing_is_given_up(node: SteeredNode, tmp_path: Path) -> None:
    with node.transaction("anna") as tx:
        queue_training(tx, recipe="demonstration", order={"seed": 7})
    loop = ClaimLoop(
        node.database,
        JobKind.TRAIN,
        trainer(node, tmp_path, "exit 9").train,
        terms=TERMS,
        owner="train@host:1",
    )
    for _ in range(3):
        loop.drain()
        node.clock.advance(60)
    (job,) = node.jobs(JobKind.TRAIN)
    assert (job.state, job.attempts, job.error_code) == (JobState.FAILED, 2, "TRAINING")


@pytest.mark.parametrize("status", [ExitCode.USAGE, ExitCode.REFUSED])
def test_a_run_that_refuses_its_data_is_not_tried_again(
    node: SteeredNode, tmp_path: Path, status: ExitCode
) -> None:
    with node.transaction("anna") as tx:
        queue_training(tx, recipe="run", order={"name": "mine"})
    handler = trainer(node, tmp_path, f"exit {int(status)}").train
    loop = ClaimLoop(node.database, JobKind.TRAIN, handler, terms=TERMS, owner="train@host:1")
    loop.drain()
    (job,) = node.jobs(JobKind.TRAIN)
    assert (job.state, job.attempts, job.error_code) == (JobState.FAILED, 1, "TRAINING_REFUSED")
    assert "run-1.log" in job.error
    in_use = exit_code_of(RunInUseError("the folder of an attempt that has not ended yet"))
    assert in_use is ExitCode.UNAVAILABLE, "tried again"


def test_a_worker_that_is_told_to_stop_ends_the_run_and_gives_the_job_back(
    node: SteeredNode, tmp_path: Path, log: io.StringIO
) -> None:
    with node.transaction("anna") as tx:
        queue_training(tx, recipe="demonstration", order={"seed": 7})
    pid_file = tmp_path / "pid"
    stopping = threading.Event()
    doing = trainer(node, tmp_path, endless(pid_file), is_stopping=stopping.is_set)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(do_one, node, doing)
        wait_for(pid_file)
        stopping.set()
        running.result(timeout=60)
    (job,) = node.jobs(JobKind.TRAIN)
    assert (job.state, job.attempts) == (JobState.QUEUED, 0), "a stop costs no attempt"
    told = log.getvalue()
    assert "job.given_back" in told
    assert "job.done" not in told
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_lost_lease_ends_the_run(node: SteeredNode, claimed: Claim, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    doing = trainer(node, tmp_path, endless(pid_file))
    node.clock.advance(31)
    assert node.claim(JobKind.TRAIN, "other@host:2") is not None
    lease = Lease(node.database, claimed, lease_s=0.3, hard_limit_s=900)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(doing.train, claimed, lease)
        wait_for(pid_file)
        with lease, pytest.raises(LeaseLostError):
            running.result(timeout=60)
    (job,) = node.jobs(JobKind.TRAIN)
    assert (job.state, job.lease_owner) == (JobState.RUNNING, "other@host:2")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_run_that_is_killed_is_tried_again_in_a_folder_of_its_own(
    node: SteeredNode, tmp_path: Path
) -> None:
    with node.transaction("anna") as tx:
        job_id = queue_training(tx, recipe="demonstration", order={"seed": 7})
    added: list[Path] = []
    marker = tmp_path / "killed"
    body = f'mkdir -p "$4"; if [ ! -e {marker} ]; then touch {marker}; kill -{signal.SIGKILL.value} $$; fi'
    loop = ClaimLoop(
        node.database,
        JobKind.TRAIN,
        trainer(node, tmp_path, body, added=added).train,
        terms=TERMS,
        owner="train@host:1",
    )
    loop.drain()
    node.clock.advance(60)
    loop.drain()
    (job,) = node.jobs(JobKind.TRAIN)
    assert (job.id, job.state, job.attempts) == (job_id, JobState.DONE, 2)
    assert [folder.name.rpartition("-")[0] for folder in added] == ["bundle-2"]


def test_a_run_of_a_job_that_was_given_back_finds_nothing_of_the_run_before(
    node: SteeredNode, tmp_path: Path
) -> None:
    with node.transaction("anna") as tx:
        queue_training(tx, recipe="demonstration", order={"seed": 7})
    stopping = threading.Event()
    begun = tmp_path / "begun"
    body = f'mkdir "$4" || exit 7; if [ ! -e {begun} ]; then touch {begun}; exec sleep 600; fi'
    added: list[Path] = []
    doing = trainer(node, tmp_path, body, added=added, is_stopping=stopping.is_set)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(do_one, node, doing)
        wait_for(begun)
        stopping.set()
        running.result(timeout=60)
    stopping.clear()
    again = node.claimed(JobKind.TRAIN)
    assert again.fence == 1, "a stop costs no attempt"
    run(node, doing, again)
    (job,) = node.jobs(JobKind.TRAIN)
    assert job.state == JobState.DONE
    assert len(added) == 1


def test_a_run_dies_with_its_worker(node: SteeredNode, tmp_path: Path) -> None:
    with node.transaction("anna") as tx:
        queue_training(tx, recipe="demonstration", order={"seed": 7})
    pid_file = tmp_path / "pid"
    worker = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from db.audit.trail import AuditTrail
        from db.jobs import claim
        from db.audit.keys import AuditKey
        from db.lifecycle import JobKind
        from db.session import Database
        from workers.lease import Lease
        from workers.training_run import Trainer

        url, key, script, out = sys.argv[1:]
        database = Database(url, AuditTrail(AuditKey.load(Path(key))))
        with database.transaction("train@host:1") as tx:
            found = claim(tx, JobKind.TRAIN, lease_s=30, max_attempts=5)
        trainer = Trainer(
            database, command=(script,), output_dir=Path(out), add_bundle=str, is_stopping=lambda: False
        )
        with Lease(database, found, lease_s=30, hard_limit_s=None) as lease:
            trainer.train(found, lease)
        """
    )
    (script,) = recipe(tmp_path, endless(pid_file))
    url = node.database.engine.url.render_as_string(hide_password=False)
    arguments = [url, str(tmp_path / "keys" / "audit.key"), script, str(tmp_path / "training")]
    with subprocess.Popen([sys.executable, "-c", worker, *arguments]) as process:
        wait_for(pid_file)
        watched = os.pidfd_open(int(pid_file.read_text()))
        process.kill()
    try:
        ended, _, _ = select.select([watched], [], [], 60)
        assert ended, "the run outlived its worker"
    finally:
        os.close(watched)


def queue_run(node: SteeredNode) -> None:
    with node.transaction("anna") as tx:
        queue_training(tx, recipe="run", order={"set": ["task=idc", 'data_set="x"'], "name": "n"})


def test_a_run_on_a_data_set_gets_each_option_and_its_bundle_lies_within(
    node: SteeredNode, tmp_path: Path
) -> None:
    added: list[Path] = []
    queue_run(node)
    claimed = node.claimed(JobKind.TRAIN)
    doing = trainer(node, tmp_path, 'for word; do echo "$word"; done; echo "$OMP_NUM_THREADS"', added=added)
    run(node, doing, claimed)
    folder = tmp_path / "training" / claimed.job_id
    said = (folder / "run-1.log").read_text().splitlines()
    expected = ["train", "run", "--out", str(folder / "run"), "--resume"]
    assert said == [*expected, "--name", "n", "--set", "task=idc", "--set", 'data_set="x"', "1"]
    assert added == [folder / "run" / "bundle"]


def test_a_run_on_a_data_set_goes_on_where_a_stop_left_it(node: SteeredNode, tmp_path: Path) -> None:
    stopping = threading.Event()
    begun = tmp_path / "begun"
    body = (
        f'mkdir -p "$4"; if [ ! -e {begun} ]; then echo half > "$4/half"; touch {begun}; exec sleep 600; fi'
    )
    body += '; cat "$4/half"'
    added: list[Path] = []
    doing = trainer(node, tmp_path, body, added=added, is_stopping=stopping.is_set)
    queue_run(node)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(do_one, node, doing)
        wait_for(begun)
        stopping.set()
        running.result(timeout=60)
    stopping.clear()
    again = node.claimed(JobKind.TRAIN)
    run(node, doing, again)
    assert (tmp_path / "training" / again.job_id / "run-1.log").read_text() == "half\n"
    assert len(added) == 1


def test_a_kill_leaves_no_half_bundle_behind(node: SteeredNode, claimed: Claim, tmp_path: Path) -> None:
    remains = tmp_path / "training" / claimed.job_id / "bundle-1-0a1b2c3d"
    remains.mkdir(parents=True)
    (remains / "weights.safetensors").write_bytes(b"half")
    run(node, trainer(node, tmp_path, 'mkdir -p "$4"'), claimed)
    assert not remains.exists()
    assert len(list(remains.parent.glob("bundle-*"))) == 1
