"""A database that is lost is never begun anew in silence: what was received is worth more than a start."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from dicom_node.cli.processes.database_file import DatabaseFile
from dicom_node.cli.processes.supervisor import Part, Supervisor
from dicom_node.settings import load
from tests.command_line import command
from tests.component.test_listener_crash import rows
from tests.listening import MG_FOR_PRESENTATION, encoded, mammogram, uid_of
from tests.running_node import RunningNode, until
from tests.simulators.raw_scu import AssociationEndedError, Proposal, RawScu

REFUSED_FOR_WANT_OF_RESOURCES = 0xA700


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """The data directory of a node that was in use."""
    data_dir = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", data_dir).status == 0
    return data_dir


@pytest.mark.parametrize("loss", ["removed", "emptied"])
@pytest.mark.parametrize("asked", [("db", "upgrade"), ("study", "list")], ids=" ".join)
def test_a_node_whose_database_is_gone_refuses_to_go_on(
    used: Path, loss: str, asked: tuple[str, ...]
) -> None:
    file = used / "node.db"
    file.unlink()
    if loss == "emptied":
        file.touch()

    answers = [command(*asked, "--data-dir", used) for _ in range(2)]

    assert [answer.status for answer in answers] == [7, 7], "a second try makes none either"
    for answer in answers:
        assert "restore it from the backup" in " ".join(answer.err.split())


def test_a_start_that_is_refused_leaves_no_file_that_others_take_for_one_to_upgrade(used: Path) -> None:
    (used / "node.db").unlink()
    assert command("dispatch", "--data-dir", used).status == 7
    assert sorted(used.glob("node.db*")) == []
    assert "restore it from the backup" in " ".join(command("status", "--data-dir", used).err.split())


def test_whoever_moves_the_keys_away_too_begins_anew(used: Path) -> None:
    (used / "node.db").unlink()
    (used / "keys").rename(used / "old-keys")
    assert command("db", "upgrade", "--data-dir", used).status == 0


def test_doctor_tells_a_lost_database_and_checks_the_rest(used: Path) -> None:
    (used / "node.db").unlink()
    rows = {row["check"]: row for row in command("doctor", "--json", "--data-dir", used).json}
    assert rows["database"]["verdict"] == "problem"
    assert "restore it from the backup" in rows["database"]["found"]
    assert rows["disk"]["verdict"] in ("ok", "warning")


def test_a_file_that_was_replaced_is_another(used: Path) -> None:
    file = DatabaseFile(load(config_file=None, flags={"data_dir": used}))
    file.require()
    copy = used / "copy"
    copy.write_bytes((used / "node.db").read_bytes())
    copy.replace(used / "node.db")
    with pytest.raises(Exception, match="moved, removed or replaced"):
        file.require()
    with pytest.raises(Exception, match="restore the file"):
        file.require_for_good()


def test_a_listener_whose_database_is_moved_away_ends_and_loses_nothing(tmp_path: Path) -> None:
    settings = {"completeness": {"standard_views": [], "quiet_period_s": 600.0}}
    with RunningNode(tmp_path, settings=settings) as node:
        listener = node.start("listen")
        until(lambda: "listener.ready" in node.log, 60, "the start")
        proposal = Proposal(MG_FOR_PRESENTATION, "1.2.840.10008.1.2.1")
        with RawScu(node.address.port, proposal, called="DICOM_NODE") as scanner:
            image = mammogram()
            assert scanner.store(encoded(image), MG_FOR_PRESENTATION, str(uid_of(image))) == 0
            for file in node.data_dir.glob("node.db*"):
                file.rename(tmp_path / file.name)
            later = mammogram(2)
            try:
                status = scanner.store(encoded(later), MG_FOR_PRESENTATION, str(uid_of(later)))
            except (AssociationEndedError, OSError, AssertionError):
                status = None  # it had ended before
        assert status in (None, 0, REFUSED_FOR_WANT_OF_RESOURCES)
        assert listener.wait(60) == 7
        assert "moved, removed or replaced" in node.log
        assert "Traceback" not in node.log
        for file in tmp_path.glob("node.db*"):
            file.rename(node.data_dir / file.name)
        node.start("listen")
        until(lambda: node.log.count("listener.ready") == 2, 60, "the second start")
        stored = {row.sop_instance_uid for row in rows(node.database)}
        assert str(uid_of(image)) in stored
        assert status != 0 or str(uid_of(later)) in stored, "what was answered with Success is there"


@pytest.mark.parametrize("status", [3, 7])
def test_a_part_that_will_refuse_again_stops_the_whole_node(status: int) -> None:
    refusing = Part("listen", [sys.executable, "-c", f"raise SystemExit({status})"])
    waiting = Part("dispatch", ["sleep", "600"])
    assert Supervisor([waiting, refusing]).run() == status
    assert [child for child in psutil.Process().children() if child.name() == "sleep"] == []
