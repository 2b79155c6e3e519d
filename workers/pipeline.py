"""The score job from end to end: read, gate, preprocess, score, build, store, commit.

Open this file first: :meth:`Scorer.score` names every stage of the work in order. Each stage's duration is
kept with the analysis, so that the benchmark and the auditor see where time goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import partial

import structlog

from db import deployments, jobs, observations, scoring
from db.errors import DatabaseUnavailableError
from db.jobs import Claim
from db.lifecycle import DeploymentRole
from db.observations import Observation
from db.scoring import DeliveryOrder, NewResult, ScoreInput
from db.session import Database
from dicom_node.crashpoints import crashpoint
from dicom_node.errors import NodeError, SpoolError
from dicom_node.images.reader import ImageReader
from dicom_node.results.builders import build_all
from dicom_node.results.context import BuiltObject, NodeIdentity, PredecessorDocument, ResultContext
from dicom_node.results.profiles import Profile, Route, Wanted, kinds_for
from dicom_node.results.slide import SlideStudyContext, build_slide_study
from dicom_node.spool import Spool
from models.classifier import Classifier, PreparedStudy, predict_prepared, prepare_study
from models.contract import SlideStudyPrediction, StudyPrediction
from models.errors import GoldenMismatchError
from workers import devices, inputs, routing, slides, whole_images
from workers.analysis import device_of, document_of
from workers.classifier_cache import ClassifierCache, takes_back
from workers.lease import Lease
from workers.shadowing import Shadow
from workers.whole_images import ReadStudy

SR_STORAGE = "1.2.840.10008.5.1.4.1.1.88."
"""How the UID of every SOP class of structured reports begins (PS3.4 B.5)."""


log = structlog.get_logger(__name__)


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
    shadowed_devices : tuple of str
        Scanner models, or ``MODEL/SOFTWARE``, whose studies are scored and kept, but not reported.
    """

    node: NodeIdentity
    routes: tuple[Route, ...]
    default_zone: tzinfo
    shadowed_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """What a score job found, and what it is kept with."""

    classifier: Classifier
    role: DeploymentRole
    prediction: StudyPrediction | SlideStudyPrediction
    device: str
    withheld: bool
    observation: Observation


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
        self._shadow = Shadow(database, classifiers)

    def score(self, claim: Claim, lease: Lease) -> None:
        """Do one score job and commit its outcome.

        Raises
        ------
        NoBundleError
            If no bundle answers for the task.
        DamagedInputError, MissingInputError
            If a stored object is not what was received.
        LeaseLostError
            If another worker took over; nothing is written then.
        """
        watch = Stopwatch()
        work = self._load(claim)
        with watch("decode"):
            inputs.verify(work.instances, self._spool, check=lease.check)
        classifier, role = self._bind_classifier(claim, work)
        wanted_by = _wanted_by(classifier)
        kinds = kinds_for(self._reporting.routes, wanted_by)
        prepared = None
        batches_before, moved_before = classifier.batches, classifier.cpu_batches
        if classifier.task.slides is None:
            context: ResultContext | SlideStudyContext
            context, prepared = self._images(claim, work, classifier, kinds, watch, lease)
        else:
            context = self._slides(claim, work, classifier, watch, lease)
        if moved := classifier.cpu_batches - moved_before:
            log.warning("score.moved_to_cpu", job_id=claim.job_id, batches=moved)
        device = device_of(classifier.device, batches=classifier.batches - batches_before, on_cpu=moved)
        crashpoint("score.predicted")
        lease.check()
        withheld = devices.is_shadowed(context.sources, self._reporting.shadowed_devices)
        with watch("results"):
            built, deliveries = self._build(work, context, kinds, wanted_by, withheld=withheld)
        views = prepared.verdict.accepted if prepared is not None else ()
        observation = devices.observation_of(context.sources, views)
        found = _Found(classifier, role, context.prediction, device, withheld, observation)
        stored: list[NewResult] = []
        with self._removed_on_failure(stored):
            with watch("store"):
                for ordinal, item in enumerate(built):
                    stored.append(self._store(ordinal, item))
            crashpoint("score.files_written")
            lease.check()
            lease.commit(partial(self._commit, claim, work, found, stored, deliveries, watch))
        if prepared is not None and isinstance(context.prediction, StudyPrediction):
            self._shadow.follow(claim, classifier, prepared, context.prediction)

    def _load(self, claim: Claim) -> ScoreInput:
        with self._database.reading() as session:
            return scoring.score_input(session, claim)

    def _bind_classifier(self, claim: Claim, work: ScoreInput) -> tuple[Classifier, DeploymentRole]:
        """Take the bundle that answers for the study now, so that a rollback holds from the next claim on.

        A new one that does not compute here what it did at its release is taken back, and the one before it
        answers.
        """
        while True:
            with self._database.reading() as session:
                answering = deployments.answering(session, claim.task, work.study_instance_uid)
            if answering is None:
                raise NoBundleError(
                    f"no bundle answers for {claim.task!r}; run 'dicom-node model activate', then 'job retry'"
                )
            with self._database.transaction(claim.owner) as tx:
                jobs.bind_bundle(tx, claim, answering.digest)
            try:
                return self._classifiers.get(answering.digest), answering.role
            except GoldenMismatchError as error:
                if not takes_back(self._database, answering.digest, error, actor=claim.owner):
                    raise

    def _images(
        self,
        claim: Claim,
        work: ScoreInput,
        classifier: Classifier,
        kinds: Collection[str],
        watch: Stopwatch,
        lease: Lease,
    ) -> tuple[ResultContext, PreparedStudy]:
        """Read and score whole images."""
        with watch("decode"):
            study = whole_images.read(work, classifier, self._spool, self._reader)
        crashpoint("score.decoded")
        lease.check()
        with watch("preprocess"):
            prepared = prepare_study(classifier, study.views, study.unreadable)
        prediction = predict_prepared(
            classifier,
            prepared,
            stopwatch=watch,
            # A byte for each pixel of the study, which only this kind reads.
            with_attention="fractional_segmentation" in kinds,
        )
        return self._context(claim, work, study, classifier, prediction), prepared

    def _slides(
        self, claim: Claim, work: ScoreInput, classifier: Classifier, watch: Stopwatch, lease: Lease
    ) -> SlideStudyContext:
        """Read and score whole slides, a band at a time."""
        headers, prediction = slides.analyse(
            work, classifier, self._spool, self._reader, stopwatch=watch, check=lease.check
        )
        return SlideStudyContext(
            sources=headers,
            prediction=prediction,
            bundle=classifier.identity,
            node=self._reporting.node,
            analysed_at=claim.first_started_at,
            revision=work.revision,
            predecessors=_predecessors(work),
            default_zone=self._reporting.default_zone,
            input_uids=tuple(instance.sop_instance_uid for instance in work.instances),
        )

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
            predecessors=_predecessors(work),
            default_zone=self._reporting.default_zone,
            input_uids=tuple(instance.sop_instance_uid for instance in work.instances),
            renderings={view.sop_instance_uid: view.pixels for view in study.views},
        )

    def _build(
        self,
        work: ScoreInput,
        context: ResultContext | SlideStudyContext,
        kinds: Collection[str],
        wanted_by: Callable[[Profile], tuple[Wanted, ...]],
        *,
        withheld: bool,
    ) -> tuple[Sequence[BuiltObject], Sequence[DeliveryOrder]]:
        """Build what any destination wants, once, and say who gets what; nobody where it is withheld."""
        routes = self._reporting.routes
        if isinstance(context, SlideStudyContext):
            built = build_slide_study(context, kinds)
        else:
            built = build_all(context, kinds)
        if withheld:
            return built, ()
        withdrawn = routing.withdrawals(work, context, routes)
        notes = {withdrawal.note.sop_instance_uid: withdrawal.note for withdrawal in withdrawn}
        deliveries = routing.orders(routes, built, withdrawn, wanted_by=wanted_by)
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

    @contextmanager
    def _removed_on_failure(self, stored: Sequence[NewResult]) -> Iterator[None]:
        """Remove an attempt's files at once when it fails; the next one writes its own."""
        try:
            yield
        except DatabaseUnavailableError:
            # The rows may have been committed all the same: only a sweep, which asks the database, can tell.
            raise
        except BaseException:
            for result in stored:
                with suppress(SpoolError):
                    self._results.remove(result.file_name)
            raise

    def _commit(
        self,
        claim: Claim,
        work: ScoreInput,
        found: _Found,
        stored: Sequence[NewResult],
        deliveries: Sequence[DeliveryOrder],
        watch: Stopwatch,
    ) -> None:
        bundle, prediction = found.classifier.identity.digest, found.prediction
        with self._database.transaction(claim.owner) as tx:
            scoring.finish_scoring(
                tx,
                claim,
                bundle=bundle,
                outcome=prediction.outcome.value,
                study_probability=prediction.study_probability,
                document=document_of(
                    claim, work, found.classifier, prediction, watch.seconds, device=found.device
                )
                | {"answered_as": found.role.value, "withheld": found.withheld},
                results=stored,
                deliveries=deliveries,
            )
            observations.record(
                tx,
                claim,
                found.observation,
                bundle=bundle,
                study_probability=prediction.study_probability,
                withheld=found.withheld,
            )


def _wanted_by(classifier: Classifier) -> Callable[[Profile], tuple[Wanted, ...]]:
    """Return what tells the kinds that a profile asks for of this task's studies."""
    if classifier.task.slides is not None:
        return Profile.wanted_of_slides
    return partial(Profile.wanted, localises=classifier.identity.localises)


def _predecessors(work: ScoreInput) -> tuple[PredecessorDocument, ...]:
    """Return the reports of the latest earlier revision."""
    return tuple(
        PredecessorDocument(
            sop_class_uid=p.sop_class_uid,
            sop_instance_uid=p.sop_instance_uid,
            series_instance_uid=p.series_instance_uid,
            study_instance_uid=work.study_instance_uid,
        )
        for p in work.predecessors
        if p.sop_class_uid.startswith(SR_STORAGE)
    )
