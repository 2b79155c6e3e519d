"""A node that really scores: a database, a spool, a store of bundles, and a worker in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.filewriter import dcmwrite

from db import deployments
from db.deployments import BundleFacts
from db.handoff import Completeness, ReceivedInstance
from db.lifecycle import JobKind, JobState
from db.tables import Analysis, Job
from dicom_node.delivery.destination import Destination
from dicom_node.images.reader import ImageReader
from dicom_node.results.context import NodeIdentity
from dicom_node.results.profiles import BUILT_IN, UNKNOWN, Route
from dicom_node.spool import Spool
from models.bundle import Bundle
from models.store import BundleStore
from tests.steered_node import RULES, WORKER, SteeredNode
from training.datasets import phantom_objects
from workers.claim_loop import ClaimLoop, Terms
from workers.classifier_cache import ClassifierCache
from workers.pipeline import Reporting, Scorer
from workers.retry import Policy

ROWS, COLUMNS = 320, 260
DESTINATION = Destination("PACS", "pacs.example", 104)
TERMS = Terms(lease_s=60, hard_limit_s=300, policy=Policy(attempts=1, backoff_max_s=1))


def images_of(seed: int, **elements: Any) -> list[Dataset]:
    """Draw a small screening study; `elements` replace header elements of every image."""
    drawn = phantom_objects.study(seed=seed, rows=ROWS, columns=COLUMNS)
    for image in drawn:
        for keyword, value in elements.items():
            setattr(image, keyword, value)
    return drawn


@dataclass
class ScoringNode:
    """A node with what a test does with it."""

    steered: SteeredNode
    folder: Path
    reader: ImageReader

    @property
    def spool(self) -> Spool:
        """Where received objects lie."""
        return Spool(self.folder / "spool")

    @property
    def store(self) -> BundleStore:
        """Where bundles lie."""
        return BundleStore(self.folder / "bundles")

    def add(self, bundle: Bundle) -> str:
        """Add a bundle without giving it a role."""
        digest = self.store.add(bundle.path)
        who = bundle.identity
        with self.steered.transaction("anna") as tx:
            facts = BundleFacts(digest, who.name, who.version, who.task, who.demonstration)
            deployments.add_bundle(tx, facts)
        return digest

    def change(self, verb: str, *arguments: object) -> object:
        """Change a deployment, such as ``change("activate", digest)``."""
        with self.steered.transaction("anna") as tx:
            return getattr(deployments, verb)(tx, *arguments)

    def receive(self, images: Sequence[Dataset], rules: Completeness = RULES) -> str:
        """Take in a study's images as a listener does; return its UID."""
        for image in images:
            buffer = BytesIO()
            dcmwrite(buffer, image, enforce_file_format=True)
            file = self.spool.write([buffer.getvalue()])
            self.steered.receive(
                ReceivedInstance(
                    sop_instance_uid=image.SOPInstanceUID,
                    sop_class_uid=image.SOPClassUID,
                    study_instance_uid=image.StudyInstanceUID,
                    series_instance_uid=image.SeriesInstanceUID,
                    transfer_syntax_uid=image.file_meta.TransferSyntaxUID,
                    patient_id="P-1",
                    accession_number="A-1",
                    modality=image.Modality,
                    laterality=image.get("ImageLaterality", ""),
                    view=image.get("ViewPosition", ""),
                    for_presentation=True,
                    spool_name=file.name,
                    sha256=file.sha256,
                    size_bytes=file.size_bytes,
                    calling_ae_title="MAMMO1",
                ),
                rules=rules,
            )
        return str(images[0].StudyInstanceUID)

    def worker(
        self, *, shadowed_devices: tuple[str, ...] = (), terms: Terms = TERMS, device: str = "cpu"
    ) -> ClaimLoop:
        """Start a score worker that has loaded nothing yet."""
        scorer = Scorer(
            self.steered.database,
            spool=self.spool,
            results=self.results,
            reader=self.reader,
            classifiers=ClassifierCache(self.store.path_of, device=device, threads=1),
            reporting=Reporting(
                node=NodeIdentity("AI_NODE", "1", "test", "test 1"),
                routes=(Route(DESTINATION, BUILT_IN[UNKNOWN]),),
                default_zone=UTC,
                shadowed_devices=shadowed_devices,
            ),
        )
        return ClaimLoop(self.steered.database, JobKind.SCORE, scorer.score, terms=terms, owner=WORKER)

    @property
    def results(self) -> Spool:
        """Where result objects lie."""
        return Spool(self.folder / "results")

    def job_of(self, study: str) -> Job:
        """Return the latest score job of a study, which must be done."""
        jobs = [job for job in self.steered.jobs() if self._study_of(job) == study]
        assert jobs[-1].state == JobState.DONE, jobs[-1].error
        return jobs[-1]

    def document_of(self, study: str) -> dict[str, Any]:
        """Return what the analysis of a study keeps."""
        (row,) = self.steered.rows(Analysis, Analysis.job_id == self.job_of(study).id)
        document: dict[str, Any] = json.loads(row.document)
        return document

    def _study_of(self, job: Job) -> str:
        with self.steered.reading() as session:
            return str(session.get_one(Job, job.id).revision.study.study_instance_uid)


@contextmanager
def scoring_node(steered: SteeredNode, folder: Path) -> Iterator[ScoringNode]:
    """Open a scoring node on a database."""
    with ImageReader() as reader:
        yield ScoringNode(steered, folder, reader)
