"""Champion and challenger side by side: how far they agree, and where labels arrived, who is better."""

from __future__ import annotations

import csv
import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from scipy import stats

from db import shadow_scores
from db.session import Database
from dicom_node.cli.bundles.stored import manifest_of
from dicom_node.settings import Settings
from models.manifest import Manifest
from models.tasks import Task, task_named
from training.promotion import Decision, PairedCases, Verdict, judge

_STUDY, _LABEL = "study_instance_uid", "label"
_TRUTH = {"1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of two bundles that scored the same studies.

    Attributes
    ----------
    facts : dict
        How far they agree; JSON values.
    verdict : training.promotion.Verdict or None
        None where no labels were given, or nothing was scored by both.
    labels_sha256 : str or None
        Digest of the file of labels.
    is_turned_round : bool
        Whether nothing was scored by both because the bundles are named in the wrong order.
    """

    facts: dict[str, Any]
    verdict: Verdict | None
    labels_sha256: str | None = None
    is_turned_round: bool = False

    @property
    def lacks(self) -> str:
        """What is missing for a verdict, where there is none."""
        if self.facts["studies"]:
            return "No labels of both kinds were given for the studies that both scored."
        if self.is_turned_round:
            return "The bundles scored studies the other way round: name the champion first."
        return "No study was scored by both; 'model shadow' comes first."

    @property
    def told(self) -> dict[str, Any]:
        """The verdict with its reasons as JSON values; where there is none, what is missing for one."""
        if self.verdict is None:
            return {"verdict": Decision.NOT_ENOUGH_EVIDENCE.value, "reasons": [self.lacks]}
        return {
            "verdict": self.verdict.decision.value,
            "reasons": list(self.verdict.reasons),
            "positives": self.verdict.positives,
            "negatives": self.verdict.negatives,
            "criteria": [
                {
                    "criterion": criterion.name,
                    "challenger_minus_champion": criterion.difference,
                    "low": criterion.low,
                    "high": criterion.high,
                    "margin": criterion.margin,
                    "finding": criterion.finding.value,
                }
                for criterion in self.verdict.criteria
            ],
        }


def compare(
    settings: Settings, database: Database, champion: str, challenger: str, labels: Path | None
) -> Comparison:
    """Compare two bundles on what the challenger scored in shadow of the champion.

    Parameters
    ----------
    settings : Settings
        Where the bundles are.
    database : Database
        Where the scores are.
    champion, challenger : str
        Digests.
    labels : Path or None
        CSV with the columns ``study_instance_uid`` and ``label`` (``0``, ``1`` or a class of the task);
        further columns are subgroups.

    Raises
    ------
    typer.BadParameter
        If the bundles are for different tasks, or the labels cannot be read.
    """
    manifests = [manifest_of(settings, digest) for digest in (champion, challenger)]
    tasks = [manifest.task for manifest in manifests]
    if tasks[0] != tasks[1]:
        raise typer.BadParameter(f"the bundles are for {tasks[0]} and {tasks[1]}: name two for the same task")
    with database.reading() as session:
        rows = shadow_scores.pairs(session, champion, challenger)
        is_turned_round = not rows and bool(shadow_scores.pairs(session, challenger, champion))
    studies = _studies(rows)
    facts = {
        "champion": champion,
        "challenger": challenger,
        "task": manifests[0].task,
        "studies": len(studies),
        "images": len(rows),
        **_agreement(rows, studies, manifests),
    }
    if labels is None:
        return Comparison(facts, None, is_turned_round=is_turned_round)
    truth, subgroups = _read_labels(labels, task_named(manifests[0].task))
    known = [study for study in studies if study in truth]
    facts["labelled_studies"] = len(known)
    digest = hashlib.sha256(labels.read_bytes()).hexdigest()
    patients = {row["study_instance_uid"]: str(row["patient"]) for row in rows}
    verdict = _judged(studies, patients, known, truth, subgroups, manifests)
    return Comparison(facts, verdict, digest, is_turned_round)


def _studies(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Combine image scores as the node does: mean of a breast's views, then the higher breast."""
    breasts: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        both = (row["champion_probability"], row["challenger_probability"])
        breasts[row["study_instance_uid"], row["laterality"]].append(both)
    found: dict[str, tuple[float, float]] = {}
    for (study, _), scores in breasts.items():
        means = np.mean(scores, axis=0)
        before = found.get(study, (0.0, 0.0))
        found[study] = (max(before[0], float(means[0])), max(before[1], float(means[1])))
    return found


def _agreement(
    rows: list[dict[str, Any]], studies: Mapping[str, tuple[float, float]], manifests: list[Manifest]
) -> dict[str, Any]:
    if not rows:
        return {}
    thresholds = [manifest.operating_points[0].threshold for manifest in manifests]
    scores = np.asarray(list(studies.values()))
    positive = scores >= np.asarray(thresholds)
    logits = np.asarray([(row["champion_logit"], row["challenger_logit"]) for row in rows])
    rank = stats.spearmanr(logits[:, 0], logits[:, 1]).statistic if np.ptp(logits, axis=0).all() else None
    difference = np.abs(scores[:, 0] - scores[:, 1])
    return {
        "rank_correlation": None if rank is None or not math.isfinite(rank) else float(rank),
        "mean_difference": float(difference.mean()),
        "largest_difference": float(difference.max()),
        "same_answer": float((positive[:, 0] == positive[:, 1]).mean()),
        "positive_by_champion_alone": int((positive[:, 0] & ~positive[:, 1]).sum()),
        "positive_by_challenger_alone": int((positive[:, 1] & ~positive[:, 0]).sum()),
    }


def _read_labels(path: Path, task: Task) -> tuple[dict[str, bool], dict[str, dict[str, str]]]:
    """Read labels and subgroups by study; say which row is wrong."""
    negative = task.negative_class or task.classes[0]
    meanings = {**_TRUTH, **{name: name != negative for name in task.classes}}
    truth: dict[str, bool] = {}
    subgroups: dict[str, dict[str, str]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if not {_STUDY, _LABEL} <= set(columns):
            raise typer.BadParameter(f"{path.name} needs the columns {_STUDY} and {_LABEL}.")
        for number, row in enumerate(reader, start=2):
            label = (row[_LABEL] or "").strip()
            if label not in meanings:
                raise typer.BadParameter(
                    f"{path.name}, line {number}: a label is one of {', '.join(meanings)}."
                )
            study = (row[_STUDY] or "").strip()
            if study in truth:
                raise typer.BadParameter(f"{path.name}, line {number}: the study is named twice.")
            truth[study] = meanings[label]
            subgroups[study] = {name: row[name] or "" for name in columns if name not in (_STUDY, _LABEL)}
    return truth, subgroups


def _judged(
    studies: Mapping[str, tuple[float, float]],
    patients: Mapping[str, str],
    known: list[str],
    truth: Mapping[str, bool],
    subgroups: Mapping[str, Mapping[str, str]],
    manifests: list[Manifest],
) -> Verdict | None:
    labels = np.asarray([truth[study] for study in known], dtype=np.bool_)
    if not labels.any() or labels.all():
        return None
    names = sorted({name for study in known for name in subgroups[study]})
    return judge(
        PairedCases(
            labels=labels,
            champion=np.asarray([studies[study][0] for study in known]),
            challenger=np.asarray([studies[study][1] for study in known]),
            champion_threshold=manifests[0].operating_points[0].threshold,
            challenger_threshold=manifests[1].operating_points[0].threshold,
            groups=tuple(patients[study] for study in known),
            subgroups={name: tuple(subgroups[study].get(name, "") for study in known) for name in names},
        )
    )
