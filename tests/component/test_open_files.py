"""A listener claims the open files that its connections need, and is not silent where it may have no more."""

from __future__ import annotations

import gc
import io
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node import installation
from tests.listening import listening
from tests.running_node import until
from tests.simulators.raw_scu import IMPLICIT_LITTLE, VERIFICATION, Proposal, associate_request

PATIENCE_S = 60
A_ASSOCIATE_AC = b"\x02"


@contextmanager
def no_more_open_files() -> Iterator[None]:
    """Let this process open nothing more."""
    gc.collect()  # what it closed later would be room for one file more
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_peer_for_whom_no_file_is_left_waits_and_the_log_says_why(tmp_path: Path, log: io.StringIO) -> None:
    with listening(tmp_path) as node, socket.socket() as peer:
        peer.settimeout(PATIENCE_S)
        with no_more_open_files():
            peer.connect(("127.0.0.1", node.port))
            peer.sendall(associate_request((Proposal(VERIFICATION, IMPLICIT_LITTLE),), "SCANNER", "NODE"))
            until(lambda: "listener.cannot_accept" in log.getvalue(), PATIENCE_S, "a word of it in the log")
        assert peer.recv(1) == A_ASSOCIATE_AC
    assert log.getvalue().count("listener.cannot_accept") == 1
    assert "ulimit -n" in log.getvalue()


@pytest.mark.parametrize(("may_have", "is_told"), [(100, True), (4096, False)])
def test_a_listener_takes_what_its_user_may_have_and_tells_where_it_is_too_little(
    tmp_path: Path, may_have: int, is_told: bool
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DICOM_NODE_")}
    with socket.create_server(("0.0.0.0", 0)) as taken:  # the listener ends where it would begin to listen
        ended = subprocess.run(
            [
                *("prlimit", f"--nofile=100:{may_have}", *installation.console_script(), "listen"),
                *("--data-dir", str(tmp_path / "data"), "--port", str(taken.getsockname()[1])),
            ],
            env=kept,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert "cannot be listened on" in ended.stderr
    assert ('"listener.few_open_files"' in ended.stderr) is is_told
