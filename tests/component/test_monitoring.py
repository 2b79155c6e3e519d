"""`dicom-node metrics`: the node in numbers for Prometheus, and nothing of a study among them."""

from __future__ import annotations

import re
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session

from db import processes
from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.census import LATEST_DELIVERIES, census, refused_results
from db.jobs import give_up
from db.lifecycle import JobKind, JobState
from db.session import Database
from db.workload import score_workload
from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.processes.metrics import METRICS, NodeCollector
from dicom_node.settings import Settings
from tests.command_line import command
from tests.free_ports import free_port
from tests.installed_node import ROOT
from tests.running_node import RunningNode, until
from tests.steered_node import PACS, WORKER, SteeredNode, four_views, mammogram, on_sqlite

Values = dict[tuple[str, ...], float]


def values(text: str) -> dict[str, Values]:
    """Return each metric's values by the values of its labels."""
    found: dict[str, Values] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


@pytest.fixture
def scraped(node: SteeredNode, tmp_path: Path) -> Callable[[], dict[str, Values]]:
    """What a scrape of the steered node tells."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(Settings(data_dir=tmp_path), node.database))
    return lambda: values(generate_latest(registry).decode())


def deliver(node: SteeredNode, after_s: float) -> None:
    """Let a deliver worker bring what is due to its destination."""
    claimed = node.claimed(JobKind.DELIVER)
    node.clock.advance(after_s)
    node.deliver(claimed)


def test_a_node_that_did_nothing_is_told_of_in_zeros(scraped: Callable[[], dict[str, Values]]) -> None:
    told = scraped()
    assert told["dicom_node_database_up"] == {(): 1}
    assert told["dicom_node_instances_received_total"] == {(): 0}
    assert told["dicom_node_open_revisions"] == {(): 0}
    assert set(told["dicom_node_jobs"].values()) == {0}
    assert len(told["dicom_node_jobs"]) == 3 * len(JobKind)
    assert set(told["dicom_node_oldest_waiting_job_seconds"].values()) == {0}
    assert told["dicom_node_disk_free_bytes"][()] > 0
    assert "dicom_node_turnaround_seconds" not in told, "of no delivery there is no time"


def test_what_waits_runs_and_failed_is_told_of(
    node: SteeredNode, scraped: Callable[[], dict[str, Values]]
) -> None:
    node.receive(*four_views())
    node.receive(mammogram(study="1.2.3"))
    node.clock.advance(90)
    before = scraped()
    assert before["dicom_node_jobs"]["score", "queued"] == 1
    assert before["dicom_node_oldest_waiting_job_seconds"] == {
        (kind.value,): 90.0 * (kind == JobKind.SCORE) for kind in JobKind
    }
    assert before["dicom_node_open_revisions"] == {(): 1}
    assert before["dicom_node_instances_received_total"] == {(): 5}
    assert before["dicom_node_studies_total"] == {(): 2}

    node.finish_scoring(node.claimed())
    node.receive(*four_views("1.2.9"))
    failed = node.claimed()
    with node.transaction(WORKER) as tx:
        give_up(tx, failed, code="INPUT", reason="the pixel data cannot be decoded")
    after = scraped()
    assert after["dicom_node_jobs"]["score", "queued"] == 0
    assert after["dicom_node_jobs"]["score", "failed"] == 1
    assert after["dicom_node_deliveries"] == {(PACS, "queued"): 1}
    assert after["dicom_node_audit_events_total"][()] > before["dicom_node_audit_events_total"][()]


def test_the_time_from_completion_to_the_pacs_is_told_of(
    node: SteeredNode, scraped: Callable[[], dict[str, Values]]
) -> None:
    for number, seconds in enumerate((2, 4, 30)):
        node.receive(*four_views(f"1.2.{number + 1}"))
        node.finish_scoring(node.claimed())
        deliver(node, seconds)
    told = scraped()["dicom_node_turnaround_seconds"]
    assert told["0.5",] == pytest.approx(4)
    assert 20 < told["0.95",] <= 30
    assert "dicom_node_deliveries" not in scraped(), "all has arrived"


def test_processes_that_fell_silent_are_told_of(
    node: SteeredNode, scraped: Callable[[], dict[str, Values]]
) -> None:
    for name in ("listen@a:1", "score@a:2", "score@b:3"):
        with node.transaction(name) as tx:
            processes.sign_of_life(tx, name, name.partition("@")[0])
    node.clock.advance(processes.SILENT_FOR_S + 1)
    with node.transaction("score@b:3") as tx:
        processes.sign_of_life(tx, "score@b:3", "score")
    assert scraped()["dicom_node_processes"] == {
        ("listen", "silent"): 1,
        ("score", "alive"): 1,
        ("score", "silent"): 1,
    }


@on_sqlite
def test_no_number_walks_through_a_table(node: SteeredNode) -> None:
    node.receive(*four_views())
    statements, steps = plans(node, lambda session: census(session, node.clock.time))
    assert statements == 7
    assert len(steps) >= statements
    assert [step for step in steps if step.startswith("SCAN")] == []


@on_sqlite
def test_what_doctor_counts_it_finds_without_the_jobs_of_years(node: SteeredNode) -> None:
    node.receive(*four_views())

    def ask(session: Session) -> None:
        refused_results(session)
        score_workload(session, node.clock.time, period_s=900)

    statements, steps = plans(node, ask)
    assert (statements, len(steps)) == (4, 5)
    deliveries = [step for step in steps if step.startswith("SEARCH delivery ")]
    jobs = [step for step in steps if step.startswith("SEARCH job ")]
    assert len(deliveries) == 1
    bounds = sorted(step[step.index("(") :] for step in jobs)
    assert bounds == [
        "(kind=? AND created_at>?)",
        "(kind=? AND state=? AND next_try_at<?)",
        "(kind=? AND state=? AND next_try_at>?)",
        "(kind=? AND state=?)",
    ]


def plans(node: SteeredNode, ask: Callable[[Session], object]) -> tuple[int, list[str]]:
    """Return how many statements a question takes, and the steps of their plans that look at a table."""
    statements: list[str] = []
    with node.reading() as session:
        driver: sqlite3.Connection = session.connection().connection.driver_connection  # type: ignore[assignment]
        driver.set_trace_callback(statements.append)
        ask(session)
        driver.set_trace_callback(None)
        found = [row[3] for asked in statements for row in driver.execute(f"EXPLAIN QUERY PLAN {asked}")]
    return len(statements), [plan for plan in found if plan.startswith(("SEARCH", "SCAN"))]


def test_more_deliveries_than_are_looked_at_cost_no_more(node: SteeredNode) -> None:
    for number in range(LATEST_DELIVERIES + 3):
        node.receive(*four_views(f"1.2.{number + 1}"))
        node.finish_scoring(node.claimed())
        deliver(node, 60.0 if number < 3 else 1.0)
    with node.reading() as session:
        counted = census(session, node.clock.time)
    assert counted.turnaround_s == (1.0,) * LATEST_DELIVERIES, "the oldest are not looked at"
    assert all(counted.jobs[kind, state] == 0 for kind in JobKind for state in (JobState.FAILED,))


def test_without_the_database_disk_and_version_are_still_told_of(tmp_path: Path) -> None:
    assert command("db", "upgrade", "--data-dir", tmp_path).status == 0
    trail = AuditTrail(AuditKey.load(tmp_path / "keys" / "audit.key"))
    registry = CollectorRegistry()
    with closing(Database(f"sqlite:///{tmp_path / 'gone' / 'node.db'}", trail)) as database:
        registry.register(NodeCollector(Settings(data_dir=tmp_path), database))
        told = values(generate_latest(registry).decode())
    assert told["dicom_node_database_up"] == {(): 0}
    assert told.keys() == {
        *("dicom_node_info", "dicom_node_database_up"),
        *("dicom_node_disk_free_bytes", "dicom_node_disk_reserve_bytes"),
    }


# --- The command


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[RunningNode, int]]:
    """A data directory whose numbers are told on a port."""
    port = free_port()
    with RunningNode(tmp_path, [], settings={"metrics": {"port": port}}) as node:
        assert command("db", "upgrade", "--data-dir", node.data_dir).status == 0
        node.start("metrics")
        until(lambda: "metrics.ready" in node.log, 60, "the port")
        yield node, port


def scrape(port: int) -> dict[str, Values]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return values(answer.read().decode())


def test_the_command_answers_scrapes_and_is_itself_among_the_processes(
    serving: tuple[RunningNode, int],
) -> None:
    _, port = serving
    until(
        lambda: ("metrics", "alive") in scrape(port).get("dicom_node_processes", {}), 60, "its sign of life"
    )
    assert set(scrape(port)) <= METRICS.keys()


def test_a_port_must_be_set_and_free(tmp_path: Path) -> None:
    assert command("db", "upgrade", "--data-dir", tmp_path).status == 0
    unset = command("metrics", "--data-dir", tmp_path)
    assert unset.status == ExitCode.SETTINGS
    assert "DICOM_NODE_METRICS__PORT=9108" in unset.err


# --- What the pages say


def test_the_alerts_of_the_manual_ask_for_metrics_that_there_are() -> None:
    page = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
    (rules,) = re.findall(r"```yaml\n(groups:.*?)```", page, re.DOTALL)
    expressions = [rule["expr"] for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    assert len(expressions) >= 6
    asked = {name for expression in expressions for name in re.findall(r"dicom_node_\w+", expression)}
    assert asked <= METRICS.keys()
