"""What a score job found, as the document that the database keeps and the audit trail covers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from db.jobs import Claim
from db.scoring import ScoreInput
from dicom_node import __version__
from dicom_node.results import wording
from models.classifier import Classifier
from models.contract import Refusal, SlideStudyPrediction, StudyPrediction


def document_of(
    claim: Claim,
    work: ScoreInput,
    classifier: Classifier,
    prediction: StudyPrediction | SlideStudyPrediction,
    durations_s: Mapping[str, float],
    *,
    device: str,
) -> dict[str, Any]:
    """Return everything that explains a score: inputs, model, configuration, outputs, durations.

    Parameters
    ----------
    claim : Claim
        The attempt.
    work : ScoreInput
        The revision that was scored.
    classifier : Classifier
        Who answered.
    prediction : StudyPrediction or SlideStudyPrediction
        What it said.
    durations_s : Mapping of str to float
        Stage to the seconds that it took.
    device : str
        The processors that computed the answer, as :func:`device_of` names them.

    Returns
    -------
    dict
        JSON values; UIDs and digests, no other patient data. Probabilities are 0..1.
    """
    return {
        **_answer(prediction),
        **_inputs(work),
        **_origin(classifier, device),
        **_attempt(claim, durations_s),
    }


def device_of(chosen: str, *, batches: int, on_cpu: int) -> str:
    """Name the processors that computed an answer.

    Parameters
    ----------
    chosen : str
        The one that was to compute it, ``"cpu"`` or ``"cuda"``.
    batches : int
        Batches of the answer.
    on_cpu : int
        Those of them that the CPU took for want of memory.

    Returns
    -------
    str
        ``"cpu"``, ``"cuda"``, or ``"cuda+cpu"`` where each computed a part.
    """
    if on_cpu == 0 or chosen == "cpu":
        return chosen
    return "cpu" if on_cpu == batches else f"{chosen}+cpu"


def _answer(prediction: StudyPrediction | SlideStudyPrediction) -> dict[str, Any]:
    return {
        "task": prediction.task,
        "outcome": prediction.outcome.value,
        "study_probability": prediction.study_probability,
        "threshold": prediction.threshold,
        **(_slides(prediction) if isinstance(prediction, SlideStudyPrediction) else _breasts(prediction)),
        "refusals": [_refusal(prediction, refusal) for refusal in prediction.refusals],
    }


def _breasts(prediction: StudyPrediction) -> dict[str, Any]:
    return {
        "breasts": [
            {"laterality": b.laterality.value, "probability": b.probability} for b in prediction.breasts
        ],
        "images": [
            {
                "sop_instance_uid": i.sop_instance_uid,
                "laterality": i.laterality.value,
                "view": i.view,
                "logit": i.logit,
                "probability": i.probability,
            }
            for i in prediction.images
        ],
    }


def _slides(prediction: SlideStudyPrediction) -> dict[str, Any]:
    """Return what a study of slides adds; each patch's probability is in the map that was sent."""
    return {
        "slides": [
            {
                "sop_instance_uid": s.sop_instance_uid,
                "probability": s.probability,
                "patches": int(s.patches.size),
                "analysed_patches": int(np.count_nonzero(~np.isnan(s.patches))),
                "patch_pixels": s.patch_pixels,
            }
            for s in prediction.slides
        ]
    }


def _refusal(prediction: StudyPrediction | SlideStudyPrediction, refusal: Refusal) -> dict[str, Any]:
    return {
        "code": refusal.code.value,
        "sop_instance_uid": refusal.sop_instance_uid,
        "laterality": refusal.laterality and refusal.laterality.value,
        "view": refusal.view,
        "detail": refusal.detail,
        "sentence": refusal.sentence
        if isinstance(prediction, SlideStudyPrediction)
        else wording.refusal(prediction, refusal),
    }


def _inputs(work: ScoreInput) -> dict[str, Any]:
    return {
        "inputs": [{"sop_instance_uid": i.sop_instance_uid, "sha256": i.sha256} for i in work.instances],
        "revision": work.revision,
    }


def _origin(classifier: Classifier, device: str) -> dict[str, Any]:
    """Return who answered: the bundle, and the machine and program that ran it."""
    bundle = classifier.identity
    return {
        "bundle": {
            "name": bundle.name,
            "version": bundle.version,
            "digest": bundle.digest,
            "configuration_digest": bundle.configuration_digest,
            "demonstration": bundle.demonstration,
        },
        "device": device,
        "host": platform.node(),
        "software_version": __version__,
    }


def _attempt(claim: Claim, durations_s: Mapping[str, float]) -> dict[str, Any]:
    return {
        "attempt": claim.fence,
        "started_at": claim.first_started_at.isoformat(),
        "ended_at": datetime.now(UTC).isoformat(),
        "durations_s": {stage: round(seconds, 6) for stage, seconds in durations_s.items()},
    }
