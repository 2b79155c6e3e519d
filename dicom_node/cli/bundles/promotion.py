"""Promotion: a challenger answers only on evidence, or on somebody's word that the audit trail keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from db import deployments
from db.errors import TransitionRefusedError, UnknownRecordError
from db.session import Database
from dicom_node.cli.bundles.comparison import Comparison, compare
from dicom_node.cli.bundles.stored import require_answering
from dicom_node.cli.wiring import person
from dicom_node.settings import Settings
from training.promotion import Decision


def promote_challenger(
    settings: Settings,
    database: Database,
    digest: str,
    *,
    approver: str,
    labels: Path | None,
    override: str | None,
) -> str:
    """Let a challenger answer if the verdict or an override allows it; return the digest that it replaces.

    Raises
    ------
    UnknownRecordError
        If nothing answers yet; the first bundle is activated.
    TransitionRefusedError
        If it answers already, the approver trained it, or neither verdict nor override allows it.
    """
    manifest = require_answering(settings, digest)
    approver, reason = approver.strip(), (override or "").strip()
    if not approver or (override is not None and not reason):
        raise TransitionRefusedError("an approval needs a name, and an override its reason")
    if manifest.trained_by and manifest.trained_by.casefold() == approver.casefold():
        raise TransitionRefusedError("who trained a bundle cannot approve it; name another approver")
    with database.reading() as session:
        champion = deployments.champion(session, manifest.task)
    if champion is None:
        raise UnknownRecordError(f"nothing answers for {manifest.task!r} yet; 'model activate' is for that")
    if champion == digest:
        raise TransitionRefusedError(f"{digest[:12]} answers already for {manifest.task!r}")
    found = compare(settings, database, champion, digest, labels)
    evidence = _evidence(found)
    if evidence["verdict"] != Decision.PROMOTE and not reason:
        do = "keep the champion" if evidence["verdict"] == Decision.REJECT else "gather more labels"
        raise TransitionRefusedError(
            f"{evidence['verdict']}: {' '.join(evidence['reasons'])} Nothing was changed; {do}, or give "
            "--override with a reason."
        )
    if evidence["verdict"] != Decision.PROMOTE:
        evidence["override"] = reason
    with database.transaction(person()) as tx:
        deployments.promote(tx, digest, champion_was=champion, approver=approver, evidence=evidence)
    return champion


def _evidence(found: Comparison) -> dict[str, Any]:
    """Return verdict and reasons for people and for the audit trail."""
    told = {name: value for name, value in found.told.items() if name != "criteria"}
    return {"studies": found.facts["studies"], "labels_sha256": found.labels_sha256, **told}
