"""Time a whole node: studies in by C-STORE, reports back at a PACS, and where the time went between.

    python -m benchmarks.e2e --studies 12 --database sqlite

Two phases on one real node of its own processes: studies one at a time, each sent when the report of the one
before has arrived (latency); then as many studies as fast as the node takes them (throughput). Afterwards,
with the node stopped, the same network scores the same tensors alone, as the measure of what a perfect node
could do. Figures of different runs compare by these ratios, never by their seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from pydicom import Dataset, dcmread
from pydicom.uid import UID, JPEGLSLossless
from sqlalchemy import URL

from benchmarks.tables import percentile, table
from db import listing
from db.audit.reading import AuditFilter, query
from dicom_node.delivery.dimse import DeliveryTimeouts, Outgoing, Requestor, SendState, send
from dicom_node.demo_pacs import ArchivedObject, DemoPacs
from dicom_node.images.reader import ImageReader
from dicom_node.results.measurement_report import COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR
from models.classifier import Classifier
from models.preprocessing import prepare
from tests.running_node import RunningNode
from training.datasets.phantom_objects import study
from training.datasets.phantoms import LesionKind

BUNDLE = Path(__file__).resolve().parent.parent / "models/bundles/mammography-phantom-demonstration"
SIZES = {"2048x1664": (2048, 1664), "4096x3328": (4096, 3328)}
# Which of them a destination gets is its profile's choice.
MEASUREMENT_REPORTS = frozenset({COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR})
STAGES = ("decode", "preprocess", "forward", "evidence", "results", "store")
DRAWN_STUDIES = 3  # others are copies under new UIDs; the node cannot tell
REPORT_DEADLINE_S = 120.0
TIMEOUTS = DeliveryTimeouts(connect_s=5, acse_s=10, dimse_s=60)


@dataclass(frozen=True, slots=True)
class StudyTimes:
    """One study's way through the node, seconds.

    Attributes
    ----------
    report_s : float
        From the Success for its last image to its measurement report's storage at the PACS.
    stages_s : dict of str to float
        Of :data:`STAGES`, as the node's own stopwatch measured them.
    waiting_s : float
        Until the score job was claimed, and from its end until the deliver job was.
    committing_s : float
        What remains of the score job: loading, claiming, committing.
    delivery_s : float
        The deliver job.
    """

    report_s: float
    stages_s: dict[str, float]
    waiting_s: float
    committing_s: float
    delivery_s: float


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase showed: its studies, and how long the node was at it."""

    studies: list[StudyTimes]
    wall_s: float  # from the first image's sending to the last report at the PACS
    scoring_s: float  # from the first claim of a score job to the end of the last

    def shares(self) -> dict[str, float]:
        """Share of each part in the time that workers spent on the studies; the parts sum to 1."""
        sums = {part: sum(seconds) for part, seconds in self.parts().items()}
        total = sum(sums.values())
        return {part: seconds / total for part, seconds in sums.items()}

    def parts(self) -> dict[str, list[float]]:
        """Seconds of each part of the work, study by study."""
        parts = {stage: [s.stages_s.get(stage, 0.0) for s in self.studies] for stage in STAGES}
        parts["commit"] = [s.committing_s for s in self.studies]
        parts["delivery"] = [s.delivery_s for s in self.studies]
        return parts


class Arrivals:
    """When each study's measurement report was stored at the PACS."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at: dict[str, float] = {}

    def note(self, archived: ArchivedObject) -> None:
        """Note one object; called from the PACS's threads."""
        if archived.sop_class_uid not in MEASUREMENT_REPORTS:
            return
        at = time.monotonic()
        study_instance_uid = str(dcmread(archived.path, stop_before_pixels=True).StudyInstanceUID)
        with self._changed:
            self._at[study_instance_uid] = at
            self._changed.notify_all()

    def wait_for(self, study_instance_uid: str) -> float:
        """Wait for a study's report; return its time on the monotonic clock."""
        with self._changed:
            if not self._changed.wait_for(lambda: study_instance_uid in self._at, REPORT_DEADLINE_S):
                raise SystemExit(f"no report arrived within {REPORT_DEADLINE_S:g} s; --keep keeps the logs")
            return self._at[study_instance_uid]


@dataclass(frozen=True, slots=True)
class SentStudy:
    """A study's files, ready to send."""

    study_instance_uid: str
    images: tuple[Outgoing, ...]


def main() -> None:
    """Run the benchmark as the command line asks."""
    options = _options()
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        folder.mkdir(parents=True, exist_ok=True)
        studies = draw(folder / "scanner", 1 + 2 * options.studies, options.size, compressed=options.jpeg_ls)
        with running_node(folder, options.database, options.threads, options.workers) as (node, arrivals):
            first = run_phase(node, arrivals, studies[:1], one_at_a_time=True)
            single = run_phase(node, arrivals, studies[1 : 1 + options.studies], one_at_a_time=True)
            loaded = run_phase(node, arrivals, studies[1 + options.studies :], one_at_a_time=False)
        bare_s = bare_forward_s(studies[:DRAWN_STUDIES], options.threads)
    figures = figures_of(options, first, single, loaded, bare_s)
    print(json.dumps(figures, indent=2) if options.json else described(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.e2e", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", type=int, default=12, help="four-view studies in each phase")
    parser.add_argument("--database", choices=("sqlite", "postgres+redis"), default="sqlite")
    parser.add_argument(
        "--size", choices=tuple(SIZES), default="2048x1664", help="rows x columns of an image"
    )
    parser.add_argument(
        "--jpeg-ls", action="store_true", help="send JPEG-LS Lossless instead of native images"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of a forward pass")
    parser.add_argument("--workers", type=int, default=1, help="score processes")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--keep", type=Path, help="folder for everything written, kept; default: none is")
    options = parser.parse_args()
    if options.studies < 1:
        parser.error("--studies must be 1 or more")
    return options


def draw(folder: Path, count: int, size: str, *, compressed: bool) -> list[SentStudy]:
    """Draw a few studies, one normal and the others with a lesion; copy them under new UIDs to `count`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = SIZES[size]
    drawn: list[list[Dataset]] = []
    for number in range(min(count, DRAWN_STUDIES)):
        kind = list(LesionKind)[number]
        wanted = {} if kind is LesionKind.NORM else {("L", view): (kind, True) for view in ("CC", "MLO")}
        images = study(seed=500 + number, kinds=wanted, rows=rows, columns=columns)
        if compressed:
            for image in images:
                image.compress(JPEGLSLossless, generate_instance_uid=False)
        drawn.append(images)
    return [_copied(drawn[number % len(drawn)], folder, number) for number in range(count)]


def _copied(images: Sequence[Dataset], folder: Path, number: int) -> SentStudy:
    study_instance_uid, series_instance_uid = _new_uid(), _new_uid()
    outgoing = []
    for ordinal, original in enumerate(images):
        image = deepcopy(original)
        image.StudyInstanceUID, image.SeriesInstanceUID = study_instance_uid, series_instance_uid
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = _new_uid()
        image.PatientID = f"BENCHMARK-{number:04d}"
        path = folder / f"{number:04d}-{ordinal}.dcm"
        image.save_as(path, enforce_file_format=True)
        syntax = str(image.file_meta.TransferSyntaxUID)
        outgoing.append(Outgoing(image.SOPInstanceUID, image.SOPClassUID, syntax, path))
    return SentStudy(study_instance_uid, tuple(outgoing))


def _new_uid() -> UID:
    return UID(f"2.25.{uuid.uuid4().int}")


@contextmanager
def running_node(
    folder: Path, database: str, threads: int, workers: int
) -> Iterator[tuple[RunningNode, Arrivals]]:
    """Run a node with the product's own settings, and a PACS for its results."""
    arrivals = Arrivals()
    with ExitStack() as stack:
        pacs = stack.enter_context(DemoPacs(folder / "pacs", on_stored=arrivals.note))
        is_embedded = database == "sqlite"
        database_url, broker_url = (None, None) if is_embedded else _servers(stack, folder)
        scoring = {"workers": workers, "threads": threads, "device": "cpu"}
        node = RunningNode(
            folder,
            [pacs.destination],
            settings={"scoring": scoring, "completeness": {}, "jobs": {}, "delivery": {}},
            database_url=database_url,
            broker_url=broker_url,
        )
        stack.enter_context(node)
        yield node.serve(), arrivals


def _servers(stack: ExitStack, folder: Path) -> tuple[str, str]:
    # Only this choice needs what 'make test' installs.
    from tests.databases import running_postgres
    from tests.redis_server import RedisServer, redis_binary

    postgres = stack.enter_context(running_postgres())
    with psycopg.connect(_libpq(postgres.url), autocommit=True) as connection:
        # Tests go without; a node in service does not.
        connection.execute("ALTER SYSTEM RESET fsync")
        connection.execute("SELECT pg_reload_conf()")
    database_url = postgres.create(upgraded=False)
    stack.callback(postgres.drop, database_url)
    broker = stack.enter_context(RedisServer(redis_binary(), folder))
    return database_url, broker.url


def _libpq(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def run_phase(
    node: RunningNode, arrivals: Arrivals, studies: Sequence[SentStudy], *, one_at_a_time: bool
) -> Phase:
    """Send studies and wait for their reports."""
    started = time.monotonic()
    report_s = {}
    sent_at = {}
    for each in studies:
        _send(node, each)
        sent_at[each.study_instance_uid] = time.monotonic()
        if one_at_a_time:
            arrivals.wait_for(each.study_instance_uid)
    for uid, at in sent_at.items():
        report_s[uid] = arrivals.wait_for(uid) - at
    wall_s = time.monotonic() - started
    node.wait_until_delivered(_delivered_after(node), REPORT_DEADLINE_S)
    timed = [_times(node, uid, seconds) for uid, seconds in report_s.items()]
    claimed, ended = zip(*(span for _, span in timed), strict=True)
    return Phase([times for times, _ in timed], wall_s, (max(ended) - min(claimed)).total_seconds())


def _send(node: RunningNode, each: SentStudy) -> None:
    results = send(
        each.images,
        node.address,
        Requestor("BENCHMARK", TIMEOUTS),
        on_result=lambda _uid, _result: None,
    )
    refused = [result.detail for result in results if result.state is not SendState.DELIVERED]
    if refused:
        raise SystemExit(f"the node did not take an image: {refused[0]}")


def _delivered_after(node: RunningNode) -> int:
    """Return how many deliver jobs there are once everything sent was delivered: one for each score job."""
    with node.database.reading() as session:
        return sum(listing.counts(session)["score_jobs"].values())


def _times(
    node: RunningNode, study_instance_uid: str, report_s: float
) -> tuple[StudyTimes, tuple[datetime, datetime]]:
    """Read a study's times from its analysis and its audit trail; and when its score job began and ended."""
    with node.database.reading() as session:
        (job,) = listing.jobs(session, study_instance_uid=study_instance_uid)
        stages_s = json.loads(listing.analysis(session, job["job_id"]) or "{}")["durations_s"]
        events = query(session, AuditFilter(study_instance_uid=study_instance_uid))
    at = {
        (action, of_score): [
            datetime.fromisoformat(e.at)
            for e in events
            if e.action == action and (e.job_id == job["job_id"]) is of_score
        ]
        for action in ("job.queued", "job.claimed", "job.scored", "job.done")
        for of_score in (True, False)
    }
    steps = (
        ("job.queued", True),
        ("job.claimed", True),
        ("job.scored", True),
        ("job.queued", False),
        ("job.claimed", False),
        ("job.done", False),
    )
    if any(len(at[step]) != 1 for step in steps):
        raise SystemExit("a job did not succeed at its first attempt: these figures would mean nothing")
    queued, claimed, scored, to_deliver, taken, delivered = (at[step][0] for step in steps)
    times = StudyTimes(
        report_s=report_s,
        stages_s=stages_s,
        waiting_s=(claimed - queued + (taken - to_deliver)).total_seconds(),
        committing_s=(scored - claimed).total_seconds() - sum(stages_s.values()),
        delivery_s=(delivered - taken).total_seconds(),
    )
    return times, (claimed, scored)


def bare_forward_s(studies: Sequence[SentStudy], threads: int) -> float:
    """Return the median seconds that the network alone needs for one of these studies' images."""
    classifier = Classifier.load(BUNDLE, device="cpu", threads=threads)
    parameters = classifier.bundle.manifest.preprocessing
    with ImageReader() as reader:
        views = [
            reader.read(image.path, image.sop_instance_uid).view for each in studies for image in each.images
        ]
    tensors = [prepare(view, parameters).tensor[None] for view in views]
    seconds = []
    for tensor in tensors * 5:
        start = time.perf_counter()
        classifier.forward(tensor)
        seconds.append(time.perf_counter() - start)
    return percentile(seconds, 0.5)


def figures_of(
    options: argparse.Namespace, first: Phase, single: Phase, loaded: Phase, bare_s: float
) -> dict[str, Any]:
    """Return everything measured, for programs."""
    count = len(loaded.studies)
    images_per_s = 4 * count / loaded.scoring_s
    forward_s = sum(s.stages_s["forward"] for s in single.studies) / (4 * len(single.studies))
    return {
        "studies": count,
        "size": options.size,
        "jpeg_ls": options.jpeg_ls,
        "database": options.database,
        "workers": options.workers,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "first_study_report_s": first.studies[0].report_s,
        "one_at_a_time": {**_summary(single), "waiting_s": _median(s.waiting_s for s in single.studies)},
        "all_at_once": {**_summary(loaded), "studies_per_minute": 60 * count / loaded.wall_s},
        "bare_forward_s_per_image": bare_s,
        "bare_forward_images_per_s": 1 / bare_s,
        "scored_images_per_s": images_per_s,
        "scoring_to_bare_forward": images_per_s * bare_s,
        "forward_stage_to_bare_forward": bare_s / forward_s,
    }


def _summary(phase: Phase) -> dict[str, Any]:
    reports_s = [each.report_s for each in phase.studies]
    return {
        "report_s_p50": percentile(reports_s, 0.5),
        "report_s_p95": percentile(reports_s, 0.95),
        "shares": phase.shares(),
        "seconds_p50": {part: _median(values) for part, values in phase.parts().items()},
    }


def _median(values: Iterable[float]) -> float:
    return percentile(list(values), 0.5)


def described(figures: dict[str, Any]) -> str:
    """Return the figures as text for people."""
    single, loaded = figures["one_at_a_time"], figures["all_at_once"]
    parts = [
        [
            part,
            f"{single['seconds_p50'][part] * 1000:.0f}",
            f"{single['shares'][part]:.1%}",
            f"{loaded['seconds_p50'][part] * 1000:.0f}",
            f"{loaded['shares'][part]:.1%}",
        ]
        for part in single["shares"]
    ]
    whole = [
        [
            "last image to stored report, p50 (s)",
            f"{single['report_s_p50']:.2f}",
            f"{loaded['report_s_p50']:.2f}",
        ],
        [
            "last image to stored report, p95 (s)",
            f"{single['report_s_p95']:.2f}",
            f"{loaded['report_s_p95']:.2f}",
        ],
        ["studies per minute", "", f"{loaded['studies_per_minute']:.0f}"],
    ]
    return "\n\n".join(
        (
            f"{figures['studies']} studies of 4 x {figures['size']}"
            f"{' JPEG-LS' if figures['jpeg_ls'] else ''}, {figures['database']}, "
            f"{figures['workers']} score worker(s), {figures['cores']} cores, "
            f"load average {figures['load_average']:.1f}",
            table(["", "one at a time", "all at once"], whole),
            table(["median and share of", "ms", "one at a time", "ms", "all at once"], parts),
            f"waiting for a worker, one at a time: {single['waiting_s'] * 1000:.0f} ms; "
            f"first study after the start: {figures['first_study_report_s']:.2f} s\n"
            f"scoring / bare forward pass: {figures['scoring_to_bare_forward']:.3f} "
            f"({figures['scored_images_per_s']:.1f} against {figures['bare_forward_images_per_s']:.1f} "
            "images/s)\n"
            f"forward stage / bare forward pass: {figures['forward_stage_to_bare_forward']:.2f}",
        )
    )


if __name__ == "__main__":
    main()
