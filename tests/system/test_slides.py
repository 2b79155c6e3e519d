"""Slides through a whole node: sent by a scanner, scored patch by patch, reported to a PACS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless

from tests import results_contexts as given
from tests.command_line import command
from tests.idc_bundle import write_idc_bundle
from tests.running_node import WORK_S, RunningNode, until
from tests.simulators.pacs import SimulatedPacs
from tests.slide_phantoms import slide_object, slide_pixels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROWS, COLUMNS = 620, 830
TUMOUR = (225, 525, 80)  # in the middle of the patch in row 4 and column 10


@dataclass(frozen=True)
class Laboratory:
    """A node that is asked about slides alone, and its PACS."""

    node: RunningNode
    pacs: SimulatedPacs

    def send(self, *images: Dataset) -> list[dict[str, Any]]:
        """Send a study and return the rows of its results once the PACS has them."""
        uid = self.complete(*images)

        def is_there() -> bool:
            assert not self.node.jobs(kind=None, state="failed"), self.node.log[-3000:]
            rows = self.rows(uid)
            return bool(rows) and {row["delivery_state"] for row in rows} == {"delivered"}

        until(is_there, WORK_S, "the delivery")
        return self.rows(uid)

    def complete(self, *images: Dataset) -> str:
        """Send a study, tell the node that this was all of it, and return its UID."""
        self.node.send(images)
        uid = str(images[0].StudyInstanceUID)
        self.command("study", "complete", uid)
        return uid

    def command(self, *arguments: str | Path) -> None:
        """Run a command on the node."""
        answer = command(*arguments, "--data-dir", self.node.data_dir)
        assert answer.status == 0, answer.err

    def rows(self, uid: str) -> list[dict[str, Any]]:
        """Return the rows of a study's results."""
        return [row for row in self.node.results() if row["study_instance_uid"] == uid]

    def read(self, row: dict[str, Any]) -> Dataset:
        """Return a stored result."""
        name = str(row["file"])
        return dcmread(BytesIO((self.node.data_dir / "results" / name[:2] / name).read_bytes()))


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Laboratory]:
    digest = write_idc_bundle(tmp_path / "bundle").digest
    with (
        SimulatedPacs("PACS") as pacs,
        RunningNode(tmp_path, [pacs.destination], settings={"tasks": ["idc"]}) as node,
    ):
        made = Laboratory(node.serve(), pacs)
        made.command("model", "add", tmp_path / "bundle")
        made.command("model", "activate", digest)
        yield made


def test_slides_are_scored_mapped_reported_or_refused(laboratory: Laboratory) -> None:
    pixels = slide_pixels(7, rows=ROWS, columns=COLUMNS, tumour=TUMOUR)
    label = {"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]}
    rows = laboratory.send(
        slide_object(pixels, seed=7, transfer_syntax_uid=RLELossless),
        slide_object(pixels[::4, ::4].copy(), seed=7, level=1, spacing_mm=0.016),
        slide_object(pixels[:256, :256].copy(), seed=7, level=2, **label),
    )
    found = {row["kind"]: laboratory.read(row) for row in rows}
    assert set(found) == {"slide_segmentation", "slide_report", "text_report"}
    overlay, report = found["slide_segmentation"], found["text_report"]
    likely = overlay.pixel_array
    assert likely.shape == (12, 16)
    rows_of, columns_of = np.nonzero(likely > 200)
    assert set(rows_of) <= set(range(2, 7))
    assert set(columns_of) <= set(range(8, 13))
    assert likely[4, 10] > 230
    assert likely[8, 4] < 26
    assert likely[0, 0] == 0
    assert overlay.PatientName == "Phantom^Slide"
    assert report.CompletionFlag == "COMPLETE"
    assert {o.sop_instance_uid for o in laboratory.pacs.stored} == {row["sop_instance_uid"] for row in rows}

    bare = slide_object(np.full((ROWS, COLUMNS, 3), 243, np.uint8), seed=8)
    (text,) = laboratory.send(bare)
    assert text["kind"] == "text_report"
    refused = laboratory.read(text)
    assert refused.CompletionFlag == "PARTIAL"
    assert "An image not analysed: no tissue was found on the slide." in given.texts(refused)

    # A second slide of the first study: a new revision, which replaces the first.
    second = slide_object(slide_pixels(9, rows=ROWS, columns=COLUMNS), seed=9)
    for keyword in ("StudyInstanceUID", "PatientID", "AccessionNumber"):
        setattr(second, keyword, overlay[keyword].value)
    laboratory.complete(second)
    laboratory.node.wait_until_delivered(3)
    later = [r for r in laboratory.rows(str(overlay.StudyInstanceUID)) if r["revision"] == 2]
    assert sorted(row["kind"] for row in later) == [
        *["slide_report"] * 2,
        *["slide_segmentation"] * 2,
        "text_report",
    ]
    (again,) = [laboratory.read(row) for row in later if row["kind"] == "text_report"]
    replaced = again.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    named = {r.ReferencedSOPInstanceUID for series in replaced for r in series.ReferencedSOPSequence}
    assert named == {report.SOPInstanceUID, found["slide_report"].SOPInstanceUID}
    assert laboratory.node.verify_audit().problem is None
