"""The whole mission on one machine: a node of its own, made-up mammograms and a throw-away PACS."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from db import listing, processes
from db.errors import DatabaseError
from db.lifecycle import JobState
from db.session import Database
from dicom_node import installation
from dicom_node.cli.demonstration.studies import DemoStudy, draw_studies
from dicom_node.cli.demonstration.summary import Arrivals, collect, print_summary
from dicom_node.cli.output import console
from dicom_node.cli.wiring import load_settings, open_database
from dicom_node.delivery.destination import Destination
from dicom_node.demo_pacs import DemoPacs
from dicom_node.errors import NodeError
from dicom_node.settings import ENVIRONMENT_PREFIX

MARKER = "made-by-dicom-node-demo"
SCANNER_TITLE = "DEMOSCANNER"
START_DEADLINE_S = 180.0
RESULTS_DEADLINE_S = 300.0
LOOK_EVERY_S = 0.1


class DemoError(NodeError):
    """The demonstration did not finish; node.log in its output folder tells why."""


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
        scored = collect(database, drawn, arrivals, out)
        export_audit(database, out / "audit.jsonl")
    print_summary(scored, out)


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


@contextmanager
def running_node(out: Path, pacs: Destination) -> Iterator[Destination]:
    """Run ``dicom-node serve`` with the embedded default beside us; yield its address.

    Raises
    ------
    DemoError
        If it ends at once, or does not start in time.
    """
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
    """Wait until listener and workers have told that they live.

    Raises
    ------
    DemoError
        If one does not in time.
    """
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


def send_study(study: DemoStudy, node: Destination, advance: Callable[[], None]) -> None:
    """Send a study's images over one association, as a scanner does; note when the last was answered.

    Raises
    ------
    DemoError
        If the node does not take one of them.
    """
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
    """Wait until every study's results have reached the PACS.

    Raises
    ------
    DemoError
        If a job fails, or they do not in time.
    """
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


def export_audit(database: Database, path: Path) -> None:
    """Write the node's audit trail."""
    from db.audit.reading import export

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
