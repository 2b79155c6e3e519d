"""The bundle that scored slides is recalled: the next one scores them, and its results are withdrawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from db import recall
from db.handoff import Completeness, Route, complete_study
from db.lifecycle import JobKind
from dicom_node.results.checks.checker import check_analyses
from dicom_node.results.rejection_note import KEY_OBJECT_SELECTION
from models.tasks import task_named
from tests import results_contexts as given
from tests.idc_bundle import write_idc_bundle
from tests.scoring_node import ScoringNode, scoring_node
from tests.slide_phantoms import slide_object, slide_pixels
from tests.steered_node import SteeredNode, on_sqlite

RULES = Completeness(frozenset(), 60, (Route("idc", task_named("idc").scored_sop_classes),))
REJECTED_FOR_PATIENT_SAFETY = "113037"


def deploy(node: ScoringNode, version: str) -> str:
    digest = node.add(write_idc_bundle(node.folder / version, version))
    node.change("activate", digest)
    return digest


def delivered(node: ScoringNode) -> list[Dataset]:
    """Deliver what is due and give it, in the order of sending."""
    sent = node.steered.deliver(node.steered.claimed(JobKind.DELIVER))
    return [dcmread(node.results.path_of(item.file_name)) for item in sent]


def rejected_by(note: Dataset) -> set[str]:
    return {
        str(reference.ReferencedSOPInstanceUID)
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }


@pytest.mark.timeout(600)
@on_sqlite
def test_recalled_slides_are_scored_again_and_every_object_is_withdrawn(
    node: SteeredNode, tmp_path: Path
) -> None:
    with scoring_node(node, tmp_path) as scoring:
        recalled = deploy(scoring, "1.0.0")
        image = slide_object(slide_pixels(7, rows=620, columns=830, tumour=(225, 525, 80)), seed=7)
        study = scoring.receive([image], RULES)
        with node.transaction("anna") as tx:
            complete_study(tx, study, RULES)
        scoring.worker().drain()
        before = delivered(scoring)
        assert len(before) == 3

        successor = deploy(scoring, "2.0.0")
        with node.reading() as session:
            (row,) = recall.scored_by(session, recalled)
        assert (row["study_instance_uid"], row["task"], row["delivered"]) == (study, "idc", 3)
        with node.transaction("anna") as tx:
            assert recall.recall_study(tx, study, recalled, RULES) == 2
        scoring.worker().drain()
        after = delivered(scoring)

        (note,) = [o for o in after if o.SOPClassUID == KEY_OBJECT_SELECTION]
        assert note.ConceptNameCodeSequence[0].CodeValue == REJECTED_FOR_PATIENT_SAFETY
        assert "recalled" in " ".join(given.texts(note))
        assert after[-1] is note, "the new results are there before the old ones are taken away"
        assert rejected_by(note) == {str(o.SOPInstanceUID) for o in before}
        assert (note.PatientName, note.StudyInstanceUID) == (image.PatientName, study)
        assert {o.SOPInstanceUID for o in after}.isdisjoint(o.SOPInstanceUID for o in before)
        assert sorted(o.Modality for o in after) == ["KO", *sorted(o.Modality for o in before)]
        assert check_analyses([*before, *after], [image]) == []
        with node.reading() as session:
            (row,) = recall.scored_by(session, recalled)
            (again,) = recall.scored_by(session, successor)
        assert (row["delivered"], row["superseded"], row["recalled"]) == (0, True, True)
        assert (again["revision"], again["delivered"]) == (2, len(after))
