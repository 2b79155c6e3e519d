"""What bundles in shadow said beside the champion: kept for comparison, never sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.jobs import Claim
from db.session import Transaction
from db.tables import Revision, ShadowScore, Study

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewShadowScore:
    """One image scored by both bundles from the same pixels; probabilities are 0..1."""

    sop_instance_uid: str
    laterality: str
    logit: float
    probability: float
    champion_logit: float
    champion_probability: float


def record(
    tx: Transaction, claim: Claim, *, bundle: str, champion: str, scores: Sequence[NewShadowScore]
) -> None:
    """Keep the shadow's scores of one score job; what an earlier attempt kept stays.

    Parameters
    ----------
    claim : Claim
        The score job's attempt.
    bundle, champion : str
        Digests of the bundle in shadow and of the one that answered.
    scores : sequence of NewShadowScore
        One for each image.
    """
    known = set(
        tx.session.scalars(
            select(ShadowScore.sop_instance_uid).where(
                ShadowScore.job_id == claim.job_id, ShadowScore.bundle_digest == bundle
            )
        )
    )
    tx.session.add_all(
        ShadowScore(
            job_id=claim.job_id,
            revision_id=claim.revision_id,
            bundle_digest=bundle,
            champion_digest=champion,
            scored_at=tx.now,
            **asdict(score),
        )
        for score in scores
        if score.sop_instance_uid not in known
    )


def pairs(session: Session, champion: str, challenger: str) -> list[Row]:
    """Return a row per image that both bundles scored, the latest revision of each study alone.

    Returns
    -------
    list of dict
        UIDs of study and image, a number that stands for the patient (studies of one patient share it, those
        without a Patient ID have one each), side, and both bundles' logits and probabilities; in the order
        of scoring.
    """
    latest = (
        select(Revision.study_id, func.max(Revision.number).label("number"))
        .join(ShadowScore, ShadowScore.revision_id == Revision.id)
        .where(ShadowScore.bundle_digest == challenger, ShadowScore.champion_digest == champion)
        .group_by(Revision.study_id)
        .subquery()
    )
    query = (
        select(Study.study_instance_uid, Study.patient_id, ShadowScore)
        .join(Revision, ShadowScore.revision_id == Revision.id)
        .join(Study, Revision.study_id == Study.id)
        .join(latest, (latest.c.study_id == Revision.study_id) & (latest.c.number == Revision.number))
        .where(ShadowScore.bundle_digest == challenger, ShadowScore.champion_digest == champion)
        .order_by(ShadowScore.id)
    )
    number: dict[tuple[str, str], int] = {}
    return [
        {
            "study_instance_uid": study,
            "patient": number.setdefault((patient, "" if patient else study), len(number)),
            "sop_instance_uid": row.sop_instance_uid,
            "laterality": row.laterality,
            "challenger_logit": row.logit,
            "challenger_probability": row.probability,
            "champion_logit": row.champion_logit,
            "champion_probability": row.champion_probability,
        }
        for study, patient, row in session.execute(query)
    ]
