"""The slide half of a score job: which slides a bundle looks at."""

from __future__ import annotations

from pathlib import Path

from db.handoff import Completeness, Route, complete_study
from models.tasks import task_named
from tests.idc_bundle import write_idc_bundle
from tests.scoring_node import scoring_node
from tests.slide_phantoms import slide_object, slide_pixels
from tests.steered_node import SteeredNode, on_sqlite

RULES = Completeness(frozenset(), 60, (Route("idc", task_named("idc").scored_sop_classes),))


@on_sqlite
def test_a_bundle_refuses_slides_of_scanners_that_it_was_not_validated_for(
    node: SteeredNode, tmp_path: Path
) -> None:
    with scoring_node(node, tmp_path) as scoring:
        strict = write_idc_bundle(tmp_path / "strict", scanner_models=("Validated One",), steps=0)
        scoring.change("activate", scoring.add(strict))
        image = slide_object(slide_pixels(1, rows=260, columns=260), seed=1)
        image.ManufacturerModelName = "Another"
        study = scoring.receive([image], RULES)
        with node.transaction("anna") as tx:
            complete_study(tx, study, RULES)
        scoring.worker().drain()
        document = scoring.document_of(study)
    assert document["outcome"] == "refused"
    assert "DEVICE_NOT_VALIDATED" in {refusal["code"] for refusal in document["refusals"]}


@on_sqlite
def test_slides_of_two_patients_in_one_study_are_not_scored(node: SteeredNode, tmp_path: Path) -> None:
    with scoring_node(node, tmp_path) as scoring:
        scoring.change("activate", scoring.add(write_idc_bundle(tmp_path / "idc", steps=0)))
        one, two = (slide_object(slide_pixels(n, rows=260, columns=260), seed=n) for n in (1, 2))
        two.StudyInstanceUID, two.PatientID = one.StudyInstanceUID, "ANOTHER-2"
        study = scoring.receive([one, two], RULES)
        with node.transaction("anna") as tx:
            complete_study(tx, study, RULES)
        scoring.worker().drain()
        document = scoring.document_of(study)
    assert (document["outcome"], document["slides"]) == ("refused", [])
    assert [refusal["code"] for refusal in document["refusals"]] == [
        "NO_SCORABLE_IMAGE",
        *["SEVERAL_PATIENTS"] * 2,
    ]
