"""Which bundle a worker asks for which study: champion, canary, shadow, and devices in shadow."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from db import deployments, jobs
from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.deployments import is_in_share
from db.lifecycle import DeploymentRole, JobKind, JobState
from db.observations import devices, of_device
from db.session import Database
from db.shadow_scores import pairs
from db.tables import DeviceObservation, Instance, ResultObject, ShadowScore
from models import bundle
from models.classifier import Classifier, predict_study
from models.errors import GoldenMismatchError
from models.preprocessing import Parameters
from tests.scoring_node import ScoringNode, images_of, scoring_node
from tests.steered_node import TASK, WORKER, SteeredNode, on_sqlite
from tests.unit.answering_bundle import write_answering_bundle
from tests.unit.refused_bundles import with_golden
from tests.unit.small_bundle import write_small_bundle
from workers.classifier_cache import ClassifierCache
from workers.shadowing import Shadow

pytestmark = on_sqlite


@pytest.fixture
def node(node: SteeredNode, tmp_path: Path) -> Iterator[ScoringNode]:
    with scoring_node(node, tmp_path) as scoring:
        yield scoring


@pytest.fixture
def champion(node: ScoringNode, tmp_path: Path) -> str:
    digest = node.add(write_small_bundle(tmp_path / "champion", seed=1))
    node.change("activate", digest)
    return digest


@pytest.fixture
def challenger(node: ScoringNode, tmp_path: Path) -> str:
    return node.add(write_small_bundle(tmp_path / "challenger", seed=2))


def test_the_shadow_scores_what_the_champion_scored_and_nothing_of_it_is_sent(
    node: ScoringNode, champion: str, challenger: str
) -> None:
    study = node.receive(images_of(1))
    node.worker().drain()
    alone = node.document_of(study)
    sent_alone = len(node.steered.rows(ResultObject))
    node.change("shadow", challenger)
    second = node.receive(images_of(2))
    node.worker().drain()

    assert alone["answered_as"] == node.document_of(second)["answered_as"] == "champion"
    rows = node.steered.rows(ShadowScore)
    assert len(rows) == 4
    assert {row.bundle_digest for row in rows} == {challenger}
    assert {row.champion_digest for row in rows} == {champion}
    said = {image["sop_instance_uid"]: image["logit"] for image in node.document_of(second)["images"]}
    assert {row.sop_instance_uid: row.champion_logit for row in rows} == said
    assert all(row.logit != row.champion_logit for row in rows)
    assert len(node.steered.rows(ResultObject)) == 2 * sent_alone
    assert {job.bundle_digest for job in node.steered.jobs(JobKind.DELIVER)} == {champion}
    with node.steered.reading() as session:
        assert len(pairs(session, champion, challenger)) == 4
        assert pairs(session, challenger, champion) == []


def test_the_shadow_gives_the_scores_that_it_would_give_as_champion(
    node: ScoringNode, champion: str, tmp_path: Path
) -> None:
    other = node.add(write_small_bundle(tmp_path / "other", seed=3))
    node.change("shadow", other)
    study = node.receive(images_of(1))
    node.worker().drain()
    shadowed = {row.sop_instance_uid: row.logit for row in node.steered.rows(ShadowScore)}
    views = [node.reader.read(path, uid).view for path, uid in paths_of(node)]
    classifier = Classifier.load(node.store.path_of(other), threads=1)
    direct = {image.sop_instance_uid: image.logit for image in predict_study(classifier, views, ()).images}
    assert shadowed == direct
    assert node.job_of(study).bundle_digest == champion


def paths_of(node: ScoringNode) -> list[tuple[Path, str]]:
    return [(node.spool.path_of(i.spool_name), i.sop_instance_uid) for i in node.steered.rows(Instance)]


def test_a_shadow_that_cannot_be_loaded_harms_nothing(
    node: ScoringNode, champion: str, challenger: str, log: io.StringIO
) -> None:
    node.change("shadow", challenger)
    shutil.rmtree(node.store.path_of(challenger))
    study = node.receive(images_of(1))
    node.worker().drain()
    assert node.document_of(study)["outcome"] == "scored"
    assert node.steered.jobs(JobKind.DELIVER)
    assert node.steered.rows(ShadowScore) == []
    assert "shadow.failed" in log.getvalue()


def test_a_shadow_that_has_no_time_left_holds_no_job_up(
    node: ScoringNode, champion: str, challenger: str, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Shadow.__init__.__kwdefaults__, "limit_s", 0.0)
    node.change("shadow", challenger)
    study = node.receive(images_of(1))
    node.worker().drain()
    assert node.document_of(study)["outcome"] == "scored"
    assert node.steered.rows(ShadowScore) == []
    assert "shadow.out_of_time" in log.getvalue()


def test_a_canary_answers_for_its_share_and_its_results_are_sent(
    node: ScoringNode, champion: str, challenger: str
) -> None:
    studies = {seed: str(images_of(seed)[0].StudyInstanceUID) for seed in range(1, 9)}
    chosen = next(seed for seed, study in studies.items() if is_in_share(study, 50))
    left = next(seed for seed, study in studies.items() if not is_in_share(study, 50))
    node.change("canary", challenger, 50)
    for seed in (chosen, left):
        node.receive(images_of(seed))
    node.worker().drain()

    assert node.document_of(studies[chosen])["bundle"]["digest"] == challenger
    assert node.document_of(studies[chosen])["answered_as"] == "canary"
    assert node.document_of(studies[left])["bundle"]["digest"] == champion
    deliveries = {job.bundle_digest for job in node.steered.jobs(JobKind.DELIVER)}
    assert deliveries == {champion, challenger}


@pytest.fixture
def broken(node: ScoringNode, tmp_path: Path) -> str:
    """A bundle that does not compute on this machine what it did at its release."""
    folder = write_small_bundle(tmp_path / "broken", seed=4).path
    with_golden(lambda golden: golden.update(logits=golden["logits"] + 0.5))(folder)
    return node.add(bundle.read(folder))


@pytest.mark.parametrize(
    ("role", "event", "named"),
    [("activate", "bundle.rolled_back", True), ("canary", "bundle.retired", False)],
)
def test_a_new_bundle_that_fails_its_golden_cases_is_taken_back_and_the_one_before_answers(
    node: ScoringNode, champion: str, broken: str, log: io.StringIO, role: str, event: str, named: bool
) -> None:
    """S13: as champion and as canary."""
    node.receive(images_of(1))
    node.worker().drain()
    node.change(role, broken, *([99] if role == "canary" else []))
    study = node.receive(images_of(2))
    assert is_in_share(study, 99)
    node.worker().drain()

    job = node.job_of(study)
    assert (job.bundle_digest, job.attempts) == (champion, 1)
    with node.steered.reading() as session:
        assert deployments.answering(session, TASK, study) == deployments.Answering(
            champion, DeploymentRole.CHAMPION
        )
    told = node.steered.audited()[-4:]
    (taken_back,) = [each for each in told if each.action == event]
    assert (taken_back.actor, taken_back.bundle) == (WORKER, champion if named else broken)
    assert "does not give its released answers" in json.loads(taken_back.detail)["reason"]
    assert "bundle.taken_back" in log.getvalue()


def test_a_worker_that_starts_beside_a_new_bundle_that_fails_takes_it_back_and_starts(
    node: ScoringNode, champion: str, broken: str
) -> None:
    node.receive(images_of(1))
    node.worker().drain()
    node.change("activate", broken)
    cache = ClassifierCache(node.store.path_of, device="cpu", threads=1)
    cache.warm(node.steered.database, [TASK], actor=WORKER)
    with node.steered.reading() as session:
        assert deployments.champion(session, TASK) == champion


def test_a_worker_whose_machine_fails_a_bundle_that_has_answered_does_not_start(
    node: ScoringNode, champion: str, broken: str
) -> None:
    node.receive(images_of(1))
    node.worker().drain()
    node.change("activate", broken)
    node.receive(images_of(2))
    scored = node.steered.claimed()
    with node.steered.transaction(WORKER) as tx:
        jobs.bind_bundle(tx, scored, broken)
    node.steered.finish_scoring(scored)
    cache = ClassifierCache(node.store.path_of, device="cpu", threads=1)
    with pytest.raises(GoldenMismatchError):
        cache.warm(node.steered.database, [TASK], actor=WORKER)
    with node.steered.reading() as session:
        assert deployments.champion(session, TASK) == broken


def test_the_only_bundle_keeps_its_role_though_it_fails_and_its_job_tells_why(
    node: ScoringNode, broken: str
) -> None:
    node.change("activate", broken)
    node.receive(images_of(1))
    node.worker().drain()
    (job,) = node.steered.jobs()
    assert (job.state, job.error_code) == (JobState.FAILED, "GOLDEN_MISMATCH")
    with node.steered.reading() as session:
        assert deployments.champion(session, TASK) == broken


def test_a_rollback_holds_from_the_next_claimed_job_on_without_a_restart(
    node: ScoringNode, champion: str, challenger: str
) -> None:
    worker = node.worker()
    node.change("activate", challenger)
    first = node.receive(images_of(1))
    worker.drain()
    assert node.job_of(first).bundle_digest == challenger
    # Of this thread alone: a disk may take its time for the commit, but nothing is to be loaded or read.
    start = time.thread_time()
    assert node.change("rollback", TASK) == champion
    taken = time.thread_time() - start
    second = node.receive(images_of(2))
    worker.drain()
    assert node.job_of(second).bundle_digest == champion
    assert taken < 1.0


def test_studies_of_a_device_in_shadow_are_scored_and_kept_but_not_reported(
    node: ScoringNode, champion: str
) -> None:
    held = node.receive(images_of(1, ManufacturerModelName="Drifting One"))
    sent = node.receive(images_of(2, ManufacturerModelName="Steady One"))
    node.worker(shadowed_devices=("drifting one",)).drain()

    assert node.document_of(held)["withheld"]
    assert node.document_of(held)["study_probability"] is not None
    assert not node.document_of(sent)["withheld"]
    deliveries = node.steered.jobs(JobKind.DELIVER)
    assert [job.parent_job_id for job in deliveries] == [node.job_of(sent).id]
    kept = {row.job_id for row in node.steered.rows(ResultObject)}
    assert kept == {node.job_of(held).id, node.job_of(sent).id}


def test_one_software_version_of_a_model_can_be_put_into_shadow(node: ScoringNode, champion: str) -> None:
    old = node.receive(images_of(1, ManufacturerModelName="Unit", SoftwareVersions="1.0"))
    new = node.receive(images_of(2, ManufacturerModelName="Unit", SoftwareVersions="2.0"))
    node.worker(shadowed_devices=("UNIT/2.0",)).drain()
    assert not node.document_of(old)["withheld"]
    assert node.document_of(new)["withheld"]


def test_each_scored_study_leaves_the_device_and_its_pixels_in_numbers(
    node: ScoringNode, champion: str
) -> None:
    node.receive(images_of(1, ManufacturerModelName="Unit", SoftwareVersions=["1.0", "b7"]))
    node.worker().drain()
    with node.steered.reading() as session:
        (device,) = devices(session, TASK, champion)
        (seen,) = of_device(session, TASK, champion, scanner_model="UNIT", software_versions="1.0\\B7")
    assert device == {
        "scanner_model": "UNIT",
        "software_versions": "1.0\\B7",
        "studies": 1,
        "withheld": False,
    }
    assert set(seen["numbers"]) == {"mean", "deviation", "dark_share"}
    assert 0.0 < seen["numbers"]["mean"] < 1.0
    assert seen["categories"]["photometric_interpretation"] == "MONOCHROME2"
    stored = str([vars(row) for row in node.steered.rows(DeviceObservation)])
    assert "P-1" not in stored
    assert "Phantom^Demo" not in stored


def test_a_bundle_refuses_images_of_devices_that_it_was_not_validated_for(
    node: ScoringNode, tmp_path: Path
) -> None:
    digest = node.add(write_small_bundle(tmp_path / "strict", scanner_models=("Validated One",)))
    node.change("activate", digest)
    refused = node.receive(images_of(1, ManufacturerModelName="Another"))
    scored = node.receive(images_of(2, ManufacturerModelName="VALIDATED ONE"))
    node.worker().drain()
    assert node.document_of(refused)["outcome"] == "refused"
    codes = {refusal["code"] for refusal in node.document_of(refused)["refusals"]}
    assert codes == {"NO_SCORABLE_IMAGE", "DEVICE_NOT_VALIDATED"}
    assert node.document_of(scored)["outcome"] == "scored"


def test_a_shadow_with_another_grid_prepares_the_images_for_itself(node: ScoringNode, champion: str) -> None:
    grid = Parameters(rows=64, columns=80, pixel_mm=3.0)
    bundle = write_answering_bundle(node.folder / "grid", task=TASK, channels=3, preprocessing=grid)
    other = node.add(bundle)
    node.change("shadow", other)
    node.receive(images_of(1))
    node.worker().drain()
    assert len(node.steered.rows(ShadowScore)) == 4


def test_the_same_study_scores_the_same_to_the_bit_in_any_order_and_after_a_restart(
    new_database_url: Callable[..., str], audit_key: AuditKey, tmp_path: Path
) -> None:
    bundle = write_small_bundle(tmp_path / "champion")
    found = []
    for number, order in enumerate(([1, 2, 3], [3, 1, 2], [2])):
        database = Database(new_database_url(upgraded=True), AuditTrail(audit_key))
        with scoring_node(SteeredNode(database), tmp_path / str(number)) as node:
            node.change("activate", node.add(bundle))
            for seed in order:
                node.receive(images_of(seed)[:: 1 if number else -1])
            node.worker().drain()
            said = node.document_of(str(images_of(2)[0].StudyInstanceUID))
            logits = {image["sop_instance_uid"]: image["logit"] for image in said["images"]}
            found.append((said["study_probability"], logits))
            node.steered.database.close()
        database.close()
    assert found[0] == found[1] == found[2]
    assert len(found[0][1]) == 4
