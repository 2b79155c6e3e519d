"""The bundles of a node: adding one, verified first, then stored, then remembered; and what one claims."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from db import deployments
from db.deployments import BundleFacts
from db.session import Database
from dicom_node.errors import BundleStoreError
from dicom_node.settings import Settings
from models import archive
from models.bundle import MANIFEST
from models.errors import UnsupportedBundleError
from models.lesion_regions import RegionParameters
from models.manifest import Manifest, parse
from models.store import BundleStore, released_bundle


def add_bundle(settings: Settings, database: Database, source: Path, *, actor: str) -> str:
    """Verify a bundle, golden cases included, copy it into the store and remember it; return its digest.

    Parameters
    ----------
    settings : Settings
        Where the store is.
    database : Database
        What remembers it.
    source : Path
        The bundle's folder, or an archive of it.
    actor : str
        Who adds it.

    Raises
    ------
    models.errors.BundleError
        If anything about it is not right. Nothing is stored then.
    dicom_node.errors.BundleStoreError
        If the disk is full or fails. Nothing is stored then, either.
    """
    if not archive.is_archive(source):
        return _add_folder(settings, database, source, actor=actor)
    with _storing_in(settings.bundles_dir):
        settings.bundles_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=settings.bundles_dir, prefix=".unpacked-") as unpacked:
            folder = archive.unpack(source, Path(unpacked))
            return _add_folder(settings, database, folder, actor=actor)


@contextmanager
def _storing_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleStoreError(
            f"the bundle cannot be stored in {folder} ({_reason_of(error)}); free some space or look at the "
            "disk, then add it again"
        ) from error


def _reason_of(error: OSError) -> str:
    """Say what the system said; of many files that could not be copied, of the first one."""
    if isinstance(error, shutil.Error):
        said = re.match(r"\[Errno \d+\] ([^:]+)", str(error.args[0][0][2]))
        return said[1] if said else "a file cannot be copied"
    return error.strerror or type(error).__name__


def _add_folder(settings: Settings, database: Database, folder: Path, *, actor: str) -> str:
    from models.classifier import Classifier

    identity = Classifier.load(folder, device=settings.scoring.device, threads=1).identity
    with _storing_in(settings.bundles_dir):
        digest = BundleStore(settings.bundles_dir).add(folder)
    facts = BundleFacts(digest, identity.name, identity.version, identity.task, identity.demonstration)
    with database.transaction(actor) as tx:
        deployments.add_bundle(tx, facts)
    return digest


def manifest_of(settings: Settings, digest: str) -> Manifest:
    """Return what a stored bundle claims.

    Raises
    ------
    models.errors.BundleError
        If the store has no such bundle, or its manifest does not parse.
    """
    return parse((BundleStore(settings.bundles_dir).path_of(digest) / MANIFEST).read_bytes())


def require_answering(settings: Settings, digest: str) -> Manifest:
    """Return a bundle's claims if it can answer for studies.

    Raises
    ------
    models.errors.UnsupportedBundleError
        If it takes regions that somebody drew, which no study brings along.
    """
    manifest = manifest_of(settings, digest)
    if isinstance(manifest.preprocessing, RegionParameters):
        raise UnsupportedBundleError(
            f"{digest[:12]} takes regions that somebody drew: it can be evaluated, but answers for no study."
        )
    return manifest


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
