"""The journal of a node's listener: whoever starts first after a crash puts back what it holds."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from db.tables import Instance
from dicom_node.crashpoints import VARIABLE
from dicom_node.listener.journal_segment import files_of
from tests.listening import EXPLICIT_LITTLE, MG_FOR_PRESENTATION, encoded, mammogram, uid_of
from tests.running_node import START_S, RunningNode, until
from tests.simulators.raw_scu import AssociationEndedError, Proposal, RawScu

pytestmark = pytest.mark.timeout(600)

OBJECTS = 6


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    with RunningNode(tmp_path) as made:
        yield made


def listen(node: RunningNode, crash_at: str | None = None) -> subprocess.Popen[bytes]:
    """Start a listener and wait until it takes associations."""
    ready = node.log.count("listener.ready")
    process = node.start("listen", environment={VARIABLE: crash_at} if crash_at else None)
    until(lambda: node.log.count("listener.ready") > ready, START_S, "the listener's start")
    return process


def send(node: RunningNode, ordinals: Iterable[int]) -> None:
    with RawScu(node.address.port, Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE)) as scu:
        for ordinal in ordinals:
            dataset = mammogram(ordinal)
            assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000
        scu.release()


def instances(node: RunningNode) -> dict[str, Path]:
    """Return the file of each registered instance."""
    with node.database.reading() as session:
        rows = session.execute(select(Instance.sop_instance_uid, Instance.spool_name)).all()
    return {uid: node.data_dir / "spool" / name[:2] / name for uid, name in rows}


def journals(node: RunningNode) -> list[Path]:
    return list((node.data_dir / "journal").glob("*.journal"))


def journaled(node: RunningNode) -> set[str]:
    """Return the names of the files that the journals hold."""
    names: set[str] = set()
    for path in journals(node):
        with path.open("rb") as file:
            names |= {each.name for each in files_of(file.fileno()) if each is not None}
    return names


@pytest.mark.parametrize(
    "starter",
    [("listen",), ("dispatch",), ("work", "--queues", "deliver")],
    ids=lambda starter: starter[0],
)
def test_the_first_process_after_a_crash_puts_back_what_was_answered(
    node: RunningNode, starter: tuple[str, ...]
) -> None:
    listener = listen(node, crash_at=f"listener.durable:{OBJECTS}")
    with pytest.raises(AssociationEndedError):
        send(node, range(1, OBJECTS + 1))
    assert listener.wait(60) == -signal.SIGKILL
    names = journaled(node)
    assert len(names) >= 1, "a journal is emptied after a while, but not of what has no row"
    # What a crash of the machine may do besides: files lose their content, and the last rows are gone.
    for name in names:
        (node.data_dir / "spool" / name[:2] / name).write_bytes(b"")
    with node.database.transaction("test") as tx:
        tx.connection.execute(delete(Instance).where(Instance.spool_name.in_(names)))

    before = journals(node)
    node.start(*starter)
    until(lambda: not any(path.exists() for path in before), START_S, "the recovery")
    recovered = instances(node)
    assert set(recovered) == {uid_of(mammogram(ordinal)) for ordinal in range(1, OBJECTS + 1)}
    for ordinal in range(1, OBJECTS + 1):
        stored = recovered[uid_of(mammogram(ordinal))].read_bytes()
        assert stored.endswith(encoded(mammogram(ordinal)))


def test_a_node_that_stops_in_good_order_leaves_no_journal(node: RunningNode) -> None:
    listener = listen(node)
    send(node, range(1, OBJECTS + 1))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in journals(node))
    assert (node.data_dir / "journal").stat().st_mode & 0o777 == 0o700
    listener.send_signal(signal.SIGTERM)
    assert listener.wait(60) == 0
    assert journals(node) == []
    assert "journal" not in node.log


def test_a_node_without_a_journal_keeps_none(tmp_path: Path) -> None:
    settings = {"listener": {"minimum_free_bytes": 0, "journal": False}}
    with RunningNode(tmp_path, settings=settings) as node:
        listener = listen(node)
        send(node, range(1, OBJECTS + 1))
        assert len(instances(node)) == OBJECTS
        assert not (node.data_dir / "journal").exists()
        listener.send_signal(signal.SIGTERM)
        assert listener.wait(60) == 0
