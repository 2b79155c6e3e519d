"""`dicom-node doctor` finds what is wrong with a node, says what to do, and finds nothing in a sound one."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from db import deliveries, deployments, jobs, processes
from db.audit import sink_cursor
from db.audit.checkpoints import Checkpoint, CheckpointWriter
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import TIME_FORMAT, AuditTrail, read_head
from db.deployments import BundleFacts
from db.handoff import register_instance
from db.lifecycle import DeliveryEvent, JobKind
from db.session import Database
from db.tables import HostClock, Instance, Job, Process
from dicom_node.listener.journal import SEGMENT_BYTES, Journal
from dicom_node.listener.journal_segment import Segment
from dicom_node.spool import Spool
from models.store import BundleStore, released_bundle
from tests.command_line import Answer, command
from tests.free_ports import free_port
from tests.simulators.pacs import Behaviour, SimulatedPacs
from tests.steered_node import LISTENER, RULES, SteeredNode, four_views

SECRET = "quite-secret"
KINDS = ("listen", "dispatch", "score", "deliver", "train")


@dataclass
class Node:
    """A node's data directory, whose processes have just told that they live."""

    data_dir: Path
    database: Database
    pacs: SimulatedPacs
    config: Path

    def doctor(self) -> Answer:
        return command("doctor", "--json", "--data-dir", self.data_dir, "--config", self.config)

    def found(self, check: str) -> tuple[str, str, str]:
        """The verdict, the words and the advice of one check."""
        ((verdict, found, advice),) = [
            (row["verdict"], row["found"], row["advice"])
            for row in self.doctor().json
            if row["check"].startswith(check)
        ]
        return verdict, found, advice


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A sound node with a study that waits to be scored."""
    data_dir = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", data_dir).status == 0
    keys = data_dir / "keys"
    database = Database(f"sqlite:///{data_dir / 'node.db'}", AuditTrail(AuditKey.load(keys / "audit.key")))
    digest = BundleStore(data_dir / "bundles").add(released_bundle())
    with database.transaction("anna") as tx:
        facts = BundleFacts(digest, "phantoms", "1", "mammography_malignancy", demonstration=True)
        deployments.add_bundle(tx, facts)
        deployments.activate(tx, digest)
    sign(database)
    for instance in four_views():
        with database.transaction(LISTENER) as tx:
            register_instance(tx, instance, RULES)
    CheckpointWriter(data_dir / "checkpoints", CheckpointKey.load(keys / "checkpoint.key"), "NODE").write(
        database
    )
    with SimulatedPacs() as pacs:
        config = tmp_path / "node.toml"
        config.write_text(f'destinations = ["{pacs.destination}"]\n[listener]\nminimum_free_bytes = 1\n')
        sign(database)  # again: a sign is good for half a minute, which a slow disk may have taken meanwhile
        yield Node(data_dir, database, pacs, config)
    database.close()


def sign_checkpoint(node: Node) -> None:
    """Sign where the trail stands."""
    key = CheckpointKey.load(node.data_dir / "keys" / "checkpoint.key")
    CheckpointWriter(node.data_dir / "checkpoints", key, "NODE").write(node.database)


def sign(database: Database) -> None:
    """Let a process of each kind tell that it lives."""
    with database.transaction("anna") as tx:
        for kind in KINDS:
            processes.sign_of_life(tx, f"{kind}@host-a:7", kind)


def test_a_sound_node_has_no_problem(node: Node) -> None:
    rows = {row["check"]: row for row in node.doctor().json}

    assert [name for name, row in rows.items() if row["verdict"] == "problem"] == []
    # That the bundle is a demonstration, that any caller may store and who runs the tests, is true.
    told = {name for name, row in rows.items() if row["verdict"] == "warning"}
    assert told <= {"bundle for mammography_malignancy", "callers", "user"}
    sound = ("disk", "permissions", "database", "processes", "work", "backlog", "audit trail", "clock")
    assert [rows[name]["verdict"] for name in sound] == ["ok"] * len(sound)


@pytest.mark.parametrize("what", ["", "spool", "keys", "keys/checkpoint.key"])
def test_doctor_finds_what_other_users_may_read(node: Node, what: str) -> None:
    (node.data_dir / "spool").mkdir()
    exposed = node.data_dir / what
    exposed.chmod(0o755)

    verdict, found, advice = node.found("permissions")

    assert verdict == "problem"
    assert str(exposed) in found
    assert "chmod" in advice


def test_doctor_tells_of_an_audit_key_that_other_users_may_read_and_checks_the_rest(node: Node) -> None:
    (node.data_dir / "keys" / "audit.key").chmod(0o644)

    answer = node.doctor()

    assert answer.status == 1
    rows = {row["check"]: row for row in answer.json}
    assert "audit.key" in rows["database"]["found"], "no command uses such a key"
    assert "audit.key" in rows["permissions"]["found"]
    assert "chmod 600" in rows["permissions"]["advice"]
    assert rows["disk"]["verdict"] == "ok"


def test_doctor_finds_what_another_user_made_in_the_data_directory(node: Node) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    key = node.data_dir / "keys" / "audit.key"
    journal = node.data_dir / "journal" / "1.journal"
    journal.parent.mkdir(mode=0o700)
    journal.touch(mode=0o600)
    for made in (key, journal):
        os.chown(made, 4711, -1)

    verdict, found, advice = node.found("permissions")

    assert (verdict, str(key) in found) == ("problem", True)
    assert advice == f"chown -R {node.data_dir.stat().st_uid} {journal} {key}"


def test_without_its_database_everything_else_is_still_checked(node: Node) -> None:
    """PostgreSQL is away; beside that the node has three faults of another kind."""
    (node.data_dir / "results").mkdir()
    (node.data_dir / "results").chmod(0o755)
    weights = max((node.data_dir / "bundles").rglob("*"), key=lambda path: path.stat().st_size)
    weights.chmod(0o600)
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    node.pacs.behave(Behaviour.REFUSE_CONNECTION)
    settings = node.config.read_text()
    node.config.write_text(f'database_url = "postgresql+psycopg://n:{SECRET}@127.0.0.1:1/n"\n{settings}')

    answer = node.doctor()

    verdicts = {row["check"]: row["verdict"] for row in answer.json}
    (bundle,) = [check for check in verdicts if check.startswith("bundle ")]
    (echo,) = [check for check in verdicts if check.startswith("C-ECHO ")]
    problems = {check for check, verdict in verdicts.items() if verdict == "problem"}
    assert (answer.status, problems) == (1, {"database", "permissions", bundle, echo})
    assert {check: verdicts[check] for check in ("disk", "broker", "clock")} == dict.fromkeys(
        ("disk", "broker", "clock"), "ok"
    )
    assert {"port 11112", "callers", "user"} <= verdicts.keys()
    assert SECRET not in answer.out + answer.err
    (database,) = [row for row in answer.json if row["check"] == "database"]
    assert "check that it runs" in database["found"]
    assert "nothing is lost" in database["advice"]


def test_without_its_database_a_clock_that_was_set_back_shows_by_the_checkpoints(node: Node) -> None:
    key = CheckpointKey.load(node.data_dir / "keys" / "checkpoint.key")
    ahead = datetime.now(UTC) + timedelta(hours=1)
    signed = Checkpoint(1, "0" * 64, 1, ahead.strftime(TIME_FORMAT), "NODE")
    line = json.dumps({**asdict(signed), "signature": key.sign(signed.message())})
    (node.data_dir / "checkpoints" / "checkpoints-NODE.jsonl").write_text(line + "\n")
    (node.data_dir / "node.db").write_bytes(b"no database any more")

    verdict, found, advice = node.found("clock")

    assert verdict == "warning"
    assert re.search(r"3[56]\d\d s behind", found)
    assert "NTP" in advice
    assert node.found("database")[0] == "problem"


def test_a_question_that_the_database_does_not_answer_leaves_the_others(node: Node) -> None:
    with node.database.engine.begin() as connection:
        connection.execute(text("DROP TABLE process"))

    rows = {row["check"]: row for row in node.doctor().json}

    assert [rows[check]["verdict"] for check in ("processes", "listener")] == ["problem", "problem"]
    assert "db check" in rows["processes"]["found"]
    assert [rows[check]["verdict"] for check in ("work", "backlog", "audit trail")] == ["ok", "ok", "ok"]


def test_doctor_misses_a_listener_process_of_several(node: Node) -> None:
    node.config.write_text(node.config.read_text().replace("[listener]\n", "[listener]\nprocesses = 2\n"))
    verdict, found, advice = node.found("listener processes")
    assert (verdict, found) == ("problem", "1 of 2 on host-a")
    assert "the others go on" in advice

    with node.database.transaction("test") as tx:
        processes.sign_of_life(tx, "listen@host-a:8", "listen")

    assert node.found("listener processes")[0] == "ok"


def test_doctor_tells_who_has_the_listeners_port(node: Node) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        node.config.write_text(f"port = {port}\n{node.config.read_text()}")
        assert node.found("port")[:2] == ("ok", "the listener runs on another machine")

        with node.database.transaction("test") as tx:
            processes.goodbye(tx, "listen@host-a:7")
        verdict, found, advice = node.found("port")
        assert (verdict, f"process {os.getpid()} (" in found) == ("problem", True)
        assert "choose another port" in advice

        with node.database.transaction("test") as tx:
            processes.sign_of_life(tx, f"listen@{socket.gethostname()}:7", "listen")
        assert node.found("port")[:2] == ("ok", "the listener has it")

    assert node.found("port")[0] == "problem", "it lives and does not listen"
    with node.database.transaction("test") as tx:
        processes.goodbye(tx, f"listen@{socket.gethostname()}:7")
    assert node.found("port")[:2] == ("problem", "nobody listens: scanners cannot send")


LISTENS = """
import socket, sys
taken = socket.create_server(("127.0.0.1", 0))
print(taken.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_doctor_sends_nobody_to_end_a_listener_that_cannot_sign(node: Node) -> None:
    """On a full disk SQLite takes no sign of life: the listener runs, and is the one that has the port."""
    with node.database.transaction("test") as tx:
        processes.goodbye(tx, "listen@host-a:7")
    words = [sys.executable, "-c", LISTENS, "listen", "--data-dir", str(node.data_dir)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        node.config.write_text(f"port = {listener.stdout.readline()}\n{node.config.read_text()}")

        verdict, found, advice = node.found("port")

        listener.communicate()
    assert (verdict, f"this node's listener (process {listener.pid}) has it" in found) == ("problem", True)
    assert "disk" in advice
    assert "end" not in advice.split()


def test_doctor_finds_journals_of_a_crash_and_such_as_were_refused(node: Node) -> None:
    assert node.found("journals")[0] == "ok"
    folder = node.data_dir / "journal"
    living = Journal(folder, Spool(node.data_dir / "spool"), node.database.sync_commits)
    assert node.found("journals")[0] == "ok", "a listener that runs has one"
    living.close()

    Segment(folder / "1.journal", SEGMENT_BYTES).close(remove=False)
    verdict, found, advice = node.found("journals")
    assert (verdict, found.partition(" ")[0]) == ("warning", "1")
    assert "start the node" in advice

    (folder / "1.journal").rename(folder / "1.refused")
    verdict, found, advice = node.found("journals")
    assert verdict == "problem"
    assert "1.refused" in found
    assert "db check" in advice


def test_doctor_tells_of_what_only_looks_like_a_journal(node: Node) -> None:
    folder = node.data_dir / "journal"
    folder.mkdir(mode=0o700)
    (folder / "a.journal").mkdir()
    (folder / "b.journal").symlink_to(node.data_dir / "nothing")

    verdict, found, advice = node.found("journals")

    assert (verdict, "a.journal, b.journal" in found) == ("warning", True)
    assert f"out of {folder}" in advice


def test_doctor_finds_a_disk_that_is_nearly_full(node: Node) -> None:
    free = shutil.disk_usage(node.data_dir).free
    node.config.write_text(f"[listener]\nminimum_free_bytes = {2 * free}\n")

    verdict, found, advice = node.found("disk")

    assert verdict == "problem"
    assert "GiB free" in found
    assert "free space" in advice


def test_doctor_finds_a_disk_on_which_ordinary_objects_reach_into_the_reserve(node: Node) -> None:
    free = shutil.disk_usage(node.data_dir).free
    node.config.write_text(f"[listener]\nminimum_free_bytes = {free - (64 << 20)}\n")

    verdict, _, advice = node.found("disk")

    assert (verdict, "A700" in advice) == ("problem", True)


def test_doctor_tells_in_time_that_the_disk_fills_and_nothing_goes(node: Node) -> None:
    assert node.found("growth")[0] == "ok", "four small images fill no disk"
    tenth = shutil.disk_usage(node.data_dir).free // 10
    with node.database.transaction("anna") as tx:
        tx.session.execute(update(Instance).values(size_bytes=tenth // 4))

    verdict, found, advice = node.found("growth")

    assert verdict == "warning"
    assert "room for 10 days" in found or "room for 9 days" in found
    assert "retention.received_days" in advice


@pytest.mark.parametrize("kind", ["listen", "dispatch", "score", "deliver"])
def test_doctor_fails_where_a_process_is_missing_without_which_nothing_moves(node: Node, kind: str) -> None:
    with node.database.transaction("test") as tx:
        tx.session.get_one(Process, f"{kind}@host-a:7").seen_at = tx.now - timedelta(minutes=5)

    verdict, found, advice = node.found("processes")

    assert (verdict, found) == ("problem", f"not running: {kind}")
    assert advice.startswith("start the node")
    assert node.doctor().status == 1


def test_doctor_finds_a_worker_that_fell_silent(node: Node) -> None:
    with node.database.transaction("test") as tx:
        tx.session.get_one(Process, "score@host-a:7").seen_at = tx.now - timedelta(minutes=5)
        processes.sign_of_life(tx, "score@host-b:7", "score")

    verdict, found, advice = node.found("processes")

    assert verdict == "warning"
    assert "score@host-a:7" in found
    assert "nobody was started in its place" in advice
    assert "end the process" in advice


def test_doctor_finds_a_backlog_that_grows(node: Node) -> None:
    age(node, minutes=11)

    verdict, found, advice = node.found("backlog")

    assert verdict == "problem"
    assert "1 studies wait" in found
    assert "start more score workers" in advice


def test_doctor_tells_a_backlog_that_shrinks_apart(node: Node) -> None:
    age(node, minutes=20)
    with node.database.transaction("test") as tx:
        an_hour_ago = tx.now - timedelta(hours=1)
        times = {"created_at": an_hour_ago, "finished_at": tx.now, "next_try_at": an_hour_ago}
        tx.session.add(Job(id="a", kind=JobKind.SCORE, state="done", task="t", attempts=1, **times))

    verdict, found, advice = node.found("backlog")

    assert (verdict, "were done" in found) == ("warning", True)
    assert "shrinks" in advice


def age(node: Node, *, minutes: float) -> None:
    """Let the waiting study have come earlier."""
    with node.database.transaction("test") as tx:
        tx.session.execute(update(Job).values(created_at=tx.now - timedelta(minutes=minutes)))


def test_doctor_finds_results_that_nobody_takes(node: Node) -> None:
    assert node.found("work")[0] == "ok"
    steered = SteeredNode(node.database)
    steered.clock.time = node.database.now()
    steered.finish_scoring(steered.claimed())
    delivering = steered.claimed(JobKind.DELIVER)
    with steered.transaction(delivering.owner) as tx:
        (item,) = deliveries.outgoing(tx.session, delivering)
        refusal = DeliveryEvent.REFUSE
        deliveries.record(tx, delivering, item.delivery_id, refusal, status=0xC001, detail="")
        jobs.give_up(tx, delivering, code="UNDELIVERABLE", reason="refused an object")
    steered.database.close()

    verdict, found, advice = node.found("work")

    assert (verdict, found) == ("problem", "1 failed jobs, 1 refused results")
    assert "job retry" in advice


def test_doctor_finds_a_destination_that_takes_nothing(node: Node) -> None:
    node.pacs.behave(Behaviour.REFUSE_CONNECTION)

    verdict, _, advice = node.found("C-ECHO")

    assert verdict == "problem"
    assert "results wait" in advice
    assert node.doctor().status == 1


def test_doctor_finds_a_clock_that_was_set(node: Node) -> None:
    with node.database.transaction("test") as tx:
        tx.session.scalars(select(HostClock)).one().zero_at -= timedelta(hours=1)

    verdict, found, advice = node.found("clock")

    assert verdict == "warning"
    assert re.search(r"3[56]\d\d s ahead", found)
    assert "NTP" in advice


def test_doctor_finds_a_bundle_whose_files_were_changed(node: Node) -> None:
    weights = max((node.data_dir / "bundles").rglob("*"), key=lambda path: path.stat().st_size)
    weights.chmod(0o600)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)

    verdict, found, advice = node.found("bundle for")

    assert verdict == "problem"
    assert found
    assert "restore the bundle" in advice


def test_doctor_names_what_gives_a_task_its_bundle(tmp_path: Path) -> None:
    assert command("db", "upgrade", "--data-dir", tmp_path).status == 0
    config = tmp_path / "node.toml"
    config.write_text('tasks = ["mammography_malignancy", "idc"]\n')

    rows = command("doctor", "--json", "--data-dir", tmp_path, "--config", config).json
    advice = {row["check"]: row["advice"] for row in rows if row["found"] == "none answers"}

    assert advice.keys() == {"bundle for mammography_malignancy", "bundle for idc"}
    assert "'dicom-node work --queues score'" in advice["bundle for mammography_malignancy"]
    assert "--queues score" not in advice["bundle for idc"], "no score worker brings one"
    for step in ("model add", "--queues train", "model activate"):
        assert f"{step}'" in advice["bundle for idc"]


def test_doctor_finds_a_broken_chain(node: Node) -> None:
    with node.database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_event_no_update"))
        connection.execute(text("UPDATE audit_event SET actor = 'mallory' WHERE seq = 3"))

    verdict, found, advice = node.found("audit trail")

    assert verdict == "problem"
    assert "event 3" in found
    assert "audit verify" in advice


def test_doctor_finds_a_tail_that_was_cut(node: Node) -> None:
    with node.database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_event_no_delete"))
        connection.execute(text("DELETE FROM audit_event WHERE seq > 2"))

    assert node.found("audit trail")[0] == "problem"


def test_doctor_tells_of_older_events_that_did_not_verify_until_all_of_them_do(node: Node) -> None:
    with node.database.transaction("dispatch@host-a:7") as tx:
        tx.audit("audit.verified", detail={"ok": False, "events": 2, "whole": True})
        tx.audit("audit.verified", detail={"ok": True, "events": 4, "whole": False})

    verdict, found, advice = node.found("older audit events")
    assert (verdict, "first 2 events" in found, "audit verify" in advice) == ("problem", True, True)

    assert command("audit", "verify", "--since-seq", "3", "--data-dir", node.data_dir).status == 0
    assert node.found("older audit events")[0] == "problem", "the beginning was not looked at"
    assert command("audit", "verify", "--data-dir", node.data_dir).status == 0
    assert not [row for row in node.doctor().json if row["check"] == "older audit events"]


def test_doctor_finds_guards_that_were_removed_and_upgrade_puts_them_back(node: Node) -> None:
    with node.database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_event_no_delete"))
    verdict, _, advice = node.found("database")
    assert (verdict, "db upgrade" in advice) == ("problem", True)

    assert command("db", "upgrade", "--data-dir", node.data_dir).status == 0

    assert node.found("database")[0] == "ok"
    (row,) = command(
        "audit", "query", "--action", "audit.guards_restored", "--json", "--data-dir", node.data_dir
    ).json
    assert row["detail"] == {"guards": ["audit_event_no_delete"]}


def test_doctor_finds_a_trail_that_nobody_signs_any_more(node: Node) -> None:
    assert node.found("audit checkpoints")[:2] == ("ok", "the newest event is signed")
    with node.database.transaction("test") as tx:
        tx.audit("account.added", detail={"user": "bert"})
    assert node.found("audit checkpoints")[0] == "ok", "the next checkpoint is not due yet"

    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    node.database.trail = AuditTrail(node.database.trail.key, wall_clock=lambda: hour_ago)
    sign_checkpoint(node)
    with node.database.transaction("test") as tx:
        tx.audit("account.added", detail={"user": "carl"})

    verdict, found, advice = node.found("audit checkpoints")

    assert (verdict, " written 36" in found) == ("problem", True)
    assert str(node.data_dir / "checkpoints") in advice


def test_doctor_finds_audit_messages_that_nobody_takes(node: Node) -> None:
    with node.config.open("a") as config:
        config.write('[audit.syslog]\nhost = "127.0.0.1"\ntransport = "udp"\n')
    assert node.found("audit sink")[0] == "ok", "they came just now"

    with node.database.transaction("test") as tx:
        sink_cursor.take(tx, "syslog", lease_s=1)
    with node.database.transaction("test") as tx:
        sink_cursor.advance(tx, "syslog", read_head(tx.connection).seq)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    node.database.trail = AuditTrail(node.database.trail.key, wall_clock=lambda: hour_ago)
    with node.database.transaction("test") as tx:
        tx.audit("account.added", detail={"user": "bert"})

    verdict, found, advice = node.found("audit sink")

    assert verdict == "problem"
    assert "the oldest for 36" in found
    assert "nothing is lost" in advice
