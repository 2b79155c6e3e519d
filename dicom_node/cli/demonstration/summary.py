"""What the demonstration shows at its end: what the PACS holds of each study, as files and as a table."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from rich.table import Table
from rich.text import Text

from db import listing
from db.lifecycle import JobKind
from db.session import Database
from dicom_node import installation
from dicom_node.cli.demonstration.studies import DemoStudy
from dicom_node.cli.output import console, heading, plain_lines
from dicom_node.demo_pacs import ArchivedObject
from dicom_node.results import wording

VIEWS, BREASTS = ("R CC", "R MLO", "L CC", "L MLO"), ("R", "L")
COLUMNS = ("study", "drawn as", *VIEWS, *BREASTS, "study", "result", "seconds")
WRITTEN = (
    ("images sent", "scanner"),
    ("DICOM results, as the PACS holds them", "pacs"),
    ("images with overlay (PNG)", "overlays"),
    ("reports as text", "reports"),
    ("audit trail", "audit.jsonl"),
    ("the node's log", "node.log"),
)


@dataclass(slots=True)
class Arrivals:
    """What came back to the PACS, with its time on the monotonic clock."""

    objects: list[tuple[float, ArchivedObject]] = field(default_factory=list)

    def note(self, archived: ArchivedObject) -> None:
        """Note one object; called from the PACS's threads."""
        self.objects.append((time.monotonic(), archived))


@dataclass(frozen=True, slots=True)
class ScoredStudy:
    """What became of one study.

    Attributes
    ----------
    title : str
        What was drawn.
    analysis : dict
        The node's, JSON values.
    report : str
        The text report's words, as the PACS holds it.
    seconds : float
        From the last image to the last report.
    """

    title: str
    analysis: dict[str, Any]
    report: str
    seconds: float

    @property
    def probability(self) -> float:
        """The study's, 0..1."""
        return float(self.analysis["study_probability"])

    @property
    def threshold(self) -> float:
        """The bundle's, 0..1."""
        return float(self.analysis["threshold"])


def collect(
    database: Database, studies: Sequence[DemoStudy], arrivals: Arrivals, out: Path
) -> list[ScoredStudy]:
    """Collect, for each study, what the PACS holds now; write its pictures and its report's text.

    Parameters
    ----------
    database : Database
        The node's.
    studies : sequence of DemoStudy
        What was sent.
    arrivals : Arrivals
        What came back.
    out : pathlib.Path
        The demonstration's folder.
    """
    from pydicom import dcmread
    from pydicom.uid import EnhancedSRStorage

    from dicom_node.results.reading import report_text

    stored = [(at, dcmread(archived.path)) for at, archived in arrivals.objects]
    scored = []
    for number, study in enumerate(studies, start=1):
        own = [(at, ds) for at, ds in stored if ds.StudyInstanceUID == study.study_instance_uid]
        text = report_text(next(ds for _, ds in own if ds.get("SOPClassUID") == EnhancedSRStorage))
        (out / "reports" / f"study-{number}.txt").write_text(text + "\n", encoding="utf-8")
        with database.reading() as session:
            job = listing.jobs(session, kind=JobKind.SCORE, study_instance_uid=study.study_instance_uid)[0]
            analysis = json.loads(listing.analysis(session, job["job_id"]) or "{}")
        segmentations = [ds for _, ds in own if ds.Modality == "SEG"]
        _draw_overlays(study, segmentations, analysis, out / "overlays" / f"study-{number}")
        seconds = max(at for at, ds in own if ds.Modality == "SR") - study.sent_at
        scored.append(ScoredStudy(study.title, analysis, text, seconds))
    return scored


def _draw_overlays(
    study: DemoStudy, segmentations: Sequence[Dataset], analysis: Mapping[str, Any], begins: Path
) -> None:
    """Write a picture of each image, with the segmentation that refers to it where there is one."""
    from pydicom import dcmread

    from dicom_node.cli.pictures import caption, draw_overlay, phantom_as_displayed
    from dicom_node.results.reading import evidence_bands

    overlays = {
        ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID: ds
        for ds in segmentations
    }
    scores = {image["sop_instance_uid"]: image["probability"] for image in analysis["images"]}
    for path in study.files:
        image = dcmread(path)
        overlay = overlays.get(image.SOPInstanceUID)
        place, probability = path.stem.replace("-", " "), scores[image.SOPInstanceUID]
        draw_overlay(
            phantom_as_displayed(image),
            evidence_bands(overlay) if overlay is not None else None,
            caption(place, probability, float(analysis["threshold"])),
            begins.with_name(f"{begins.name}-{path.stem}.png"),
        )


def print_summary(scored: Sequence[ScoredStudy], out: Path) -> None:
    """Print the report of the most suspicious study, everybody's scores, and where everything lies.

    Parameters
    ----------
    scored : sequence of ScoredStudy
        All of them, in the order of sending.
    out : pathlib.Path
        The demonstration's folder.
    """
    shown = max(range(len(scored)), key=lambda number: scored[number].probability)
    heading(f"report of study {shown + 1} as the PACS holds it")
    console.print(plain_lines(scored[shown].report))
    heading("probability of cancer in %, of each image, breast and study")
    console.print(_table_of(scored))
    threshold = scored[shown].threshold
    limit = wording.percent(threshold, threshold)
    console.print(f"threshold {limit}; seconds: from the last image to the stored report")
    heading("written")
    for what, where in WRITTEN:
        console.print(f"{what}: {out / where}", soft_wrap=True, highlight=False)
    (command,) = installation.console_script()
    asks = f"ask the node itself: {command} study list --data-dir {out / 'node'}"
    console.print(asks, soft_wrap=True, highlight=False)


def _table_of(scored: Sequence[ScoredStudy]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "drawn as" else "right")
    for number, study in enumerate(scored, start=1):

        def said(probability: float, threshold: float = study.threshold) -> str:
            return wording.percent(probability, threshold).removesuffix(" %")

        images = {f"{i['laterality']} {i['view']}": i["probability"] for i in study.analysis["images"]}
        breasts = {b["laterality"]: b["probability"] for b in study.analysis["breasts"]}
        table.add_row(
            str(number),
            study.title,
            *(said(images[view]) for view in VIEWS),
            *(said(breasts[side]) for side in BREASTS),
            said(study.probability),
            Text("POSITIVE", style="red") if study.probability >= study.threshold else "NEGATIVE",
            f"{study.seconds:.2f}",
        )
    return table
