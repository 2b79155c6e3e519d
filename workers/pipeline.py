"""The score job from end to end: read, gate, preprocess, score, build, store, commit.

Open this file first: :meth:`Scorer.score` names every stage of the work in order. Each stage's duration is
kept with the analysis, so that the benchmark and the auditor see where time goes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import tzinfo

from pydicom import Dataset

from db import deployments, jobs, scoring
from db.jobs import Claim
from db.scoring import DeliveryOrder, NewResult, ScoreInput
from db.session import Database
from db.tables import Instance
from dicom_node.crashpoints import crashpoint
from dicom_node.errors import ImageError, NodeError
from dicom_node.images import ImageReader, read_header
from dicom_node.results.builders import build_all
from dicom_node.results.context import BuiltObject, NodeIdentity, PredecessorDocument, ResultContext
from dicom_node.results.profiles import Route, kinds_for
from dicom_node.spool import Spool
from models.classifier import Classifier, predict_study
from models.contract import ImageView, Laterality, Refusal, RefusalCode, StudyPrediction
from workers import routing
from workers.analysis import document_of
from workers.classifier_cache import ClassifierCache
from workers.lease import Lease

SR_STORAGE = "1.2.840.10008.5.1.4.1.1.88."
"""How the UID of every SOP class of structured reports begins (PS3.4 B.5)."""


class NoBundleError(NodeError):
    """No bundle answers for the task; run 'dicom-node model activate' and then 'dicom-node job retry'."""


@dataclass(slots=True)
class Stopwatch:
    """Sums seconds by stage; an instance is what :func:`models.classifier.predict_study` enters."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the block's duration to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class ReadStudy:
    """What could be read of a revision: headers of all its objects, views, and reasons for the rest."""

    headers: tuple[Dataset, ...]
    views: tuple[ImageView, ...]
    unreadable: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Reporting:
    """How results are written and where they go.

    Attributes
    ----------
    node : NodeIdentity
        Who this node is, in every object.
    routes : tuple of Route
        Where each study's results go, and which of them.
    default_zone : datetime.tzinfo
        Zone of studies that state no Timezone Offset From UTC (0008,0201).
    """

    node: NodeIdentity
    routes: tuple[Route, ...]
    default_zone: tzinfo


class Scorer:
    """Does score jobs.

    Parameters
    ----------
    database : Database
        Where work comes from and outcomes are committed.
    spool, results : Spool
        Received objects, and built ones.
    reader : ImageReader
        Decodes in its disposable child process.
    classifiers : ClassifierCache
        The bundles.
    reporting : Reporting
        What results look like and where they go.
    """

    def __init__(
        self,
        database: Database,
        *,
        spool: Spool,
        results: Spool,
        reader: ImageReader,
        classifiers: ClassifierCache,
        reporting: Reporting,
    ) -> None:
        self._database = database
        self._spool = spool
        self._results = results
        self._reader = reader
        self._classifiers = classifiers
        self._reporting = reporting

    def score(self, claim: Claim, lease: Lease) -> None:
        """Do one score job and commit its outcome.

        Raises
        ------
        NoBundleError
            If no bundle answers for the task.
        LeaseLostError
            If another worker took over; nothing is written then.
        """
        watch = Stopwatch()
        work = self._load(claim)
        classifier = self._bind_classifier(claim)
        with watch("decode"):
            study = self._read(work, classifier)
        crashpoint("score.decoded")
        lease.check()
        kinds = kinds_for(self._reporting.routes, localises=classifier.identity.localises)
        prediction = predict_study(
            classifier,
            study.views,
            study.unreadable,
            stopwatch=watch,
            # A byte for each pixel of the study, which only this kind reads.
            with_attention="fractional_segmentation" in kinds,
        )
        crashpoint("score.predicted")
        lease.check()
        with watch("results"):
            context = self._context(claim, work, study, classifier, prediction)
            built, deliveries = self._build(work, context)
        with watch("store"):
            stored = [self._store(ordinal, item) for ordinal, item in enumerate(built)]
        crashpoint("score.files_written")
        lease.check()
        self._commit(claim, work, classifier, prediction, stored, deliveries, watch)

    def _load(self, claim: Claim) -> ScoreInput:
        with self._database.reading() as session:
            return scoring.score_input(session, claim)

    def _bind_classifier(self, claim: Claim) -> Classifier:
        """Take the bundle that answers for the task now, so that a rollback holds from the next claim on."""
        with self._database.reading() as session:
            digest = deployments.champion(session, claim.task)
        if digest is None:
            raise NoBundleError(
                f"no bundle answers for {claim.task!r}; run 'dicom-node model activate', then 'job retry'"
            )
        with self._database.transaction(claim.owner) as tx:
            jobs.bind_bundle(tx, claim, digest)
        return self._classifiers.get(digest)

    def _read(self, work: ScoreInput, classifier: Classifier) -> ReadStudy:
        task = classifier.task
        headers: list[Dataset] = []
        views: list[ImageView] = []
        unreadable: list[Refusal] = []
        for instance in work.instances:
            path = self._spool.path_of(instance.spool_name)
            try:
                headers.append(read_header(path, instance.sop_instance_uid))
                if instance.sop_class_uid not in task.scored_sop_classes:
                    unreadable.append(_refusal(instance, task.reason_against(instance.sop_class_uid)))
                    continue
                views.append(self._reader.read(path, instance.sop_instance_uid).view)
            except ImageError as error:
                unreadable.append(_refusal(instance, RefusalCode(error.code)))
        return ReadStudy(tuple(headers), tuple(views), tuple(unreadable))

    def _context(
        self,
        claim: Claim,
        work: ScoreInput,
        study: ReadStudy,
        classifier: Classifier,
        prediction: StudyPrediction,
    ) -> ResultContext:
        return ResultContext(
            sources=study.headers,
            prediction=prediction,
            bundle=classifier.identity,
            node=self._reporting.node,
            analysed_at=claim.first_started_at,
            revision=work.revision,
            predecessors=tuple(
                PredecessorDocument(
                    sop_class_uid=p.sop_class_uid,
                    sop_instance_uid=p.sop_instance_uid,
                    series_instance_uid=p.series_instance_uid,
                    study_instance_uid=work.study_instance_uid,
                )
                for p in work.predecessors
                if p.sop_class_uid.startswith(SR_STORAGE)
            ),
            default_zone=self._reporting.default_zone,
            input_uids=tuple(instance.sop_instance_uid for instance in work.instances),
            renderings={view.sop_instance_uid: view.pixels for view in study.views},
        )

    def _build(
        self, work: ScoreInput, context: ResultContext
    ) -> tuple[Sequence[BuiltObject], Sequence[DeliveryOrder]]:
        """Build what any destination wants, once, and say who gets what."""
        routes, localises = self._reporting.routes, context.bundle.localises
        built = build_all(context, kinds_for(routes, localises=localises))
        withdrawn = routing.withdrawals(work, context, routes)
        notes = {withdrawal.note.sop_instance_uid: withdrawal.note for withdrawal in withdrawn}
        deliveries = routing.orders(routes, built, withdrawn, localises=localises)
        return (*built, *notes.values()), deliveries

    def _store(self, ordinal: int, item: BuiltObject) -> NewResult:
        file = self._results.write([item.content])
        return NewResult(
            kind=item.kind,
            ordinal=ordinal,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            series_instance_uid=item.series_instance_uid,
            transfer_syntax_uid=item.transfer_syntax_uid,
            file_name=file.name,
            sha256=file.sha256,
            size_bytes=file.size_bytes,
        )

    def _commit(
        self,
        claim: Claim,
        work: ScoreInput,
        classifier: Classifier,
        prediction: StudyPrediction,
        stored: Sequence[NewResult],
        deliveries: Sequence[DeliveryOrder],
        watch: Stopwatch,
    ) -> None:
        with self._database.transaction(claim.owner) as tx:
            scoring.finish_scoring(
                tx,
                claim,
                bundle=classifier.identity.digest,
                outcome=prediction.outcome.value,
                study_probability=prediction.study_probability,
                document=document_of(claim, work, classifier, prediction, watch.seconds),
                results=stored,
                deliveries=deliveries,
            )


def _refusal(instance: Instance, code: RefusalCode) -> Refusal:
    return Refusal(
        code,
        instance.sop_instance_uid,
        Laterality(instance.laterality) if instance.laterality else None,
        instance.view,
    )
