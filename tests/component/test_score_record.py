"""A7: the record of a score names all that it follows from, under the chain of the trail."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path

from db.tables import Instance, ResultObject
from dicom_node import __version__
from models import bundle
from tests.scoring_node import images_of, scoring_node
from tests.steered_node import SteeredNode, on_sqlite
from tests.unit.small_bundle import write_small_bundle


@on_sqlite
def test_the_record_of_a_score_names_all_that_it_follows_from(node: SteeredNode, tmp_path: Path) -> None:
    images = images_of(1)
    before = datetime.now(UTC)
    with scoring_node(node, tmp_path) as scoring:
        scoring.change("activate", scoring.add(write_small_bundle(tmp_path / "champion", seed=1)))
        study = scoring.receive(images)
        scoring.worker().drain()
        document = scoring.document_of(study)
        answering = bundle.read(scoring.store.path_of(str(scoring.job_of(study).bundle_digest)))

    received = {row.sop_instance_uid: row.sha256 for row in node.rows(Instance)}
    assert set(received) == {image.SOPInstanceUID for image in images}
    assert {each["sop_instance_uid"]: each["sha256"] for each in document["inputs"]} == received
    who = answering.identity
    assert document["bundle"] == {
        "name": who.name,
        "version": who.version,
        "digest": who.digest,
        "configuration_digest": who.configuration_digest,
        "demonstration": who.demonstration,
    }
    assert document["threshold"] == answering.threshold
    started, ended = (datetime.fromisoformat(document[key]) for key in ("started_at", "ended_at"))
    assert before <= started <= ended <= datetime.now(UTC)
    assert (document["device"], document["host"]) == ("cpu", platform.node())
    assert (document["software_version"], document["revision"], document["attempt"]) == (__version__, 1, 1)
    assert {each["sop_instance_uid"] for each in document["images"]} == set(received)
    assert all(each.keys() >= {"logit", "probability", "laterality", "view"} for each in document["images"])
    assert document["study_probability"] == max(each["probability"] for each in document["breasts"])

    (told,) = [event for event in node.audited() if event.action == "job.scored"]
    assert (told.bundle, told.study_instance_uid) == (who.digest, study)
    detail = json.loads(told.detail)
    assert detail["analysis"] == document
    results = {row.sop_instance_uid: row.sha256 for row in node.rows(ResultObject)}
    assert {each["sop_instance_uid"]: each["sha256"] for each in detail["results"]} == results
    assert results
