"""The supervisor of a node's parts."""

from __future__ import annotations

from pathlib import Path

from dicom_node.cli.supervisor import Part, Supervisor


def test_a_death_is_told_again_until_what_follows_from_it_is_done(tmp_path: Path) -> None:
    dies_once = f"test -e {tmp_path}/died && exec sleep 600; touch {tmp_path}/died; exit 1"
    told: list[int] = []

    def note(_part: Part, pid: int) -> bool:
        told.append(pid)
        if len(told) == 2:
            supervisor.stop()
        return len(told) == 2

    supervisor = Supervisor([Part("score-1", ["sh", "-c", dies_once])], note)
    assert supervisor.run() == 0
    assert len(told) == 2
    assert told[0] == told[1]
