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
from models.contract import SlideStudyPrediction, StudyPrediction


def document_of(
    claim: Claim,
    work: ScoreInput,
    classifier: Classifier,
    prediction: StudyPrediction | SlideStudyPrediction,
    durations_s: Mapping[str, float],
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

    Returns
    -------
    dict
        JSON values; UIDs and digests, no other patient data. Probabilities are 0..1.
    """
    bundle = classifier.identity
    return {
        "task": prediction.task,
        "outcome": prediction.outcome.value,
        "study_probability": prediction.study_probability,
        "threshold": prediction.threshold,
        **(_slides(prediction) if isinstance(prediction, SlideStudyPrediction) else _breasts(prediction)),
        "refusals": [
            {
                "code": r.code.value,
                "sop_instance_uid": r.sop_instance_uid,
                "laterality": r.laterality and r.laterality.value,
                "view": r.view,
                "detail": r.detail,
                "sentence": r.sentence
                if isinstance(prediction, SlideStudyPrediction)
                else wording.refusal(prediction, r),
            }
            for r in prediction.refusals
        ],
        "inputs": [{"sop_instance_uid": i.sop_instance_uid, "sha256": i.sha256} for i in work.instances],
        "revision": work.revision,
        "bundle": {
            "name": bundle.name,
            "version": bundle.version,
            "digest": bundle.digest,
            "configuration_digest": bundle.configuration_digest,
            "demonstration": bundle.demonstration,
        },
        "device": classifier.device,
        "host": platform.node(),
        "software_version": __version__,
        "attempt": claim.fence,
        "started_at": claim.first_started_at.isoformat(),
        "ended_at": datetime.now(UTC).isoformat(),
        "durations_s": {stage: round(seconds, 6) for stage, seconds in durations_s.items()},
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
