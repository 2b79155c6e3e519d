"""Bringing a new bundle into use by steps, from the command line."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from db import deployments, observations, shadow_scores
from db.audit.keys import AuditKey, CheckpointKey
from db.audit.trail import AuditTrail
from db.jobs import Claim, claim
from db.lifecycle import JobKind
from db.observations import Observation
from db.session import Database
from db.shadow_scores import NewShadowScore
from models.bundle import CARD, read
from models.lesion_regions import RegionParameters
from models.patches import PatchParameters
from tests.command_line import Answer, command
from tests.simulated_comparisons import simulated_cases
from tests.steered_node import LISTENER, RULES, TASK, WORKER, mammogram
from tests.unit.answering_bundle import GRID, write_answering_bundle
from tests.unit.refused_bundles import release_again
from tests.unit.small_bundle import write_small_bundle
from training.promotion import PairedCases


@dataclass(frozen=True)
class Node:
    """A data directory with a champion and a challenger."""

    data_dir: Path
    database: Database
    champion: str
    challenger: str

    def model(self, *arguments: str | Path) -> Answer:
        """Run ``dicom-node model``."""
        return command("model", *arguments, "--data-dir", self.data_dir)

    def roles(self) -> dict[str, str]:
        """Return which bundle has which role."""
        return {row["role"]: row["digest"] for row in self.model("list", "--json").json if row["role"]}

    def last_event(self, action: str) -> dict[str, object]:
        """Return the detail of the latest audit event of an action."""
        rows = command("audit", "query", "--action", action, "--json", "--data-dir", self.data_dir).json
        detail: dict[str, object] = rows[-1]["detail"]
        return detail


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    data_dir = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", data_dir).status == 0
    CheckpointKey.load_or_create(data_dir / "keys" / "checkpoint.key")
    key = AuditKey.load_or_create(data_dir / "keys" / "audit.key")
    digests = []
    for number, name in enumerate(("champion", "challenger"), start=1):
        digests.append(write_small_bundle(tmp_path / name, seed=number, trained_by="Tina").digest)
        assert command("model", "add", tmp_path / name, "--data-dir", data_dir).status == 0
    assert command("model", "activate", digests[0], "--data-dir", data_dir).status == 0
    database = Database(f"sqlite:///{data_dir / 'node.db'}", AuditTrail(key))
    yield Node(data_dir, database, *digests)
    database.close()


def a_claim(node: Node, study: str = "2.25.1") -> Claim:
    """Have a study scored by somebody."""
    from db.handoff import register_instance

    with node.database.transaction(LISTENER) as tx:
        for view in (("R", "CC"), ("R", "MLO"), ("L", "CC"), ("L", "MLO")):
            register_instance(tx, mammogram(*view, study=study), RULES)
    with node.database.transaction(WORKER) as tx:
        found = claim(tx, JobKind.SCORE, lease_s=600, max_attempts=5)
    assert found is not None
    return found


def shadowed(node: Node, cases: PairedCases, *, patients: int | None = None) -> None:
    """Keep shadow scores of as many studies as there are cases, one image each.

    They are of as many different patients as `patients` says; without it no study names one.
    """
    from datetime import UTC, datetime

    from sqlalchemy import insert

    from db.tables import Job, Revision, ShadowScore, Study

    now = datetime(2026, 11, 2, tzinfo=UTC)
    numbers = range(1000, 1000 + cases.labels.size)
    with node.database.transaction("test") as tx:
        tx.session.execute(
            insert(Study),
            [
                {
                    "id": n,
                    "study_instance_uid": f"2.25.{n}",
                    "patient_id": "" if patients is None else f"SECRET-{n % patients}",
                    "accession_number": "",
                    "created_at": now,
                }
                for n in numbers
            ],
        )
        tx.session.execute(
            insert(Revision),
            [
                {
                    "id": n,
                    "study_id": n,
                    "number": 1,
                    "state": "complete",
                    "complete_reason": "all_views",
                    "opened_at": now,
                    "last_instance_at": now,
                    "due_at": now,
                }
                for n in numbers
            ],
        )
        tx.session.execute(
            insert(Job),
            [
                {
                    "id": f"{n:032x}",
                    "kind": "score",
                    "revision_id": n,
                    "task": TASK,
                    "state": "done",
                    "attempts": 1,
                    "next_try_at": now,
                    "created_at": now,
                }
                for n in numbers
            ],
        )
        tx.session.execute(
            insert(ShadowScore),
            [
                {
                    "job_id": f"{n:032x}",
                    "revision_id": n,
                    "bundle_digest": node.challenger,
                    "champion_digest": node.champion,
                    "sop_instance_uid": f"2.25.{n}.1",
                    "laterality": "R",
                    "logit": float(np.log(new / (1 - new))),
                    "probability": float(new),
                    "champion_logit": float(np.log(old / (1 - old))),
                    "champion_probability": float(old),
                    "scored_at": now,
                }
                for n, old, new in zip(numbers, cases.champion, cases.challenger, strict=True)
            ],
        )


def labels_file(folder: Path, cases: PairedCases) -> Path:
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study_instance_uid", "label", "density"])
        for number, label in enumerate(cases.labels, start=1000):
            writer.writerow([f"2.25.{number}", "malignant" if label else "0", "AB"[number % 2]])
    return path


def drawn(difference: float, positives: int = 400, negatives: int = 1600) -> PairedCases:
    # Both bundles' own operating point is 0.5, which half of these cases' scores cross.
    return simulated_cases(
        np.random.default_rng(3),
        positives=positives,
        negatives=negatives,
        champion_auc=0.93,
        difference=difference,
        correlation=0.9,
    )


def test_roles_are_given_and_ended(node: Node) -> None:
    assert node.model("shadow", node.challenger[:12]).status == 0
    assert node.roles() == {"champion": node.champion, "shadow": node.challenger}
    assert node.model("canary", node.challenger[:12], "5").status == 0
    assert node.roles() == {"champion": node.champion, "canary": node.challenger}
    assert node.model("retire", node.challenger[:12]).status == 0
    assert node.roles() == {"champion": node.champion}


def test_a_bundle_that_has_a_role_already_is_told_so_and_nothing_is_recorded(node: Node) -> None:
    assert node.model("shadow", node.challenger).status == 0
    again = node.model("shadow", node.challenger)
    assert (again.status, again.out.strip()) == (0, f"{node.challenger[:12]} scores in shadow already.")
    refused = node.model("promote", node.champion, "--approver", "Anna", "--override", "no need")
    assert refused.status == 5
    assert f"{node.champion[:12]} answers already" in refused.err
    assert node.roles() == {"champion": node.champion, "shadow": node.challenger}
    for action, times in (("bundle.shadowed", 1), ("bundle.promoted", 0)):
        rows = command("audit", "query", "--action", action, "--json", "--data-dir", node.data_dir).json
        assert len(rows) == times


def test_bundles_for_different_tasks_are_not_compared(node: Node, tmp_path: Path) -> None:
    other = write_answering_bundle(tmp_path / "idc", task="idc", preprocessing=PatchParameters())
    assert node.model("add", other.path).status == 0
    refused = node.model("compare", node.champion, other.digest)
    assert refused.status == 2
    assert "mammography_malignancy and idc: name two for the same task" in " ".join(refused.err.split())


@pytest.mark.parametrize("command_of_task", ["rollback", "drift"])
def test_a_task_that_does_not_exist_is_told_with_those_that_do(node: Node, command_of_task: str) -> None:
    refused = node.model(command_of_task, "mamography")
    assert refused.status == 5
    assert "No task is called 'mamography'; there are: idc, mammography_malignancy" in refused.err
    assert node.roles() == {"champion": node.champion}


def test_a_bundle_whose_files_are_gone_is_not_activated(node: Node) -> None:
    shutil.rmtree(node.data_dir / "bundles" / node.challenger)
    refused = node.model("activate", node.challenger)
    assert refused.status == 5
    assert "add it first" in refused.err
    assert node.roles() == {"champion": node.champion}


def test_a_share_out_of_range_is_a_usage_error(node: Node) -> None:
    assert node.model("canary", node.challenger, "100").status == 2
    assert node.roles() == {"champion": node.champion}


def test_a_bundle_for_drawn_regions_gets_no_role(node: Node, tmp_path: Path) -> None:
    parameters = RegionParameters(rows=GRID.rows, columns=GRID.columns)
    regions = write_answering_bundle(tmp_path / "regions", task=TASK, preprocessing=parameters)
    assert node.model("add", regions.path).status == 0
    for verb in (["activate"], ["shadow"], ["canary", "5"], ["promote", "--approver", "Anna"]):
        refused = node.model(verb[0], regions.digest, *verb[1:])
        assert refused.status == 5
        assert "regions" in refused.err
    assert node.roles() == {"champion": node.champion}


def test_without_a_study_scored_by_both_there_is_not_enough_evidence(node: Node) -> None:
    refused = node.model("promote", node.challenger, "--approver", "Anna")
    assert refused.status == 5
    assert "not enough evidence" in refused.err
    assert "model shadow" in refused.err
    assert node.roles() == {"champion": node.champion}


def test_nobody_approves_what_they_trained(node: Node) -> None:
    refused = node.model("promote", node.challenger, "--approver", "tina", "--override", "because")
    assert refused.status == 5
    assert "another approver" in refused.err
    assert node.roles() == {"champion": node.champion}


@pytest.mark.parametrize("override", ["", "  "])
def test_an_override_needs_its_reason(node: Node, override: str) -> None:
    assert node.model("promote", node.challenger, "--approver", "Anna", "--override", override).status == 5
    assert node.roles() == {"champion": node.champion}


def test_an_override_is_audited_with_approver_verdict_and_reason(node: Node) -> None:
    promoted = node.model(
        "promote", node.challenger, "--approver", "Anna", "--override", "The old one misses implants"
    )
    assert promoted.status == 0, promoted.err
    assert node.roles() == {"champion": node.challenger}
    detail = node.last_event("bundle.promoted")
    assert detail["approver"] == "Anna"
    assert detail["override"] == "The old one misses implants"
    assert detail["verdict"] == "not enough evidence"
    assert detail["replaces"] == node.champion
    assert node.model("rollback").status == 0
    assert node.roles() == {"champion": node.champion}


def test_a_challenger_that_was_shown_to_be_no_worse_is_promoted_on_labels(node: Node, tmp_path: Path) -> None:
    cases = drawn(0.02)
    shadowed(node, cases)
    labels = labels_file(tmp_path, cases)
    facts = node.model("compare", node.champion, node.challenger, "--labels", labels, "--json").json
    assert (facts["studies"], facts["labelled_studies"], facts["verdict"]) == (2000, 2000, "promote")
    assert 0.7 < facts["rank_correlation"] < 1.0
    assert any("density A" in reason for reason in facts["reasons"])
    found = {row["criterion"]: row for row in facts["criteria"]}
    assert {"AUC", "Sensitivity", "Specificity", "Brier score"} < found.keys()
    assert all(row["finding"] == "holds" and row["low"] > -row["margin"] for row in found.values())
    shown = node.model("compare", node.champion, node.challenger, "--labels", labels).out
    (area,) = [line.split() for line in shown.splitlines() if line.startswith("AUC  ")]
    assert area == [
        "AUC",
        *(f"{found['AUC'][name]:.3f}" for name in ("challenger_minus_champion", "low", "high", "margin")),
        "holds",
    ]

    promoted = node.model("promote", node.challenger, "--approver", "Anna", "--labels", labels)
    assert promoted.status == 0, promoted.err
    detail = node.last_event("bundle.promoted")
    assert (detail["verdict"], detail["positives"], detail["negatives"]) == ("promote", 400, 1600)
    assert "override" not in detail


def test_studies_of_few_patients_are_not_enough_evidence_and_name_none_of_them(
    node: Node, tmp_path: Path
) -> None:
    cases = drawn(0.02)
    shadowed(node, cases, patients=100)
    compared = node.model(
        "compare", node.champion, node.challenger, "--labels", labels_file(tmp_path, cases), "--json"
    )
    assert compared.json["verdict"] == "not enough evidence"
    assert compared.json["reasons"][0] == (
        "400 positive and 1600 negative cases of 100 and 100 women: 150 of each are needed."
    )
    assert "SECRET" not in compared.out + compared.err


def test_a_worse_challenger_is_rejected_and_the_reason_named(node: Node, tmp_path: Path) -> None:
    cases = drawn(-0.1)
    shadowed(node, cases)
    refused = node.model(
        "promote", node.challenger, "--approver", "Anna", "--labels", labels_file(tmp_path, cases)
    )
    assert refused.status == 5
    said = " ".join(refused.err.split())
    assert "reject: AUC" in said
    assert "keep the champion" in said
    assert node.roles() == {"champion": node.champion}


def test_agreement_is_shown_without_labels(node: Node) -> None:
    shadowed(node, drawn(0.0, 20, 80))
    shown = node.model("compare", node.champion[:12], node.challenger[:12])
    assert shown.status == 0
    assert "same answer" in shown.out
    assert "Verdict: not enough evidence." in shown.out


def test_a_bundle_for_a_task_that_studies_are_not_asked_about_is_told(node: Node) -> None:
    assert "not asked" not in node.model("activate", node.challenger).out
    elsewhere = {"DICOM_NODE_TASKS": "idc"}
    told = command("model", "activate", node.champion, "--data-dir", node.data_dir, environment=elsewhere)
    assert told.status == 0
    assert "mammography_malignancy yet: name it in the setting 'tasks'" in " ".join(told.out.split())


def test_bundles_named_in_the_wrong_order_are_told(node: Node) -> None:
    before = node.model("compare", node.challenger, node.champion)
    assert "model shadow" in before.out
    shadowed(node, drawn(0.0, 20, 80))
    turned = node.model("compare", node.challenger, node.champion)
    assert turned.status == 0
    assert "name the champion first" in turned.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("study,label\n2.25.1,1\n", "study_instance_uid"),
        ("study_instance_uid,label\n2.25.1,maybe\n", "line 2"),
        ("study_instance_uid,label\n2.25.1,1\n2.25.1,0\n", "line 3"),
    ],
)
def test_labels_that_cannot_be_read_are_refused_by_their_line(
    node: Node, tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    refused = node.model("compare", node.champion, node.challenger, "--labels", path)
    assert refused.status == 2
    assert says in " ".join(refused.err.replace("\u2502", " ").split())


def test_a_card_is_printed_as_it_was_written(node: Node) -> None:
    assert node.model("card", node.champion[:12]).out.strip() == "# Card"


@pytest.mark.parametrize("shows", ["card", "show"])
def test_a_card_cannot_steer_the_terminal(node: Node, tmp_path: Path, shows: str) -> None:
    folder = tmp_path / "hostile"
    write_small_bundle(folder, seed=3)
    (folder / CARD).write_text("# Card\n\nGone\x1b[2J `\x9b31m` \x07\n")
    release_again(folder, CARD)
    assert node.model("add", folder).status == 0
    shown = node.model(shows, read(folder).digest).out
    assert "Gone\\x1b[2J" in shown
    assert not {"\x1b", "\x9b", "\x07"} & set(shown)


def observed(node: Node, rng: np.random.Generator, count: int, *, model: str, shift: float) -> None:
    from datetime import UTC, datetime, timedelta

    from sqlalchemy import func, insert, select

    from db.tables import DeviceObservation, Job

    with node.database.transaction("test") as tx:
        start = int(tx.session.scalars(select(func.count()).select_from(Job)).one())
        begin = datetime(2026, 11, 2, tzinfo=UTC)
        scores = 1.0 / (1.0 + np.exp(-rng.normal(-2.0 + shift, 1.0, count)))
        jobs = [
            {
                "id": f"{start + n:032x}",
                "kind": "train",
                "task": TASK,
                "state": "done",
                "attempts": 1,
                "next_try_at": begin,
                "created_at": begin,
            }
            for n in range(count)
        ]
        tx.session.execute(insert(Job), jobs)
        tx.session.execute(
            insert(DeviceObservation),
            [
                {
                    "job_id": job["id"],
                    "task": TASK,
                    "bundle_digest": node.champion,
                    "scanner_model": model,
                    "software_versions": "1.0" if shift == 0.0 else "2.0",
                    "study_probability": float(score),
                    "numbers": json.dumps({"mean": float(rng.normal(0.5, 0.1))}),
                    "categories": json.dumps({"bits_stored": "12"}),
                    "withheld": 0,
                    "observed_at": begin + timedelta(seconds=start + n),
                }
                for n, (job, score) in enumerate(zip(jobs, scores, strict=True))
            ],
        )


def test_a_software_version_that_drifts_from_its_model_is_named(node: Node) -> None:
    rng = np.random.default_rng(8)
    observed(node, rng, 700, model="DRIFTING", shift=0.0)
    observed(node, rng, 700, model="STEADY", shift=0.0)
    observed(node, rng, 250, model="DRIFTING", shift=0.6)
    observed(node, rng, 40, model="NEW", shift=0.0)
    found = node.model("drift", "--reference", "400", "--json")
    states = {(row["scanner_model"], row["software_versions"]): row["state"] for row in found.json}
    assert found.status == 1
    assert states == {
        ("DRIFTING", "1.0"): "steady",
        ("DRIFTING", "2.0"): "drift",
        ("NEW", "1.0"): "too few studies",
        ("STEADY", "1.0"): "steady",
    }
    assert "score" in str(found.json[1]["signals"])


def test_a_node_without_drift_says_so_by_its_exit_status(node: Node) -> None:
    assert node.model("drift").status == 0
    taken = a_claim(node)
    with node.database.transaction(WORKER) as tx:
        observations.record(
            tx,
            taken,
            Observation("UNIT", "1.0"),
            bundle=node.champion,
            study_probability=0.5,
            withheld=False,
        )
    shown = node.model("drift")
    assert shown.status == 0
    assert "too few studies" in shown.out
    assert "the first 1000 studies" in shown.out


def test_scores_kept_twice_are_kept_once(node: Node) -> None:
    taken = a_claim(node)
    score = NewShadowScore("2.25.9", "R", 0.1, 0.5, 0.2, 0.6)
    for _ in range(2):
        with node.database.transaction(WORKER) as tx:
            shadow_scores.record(tx, taken, bundle=node.challenger, champion=node.champion, scores=[score])
    with node.database.reading() as session:
        assert len(shadow_scores.pairs(session, node.champion, node.challenger)) == 1
        assert deployments.in_shadow(session, TASK) is None
