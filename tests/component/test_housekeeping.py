"""The chores of a node's clockwork."""

from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from dicom_node.errors import SpoolError
from workers.housekeeping import Chore, Housekeeper

PATIENCE_S = 60.0


@pytest.mark.parametrize(
    "fault", [SpoolError("the disk is full"), OSError(5, "Input/output error"), KeyError("a mistake of ours")]
)
def test_a_chore_that_fails_is_done_again_and_keeps_no_other_one_waiting(fault: Exception) -> None:
    times, again, other = [0], threading.Event(), threading.Event()

    def fail_once() -> None:
        times[0] += 1
        if times[0] == 1:
            raise fault
        again.set()

    housekeeper = Housekeeper()
    housekeeper.add(Chore("mending", fail_once, 0.01))
    housekeeper.add(Chore("retention", other.set, PATIENCE_S))
    with capture_logs() as logs:
        housekeeper.start()
        assert again.wait(PATIENCE_S)
        assert other.wait(PATIENCE_S)
        housekeeper.stop()

    assert [(entry["event"], entry["chore"]) for entry in logs] == [("chore.failed", "mending")]
    assert not any("a mistake of ours" in str(entry["reason"]) for entry in logs)
