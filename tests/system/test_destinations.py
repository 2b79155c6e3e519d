"""Each destination gets what its profile wants, and what is superseded or recalled is withdrawn from it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from dicom_node import installation
from tests.running_node import WORK_S, RunningNode, until
from tests.simulators.pacs import SimulatedPacs
from tests.unit.small_bundle import write_small_bundle
from training.datasets.phantom_objects import study
from training.datasets.phantoms import LesionKind

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COMPREHENSIVE_SR, COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.34"
ENHANCED_SR, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.66.4"
KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
SPICULATED = {("R", "CC"): (LesionKind.SPIC, True), ("R", "MLO"): (LesionKind.SPIC, True)}


@dataclass(frozen=True)
class Site:
    """A node with a viewer of today, one of yesterday, and an archive that withdraws."""

    node: RunningNode
    viewer: SimulatedPacs
    old: SimulatedPacs
    archive: SimulatedPacs

    def command(self, *arguments: str | Path) -> str:
        """Run a command on the node's data directory; return what it printed."""
        done = subprocess.run(
            [*installation.console_script(), *map(str, arguments), "--data-dir", str(self.node.data_dir)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def results(self, pacs: SimulatedPacs, revision: int) -> list[dict[str, Any]]:
        """Return the result rows of a destination, in the order of sending."""
        where = str(pacs.destination)
        rows = [r for r in self.node.results() if (r["destination"], r["revision"]) == (where, revision)]
        return rows[::-1]

    def wait_for(self, revision: int) -> None:
        """Wait until every destination has a revision's results."""

        def delivered() -> bool:
            rows = [self.results(pacs, revision) for pacs in (self.viewer, self.old, self.archive)]
            return all(found and {r["delivery_state"] for r in found} == {"delivered"} for found in rows)

        until(delivered, WORK_S, f"the delivery of revision {revision}")

    def read(self, row: dict[str, Any]) -> Dataset:
        """Return a stored result."""
        name = str(row["file"])
        return dcmread(BytesIO((self.node.data_dir / "results" / name[:2] / name).read_bytes()))

    def note(self, revision: int, pacs: SimulatedPacs) -> Dataset:
        """Return the rejection note that a destination got, the last object of its revision."""
        *others, last = self.results(pacs, revision)
        assert last["kind"] == "rejection_note"
        assert "rejection_note" not in {row["kind"] for row in others}
        return self.read(last)


def rejected(note: Dataset) -> set[str]:
    (evidence,) = note.CurrentRequestedProcedureEvidenceSequence
    series = evidence.ReferencedSeriesSequence
    return {str(r.ReferencedSOPInstanceUID) for s in series for r in s.ReferencedSOPSequence}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with (
        SimulatedPacs("VIEWER") as viewer,
        SimulatedPacs(
            "OLD",
            sop_class_uids=frozenset({COMPREHENSIVE_SR, ENHANCED_SR, SEGMENTATION, KEY_OBJECT_SELECTION}),
        ) as old,
        SimulatedPacs("ARCHIVE") as archive,
        RunningNode(
            tmp_path,
            settings={
                "destinations": [
                    f"{viewer.destination}/ohif",
                    f"{old.destination}/ohif",
                    {"address": str(archive.destination), "profile": "iocm"},
                ],
                "profiles": {
                    "iocm": {
                        "kinds": ["text_report", "measurement_report"],
                        "sr_class": "3d",
                        "withdraws": True,
                    }
                },
            },
        ) as node,
    ):
        node.start("serve")
        node.wait_for_processes({"listen", "dispatch", "score", "deliver"})
        yield Site(node, viewer, old, archive)


def test_profiles_revisions_and_a_recall(site: Site, tmp_path: Path) -> None:
    images = study(seed=3, kinds=SPICULATED, rows=640, columns=512)
    site.node.send(images)
    site.wait_for(1)

    # Each destination has its own selection of objects that were built once.
    viewer, old, archive = (site.results(pacs, 1) for pacs in (site.viewer, site.old, site.archive))
    assert COMPREHENSIVE_3D_SR in {row["sop_class_uid"] for row in viewer}
    assert COMPREHENSIVE_SR not in {row["sop_class_uid"] for row in viewer}
    assert COMPREHENSIVE_SR in {row["sop_class_uid"] for row in old}
    assert COMPREHENSIVE_3D_SR not in {row["sop_class_uid"] for row in old}
    assert [row["kind"] for row in archive] == ["text_report", "measurement_report"]
    assert {row["sop_instance_uid"] for row in archive} < {row["sop_instance_uid"] for row in viewer}
    for pacs, rows in ((site.viewer, viewer), (site.old, old), (site.archive, archive)):
        assert {stored.sop_instance_uid for stored in pacs.stored} == {r["sop_instance_uid"] for r in rows}

    # A late image: the archive, and it alone, is told to withdraw what it has.
    late = study(seed=3, kinds=SPICULATED, rows=640, columns=512)[0]
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    site.node.send([late])
    site.command("study", "complete", late.StudyInstanceUID)
    site.wait_for(2)
    note = site.note(2, site.archive)
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    assert rejected(note) == {row["sop_instance_uid"] for row in archive}
    assert site.archive.stored[-1].sop_instance_uid == note.SOPInstanceUID
    assert "rejection_note" not in {row["kind"] for row in site.results(site.viewer, 2)}

    # The bundle is recalled: everything that is still there is withdrawn, everywhere.
    first = json.loads(site.command("model", "list", "--json"))[0]["digest"]
    second = write_small_bundle(tmp_path / "bundle").digest
    site.command("model", "add", tmp_path / "bundle")
    site.command("model", "activate", second)
    listed = json.loads(site.command("model", "recall", first, "--execute", "--json"))
    assert [(row["revision"], row["superseded"]) for row in listed] == [(1, True), (2, False)]
    site.wait_for(3)
    for pacs in (site.viewer, site.old, site.archive):
        note = site.note(3, pacs)
        assert note.ConceptNameCodeSequence[0].CodeValue == "113037"
        present = {row["sop_instance_uid"] for number in (1, 2) for row in site.results(pacs, number)}
        gone = {row["sop_instance_uid"] for row in site.results(pacs, 2) if row["kind"] == "rejection_note"}
        before = {row["sop_instance_uid"] for row in archive} if pacs is site.archive else set()
        assert rejected(note) == present - gone - before
        assert pacs.stored[-1].sop_instance_uid == note.SOPInstanceUID
    (job, *_) = site.node.jobs()
    assert (job["revision"], job["bundle"], job["state"]) == (3, second, "done")
    assert site.node.verify_audit().ok
