"""The whole mission on one machine: a node of its own, made-up mammograms and a throw-away PACS."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from db import listing, processes
from db.errors import DatabaseError
from db.lifecycle import JobKind, JobState
from db.session import Database
from dicom_node import installation
from dicom_node.cli.output import console, heading, plain_lines
from dicom_node.cli.wiring import load_settings, open_database
from dicom_node.delivery.destination import Destination
from dicom_node.demo_pacs import ArchivedObject, DemoPacs
from dicom_node.errors import NodeError
from dicom_node.settings import ENVIRONMENT_PREFIX

if TYPE_CHECKING:
    from training.datasets.phantoms import LesionKind

FIRST_SEED = 1003
MARKER = "made-by-dicom-node-demo"
SCANNER_TITLE = "DEMOSCANNER"
START_DEADLINE_S = 180.0
RESULTS_DEADLINE_S = 300.0
LOOK_EVERY_S = 0.1


class DemoError(NodeError):
    """The demonstration did not finish; node.log in its output folder tells why."""


@dataclass(slots=True)
class DemoStudy:
    """One made-up study on its way.

    Attributes
    ----------
    title : str
        What was drawn.
    files : list of pathlib.Path
        Its images, in the order of sending.
    study_instance_uid : str
        Its UID.
    sent_at : float
        When the node had answered the last image, seconds of the monotonic clock.
    """

    title: str
    files: list[Path]
    study_instance_uid: str
    sent_at: float = 0.0


@dataclass(slots=True)
class Arrivals:
    """What came back to the PACS, with its time on the monotonic clock."""

    objects: list[tuple[float, ArchivedObject]] = field(default_factory=list)

    def note(self, archived: ArchivedObject) -> None:
        """Note one object; called from the PACS's threads."""
        self.objects.append((time.monotonic(), archived))


def run(out: Path, studies: int) -> None:
    """Run the demonstration and print what it shows.

    Parameters
    ----------
    out : pathlib.Path
        Folder for everything that it writes.
    studies : int
        How many studies to send.

    Raises
    ------
    DemoError
        If it cannot finish.
    """
    prepare_folder(out)
    with ExitStack() as stack:
        progress = stack.enter_context(_progress())
        drawing = progress.add_task("drawing phantoms", total=studies * 4)
        drawn = draw_studies(out / "scanner", studies, lambda: progress.advance(drawing))
        arrivals = Arrivals()
        pacs = stack.enter_context(DemoPacs(out / "pacs", on_stored=arrivals.note))
        starting = progress.add_task("starting the node", total=1)
        address = stack.enter_context(running_node(out, pacs.destination))
        database = stack.enter_context(open_database(load_settings(out / "node", None)))
        wait_until_ready(database, out)
        progress.advance(starting)
        sending = progress.add_task("sending images (C-STORE)", total=studies * 4)
        for study in drawn:
            send_study(study, address, lambda: progress.advance(sending))
        wait_for_results(database, drawn, progress, out)
        summary = describe(database, drawn, arrivals, out)
        export_audit(database, out / "audit.jsonl")
    _print(summary, out)


def prepare_folder(out: Path) -> None:
    """Make the output folder, or clear what an earlier demonstration left; phantoms are kept.

    Raises
    ------
    DemoError
        If the folder holds something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise DemoError(f"{out} holds files that are not the demonstration's; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    for name in ("node", "pacs", "overlays", "reports"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("overlays", "reports"):
        (out / name).mkdir()


def draw_studies(folder: Path, count: int, advance: Callable[[], None]) -> list[DemoStudy]:
    """Draw the studies, or find those drawn earlier: a normal one, then every MIAS kind in turn.

    The folder holds images and nothing else, so that any tool can send it as it is.
    """
    from pydicom import dcmread

    from training.datasets.phantoms import LesionKind

    kinds = [LesionKind.NORM, *(kind for kind in LesionKind if kind is not LesionKind.NORM)]
    names = [f"{side}-{view}.dcm" for view in ("CC", "MLO") for side in "RL"]
    drawn = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        side = "RL"[number % 2]
        title = "normal" if kind is LesionKind.NORM else f"malignant {kind.value} in the {side} breast"
        home = folder / f"study-{number + 1}"
        if home.exists() and {path.name for path in home.iterdir()} == set(names):
            for _ in names:
                advance()
        else:
            wanted = {} if kind is LesionKind.NORM else {(side, v): (kind, True) for v in ("CC", "MLO")}
            _draw(home, number, wanted, advance)
        files = [home / name for name in names]
        header = dcmread(files[0], stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
        drawn.append(DemoStudy(title, files, header.StudyInstanceUID))
    return drawn


def _draw(
    home: Path,
    number: int,
    wanted: Mapping[tuple[str, str], tuple[LesionKind, bool]],
    advance: Callable[[], None],
) -> None:
    """Draw one study; its folder is there when it is whole."""
    from training.datasets.phantom_objects import study

    images = study(
        seed=FIRST_SEED + number,
        kinds=wanted,
        patient_id=f"PHANTOM-{number + 1:04d}",
        patient_name=f"Phantom^Number{number + 1}",
        accession_number=f"DEMO{number + 1:04d}",
    )
    drawing = home.parent.with_name("drawing")
    for left in (drawing, home):
        shutil.rmtree(left, ignore_errors=True)
    drawing.mkdir()
    for image in images:
        image.save_as(drawing / f"{image.ImageLaterality}-{image.ViewPosition}.dcm", enforce_file_format=True)
        advance()
    home.parent.mkdir(exist_ok=True)
    drawing.rename(home)


@contextmanager
def running_node(out: Path, pacs: Destination) -> Iterator[Destination]:
    """Run ``dicom-node serve`` with the embedded default beside us; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
    serve = [
        *installation.console_script(),
        "serve",
        *("--data-dir", str(out / "node"), "--port", str(port), "--destination", str(pacs)),
    ]
    with (out / "node.log").open("wb") as log:
        node = subprocess.Popen(
            serve, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_DEADLINE_S
        while not (out / "node" / "keys" / "audit.key").exists():  # made once the tables are there
            if node.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the node did not start; see {out / 'node.log'}")
            time.sleep(LOOK_EVERY_S)
        yield Destination("DICOM_NODE", "127.0.0.1", port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            node.send_signal(signal.SIGTERM)
        node.wait()


def wait_until_ready(database: Database, out: Path) -> None:
    """Wait until listener and workers have told that they live."""
    deadline = time.monotonic() + START_DEADLINE_S
    wanted = {"listen", "dispatch", "score", "deliver"}
    while True:
        with contextlib.suppress(DatabaseError), database.reading() as session:
            alive, _ = processes.alive(session, database.now_in(session))
            if wanted <= {process.kind for process in alive}:
                return
        if time.monotonic() > deadline:
            raise DemoError(f"the node's processes did not all start; see {out / 'node.log'}")
        time.sleep(LOOK_EVERY_S)


def send_study(study: DemoStudy, node: Destination, advance: Any) -> None:
    """Send a study's images over one association, as a scanner does."""
    from pydicom import dcmread

    from dicom_node.delivery.dimse import DeliveryTimeouts, Outgoing, Requestor, SendState, send

    outgoing = []
    for path in study.files:
        header = dcmread(path, stop_before_pixels=True)
        syntax = header.file_meta.TransferSyntaxUID
        outgoing.append(Outgoing(header.SOPInstanceUID, header.SOPClassUID, syntax, path))
    results = send(
        outgoing,
        node,
        Requestor(SCANNER_TITLE, DeliveryTimeouts(connect_s=5, acse_s=10, dimse_s=30)),
        on_result=lambda _uid, _result: advance(),
    )
    study.sent_at = time.monotonic()
    refused = [result.detail for result in results if result.state is not SendState.DELIVERED]
    if refused:
        raise DemoError(f"the node did not take an image: {refused[0]}")


def wait_for_results(database: Database, studies: list[DemoStudy], progress: Progress, out: Path) -> None:
    """Wait until every study's results have reached the PACS."""
    scoring = progress.add_task("scoring", total=len(studies))
    delivering = progress.add_task("delivering to the PACS", total=len(studies))
    deadline = time.monotonic() + RESULTS_DEADLINE_S
    while True:
        with database.reading() as session:
            counts = listing.counts(session)
        progress.update(scoring, completed=counts["score_jobs"][JobState.DONE])
        progress.update(delivering, completed=counts["deliver_jobs"][JobState.DONE])
        if counts["deliver_jobs"][JobState.DONE] >= len(studies):
            return
        failed = counts["score_jobs"][JobState.FAILED] + counts["deliver_jobs"][JobState.FAILED]
        if failed or time.monotonic() > deadline:
            why = f"{failed} jobs failed" if failed else "results did not arrive in time"
            raise DemoError(
                f"{why}; see {out / 'node.log'} and 'dicom-node job list --all --data-dir {out / 'node'}'"
            )
        time.sleep(LOOK_EVERY_S)


def describe(
    database: Database, studies: list[DemoStudy], arrivals: Arrivals, out: Path
) -> list[dict[str, Any]]:
    """Collect, for each study, what the PACS holds now; write its pictures and its report's text."""
    from pydicom import dcmread
    from pydicom.uid import EnhancedSRStorage

    from dicom_node.cli.pictures import caption, draw_overlay, phantom_as_displayed
    from dicom_node.results.reading import evidence_bands, report_text

    stored = [(at, dcmread(archived.path)) for at, archived in arrivals.objects]
    summary = []
    for number, study in enumerate(studies, start=1):
        own = [(at, ds) for at, ds in stored if ds.StudyInstanceUID == study.study_instance_uid]
        report = next(ds for _, ds in own if ds.get("SOPClassUID") == EnhancedSRStorage)
        text = report_text(report)
        (out / "reports" / f"study-{number}.txt").write_text(text + "\n")
        overlays = {
            ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID: ds
            for _, ds in own
            if ds.Modality == "SEG"
        }
        with database.reading() as session:
            job = listing.jobs(session, kind=JobKind.SCORE, study_instance_uid=study.study_instance_uid)[0]
            analysis = json.loads(listing.analysis(session, job["job_id"]) or "{}")
        scores = {image["sop_instance_uid"]: image["probability"] for image in analysis["images"]}
        for path in study.files:
            image = dcmread(path)
            overlay = overlays.get(image.SOPInstanceUID)
            draw_overlay(
                phantom_as_displayed(image),
                evidence_bands(overlay) if overlay is not None else None,
                caption(
                    path.stem.replace("-", " "), scores[image.SOPInstanceUID], float(analysis["threshold"])
                ),
                out / "overlays" / f"study-{number}-{path.stem}.png",
            )
        seconds = max(at for at, ds in own if ds.Modality == "SR") - study.sent_at
        summary.append(
            {"number": number, "title": study.title, "analysis": analysis, "seconds": seconds, "text": text}
        )
    return summary


def export_audit(database: Database, path: Path) -> None:
    """Write the node's audit trail."""
    from db.audit_query import export

    with path.open("w", encoding="utf-8") as stream:
        export(database, stream, "jsonl")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _print(summary: list[dict[str, Any]], out: Path) -> None:
    """Print the last study's report, everybody's scores, and where everything lies."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (
        "study",
        "drawn as",
        "R CC",
        "R MLO",
        "L CC",
        "L MLO",
        "R",
        "L",
        "study",
        "result",
        "seconds",
    ):
        table.add_column(column, justify="left" if column == "drawn as" else "right")
    for row in summary:
        analysis = row["analysis"]
        images = {f"{i['laterality']} {i['view']}": i["probability"] for i in analysis["images"]}
        breasts = {b["laterality"]: b["probability"] for b in analysis["breasts"]}
        positive = analysis["study_probability"] >= analysis["threshold"]
        table.add_row(
            str(row["number"]),
            row["title"],
            *(f"{images[view]:.2f}" for view in ("R CC", "R MLO", "L CC", "L MLO")),
            *(f"{breasts[side]:.2f}" for side in "RL"),
            f"{analysis['study_probability']:.2f}",
            "[red]above[/red]" if positive else "below",
            f"{row['seconds']:.2f}",
        )
    shown = max(summary, key=lambda row: row["analysis"]["study_probability"])
    heading(f"report of study {shown['number']} as the PACS holds it")
    console.print(plain_lines(shown["text"]))
    heading("probability of malignancy per image, breast and study")
    console.print(table)
    console.print(
        f"threshold {shown['analysis']['threshold']:.2f}; seconds: from the last image to the stored report"
    )
    heading("written")
    for what, where in (
        ("images sent", "scanner"),
        ("DICOM results, as the PACS holds them", "pacs"),
        ("images with overlay (PNG)", "overlays"),
        ("reports as text", "reports"),
        ("audit trail", "audit.jsonl"),
        ("the node's log", "node.log"),
    ):
        console.print(f"{what}: {out / where}", soft_wrap=True, highlight=False)
    (command,) = installation.console_script()
    console.print(
        f"ask the node itself: {command} study list --data-dir {out / 'node'}",
        soft_wrap=True,
        highlight=False,
    )
