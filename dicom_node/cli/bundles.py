"""Adding a bundle to a node: verified first, then stored, then remembered."""

from __future__ import annotations

from pathlib import Path

from db import deployments
from db.deployments import BundleFacts
from db.session import Database
from dicom_node.settings import Settings
from models.classifier import Classifier
from models.store import BundleStore, released_bundle


def add_bundle(settings: Settings, database: Database, folder: Path, *, actor: str) -> str:
    """Verify a bundle, golden cases included, copy it into the store and remember it; return its digest.

    Raises
    ------
    models.errors.BundleError
        If anything about it is not right. Nothing is stored then.
    """
    identity = Classifier.load(folder, device="cpu", threads=1).identity
    digest = BundleStore(settings.bundles_dir).add(folder)
    facts = BundleFacts(digest, identity.name, identity.version, identity.task, identity.demonstration)
    with database.transaction(actor) as tx:
        deployments.add_bundle(tx, facts)
    return digest


def deploy_demonstration(settings: Settings, database: Database, *, actor: str) -> None:
    """Let the demonstration bundle answer where nothing ever did, so that a fresh node scores at once.

    Every report says that it is a demonstration and not for clinical use.
    """
    folder = released_bundle()
    with database.reading() as session:
        unanswered = [task for task in settings.tasks if deployments.champion(session, task) is None]
    if not unanswered:
        return
    digest = add_bundle(settings, database, folder, actor=actor)
    with database.transaction(actor) as tx:
        task = deployments.task_of(tx.session, digest)
        if task in unanswered and deployments.champion(tx.session, task) is None:
            deployments.activate(tx, digest)
