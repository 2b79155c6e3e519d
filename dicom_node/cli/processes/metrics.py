"""The node's numbers for Prometheus: what there is, what waits, what failed, whether the database answers.

Everything is read from the database when somebody asks, so that one process tells of all the node's. Labels
are states, kinds of work and addresses of destinations, never anything of a study.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from statistics import quantiles

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from db import processes
from db.census import LATEST_DELIVERIES, Census, census
from db.errors import DatabaseError
from db.processes import SILENT_FOR_S
from db.session import Database
from dicom_node import __version__
from dicom_node.cli.processes.presence import SIGN_OF_LIFE_S, Presence
from dicom_node.cli.processes.scrape_server import answering_scrapes
from dicom_node.cli.processes.stopping import when_told_to_stop
from dicom_node.cli.wiring import open_database, process_name, start_process
from dicom_node.errors import PortUnavailableError, SettingsError
from dicom_node.settings import Settings

STOP_DEADLINE_S = 10.0
TOLD_AGAIN_AFTER_S = 60.0
_QUANTILES = {"0.5": 10, "0.95": 19}  # which of the 19 values that part the sorted ones into 20

_log = structlog.get_logger(__name__)


class Measure(StrEnum):
    """What a metric is."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Description:
    """A metric as the reference names it.

    Attributes
    ----------
    measure : Measure
        Its type.
    meaning : str
        What it tells.
    labels : tuple of str
        What tells its values apart.
    """

    measure: Measure
    meaning: str
    labels: tuple[str, ...] = ()


METRICS: dict[str, Description] = {
    "dicom_node_info": Description(Measure.INFO, "The version of the node's software.", ("version",)),
    "dicom_node_database_up": Description(
        Measure.GAUGE, "1 while the database answers; without it only the disk is told of."
    ),
    "dicom_node_disk_free_bytes": Description(
        Measure.GAUGE, "What the node may still write to the data directory's disk."
    ),
    "dicom_node_disk_reserve_bytes": Description(
        Measure.GAUGE, "Below so much free room objects are turned away (listener.minimum_free_bytes)."
    ),
    "dicom_node_processes": Description(
        Measure.GAUGE,
        f"Processes that gave a sign of life, and those that fell silent for {SILENT_FOR_S:.0f} s without a "
        "goodbye.",
        ("kind", "state"),
    ),
    "dicom_node_instances_received_total": Description(
        Measure.COUNTER, "Received objects, by the number of the newest one's row."
    ),
    "dicom_node_studies_total": Description(Measure.COUNTER, "Studies, by the number of the newest's row."),
    "dicom_node_audit_events_total": Description(Measure.COUNTER, "Events of the audit trail."),
    "dicom_node_open_revisions": Description(
        Measure.GAUGE, "Studies that wait for more images or for the end of their quiet period."
    ),
    "dicom_node_jobs": Description(Measure.GAUGE, "Jobs that are not done.", ("kind", "state")),
    "dicom_node_oldest_waiting_job_seconds": Description(
        Measure.GAUGE, "Since when the oldest queued job is there; 0 for none.", ("kind",)
    ),
    "dicom_node_deliveries": Description(
        Measure.GAUGE, "Sets of results that have not arrived.", ("destination", "state")
    ),
    "dicom_node_turnaround_seconds": Description(
        Measure.GAUGE,
        f"From a study's completion to its results' arrival, over the latest {LATEST_DELIVERIES} deliveries.",
        ("quantile",),
    ),
}
"""Every metric, in the order in which they are told."""


class NodeCollector(Collector):
    """Reads the node's numbers anew at each scrape.

    Parameters
    ----------
    settings : Settings
        The node's.
    database : Database
        The truth.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        # Scrapes come one after the other: several at once would cost the database and tell nothing more.
        self._scraping = threading.Lock()
        self._told_at = -TOLD_AGAIN_AFTER_S

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that can be told now."""
        with self._scraping:
            yield InfoMetricFamily(
                "dicom_node", METRICS["dicom_node_info"].meaning, value={"version": __version__}
            )
            yield _one("dicom_node_disk_free_bytes", shutil.disk_usage(self._settings.data_dir).free)
            yield _one("dicom_node_disk_reserve_bytes", self._settings.listener.minimum_free_bytes)
            try:
                with self._database.reading() as session:
                    now = self._database.now_in(session)
                    alive, silent = processes.alive(session, now)
                    heard = Counter((process.kind, "alive") for process in alive)
                    heard.update((process.kind, "silent") for process in silent)
                    counted = census(session, now)
            except DatabaseError as error:
                self._tell(error)
                yield _one("dicom_node_database_up", 0)
                return
            yield _one("dicom_node_database_up", 1)
            yield _each("dicom_node_processes", heard)
            yield from _of_census(counted)

    def _tell(self, error: DatabaseError) -> None:
        now = time.monotonic()
        if now - self._told_at >= TOLD_AGAIN_AFTER_S:
            self._told_at = now
            _log.warning("metrics.database_away", reason=str(error))


def _of_census(counted: Census) -> Iterator[Metric]:
    yield _count("dicom_node_instances_received_total", counted.instances)
    yield _count("dicom_node_studies_total", counted.studies)
    yield _count("dicom_node_audit_events_total", counted.audit_events)
    yield _one("dicom_node_open_revisions", counted.open_revisions)
    yield _each(
        "dicom_node_jobs", {(kind.value, state.value): n for (kind, state), n in counted.jobs.items()}
    )
    yield _each(
        "dicom_node_oldest_waiting_job_seconds",
        {(kind.value,): seconds for kind, seconds in counted.oldest_waiting_s.items()},
    )
    yield _each(
        "dicom_node_deliveries",
        {(destination, state.value): n for (destination, state), n in counted.deliveries.items()},
    )
    if len(counted.turnaround_s) > 1:
        parts = quantiles(counted.turnaround_s, n=20, method="inclusive")
        yield _each(
            "dicom_node_turnaround_seconds",
            {(name,): parts[number - 1] for name, number in _QUANTILES.items()},
        )


def _one(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, METRICS[name].meaning, value=value)


def _count(name: str, value: float) -> Metric:
    return CounterMetricFamily(name, METRICS[name].meaning, value=value)


def _each(name: str, values: dict[tuple[str, ...], float] | Counter[tuple[str, str]]) -> Metric:
    metric = GaugeMetricFamily(name, METRICS[name].meaning, labels=METRICS[name].labels)
    for labels, value in sorted(values.items()):
        metric.add_metric(labels, value)
    return metric


def run(settings: Settings) -> None:
    """Answer scrapes until SIGTERM.

    Raises
    ------
    SettingsError
        If no port is set.
    PortUnavailableError
        If the port cannot be listened on.
    """
    host, port = settings.metrics.host, settings.metrics.port
    if port is None:
        raise SettingsError(
            "metrics.port: nothing is set; set it, for example DICOM_NODE_METRICS__PORT=9108, and start again"
        )
    start_process("metrics")
    stopping = threading.Event()
    when_told_to_stop(stopping.set, deadline_s=STOP_DEADLINE_S)
    with open_database(settings) as database, ExitStack() as stack:
        registry = CollectorRegistry()
        registry.register(NodeCollector(settings, database))
        try:
            stack.enter_context(answering_scrapes(host, port, registry))
        except OSError as error:
            raise PortUnavailableError(host, port, error, choices="metrics.port") from error
        _log.info("metrics.ready", host=host, port=port)
        presence = Presence(database, process_name("metrics"), "metrics")
        presence.sign()
        while not stopping.wait(SIGN_OF_LIFE_S):
            presence.sign()
        stack.close()
        presence.say_goodbye()
