"""The shadow bundle's turn: after the champion's results are committed, on the same tensors, for record.

Whatever happens here, the champion's results stand: they are durable before it begins. What fails or takes
too long is logged and left out.
"""

from __future__ import annotations

import time

import structlog

from db import deployments, shadow_scores
from db.jobs import Claim
from db.session import Database
from db.shadow_scores import NewShadowScore
from models.class_scores import score_of
from models.classifier import Classifier, PreparedStudy, prepare_accepted
from models.contract import StudyPrediction
from workers.classifier_cache import ClassifierCache

LIMIT_S = 60.0
"""Seconds after which no further image of a study is given to the shadow."""

log = structlog.get_logger(__name__)


class Shadow:
    """Scores what the champion scored.

    Parameters
    ----------
    database : Database
        Tells which bundle is in shadow and keeps its scores.
    classifiers : ClassifierCache
        The bundles.
    limit_s : float
        Seconds for one study.
    """

    def __init__(self, database: Database, classifiers: ClassifierCache, *, limit_s: float = LIMIT_S) -> None:
        self._database = database
        self._classifiers = classifiers
        self._limit_s = limit_s

    def follow(
        self, claim: Claim, champion: Classifier, study: PreparedStudy, prediction: StudyPrediction
    ) -> None:
        """Score a study that the champion scored, and keep the scores; never raises."""
        try:
            with self._database.reading() as session:
                digest = deployments.in_shadow(session, claim.task)
            if digest is None or not study.images:
                return
            scores = self._scores(self._classifiers.get(digest), study, prediction)
            with self._database.transaction(claim.owner) as tx:
                shadow_scores.record(
                    tx, claim, bundle=digest, champion=champion.identity.digest, scores=scores
                )
        except Exception as error:  # noqa: BLE001 - the champion's results stand, whatever the shadow does
            log.warning("shadow.failed", job_id=claim.job_id, kind=type(error).__name__)
            return
        if len(scores) < len(study.images):
            log.warning("shadow.out_of_time", job_id=claim.job_id, scored=len(scores))

    def _scores(
        self, classifier: Classifier, study: PreparedStudy, prediction: StudyPrediction
    ) -> list[NewShadowScore]:
        ends_at = time.monotonic() + self._limit_s
        manifest = classifier.bundle.manifest
        if manifest.preprocessing != study.parameters:
            study = prepare_accepted(classifier, study.verdict)
        scores = []
        for image, said in zip(study.images, prediction.images, strict=True):
            if time.monotonic() >= ends_at:
                break
            logits, _ = classifier.forward(image.tensor[None])
            score = score_of(classifier.task, logits[0], manifest.temperature)
            scores.append(
                NewShadowScore(
                    sop_instance_uid=said.sop_instance_uid,
                    laterality=said.laterality.value,
                    logit=score.logit,
                    probability=score.probability,
                    champion_logit=said.logit,
                    champion_probability=said.probability,
                )
            )
        return scores
